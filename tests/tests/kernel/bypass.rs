//! Ways around, each closed and each reported.

use std::time::Duration;

use guard_agent::kernel::{Direct, Kernel, KernelEvent, Reason};
use guard_tests::{
    netns::{End, NetNs, join},
    patience::patient,
};

use crate::world::{AGENT, World, run};

/// The next event of the programs.
pub(crate) fn next_event(kernel: &Kernel, act: impl FnOnce()) -> KernelEvent {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let mut events = runtime.block_on(async { kernel.events() });
    act();
    runtime
        .block_on(async { tokio::time::timeout(patient(Duration::from_secs(10)), events.recv()).await })
        .expect("an event in time")
        .expect("the stream goes on")
}

#[test]
fn quic_is_refused_connected_and_unconnected_and_dns_goes_to_guard() {
    let world = World::new();
    let seen = world.agent(
        "def udp(host): return socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET, socket.SOCK_DGRAM)
for host in ['203.0.113.10', '2001:db8::7', '::ffff:203.0.113.10']:
    for port in [443, 53]:
        attempt(lambda: udp(host).connect((host, port)))
        attempt(lambda: udp(host).sendto(b'x', (host, port)))",
    );
    let lines: Vec<&str> = seen.lines().collect();
    // Without a route DNS would be "unreachable": it went to Guard's socket.
    let dns = ["ok", "ok"];
    for answers in lines.chunks(4) {
        assert_eq!(
            (&answers[..2], &answers[2..]),
            (&["EPERM", "EPERM"][..], &dns[..]),
            "{seen}"
        );
    }
    assert_eq!(lines.len(), 12);
}

#[test]
fn a_refused_datagram_is_reported_with_who_and_where_to() {
    let world = World::new();
    let event = next_event(&world.kernel, || {
        let udp = "attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('203.0.113.10', 443)))";
        assert_eq!(world.agent(udp), "EPERM");
    });
    assert_eq!((event.reason, event.reason.label()), (Reason::Udp, "udp"));
    assert_eq!(
        (event.agent, event.cgroup_id),
        (AGENT, world.agents.id().unwrap())
    );
    assert_eq!(event.destination.unwrap().to_string(), "203.0.113.10:443");
    assert_eq!((event.protocol, event.uid), (17, 0));
    assert!(event.comm.starts_with("python"));
    let age = jiff::Timestamp::now().duration_since(event.time);
    assert!(age.abs() < jiff::SignedDuration::from_secs(60), "{age:?}");
}

#[test]
fn sockets_that_no_other_hook_would_see_are_refused() {
    let world = World::new();
    world.netns.ip("link show lo").unwrap();
    let seen = world.agent(
        "open('/proc/sys/net/ipv4/ping_group_range', 'w').write('0 1000')
attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
attempt(lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_TCP))
attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP))
attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136))
attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262))
attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
attempt(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))",
    );
    assert_eq!(seen, "EPERM\nEPERM\nEPERM\nEPERM\nEPROTONOSUPPORT\nok\nok");
}

#[test]
fn a_namespace_that_an_agent_made_itself_is_refused() {
    let world = World::new();
    let own = NetNs::new().unwrap();
    let event = next_event(&world.kernel, || {
        let spawn = world
            .python("attempt(lambda: dial('203.0.113.10'))")
            .cgroup(&world.agents)
            .netns(&own);
        assert_eq!(run(spawn), "ECONNREFUSED");
    });
    assert_eq!(
        (event.reason, event.netns_cookie),
        (Reason::NoListener, own.cookie().unwrap())
    );
}

#[test]
fn a_namespace_whose_listener_was_removed_is_refused() {
    let world = World::new();
    world
        .kernel
        .remove_listener(world.netns.cookie().unwrap())
        .unwrap();
    world
        .kernel
        .remove_listener(world.netns.cookie().unwrap())
        .expect("twice is fine");
    assert_eq!(
        world.agent("attempt(lambda: dial('203.0.113.10'))"),
        "ECONNREFUSED"
    );
}

#[test]
fn the_listener_itself_is_refused_to_agents() {
    let world = World::new();
    let seen = world.agent(
        "for host in ['127.0.0.1', '127.9.9.9', '0.0.0.0', '::1', '::', '::ffff:127.0.0.1']:
    attempt(lambda: dial(host, PORT))",
    );
    assert_eq!(seen, ["ECONNREFUSED"; 6].join("\n"));
    assert!(world.nothing_arrived());
    assert_eq!(world.kernel.stats().refused, 6);
}

#[test]
fn the_metrics_port_is_refused_to_agents_and_open_to_others() {
    let world = World::new();
    world.kernel.deny_ports(&[1, 9477]).unwrap();
    world.kernel.deny_ports(&[9477]).unwrap();
    let script = "attempt(lambda: dial('127.0.0.1', 9477))";
    let _metrics = world
        .netns
        .run(|| Ok(std::net::TcpListener::bind("127.0.0.1:9477")?))
        .unwrap();
    assert_eq!(world.agent(script), "ECONNREFUSED");
    assert_eq!(world.outsider(script), "ok");
    assert_eq!(
        world.agent("attempt(lambda: socket.create_server(('127.0.0.1', 1)))"),
        "ok"
    );
}

#[test]
fn an_agent_cannot_take_the_listeners_port_while_the_daemon_is_down() {
    let mut world = World::new();
    world.close_listeners();
    let script = "for host in ['127.0.0.1', '0.0.0.0', '::1', '::']:
    attempt(lambda: socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET).bind((host, PORT)))";
    assert_eq!(world.agent(script), ["EACCES"; 4].join("\n"));
    assert_eq!(
        world.agent("attempt(lambda: dial('203.0.113.10'))"),
        "ECONNREFUSED"
    );
    assert!(world.outsider(script).starts_with("ok"));
}

#[test]
fn a_socket_bound_to_a_device_is_refused() {
    let world = World::new();
    let far = NetNs::new().unwrap();
    join(
        End {
            namespace: &world.netns,
            device: "near",
            addresses: &["198.51.100.1/24"],
        },
        End {
            namespace: &far,
            device: "far",
            addresses: &["198.51.100.2/24"],
        },
    )
    .unwrap();
    let seen = world.agent(
        "def bound(device):
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device); return s
attempt(lambda: dial('198.51.100.2', s=bound(b'near')))
attempt(lambda: dial('127.0.0.1', 1, s=bound(b'near')))
attempt(lambda: dial('198.51.100.2', s=bound(b'lo')))",
    );
    assert_eq!(seen, "ECONNREFUSED\nECONNREFUSED\nok");
    assert_eq!(
        world.accept().1.unwrap().original_destination.to_string(),
        "198.51.100.2:443"
    );
}

#[test]
fn an_ipv6_link_local_destination_is_refused() {
    let world = World::new();
    let event = next_event(&world.kernel, || {
        assert_eq!(world.agent("attempt(lambda: dial('fe80::1%lo'))"), "ECONNREFUSED");
    });
    assert_eq!(event.reason, Reason::LinkLocal);
}

#[test]
fn a_flood_of_refusals_is_refused_to_the_last_one_and_what_cannot_be_told_is_counted() {
    let world = World::new();
    let flood = "s, n = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0
for i in range(20000):
    try: s.sendto(b'x', ('203.0.113.10', 443))
    except PermissionError: n += 1
print(n)";
    let before = world.kernel.stats();
    assert_eq!(world.agent(flood), "20000");
    let after = world.kernel.stats();
    assert_eq!(after.refused - before.refused, 20_000);
    // The ring holds some ten thousand of them, and nobody reads it here.
    let lost = after.events_lost - before.events_lost;
    assert!((5_000..20_000).contains(&lost), "{lost}");
}

#[test]
fn fast_open_is_redirected_too() {
    let world = World::new();
    let seen = world.agent(
        "s = socket.socket(); s.sendto(b'hello', 0x20000000, ('203.0.113.10', 443)); s.close(); print('sent')",
    );
    assert_eq!(seen, "sent");
    let (stream, flow) = world.accept();
    assert_eq!(flow.unwrap().original_destination.to_string(), "203.0.113.10:443");
    assert_eq!(crate::world::read_all(stream), "hello");
}

#[test]
fn governed_means_refused_until_the_owner_chose_direct_and_the_heartbeat_is_stale() {
    let world = World::new();
    world
        .kernel
        .remove_listener(world.netns.cookie().unwrap())
        .unwrap();
    let script = "attempt(lambda: dial('203.0.113.10'))";
    let when_down = |governed, unknown, after| {
        let direct = Direct { governed, unknown };
        world.kernel.set_direct_when_down(direct, after).unwrap();
    };
    when_down(true, true, Duration::from_secs(600));
    assert_eq!(world.agent(script), "ECONNREFUSED", "fresh");
    when_down(true, false, Duration::ZERO);
    assert_eq!(world.agent(script), "ENETUNREACH", "stale");
    assert!(world.kernel.stats().failed_open > 0);
    when_down(false, true, Duration::ZERO);
    assert_eq!(world.agent(script), "ECONNREFUSED", "never");
}

#[test]
fn a_container_that_nobody_knows_follows_a_choice_of_its_own_while_the_daemon_is_down() {
    let mut world = World::new();
    world.close_listeners();
    let parent = world.anchor.child("containers").unwrap();
    let newborn = parent.child("newborn").unwrap();
    world.kernel.hold_back(&[parent.id().unwrap()]).unwrap();
    let dial = || {
        run(world
            .python("attempt(lambda: dial('203.0.113.10'))")
            .cgroup(&newborn))
    };
    let when_down = |governed, unknown| {
        let direct = Direct { governed, unknown };
        world.kernel.set_direct_when_down(direct, Duration::ZERO).unwrap();
    };
    assert_eq!(dial(), "ECONNREFUSED");
    when_down(true, false);
    assert_eq!(dial(), "ECONNREFUSED", "the choice is that of governed processes");
    when_down(false, true);
    assert_eq!(dial(), "ENETUNREACH");
    when_down(false, false);
    assert_eq!(dial(), "ECONNREFUSED");
}
