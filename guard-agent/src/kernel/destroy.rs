//! Cuts the connections that a cgroup had open before it was governed, and those that it has when it is let go:
//! the one kind met no hook when it was made, the other may hold data back that the second line refused, which
//! would leave as soon as the line is gone.
//!
//! In: cgroup ids, and the calling thread's network namespace. Out: how many sockets were closed; their owners
//! see ECONNABORTED. On failure: the second line still drops what they send.
//!
//! Loopback connections stay, they are allowed to governed processes; so do listeners and unconnected UDP
//! sockets, whose every later step meets a hook. This speaks sock_diag(7) itself; the layouts are those of
//! linux/inet_diag.h, in the machine's byte order.

use std::{
    collections::HashSet,
    io::{self, Read, Write},
    net::Ipv6Addr,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::netlink::{DUMP, NLMSG_DONE, NLMSG_ERROR, REQUEST, array, attribute, message, messages};

const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const ACK: u16 = 0x4;

const ATTRIBUTE_BYTECODE: u16 = 1;
const ATTRIBUTE_CGROUP_ID: u16 = 21;
const CGROUP_CONDITION: u8 = 13;

/// Every TCP state that has a peer: not LISTEN, CLOSE, TIME_WAIT.
const TCP_CONNECTED: u32 = states(&[1, 2, 3, 4, 5, 8, 9, 11]);
/// UDP sockets on which `connect` was called.
const UDP_CONNECTED: u32 = states(&[1]);

/// inet_diag_sockid, and inet_diag_msg in bytes.
const SOCKET_ID: usize = 48;
const ANSWER: usize = 72;

/// The kernel fills at most this much of a dump at once.
const BUFFER: usize = 64 * 1024;
/// The kernel answers at once; this only bounds a mistake.
const PATIENCE: Duration = Duration::from_secs(5);
/// A connect that had passed its hook just before may show up only in the second look, so there always is one.
const LOOKS: u32 = 4;

/// What was cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Sockets that are closed.
    pub closed: u64,
    /// Sockets that the kernel did not close.
    pub failed: u64,
}

/// A socket of one of the cgroups.
struct Found {
    family: u8,
    protocol: u8,
    /// inet_diag_sockid as the kernel wrote it, its cookie included.
    id: [u8; SOCKET_ID],
}

/// Closes every connection of these cgroups in the calling thread's network namespace that leaves loopback.
pub fn cut_connections(cgroups: &HashSet<u64>) -> io::Result<Cut> {
    let mut netlink = Netlink::open()?;
    let mut cut = Cut::default();
    for look in 1..=LOOKS {
        let mut found = Vec::new();
        for (protocol, wanted) in [
            (libc::IPPROTO_TCP, TCP_CONNECTED),
            (libc::IPPROTO_UDP, UDP_CONNECTED),
        ] {
            for family in [libc::AF_INET, libc::AF_INET6] {
                netlink.dump(byte(family)?, byte(protocol)?, wanted, cgroups, &mut found)?;
            }
        }
        let mut closed = 0;
        cut.failed = 0;
        for socket in &found {
            match netlink.destroy(socket) {
                Ok(()) => closed += 1,
                // Closed meanwhile, by whoever.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::debug!(%error, "a socket of an agent stays open");
                    cut.failed += 1;
                }
            }
        }
        cut.closed += closed;
        if closed == 0 && look > 1 {
            break;
        }
    }
    Ok(cut)
}

struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    fn open() -> io::Result<Self> {
        let socket = Socket::new(
            Domain::from(libc::AF_NETLINK),
            Type::RAW,
            Some(Protocol::from(NETLINK_SOCK_DIAG)),
        )?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; BUFFER],
        })
    }

    /// Adds the sockets of this kind whose cgroup is one of these and whose peer is not on loopback.
    fn dump(
        &mut self,
        family: u8,
        protocol: u8,
        wanted: u32,
        cgroups: &HashSet<u64>,
        found: &mut Vec<Found>,
    ) -> io::Result<()> {
        let mut body = vec![family, protocol, 0, 0];
        body.extend(wanted.to_ne_bytes());
        body.extend([0; SOCKET_ID]);
        // For one cgroup, the usual case, the kernel itself sorts out everybody else's sockets.
        if let (1, Some(only)) = (cgroups.len(), cgroups.iter().next()) {
            body.extend(filter(*only)?);
        }
        self.send(SOCK_DIAG_BY_FAMILY, REQUEST | DUMP, &body)?;
        loop {
            let length = (&self.socket).read(&mut self.buffer)?;
            for message in messages(&self.buffer[..length]) {
                match message.kind {
                    NLMSG_DONE => return Ok(()),
                    // This kernel has no such sockets at all.
                    NLMSG_ERROR if message.errno() == libc::ENOENT => return Ok(()),
                    NLMSG_ERROR => return Err(io::Error::from_raw_os_error(message.errno())),
                    SOCK_DIAG_BY_FAMILY => found.extend(wanted_socket(message.body, protocol, cgroups)),
                    _ => {}
                }
            }
        }
    }

    fn destroy(&mut self, socket: &Found) -> io::Result<()> {
        let mut body = vec![socket.family, socket.protocol, 0, 0];
        body.extend(u32::MAX.to_ne_bytes());
        body.extend(socket.id);
        self.send(SOCK_DESTROY, REQUEST | ACK, &body)?;
        loop {
            let length = (&self.socket).read(&mut self.buffer)?;
            let answer = messages(&self.buffer[..length])
                .find(|message| message.kind == NLMSG_ERROR && message.sequence == self.sequence);
            match answer.map(|answer| answer.errno()) {
                Some(0) => return Ok(()),
                Some(errno) => return Err(io::Error::from_raw_os_error(errno)),
                None => {}
            }
        }
    }

    fn send(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        (&self.socket).write_all(&message(kind, flags, self.sequence, body)?)
    }
}

/// A program of one condition for the kernel's socket filter: accept at the end, refuse beyond it.
fn filter(cgroup: u64) -> io::Result<Vec<u8>> {
    let (operation, beyond) = (12_u8, 16_u16);
    let length = u16::try_from(4 + usize::from(operation)).map_err(io::Error::other)?;
    let mut attribute = Vec::from(length.to_ne_bytes());
    attribute.extend(ATTRIBUTE_BYTECODE.to_ne_bytes());
    attribute.extend([CGROUP_CONDITION, operation]);
    attribute.extend(beyond.to_ne_bytes());
    attribute.extend(cgroup.to_ne_bytes());
    Ok(attribute)
}

/// Reads an inet_diag_msg.
fn wanted_socket(body: &[u8], protocol: u8, cgroups: &HashSet<u64>) -> Option<Found> {
    let family = *body.first()?;
    let id: [u8; SOCKET_ID] = array(body, 4)?;
    if is_loopback(family, array(&id, 20)?) {
        return None;
    }
    let cgroup = attribute(body.get(ANSWER..)?, ATTRIBUTE_CGROUP_ID)?;
    let cgroup = u64::from_ne_bytes(array(cgroup, 0)?);
    cgroups
        .contains(&cgroup)
        .then_some(Found { family, protocol, id })
}

fn is_loopback(family: u8, address: [u8; 16]) -> bool {
    if i32::from(family) == libc::AF_INET {
        return address[0] == 127;
    }
    Ipv6Addr::from(address).to_canonical().is_loopback()
}

fn byte(number: i32) -> io::Result<u8> {
    u8::try_from(number).map_err(io::Error::other)
}

const fn states(numbers: &[u32]) -> u32 {
    let (mut mask, mut at) = (0, 0);
    while at < numbers.len() {
        mask |= 1 << numbers[at];
        at += 1;
    }
    mask
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::netlink::HEADER;
    use super::{is_loopback, messages, states, wanted_socket};

    #[test]
    fn a_truncated_answer_of_any_length_ends_the_reading_and_nothing_else() {
        let mut whole = Vec::new();
        for kind in [20_u16, 3] {
            whole.extend(20_u32.to_ne_bytes());
            whole.extend(kind.to_ne_bytes());
            whole.extend([0; HEADER - 6]);
            whole.extend([7; 4]);
        }
        assert_eq!(
            messages(&whole).map(|message| message.kind).collect::<Vec<_>>(),
            [20, 3]
        );
        for cut in 0..whole.len() {
            assert!(messages(&whole[..cut]).count() < 2);
            assert!(wanted_socket(&whole[..cut], 6, &HashSet::from([1])).is_none());
        }
    }

    #[test]
    fn loopback_is_loopback_in_every_notation() {
        let v4 = |first| {
            let mut address = [0; 16];
            address[0] = first;
            address
        };
        assert!(is_loopback(2, v4(127)) && !is_loopback(2, v4(198)));
        let v6 = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
        assert!(is_loopback(10, v6("::1")) && is_loopback(10, v6("::ffff:127.0.0.9")));
        assert!(!is_loopback(10, v6("2001:db8::1")) && !is_loopback(10, v6("::ffff:198.51.100.2")));
    }

    #[test]
    fn a_state_is_a_bit() {
        assert_eq!(states(&[1, 3]), 0b1010);
    }
}
