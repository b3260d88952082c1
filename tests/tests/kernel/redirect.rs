//! A governed connection arrives at the listener, with the right record.

use std::collections::HashSet;

use guard_agent::kernel::NoFlow;

use crate::world::{AGENT, PORT, World, read_all, run};

#[test]
fn a_governed_ipv4_connection_arrives_with_the_record_of_its_opener() {
    let world = World::new();
    world.kernel.set_generation(42).unwrap();
    let spawn = world
        .python("s = dial('203.0.113.10'); s.sendall(b'hello'); s.close(); print(os.getpid())")
        .cgroup(&world.agents)
        .user(1234);
    let client = std::thread::scope(|scope| {
        let client = scope.spawn(|| run(spawn));
        let (stream, flow) = world.accept();
        assert_eq!(read_all(stream), "hello");
        (client.join().unwrap(), flow.unwrap())
    });
    let (pid, flow) = (client.0.parse::<u32>().unwrap(), client.1);
    let agents = world.agents.id().unwrap();
    assert_eq!(flow.original_destination.to_string(), "203.0.113.10:443");
    assert_eq!(
        (flow.cgroup_id, flow.governed_cgroup_id, flow.agent),
        (agents, agents, AGENT)
    );
    assert_eq!(flow.creator_cgroup_id, agents);
    assert_eq!((flow.pid, flow.tid, flow.uid, flow.gid), (pid, pid, 1234, 1234));
    assert_eq!(flow.netns_cookie, world.netns.cookie().unwrap());
    assert!(flow.comm.starts_with("python"), "{}", flow.comm);
    assert_eq!(flow.generation, 42);
    assert!(flow.cookie != 0 && flow.ktime_ns != 0);
}

#[test]
fn an_ipv6_destination_arrives_over_ipv6() {
    let world = World::new();
    world.agent("dial('2001:db8::7', 8443)");
    let (_, flow) = world.accept_v6();
    assert_eq!(
        flow.unwrap().original_destination.to_string(),
        "[2001:db8::7]:8443"
    );
}

#[test]
fn a_mapped_ipv4_destination_arrives_over_ipv4_as_the_address_that_was_meant() {
    let world = World::new();
    world.agent("dial('::ffff:203.0.113.10')");
    let (_, flow) = world.accept();
    assert_eq!(flow.unwrap().original_destination.to_string(), "203.0.113.10:443");
}

#[test]
fn an_ipv6_destination_arrives_even_where_there_is_no_ipv6_loopback() {
    let world = World::new();
    world
        .kernel
        .set_listener(world.netns.cookie().unwrap(), PORT, false)
        .unwrap();
    world.netns.ip("address del ::1/128 dev lo").unwrap();
    world.agent("dial('2001:db8::7')");
    let (_, flow) = world.accept();
    assert_eq!(
        flow.unwrap().original_destination.to_string(),
        "[2001:db8::7]:443"
    );
}

#[test]
fn a_worker_thread_is_told_from_its_process() {
    let world = World::new();
    let ids = world.agent(
        "def work(): dial('203.0.113.10'); print(os.getpid(), threading.get_native_id())
t = threading.Thread(target=work); t.start(); t.join()",
    );
    let (_, flow) = world.accept();
    let flow = flow.unwrap();
    assert_eq!(ids, format!("{} {}", flow.pid, flow.tid));
    assert_ne!(flow.pid, flow.tid);
}

#[test]
fn a_child_cgroup_is_governed_and_named_by_its_own_id() {
    let world = World::new();
    let child = world.agents.child("deep/deeper").unwrap();
    run(world.python("dial('203.0.113.10')").cgroup(&child));
    let (_, flow) = world.accept();
    let flow = flow.unwrap();
    assert_eq!(flow.cgroup_id, child.id().unwrap());
    assert_eq!(flow.governed_cgroup_id, world.agents.id().unwrap());
}

#[test]
fn the_nearest_governed_ancestor_names_the_agent() {
    let world = World::new();
    let child = world.agents.child("inner").unwrap();
    world.kernel.govern(child.id().unwrap(), AGENT + 1).unwrap();
    run(world.python("dial('203.0.113.10')").cgroup(&child));
    let (_, flow) = world.accept();
    let flow = flow.unwrap();
    assert_eq!(
        (flow.agent, flow.governed_cgroup_id),
        (AGENT + 1, child.id().unwrap())
    );
}

#[test]
fn a_socket_made_outside_and_connected_by_an_agent_is_redirected() {
    let world = World::new();
    world.outsider("s = socket.socket(); join('AGENTS'); dial('203.0.113.10', s=s)");
    let (_, flow) = world.accept();
    let flow = flow.unwrap();
    assert_eq!(
        (flow.cgroup_id, flow.creator_cgroup_id),
        (world.agents.id().unwrap(), 0)
    );
}

#[test]
fn a_socket_made_by_an_agent_and_connected_outside_is_redirected() {
    let world = World::new();
    world.agent("s = socket.socket(); join('OUTSIDE'); dial('203.0.113.10', s=s)");
    let (_, flow) = world.accept();
    let flow = flow.unwrap();
    let agents = world.agents.id().unwrap();
    assert_eq!(
        (flow.cgroup_id, flow.creator_cgroup_id),
        (world.outside.id().unwrap(), agents)
    );
    assert_eq!((flow.governed_cgroup_id, flow.agent), (agents, AGENT));
}

#[test]
fn getpeername_shows_the_destination_that_was_asked_for() {
    let world = World::new();
    let seen = world.agent(
        "for host in ['203.0.113.10', '2001:db8::7', '::ffff:203.0.113.10']:
    print(*dial(host).getpeername()[:2])",
    );
    assert_eq!(seen, "203.0.113.10 443\n2001:db8::7 443\n::ffff:203.0.113.10 443");
}

#[test]
fn a_socket_that_connects_again_carries_the_record_of_its_second_connection() {
    let world = World::new();
    world.agent(
        "import ctypes
s = dial('203.0.113.10')
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
unspec = struct.pack('H14x', 0)
assert ctypes.CDLL(None).connect(s.fileno(), unspec, len(unspec)) == 0
dial('203.0.113.20', 80, s=s)",
    );
    let (_, first) = world.accept();
    let (_, second) = world.accept();
    assert_eq!(
        first.unwrap().original_destination.to_string(),
        "203.0.113.10:443"
    );
    assert_eq!(
        second.unwrap().original_destination.to_string(),
        "203.0.113.20:80"
    );
}

#[test]
fn a_reused_source_port_never_finds_the_record_of_the_connection_before() {
    let world = World::new();
    // Both wait in the accept queue: the first one reset, the second one from the same port.
    world.agent(
        "def from_port(host):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    s.bind(('127.0.0.1', 40404))
    dial(host, s=s).close()
from_port('203.0.113.1'); from_port('203.0.113.2')",
    );
    let destinations =
        [world.accept(), world.accept()].map(|(_, flow)| flow.unwrap().original_destination.ip());
    assert_eq!(
        destinations.map(|ip| ip.to_string()),
        ["203.0.113.1", "203.0.113.2"]
    );
}

#[test]
fn no_record_is_lost_or_swapped_with_thousands_of_connections_waiting() {
    const COUNT: u16 = 3000;
    let world = World::new();
    let script = format!(
        "resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
held = []
for port in range(1000, 1000 + {COUNT}):
    s = dial('203.0.113.10', port); s.sendall(str(port).encode()); s.shutdown(socket.SHUT_WR); held.append(s)
print(len(held))"
    );
    assert_eq!(world.agent(&script), COUNT.to_string());
    let mut cookies = HashSet::new();
    for _ in 0..COUNT {
        let (stream, flow) = world.accept();
        let flow = flow.unwrap();
        assert_eq!(read_all(stream), flow.original_destination.port().to_string());
        assert!(cookies.insert(flow.cookie));
    }
    let stats = world.kernel.stats();
    assert_eq!(
        (stats.redirected, stats.moved),
        (u64::from(COUNT), u64::from(COUNT))
    );
    assert_eq!(
        (stats.publish_failed, stats.move_failed, stats.storage_failed),
        (0, 0, 0)
    );
}

#[test]
fn a_connection_that_was_not_redirected_has_no_record() {
    let world = World::new();
    world.outsider("dial('127.0.0.1', PORT)");
    assert!(matches!(world.accept().1, Err(NoFlow::NoRecord)));
    world.outsider("dial('::1', PORT)");
    assert!(matches!(world.accept_v6().1, Err(NoFlow::NoRecord)));
}

#[test]
fn a_worker_of_the_daemon_reads_the_record_without_any_capability() {
    let world = World::new();
    world
        .kernel
        .set_listener(world.netns.cookie().unwrap(), 16_001, false)
        .unwrap();
    let worker = "server = socket.create_server(('127.0.0.1', 16001)); print('on', flush=True)
record = server.accept()[0].getsockopt(0x6775, 1, 1024)
print(os.getuid(), len(record), [l for l in open('/proc/self/status') if l.startswith('CapEff')][0].split()[1])
print(socket.inet_ntop(socket.AF_INET6, record[48:64]))";
    let mut worker = world
        .python(worker)
        .cgroup(&world.daemon)
        .user(65_534)
        .start()
        .unwrap();
    assert_eq!(worker.line().unwrap(), "on");
    world.agent("dial('203.0.113.10')");
    assert_eq!(worker.line().unwrap(), "65534 112 0000000000000000");
    assert_eq!(worker.line().unwrap(), "::ffff:203.0.113.10");
}

#[test]
fn an_ungoverned_process_is_left_alone() {
    let world = World::new();
    let seen = world.outsider(
        "attempt(lambda: dial('203.0.113.10'))
attempt(lambda: dial('2001:db8::7'))
attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('203.0.113.10', 443)))
attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
print(dial('127.0.0.1', PORT).getpeername())",
    );
    assert_eq!(
        seen,
        format!("ENETUNREACH\nENETUNREACH\nENETUNREACH\nok\n('127.0.0.1', {PORT})")
    );
    let stats = world.kernel.stats();
    assert_eq!((stats.redirected, stats.refused), (0, 0));
}

#[test]
fn loopback_of_an_agent_is_its_own() {
    let world = World::new();
    let seen = world.agent(
        "for host in ['127.0.0.1', '::1']:
    server = socket.create_server((host, 0), family=socket.AF_INET6 if ':' in host else socket.AF_INET)
    client = dial(host, server.getsockname()[1]); print(client.getpeername()[0])
a, b = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
a.bind(('127.0.0.1', 0)); b.sendto(b'x', a.getsockname()); print(a.recv(1))",
    );
    assert_eq!(seen, "127.0.0.1\n::1\nb'x'");
    assert!(world.nothing_arrived());
}
