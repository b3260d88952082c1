//! What the kernel is asked for, and what is said where it refuses.

use std::{
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
    time::Duration,
};

use guard_agent::kernel::probe::{self, Answer};
use guard_tests::{
    lab::Lab,
    process::{Done, Spawn, copy_program},
};

use nix::mount::{MsFlags, mount};

use crate::world::{FAMILY, NAMES, World};

/// The daemon's own command, in the world's mount namespace (its bpffs is there).
fn doctor(world: &World, program: &Path, spawn: impl FnOnce(Spawn) -> Spawn) -> Done {
    let config = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        "[host]\ncgroup_root = {:?}\nbpffs = {:?}\n",
        world.settings.cgroup_root, world.settings.bpffs
    );
    std::fs::write(config.path(), text).unwrap();
    let command = Spawn::new(program)
        .arg("--config")
        .arg(config.path())
        .args(["doctor", "--json"])
        .mounts(&world.mounts);
    spawn(command).run().unwrap()
}

#[test]
fn everything_that_guard_needs_is_there_and_asking_leaves_nothing() {
    let world = World::new();
    let before = world.attached(&world.kernel);
    let settings = &world.settings;
    let findings = world
        .mounts
        .run(|| Ok(probe::probe(&settings.cgroup_root, &settings.bpffs)))
        .unwrap();
    for finding in findings.iter().filter(|finding| finding.required) {
        assert!(finding.present(), "{finding:?}");
    }
    assert!(findings.len() > 10, "{findings:?}");
    let own = findings
        .iter()
        .find(|finding| finding.feature == "Guard's own programs")
        .unwrap();
    let rehearsed = &own.fix;
    let required = before
        .programs
        .iter()
        .filter(|(name, _)| ![FAMILY, NAMES].contains(name));
    // The one on veth devices is not attached before somebody asks for it.
    let all = format!("{} programs", required.count() + 1);
    assert!(rehearsed.starts_with(&all), "not just some: {rehearsed}");
    assert_eq!(world.attached(&world.kernel), before);
    assert!(before.all());
    let family = findings.iter().find(|finding| !finding.required).unwrap();
    assert_eq!(family.present(), world.refuses_families(), "{family:?}");
}

#[test]
fn the_command_says_what_the_library_found() {
    let world = World::new();
    let done = doctor(&world, &Lab::program().unwrap(), |command| command)
        .ok()
        .unwrap();
    let said: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(said["kernel"]["release"], probe::release());
    assert_eq!(said["kernel"]["can_enforce"], true, "{said}");
}

#[test]
fn a_service_that_looks_names_up_for_an_agent_is_reported() {
    const SOCKET: &str = "/run/avahi-daemon/socket";
    let world = World::new();
    let lookups = || {
        let done = doctor(&world, &Lab::program().unwrap(), |command| command)
            .ok()
            .unwrap();
        let said: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
        let sockets = said["lookups"].as_array().unwrap().iter();
        sockets
            .filter(|one| one["socket"] == SOCKET)
            .cloned()
            .collect::<Vec<_>>()
    };
    // A directory of this mount namespace's own, so that what the machine runs does not count.
    let empty = || {
        Ok(mount(
            Some("tmpfs"),
            "/run",
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )?)
    };
    world.mounts.run(empty).unwrap();
    assert_eq!(lookups(), Vec::<serde_json::Value>::new());
    let service = world
        .mounts
        .run(|| {
            std::fs::create_dir("/run/avahi-daemon")?;
            Ok(UnixListener::bind(SOCKET)?)
        })
        .unwrap();
    // No hook of a program sees this, which is why it is said.
    let ask =
        format!("s = socket.socket(socket.AF_UNIX); s.connect({SOCKET:?}); s.send(b'who'); print(s.recv(9))");
    let client = world
        .python(&ask)
        .mounts(&world.mounts)
        .cgroup(&world.agents)
        .start()
        .unwrap();
    let (mut asked, mut question) = (service.accept().unwrap().0, [0; 3]);
    asked.read_exact(&mut question).unwrap();
    assert_eq!(&question, b"who");
    asked.write_all(b"answer").unwrap();
    client.wait(Duration::from_secs(20)).unwrap().ok().unwrap();
    let found = lookups();
    assert_eq!(
        (found.len(), &found[0]["service"]),
        (1, &"avahi".into()),
        "{found:?}"
    );
}

#[test]
fn whoever_may_not_load_programs_is_told_so() {
    let world = World::new();
    // Where nobody else may go, that user could not even start the program.
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("guard-agent");
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    copy_program(&Lab::program().unwrap(), &program).unwrap();
    let done = doctor(&world, &program, |command| command.user(65_534));
    assert_eq!(done.code(), 1, "{done:?}");
    let said: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    let first = &said["kernel"]["findings"][0];
    assert_eq!(first["feature"], "permission to load programs", "{said}");
    assert_eq!(first["present"], false);
    assert!(first["detail"].as_str().unwrap().contains("CAP_BPF"), "{said}");
}

#[test]
fn a_place_that_is_no_cgroup_and_no_bpffs_is_found() {
    let findings = probe::probe(Path::new("/proc"), Path::new("/proc/guard"));
    let absent: Vec<&str> = findings
        .iter()
        .filter(|finding| finding.required && finding.answer == Answer::Absent)
        .map(|finding| finding.feature)
        .collect();
    assert_eq!(
        absent,
        [
            "cgroup hierarchy of version 2, opened by id",
            "bpf file system for the pins"
        ]
    );
}
