//! The programs' life: they outlive the daemon, are taken over atomically, and go only on purpose.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use guard_agent::kernel::{self, Kernel, KernelError, KernelSettings, cgroup};
use guard_tests::process::Spawn;

use crate::world::{AGENT, NAMES, PORT, World, exists, run, serve};

/// Raises a flag however its scope ends.
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Not a test of its own: the daemon that [`programs_outlive_a_killed_daemon`] kills.
#[test]
fn a_daemon_to_be_killed() {
    let Ok(anchor) = std::env::var("GUARD_TEST_ANCHOR") else {
        return;
    };
    let anchor = Path::new(&anchor);
    let settings = KernelSettings {
        cgroup_root: anchor.to_owned(),
        bpffs: "/sys/fs/bpf/guard".into(),
        daemon_cgroup: anchor.join("daemon"),
    };
    let kernel = Kernel::start(&settings).unwrap();
    let number = |name: &str| std::env::var(name).unwrap().parse().unwrap();
    kernel
        .set_listener(number("GUARD_TEST_NETNS"), PORT, true)
        .unwrap();
    kernel.govern(number("GUARD_TEST_AGENTS"), AGENT + 1).unwrap();
    println!("attached={}", kernel.attached().all());
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn programs_outlive_a_killed_daemon_and_refuse_when_its_listener_is_gone() {
    let mut world = World::new();
    // Nothing of this world's own daemon may be left to do the work.
    world
        .mounts
        .run(|| Ok(kernel::detach(&world.settings.bpffs)?))
        .unwrap();
    let mut daemon = Spawn::new(std::env::current_exe().unwrap())
        .args(["--exact", "life::a_daemon_to_be_killed", "--nocapture"])
        .env("GUARD_TEST_ANCHOR", world.anchor.path())
        .env("GUARD_TEST_NETNS", world.netns.cookie().unwrap().to_string())
        .env("GUARD_TEST_AGENTS", world.agents.id().unwrap().to_string())
        .mounts(&world.mounts)
        .start()
        .unwrap();
    while !daemon.line().unwrap().contains("attached=true") {}
    daemon.kill();

    world.agent("dial('203.0.113.10')");
    assert_eq!(
        world.accept().1.unwrap().agent,
        AGENT + 1,
        "the dead daemon's programs and policy are in force"
    );
    world.close_listeners();
    let seen = world.agent(
        "attempt(lambda: dial('203.0.113.10'))
attempt(lambda: dial('2001:db8::7'))
attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('203.0.113.10', 443)))",
    );
    assert_eq!(seen, "ECONNREFUSED\nECONNREFUSED\nEPERM");
    assert_eq!(
        world.outsider("attempt(lambda: dial('203.0.113.10'))"),
        "ENETUNREACH",
        "others never notice"
    );

    let next = world.start_again();
    assert_eq!(next.governed(), [(world.agents.id().unwrap(), AGENT + 1)]);
    assert!(world.attached(&next).all());
}

#[test]
fn a_new_daemon_takes_over_without_one_connection_slipping_past() {
    let world = World::new();
    let stop = AtomicBool::new(false);
    let hammer = "print('on', flush=True)
good = 0; bad = {}
end = time.time() + 4 * PATIENCE
while time.time() < end:
    try:
        s = dial('203.0.113.10'); assert s.recv(1) == b'k'; s.close(); good += 1
    except OSError as error: bad[code(error)] = bad.get(code(error), 0) + 1
print(good, bad)";
    let mut client = world.python(hammer).cgroup(&world.agents).start().unwrap();
    assert_eq!(client.line().unwrap(), "on");
    let (known, unknown, starts) = std::thread::scope(|scope| {
        // Also when an assertion below fails: the scope waits for its threads.
        let _stop = Stop(&stop);
        let server = scope.spawn(|| serve(&world.listeners().v4, &stop));
        let mut starts = 0;
        while client.is_running().unwrap() {
            assert!(world.attached(&world.start_again()).all());
            starts += 1;
        }
        stop.store(true, Ordering::Relaxed);
        let (known, unknown) = server.join().unwrap();
        (known, unknown, starts)
    });
    let said = client.line().unwrap();
    let (good, bad) = said.split_once(' ').unwrap();
    println!("{starts} take-overs, {good} connections");
    assert_eq!((bad, unknown), ("{}", 0));
    assert_eq!(good.parse::<u64>().unwrap(), known);
    assert!(
        known > 100 && starts > 2,
        "{known} connections, {starts} take-overs"
    );
}

#[test]
fn an_older_daemon_sees_that_it_is_no_longer_the_one_in_force() {
    let world = World::new();
    assert!(world.attached(&world.kernel).all());
    let newer = world.start_again();
    assert!(world.attached(&newer).all());
    let older = world.attached(&world.kernel);
    assert_eq!(older.missing().len(), older.programs.len());
}

#[test]
fn detach_removes_every_program_and_map() {
    let world = World::new();
    let bpffs = world.settings.bpffs.clone();
    let programs = 15 + usize::from(world.refuses_families()) + usize::from(world.has(NAMES));
    let report = world.mounts.run(|| Ok(kernel::detach(&bpffs)?)).unwrap();
    assert!(report.links.contains(&"fw_connect4".to_owned()) && report.maps.contains(&"AGENTS".to_owned()));
    assert_eq!((report.links.len(), report.maps.len()), (programs, 18));
    assert!(!exists(&world, &bpffs));
    let attached = world.attached(&world.kernel);
    assert_eq!(attached.missing().len(), programs);
    assert_eq!(
        world.agent("attempt(lambda: dial('203.0.113.10'))"),
        "ENETUNREACH"
    );
    let again = world.mounts.run(|| Ok(kernel::detach(&bpffs)?)).unwrap();
    assert_eq!(
        again,
        kernel::DetachReport::default(),
        "nothing there is not an error"
    );
}

#[test]
fn a_link_that_somebody_unpinned_is_noticed_and_put_back_by_the_next_start() {
    let world = World::new();
    let pin = world.settings.bpffs.join("v2/links/fw_connect4");
    world.mounts.run(|| Ok(std::fs::remove_file(&pin)?)).unwrap();
    let attached = world.attached(&world.kernel);
    assert_eq!(attached.missing(), ["fw_connect4"]);
    let next = world.start_again();
    assert!(world.attached(&next).all());
    world.agent("dial('203.0.113.10')");
    assert!(world.accept().1.is_ok());
}

#[test]
fn the_program_in_front_of_socket_outlives_its_daemon_and_is_put_back_where_somebody_took_it_away() {
    let mut world = World::new();
    if !world.refuses_families() {
        return;
    }
    let packet = "attempt(lambda: socket.socket(17, 3))";
    world.close_listeners();
    assert_eq!(world.agent(packet), "EAFNOSUPPORT");
    let next = world.start_again();
    assert_eq!(world.agent(packet), "EAFNOSUPPORT", "the next daemon's");
    let pin = world.settings.bpffs.join("v2/links/fw_family");
    world.mounts.run(|| Ok(std::fs::remove_file(&pin)?)).unwrap();
    assert_eq!(world.attached(&next).missing(), ["fw_family"]);
    let repaired = world.mounts.run(|| Ok(next.repair())).unwrap();
    assert!(matches!(&repaired[..], [("fw_family", Ok(()))]), "{repaired:?}");
    assert!(world.attached(&next).all());
    assert_eq!(world.agent(packet), "EAFNOSUPPORT");
    world
        .mounts
        .run(|| Ok(kernel::detach(&world.settings.bpffs)?))
        .unwrap();
    assert_eq!(world.agent(packet), "ok", "detach takes it out");
}

#[test]
fn pins_of_another_layout_are_swept_after_the_take_over() {
    let world = World::new();
    let current = world.settings.bpffs.join("v2");
    let v0 = world.settings.bpffs.join("v0");
    world.mounts.run(|| Ok(std::fs::rename(&current, &v0)?)).unwrap();
    let next = world.start_again();
    assert!(exists(&world, &current) && !exists(&world, &v0));
    assert!(world.attached(&next).all());
}

#[test]
fn the_programs_move_to_an_anchor_that_was_made_anew() {
    let world = World::new();
    let elsewhere = world.anchor.child("elsewhere").unwrap();
    let settings = KernelSettings {
        cgroup_root: elsewhere.path().to_owned(),
        ..world.settings.clone()
    };
    let moved = world.mounts.run(|| Ok(Kernel::start(&settings)?)).unwrap();
    assert!(world.attached(&moved).all());
    let agents = elsewhere.child("agents").unwrap();
    moved.govern(agents.id().unwrap(), AGENT).unwrap();
    run(world.python("dial('203.0.113.10')").cgroup(&agents));
    assert!(world.accept().1.is_ok());
}

#[test]
fn only_root_can_open_the_pins() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let mode = world
        .mounts
        .run(|| Ok(std::fs::metadata(&world.settings.bpffs)?.permissions().mode()))
        .unwrap();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_start_in_the_wrong_place_says_what_to_do() {
    let world = World::new();
    let start = |settings: &KernelSettings| Kernel::start(settings).map(drop).unwrap_err().to_string();
    let elsewhere = tempfile::tempdir().unwrap();
    let not_bpf = KernelSettings {
        bpffs: elsewhere.path().join("pins"),
        ..world.settings.clone()
    };
    assert!(
        start(&not_bpf).contains("mount -t bpf bpf"),
        "{}",
        start(&not_bpf)
    );
    let not_cgroup = KernelSettings {
        cgroup_root: elsewhere.path().to_owned(),
        ..world.settings.clone()
    };
    let said = world.mounts.run(|| Ok(start(&not_cgroup))).unwrap();
    assert!(said.contains("not a cgroup of version 2"), "{said}");
}

#[test]
fn a_full_map_refuses_the_next_agent_and_keeps_the_others() {
    let world = World::new();
    let crowd = world.anchor.child("crowd").unwrap();
    let (mut governed, mut refused) = (1, None);
    for number in 0..4200 {
        let one = crowd.path().join(number.to_string());
        std::fs::create_dir(&one).unwrap();
        match world.kernel.govern(cgroup::id_of(&one).unwrap(), AGENT) {
            Ok(()) => governed += 1,
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let refused = refused.expect("a bound");
    assert!(
        matches!(
            refused,
            KernelError::Full {
                map: "AGENTS",
                entries: 4096,
                ..
            }
        ),
        "{refused}"
    );
    assert_eq!(governed, 4096);
    world.agent("dial('203.0.113.10')");
    assert_eq!(world.accept().1.unwrap().agent, AGENT);
}

#[test]
fn a_cgroup_that_is_too_deep_gone_or_the_root_is_not_governed() {
    let world = World::new();
    let deep = world.agents.child(&vec!["d"; 20].join("/")).unwrap();
    assert!(
        world
            .kernel
            .govern(deep.id().unwrap(), AGENT)
            .unwrap_err()
            .to_string()
            .contains("levels deep")
    );
    assert!(
        world
            .kernel
            .govern(1, AGENT)
            .unwrap_err()
            .to_string()
            .contains("whole machine")
    );
    let gone = world.anchor.child("gone").unwrap();
    let id = gone.id().unwrap();
    drop(gone);
    assert!(
        world
            .kernel
            .govern(id, AGENT)
            .unwrap_err()
            .to_string()
            .contains("not there")
    );
    // Too deep to be an agent of its own, and still governed by the one above.
    run(world.python("dial('203.0.113.10')").cgroup(&deep));
    assert_eq!(world.accept().1.unwrap().cgroup_id, deep.id().unwrap());
}
