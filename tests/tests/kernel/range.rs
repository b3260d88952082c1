//! A shooting range: the world joined to an outside, and a witness there that sees every packet which gets out.

use std::{
    io::{ErrorKind, Read},
    time::{Duration, Instant},
};

use guard_agent::kernel::Kernel;
use guard_tests::netns::{End, NetNs, join};
use socket2::{Domain, Protocol, Socket, Type};

use crate::world::World;

pub(crate) const FAR4: &str = "198.51.100.2";
pub(crate) const NEAR4: &str = "198.51.100.1";
/// Frames of the world begin with it.
const NEAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// How long the witness waits for a packet that had better not come.
const WATCH: Duration = Duration::from_millis(300);

const ETH_P_ALL: u16 = 3;
const MAC_HEADER: usize = 14;
const IP_HEADER: usize = 20;
/// The protocol of the packets in frames that are written by hand.
const EXPERIMENT: i32 = 253;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// What the kernel says by itself: IGMP; hop-by-hop (multicast listener reports) and ICMPv6.
const OWN_V4: u8 = 2;
const OWN_V6: [u8; 2] = [0, 58];

const SETUP: &str = r#"
FAR4, FAR6, NEAR4 = "198.51.100.2", "2001:db8:1::2", "198.51.100.1"
V4, V6, TCP, UDP = socket.AF_INET, socket.AF_INET6, socket.SOCK_STREAM, socket.SOCK_DGRAM
MARK = struct.pack("!HHHH", T, T, T, T)
def index(): return socket.if_nametoindex("near")
def frame():
    def header(sum): return struct.pack("!BBHHHBBH4s4s", 69, 0, 28, 1, 0, 64, 253, sum, socket.inet_aton(NEAR4), socket.inet_aton(FAR4))
    sum = sum_of = 0
    for word in struct.unpack("!10H", header(0)): sum_of += word
    header = header(~(sum_of % 65535) & 65535)
    return bytes([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]) + header + MARK
def submit(entry, wait, polled=False):
    "Hands one entry to the kernel through an io_uring; what came of it, if that is waited for."
    import ctypes, mmap
    libc, parameters = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(120)
    def call(*arguments):
        answer = libc.syscall(*arguments)
        if answer < 0: raise OSError(ctypes.get_errno(), "io_uring")
        return answer
    if polled: struct.pack_into("II", parameters, 8, 2, 0)
    fd = call(425, 1, parameters)
    at = struct.unpack("30I", parameters.raw)
    tail, array, done = at[11], at[16], at[25]
    queue, entries = mmap.mmap(fd, max(array + 4, done + 32)), mmap.mmap(fd, 64, offset=0x10000000)
    entries[:] = entry
    queue[array:array + 4] = struct.pack("I", 0)
    queue[tail:tail + 4] = struct.pack("I", 1)
    assert call(426, fd, 1, int(wait), int(wait) | 2 * polled, None, 0) == 1
    return struct.unpack_from("i", queue, done + 8)[0]
def ring(s, flags, polled=False):
    "The connect of go(), without any call to connect."
    import ctypes
    address = ctypes.create_string_buffer(struct.pack("=HH4s8x", V4, socket.htons(T), socket.inet_aton(FAR4)), 16)
    s.bind(("0.0.0.0", T))
    submit(struct.pack("=BBHiQQIIQ24x", 16, flags, 0, s.fileno(), 16, ctypes.addressof(address), 0, 0, 1), False, polled)
    time.sleep(0.1)
def ring_socket(family, kind):
    "A socket, without any call to socket."
    fd = submit(struct.pack("=BBHiQQIIQ24x", 45, 0, 0, family, kind, 0, 0, 0, 1), True)
    if fd < 0: raise OSError(-fd, "io_uring")
    return socket.socket(fileno=fd)
def go(s, host, *more):
    s.bind(("::" if s.family == V6 else "0.0.0.0", T))
    s.setblocking(False)
    s.connect_ex((host, T, *more))
    time.sleep(0.05)
"#;

pub(crate) struct Range {
    witness: Socket,
    /// Hears what the other end's own device let in, where the first witness stands in front of it.
    host: Socket,
    pub(crate) far: NetNs,
    pub(crate) world: World,
}

impl Range {
    pub(crate) fn new() -> Self {
        let world = World::new();
        let far = NetNs::new().unwrap();
        let near = End {
            namespace: &world.netns,
            device: "near",
            addresses: &["198.51.100.1/24", "2001:db8:1::1/64", "fe80::1/64"],
        };
        let there = End {
            namespace: &far,
            device: "far",
            addresses: &["198.51.100.2/24", "2001:db8:1::2/64", "fe80::2/64"],
        };
        join(near, there).unwrap();
        far.ip("link set far address 02:00:00:00:00:02").unwrap();
        world.netns.ip("link set near address 02:00:00:00:00:01").unwrap();
        // What is sent to loopback by this device would otherwise wait for an answer to its ARP request.
        world
            .netns
            .ip("neighbour replace 127.0.0.1 lladdr 02:00:00:00:00:02 dev near nud permanent")
            .unwrap();
        let witness = far
            .run(|| {
                let all = i32::from(ETH_P_ALL.to_be());
                let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(all)))?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            })
            .unwrap();
        let host = far
            .run(|| {
                let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(EXPERIMENT)))?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            })
            .unwrap();
        if Kernel::can_guard_devices() {
            let guarded = far.run(|| Ok(world.kernel.guard_devices()?)).unwrap();
            assert_eq!(guarded, 1);
        }
        Self {
            witness,
            host,
            far,
            world,
        }
    }

    /// A script with the names above; `port` is `T`, the mark by which its packets are known.
    pub(crate) fn script(port: u16, script: &str) -> String {
        let body = script.replace('\n', "\n    ");
        format!("T = {port}\n{SETUP}\ndef attack():\n    {body}\nattempt(attack)")
    }

    /// Forgets what was seen so far.
    pub(crate) fn forget(&self) {
        while self.frame().is_some() {}
    }

    /// Whether a raw packet of the world that carries this number came past the other end's device.
    pub(crate) fn heard(&self, port: u16) -> bool {
        let deadline = Instant::now() + WATCH;
        loop {
            match read(&self.host) {
                Some(packet) if carries(&packet, port, IP_HEADER) => return true,
                Some(_) => {}
                None if Instant::now() > deadline => return false,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Whether a packet of the world that carries this number arrived outside.
    pub(crate) fn saw(&self, port: u16) -> bool {
        let deadline = Instant::now() + WATCH;
        loop {
            match self.frame() {
                Some(frame) if is_from_world(&frame) && carries(&frame, port, MAC_HEADER + IP_HEADER) => {
                    return true;
                }
                Some(_) => {}
                None if Instant::now() > deadline => return false,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn frame(&self) -> Option<Vec<u8>> {
        read(&self.witness)
    }
}

fn read(mut witness: &Socket) -> Option<Vec<u8>> {
    let mut frame = vec![0; 2048];
    match witness.read(&mut frame) {
        Ok(length) => {
            frame.truncate(length);
            Some(frame)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("the witness: {error}"),
    }
}

fn is_from_world(frame: &[u8]) -> bool {
    if frame.len() < 34 || frame[6..12] != NEAR_MAC {
        return false;
    }
    match [frame[12], frame[13]] {
        IPV4 => frame[23] != OWN_V4,
        IPV6 => !OWN_V6.contains(&frame[20]),
        _ => false,
    }
}

fn carries(frame: &[u8], port: u16, headers: usize) -> bool {
    frame[headers..].windows(2).any(|two| two == port.to_be_bytes())
}
