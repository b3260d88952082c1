//! What the programs cost per call: a table, on demand (`GUARD_MEASURE=1`, see docs/performance.md).

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use guard_agent::kernel::{self, Listeners};
use guard_tests::{cgroup::Cgroup, netns::NetNs, process::Spawn};
use socket2::{Domain, Socket, Type};

use crate::{
    life::Stop,
    range::{FAR4, Range},
    world::{AGENT, PORT, World},
};

/// Short rounds, many of them: on a busy machine a long one is always interrupted.
const ROUNDS: usize = 600;
const CALLS: u32 = 20;
/// Network namespaces that are listened in.
const SPACES: u32 = 100;

/// Not a test of its own: what [`the_cost_of_the_programs`] measures, in the cgroup in question.
#[test]
fn a_client_to_be_measured() {
    let Ok(target) = std::env::var("GUARD_TEST_TARGET") else {
        return;
    };
    let target: SocketAddr = target.parse().unwrap();
    let far: SocketAddr = format!("{FAR4}:53").parse().unwrap();
    let datagram = UdpSocket::bind("0.0.0.0:0").unwrap();
    let option = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let tcp = best(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.connect(&target.into()).unwrap();
        socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    });
    let socket = best(|| drop(Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()));
    let send = best(|| assert_eq!(datagram.send_to(b"x", far).unwrap(), 1));
    let set = best(|| option.set_tcp_nodelay(true).unwrap());
    println!("measured={tcp} {socket} {send} {set}");
}

/// Nanoseconds of one call, in the best of the rounds: everything else that runs only adds.
fn best(call: impl Fn()) -> u128 {
    let round = || {
        let start = Instant::now();
        (0..CALLS).for_each(|_| call());
        start.elapsed().as_nanos() / u128::from(CALLS)
    };
    (0..ROUNDS).map(|_| round()).min().unwrap()
}

#[test]
fn the_cost_of_the_programs() {
    if std::env::var_os("GUARD_MEASURE").is_none() {
        return;
    }
    let range = Range::new();
    let world = &range.world;
    let beside = Cgroup::new().unwrap();
    let stop = AtomicBool::new(false);
    println!("ns per call, best of {ROUNDS} rounds of {CALLS}\n");
    println!("| process | TCP connect and reset | socket and close | UDP datagram over veth | setsockopt |");
    println!("|---|---|---|---|---|");
    std::thread::scope(|scope| {
        // Also when something below fails: the scope waits for its threads.
        let _stop = Stop(&stop);
        let listener = &world.listeners().v4;
        listener.set_nonblocking(true).unwrap();
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                while listener.accept().is_ok() {}
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
        });
        let direct = SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT);
        let away = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), 443);
        let measure = |what: &str, cgroup: &Cgroup, target: SocketAddrV4| {
            let done = Spawn::new(std::env::current_exe().unwrap())
                .args(["--exact", "cost::a_client_to_be_measured", "--nocapture"])
                .env("GUARD_TEST_TARGET", target.to_string())
                .cgroup(cgroup)
                .netns(&world.netns)
                .patience(std::time::Duration::from_secs(120))
                .run();
            let said = done.map(|done| done.stdout).unwrap_or_default();
            let numbers = said
                .lines()
                .find_map(|line| line.split_once("measured="))
                .map(|(_, rest)| rest.replace(' ', " | "));
            println!("| {what} | {} |", numbers.unwrap_or(said));
        };
        measure("no programs", &beside, direct);
        measure("under the programs, not governed", &world.outside, direct);
        measure("governed, redirected", &world.agents, away);
        let crowd = world.anchor.child("crowd").unwrap();
        let mut many: Vec<Cgroup> = Vec::new();
        let mut governing = Duration::ZERO;
        for agents in [10, 100, 1000] {
            // The world has one already.
            while many.len() + 1 < agents {
                let one = crowd.child(&many.len().to_string()).unwrap();
                let start = Instant::now();
                world.kernel.govern(one.id().unwrap(), AGENT).unwrap();
                governing += start.elapsed();
                many.push(one);
            }
            measure(
                &format!("not governed, beside {agents} agents"),
                &world.outside,
                direct,
            );
            measure(&format!("governed, one of {agents} agents"), &world.agents, away);
        }
        let each = governing.as_micros() / u128::try_from(many.len()).unwrap();
        println!("\ngoverning a cgroup: {each} us each");
    });
    let (took, kib) = namespaces(world);
    println!("listening in a network namespace: {took} us and {kib} KiB of the kernel's memory each");
}

/// What one network namespace costs that is listened in: microseconds to enter it, to open its sockets and to tell the
/// programs, and KiB that the kernel keeps for them.
fn namespaces(world: &World) -> (u128, u64) {
    let spaces: Vec<NetNs> = (0..SPACES).map(|_| NetNs::new().unwrap()).collect();
    let before = kept();
    let start = Instant::now();
    let open: Vec<Listeners> = spaces
        .iter()
        .map(|space| {
            let listeners = space.run(|| Ok(kernel::open_listeners(PORT)?)).unwrap();
            world
                .kernel
                .set_listener(space.cookie().unwrap(), PORT, true)
                .unwrap();
            listeners
        })
        .collect();
    let took = start.elapsed().as_micros() / u128::from(SPACES);
    let grown = kept().saturating_sub(before) / u64::from(SPACES);
    drop(open);
    (took, grown)
}

/// KiB of kernel memory that cannot be taken back.
fn kept() -> u64 {
    let all = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = all.lines().find_map(|line| line.strip_prefix("SUnreclaim:"));
    line.unwrap().trim().split(' ').next().unwrap().parse().unwrap()
}
