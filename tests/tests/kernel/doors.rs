//! What the second line, the socket options and the cut let through and refuse.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use guard_agent::kernel::{AGENT_REFUSES_RELAYS, Kernel, Reason, governed::GovernedSet};

use crate::{
    bypass::next_event,
    range::{FAR4, NEAR4, Range},
    world::{AGENT, World},
};

#[test]
fn options_that_carry_a_route_are_refused_to_agents_only() {
    let world = World::new();
    let script = "six, four = socket.socket(socket.AF_INET6), socket.socket()
for option in [3, 4, 5, 6, 54, 55, 57, 59]: attempt(lambda: six.setsockopt(41, option, bytes(8)))
attempt(lambda: four.setsockopt(0, 4, bytes([1, 1, 1, 0])))
attempt(lambda: four.setsockopt(6, 19, 1))";
    let event = next_event(&world.kernel, || {
        world.agent("attempt(lambda: socket.socket().setsockopt(6, 19, 1))");
    });
    assert_eq!(
        (event.reason, event.reason.label()),
        (Reason::SocketOption, "socket_option")
    );
    assert_eq!((event.agent, event.protocol, event.destination), (AGENT, 6, None));
    assert_eq!(world.agent(script), ["EPERM"; 10].join("\n"));
    let outside = world.outsider(script);
    assert!(
        outside.ends_with("ok\nok") && !outside.contains("EPERM"),
        "{outside}"
    );
}

#[test]
fn a_value_longer_than_a_page_reaches_the_kernel() {
    let world = World::new();
    let script = "s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, b'\\1\\0\\0\\0' + bytes(8192))
print(s.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
attempt(lambda: s.setsockopt(0, 4, bytes(8192)))";
    assert_eq!(world.agent(script), "1\nEPERM");
    assert!(world.outsider(script).starts_with("1\n"));
}

#[test]
fn a_dropped_packet_is_reported_with_its_agent_and_destination() {
    let range = Range::new();
    let script = "device = struct.pack('@i8x', index())
socket.socket(V4, UDP).sendmsg([MARK], [(0, 8, device)], 0, ('127.0.0.1', T))";
    let event = next_event(&range.world.kernel, || {
        assert_eq!(range.world.agent(&Range::script(4433, script)), "EPERM");
    });
    assert_eq!((event.reason, event.reason.label()), (Reason::Egress, "egress"));
    let agents = range.world.agents.id().unwrap();
    assert_eq!(
        (event.agent, event.cgroup_id, event.governed_cgroup_id),
        (AGENT, agents, agents)
    );
    assert_eq!(event.destination.unwrap().to_string(), "127.0.0.1:4433");
    assert_eq!((event.pid, event.uid, event.protocol), (0, 0, 17));
}

#[test]
fn an_agent_answers_clients_from_outside_unless_inbound_is_refused() {
    let range = Range::new();
    let world = &range.world;
    let serve = "l = socket.create_server((NEAR4, T)); print('open', flush=True)
while True: c, _ = l.accept(); c.sendall(b'x' * 100000 + c.recv(4)); c.close()";
    let mut server = world
        .python(&Range::script(8080, serve))
        .cgroup(&world.agents)
        .start()
        .unwrap();
    assert_eq!(server.line().unwrap(), "open", "{:?}", server.said());
    let call = || {
        range.far.run(|| {
            let mut client =
                TcpStream::connect_timeout(&format!("{NEAR4}:8080").parse()?, Duration::from_secs(2))?;
            client.set_read_timeout(Some(Duration::from_secs(5)))?;
            client.write_all(b"ping")?;
            let mut text = String::new();
            client.read_to_string(&mut text)?;
            Ok(text)
        })
    };
    let text = call().unwrap();
    assert!(text.len() == 100_004 && text.ends_with("ping"));
    world.kernel.refuse_inbound(true).unwrap();
    assert!(call().is_err());
    world.kernel.refuse_inbound(false).unwrap();
    assert_eq!(call().unwrap().len(), 100_004);
    server.kill();
}

/// Holds a connection to the outside and one on loopback open; says what became of them once it is told to.
const HOLDING: &str = "import signal; told = {signal.SIGUSR1}; signal.pthread_sigmask(signal.SIG_BLOCK, told)
l = socket.create_server(('127.0.0.1', 0)); near = dial('127.0.0.1', l.getsockname()[1]); c, _ = l.accept()
far = dial(FAR4, T); datagram = socket.socket(V4, UDP); datagram.connect((FAR4, T))
print('open', flush=True)
for _ in range(2):
    signal.sigwait(told)
    attempt(lambda: far.send(b'x')); attempt(lambda: datagram.send(b'x')); attempt(lambda: (near.send(b'x'), c.recv(1)))
    print('.', flush=True)";

#[test]
fn connections_from_before_are_cut_and_loopback_and_neighbours_stay() {
    cut_from_before(|range, govern| range.world.netns.run(govern));
}

#[test]
fn connections_from_before_are_cut_in_every_network_namespace_of_the_cgroup() {
    cut_from_before(|_, govern| govern());
}

/// `place` is the network namespace of whoever governs.
fn cut_from_before(place: impl FnOnce(&Range, &(dyn Fn() -> Result<()> + Sync)) -> Result<()>) {
    let range = Range::new();
    let world = &range.world;
    let _listener = range.far.run(|| Ok(TcpListener::bind((FAR4, 4433))?)).unwrap();
    let late = world.anchor.child("late").unwrap();
    let below = late.child("below").unwrap();
    let hold = |cgroup| {
        let mut process = world
            .python(&Range::script(4433, HOLDING))
            .cgroup(cgroup)
            .start()
            .unwrap();
        assert_eq!(process.line().unwrap(), "open", "{:?}", process.said());
        process
    };
    let mut holders = [hold(&late), hold(&below), hold(&world.outside)];
    let kernel: Arc<Kernel> = Arc::new(world.start_again());
    let govern = || {
        let set = GovernedSet::start(Arc::clone(&kernel), world.anchor.path(), &[])?;
        set.adopt_cgroup(late.path(), AGENT, "late")?;
        Ok(())
    };
    place(&range, &govern).unwrap();
    let mut became = holders.iter_mut().map(|process| {
        process.signal(nix::sys::signal::Signal::SIGUSR1).unwrap();
        [(); 4].map(|()| process.line().unwrap()).join(" ")
    });
    for _ in 0..2 {
        let cut = became.next().unwrap();
        assert!(cut == "ECONNABORTED EDESTADDRREQ ok .", "{cut}");
    }
    assert_eq!(became.next().unwrap(), "ok ok ok .");
}

#[test]
fn what_was_held_back_is_cut_before_its_cgroup_is_let_go() {
    let range = Range::new();
    let world = &range.world;
    let _listener = range.far.run(|| Ok(TcpListener::bind((FAR4, 4434))?)).unwrap();
    let late = world.anchor.child("late").unwrap();
    let mut process = world
        .python(&Range::script(4434, HOLDING))
        .cgroup(&late)
        .start()
        .unwrap();
    assert_eq!(process.line().unwrap(), "open", "{:?}", process.said());
    // Governed without a cut: what it sends now waits in its queue.
    world.kernel.govern(late.id().unwrap(), AGENT).unwrap();
    process.signal(nix::sys::signal::Signal::SIGUSR1).unwrap();
    let said = [(); 4].map(|()| process.line().unwrap()).join(" ");
    assert_eq!(said, "ok EPERM ok .");
    range.forget();
    let kernel: Arc<Kernel> = Arc::new(world.start_again());
    world
        .netns
        .run(|| {
            let set = GovernedSet::start(Arc::clone(&kernel), world.anchor.path(), &[])?;
            set.adopt_cgroup(late.path(), AGENT, "late")?;
            set.release(late.id()?);
            Ok(())
        })
        .unwrap();
    assert!(!kernel.is_governed(late.id().unwrap()));
    // A retransmission would come within the first second or two.
    let leaked = (0..8).any(|_| range.saw(4434));
    process.signal(nix::sys::signal::Signal::SIGUSR1).unwrap();
    assert_eq!(process.line().unwrap(), "ECONNABORTED");
    assert!(!leaked);
}

#[test]
fn the_second_line_follows_the_governed_cgroups_over_a_restart() {
    let world = World::new();
    let other = world.anchor.child("other").unwrap();
    world.kernel.govern(other.id().unwrap(), AGENT).unwrap();
    let pins = || {
        let links = world.settings.bpffs.join("v2/links");
        world
            .mounts
            .run(|| {
                let names = std::fs::read_dir(links)?.map(|entry| Ok(entry?.file_name()));
                names.collect::<anyhow::Result<Vec<_>>>()
            })
            .unwrap()
            .into_iter()
            .filter(|name| name.to_string_lossy().starts_with("fw_egress_"))
            .count()
    };
    assert_eq!(pins(), 2);
    drop(other);
    let next = world.start_again();
    assert_eq!(pins(), 1, "a cgroup that is gone leaves no pin behind");
    assert!(world.attached(&next).all());
    let pin = world
        .settings
        .bpffs
        .join(format!("v2/links/fw_egress_{}", world.agents.id().unwrap()));
    world.mounts.run(|| Ok(std::fs::remove_file(&pin)?)).unwrap();
    assert_eq!(world.attached(&next).missing(), ["fw_egress"]);
    assert!(world.attached(&world.start_again()).all());
}

#[test]
fn packet_sockets_and_other_families_are_refused_to_agents_only_and_reported() {
    let world = World::new();
    if !world.refuses_families() {
        return;
    }
    let open = |each: &str| {
        format!(
            "for family, kind in {each}:
    try: socket.socket(family, kind); print('ok', end=' ')
    except OSError as error: print(errno.errorcode[error.errno], end=' ')"
        )
    };
    let refused = open("(17, 3), (17, 2), (44, 3), (40, 1), (31, 3), (30, 1)");
    assert_eq!(world.agent(&refused).trim(), ["EAFNOSUPPORT"; 6].join(" "));
    let outside = world.outsider(&refused);
    assert!(
        outside.starts_with("ok ok"),
        "others have what the kernel has: {outside}"
    );
    // Not every kernel has the last one.
    let allowed = open("(1, 1), (16, 3), (2, 1), (10, 2), (38, 5)");
    let inside = world.agent(&allowed);
    assert!(inside.starts_with("ok ok ok ok"), "{inside}");
    assert_eq!(inside, world.outsider(&allowed));
    let event = next_event(&world.kernel, || {
        world.agent("attempt(lambda: socket.socket(17, 3))");
    });
    assert_eq!((event.reason, event.agent), (Reason::Family, AGENT));
    assert_eq!(event.protocol, 17, "the family");
}

#[test]
fn a_relay_on_loopback_is_reported_and_refused_where_the_rules_do_not_list_it() {
    let world = World::new();
    let serve = "l = socket.create_server((HOST, 0), family=FAMILY); print(l.getsockname()[1], flush=True)
while True: l.accept()[0].close()";
    let start = |cgroup, host: &str| {
        let family = if host.contains(':') { 10 } else { 2 };
        let script = format!("HOST, FAMILY = '{host}', {family}\n{serve}");
        let mut server = world.python(&script).cgroup(cgroup).start().unwrap();
        let port: u16 = server.line().unwrap().parse().unwrap();
        (server, port)
    };
    let (_outsider, relay) = start(&world.outside, "127.0.0.1");
    let (_outsider6, relay6) = start(&world.outside, "::1");
    let (_own, own) = start(&world.agents, "127.0.0.1");
    let script = format!(
        "for host, port in [('127.0.0.1', {relay}), ('0.0.0.0', {relay}), ('::ffff:127.0.0.1', {relay}), ('::1', {relay6}),
 ('127.0.0.1', {own})]: attempt(lambda: dial(host, port))"
    );
    let all = |relays: &str| format!("{relays}\n{relays}\n{relays}\n{relays}\nok");
    let event = next_event(&world.kernel, || {
        assert_eq!(world.agent(&script), all("ok"), "what is not listed may pass");
    });
    assert_eq!((event.reason, event.agent), (Reason::RelayPassed, AGENT));
    assert_eq!(event.destination.unwrap().port(), relay);
    let before = world.kernel.stats().refused;
    let flags = HashMap::from([(AGENT, AGENT_REFUSES_RELAYS)]);
    world.kernel.set_agent_flags(flags).unwrap();
    assert_eq!(world.agent(&script), all("ECONNREFUSED"));
    assert_eq!(world.kernel.stats().refused - before, 4);
    assert_eq!(world.outsider(&script), all("ok"), "others are left alone");
    world
        .kernel
        .set_relays(&[(AGENT, relay), (AGENT, relay6)])
        .unwrap();
    assert_eq!(world.agent(&script), all("ok"), "listed");
    world.kernel.set_relays(&[(AGENT + 1, relay)]).unwrap();
    assert_eq!(
        world.agent(&script),
        all("ECONNREFUSED"),
        "listed for another agent"
    );
}
