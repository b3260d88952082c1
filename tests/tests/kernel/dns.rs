//! DNS over UDP: whatever the resolver's address and however it is asked, the query is at Guard's socket with its sender,
//! and the answer seems to come from the resolver.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use guard_agent::kernel::{Flow, NoFlow, query_of};
use guard_tests::patience::patient;

use crate::world::{AGENT, World};

/// Reads a query, answers `answer`, and gives what is known of its sender.
fn answer(socket: &UdpSocket) -> (SocketAddr, Result<Flow, NoFlow>) {
    socket
        .set_read_timeout(Some(patient(Duration::from_secs(10))))
        .unwrap();
    let mut query = [0; 512];
    let (length, client) = socket.recv_from(&mut query).unwrap();
    assert!(length >= 2);
    let id = u16::from_be_bytes([query[0], query[1]]);
    let flow = query_of(socket.as_fd(), client, id);
    socket.send_to(b"answer", client).unwrap();
    (client, flow)
}

#[test]
fn every_way_to_ask_arrives_with_its_sender_and_is_answered_by_the_resolver() {
    let world = World::new();
    let ways = [
        ("198.51.100.2", false),
        ("127.0.0.11", false),
        ("127.0.0.53", false),
        ("::ffff:198.51.100.2", false),
        ("2001:db8:1::2", true),
    ];
    for (host, v6) in ways {
        for (name, ask) in [
            (
                "connected",
                "s.connect((HOST, 53)); print(s.getpeername()[:2]); s.send(Q); print(s.recvfrom(64)[1][:2])",
            ),
            (
                "unconnected",
                "s.sendto(Q, (HOST, 53)); print(s.recvfrom(64)[1][:2])",
            ),
            (
                "sendmsg",
                "s.sendmsg([Q], [], 0, (HOST, 53)); print(s.recvmsg(64)[3][:2])",
            ),
        ] {
            let script = format!(
                "HOST, Q = '{host}', bytes([0x12, 0x34]) + bytes(10)
s = socket.socket(socket.AF_INET6 if ':' in HOST else socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(10 * PATIENCE)
{ask}"
            );
            let listeners = world.listeners();
            let socket = if v6 {
                listeners.dns_v6.as_ref().unwrap()
            } else {
                &listeners.dns_v4
            };
            let (said, flow) = std::thread::scope(|scope| {
                let answering = scope.spawn(|| answer(socket));
                let said = world.agent(&script);
                (said, answering.join().unwrap().1)
            });
            let flow = flow.unwrap_or_else(|error| panic!("{host} {name}: {error}"));
            assert!(
                said.lines().all(|line| line == format!("('{host}', 53)")),
                "{host} {name}: {said}"
            );
            let resolver: std::net::IpAddr = host.parse().unwrap();
            assert_eq!(
                flow.original_destination,
                SocketAddr::new(resolver.to_canonical(), 53)
            );
            assert_eq!(
                (flow.agent, flow.cgroup_id, flow.netns_cookie),
                (AGENT, world.agents.id().unwrap(), world.netns.cookie().unwrap())
            );
        }
    }
}

#[test]
fn a_query_of_nobody_governed_has_no_record() {
    let world = World::new();
    let socket = &world.listeners().dns_v4;
    let script = "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(10 * PATIENCE)
s.sendto(bytes([0x12, 0x35]) + bytes(10), ('127.0.0.1', PORT)); print(s.recvfrom(64)[1])";
    let (said, (_, flow)) = std::thread::scope(|scope| {
        let answering = scope.spawn(|| answer(socket));
        (world.outsider(script), answering.join().unwrap())
    });
    assert!(matches!(flow, Err(NoFlow::NoRecord)), "{flow:?}");
    assert_eq!(said, "('127.0.0.1', 15001)", "nothing is rewritten for others");
}

#[test]
fn a_resolver_over_tcp_on_loopback_is_redirected_too() {
    let world = World::new();
    let flow = std::thread::scope(|scope| {
        let accepting = scope.spawn(|| world.accept().1);
        world.agent("dial('127.0.0.11', 53)");
        accepting.join().unwrap().unwrap()
    });
    assert_eq!(flow.original_destination.to_string(), "127.0.0.11:53");
}
