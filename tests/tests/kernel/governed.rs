//! The governed set follows the cgroup tree.

use std::{collections::HashSet, fs, sync::Arc};

use guard_agent::kernel::{
    Kernel, cgroup,
    governed::{GovernedCgroup, GovernedSet},
};

use crate::world::{NAMES, World, eventually, run};

const CODER: u32 = 21;
const TESTER: u32 = 22;

/// A set over the world's anchor, and a second handle on its kernel.
fn set(world: &World, patterns: &[(u32, &[&str])]) -> (GovernedSet, Arc<Kernel>) {
    let kernel = Arc::new(world.start_again());
    let set = GovernedSet::start(Arc::clone(&kernel), world.anchor.path(), &owned(patterns)).unwrap();
    (set, kernel)
}

fn owned(patterns: &[(u32, &[&str])]) -> Vec<(u32, Vec<String>)> {
    patterns
        .iter()
        .map(|(agent, globs)| (*agent, globs.iter().map(ToString::to_string).collect()))
        .collect()
}

fn governs(kernel: &Kernel, id: u64) -> bool {
    kernel.governed().iter().any(|(governed, _)| *governed == id)
}

#[test]
fn a_cgroup_that_was_there_before_is_governed_at_the_start_and_leftovers_only_go_when_asked() {
    let world = World::new();
    let coder = world.anchor.child("slice/coder").unwrap();
    let (set, kernel) = set(&world, &[(CODER, &["/slice/coder/**"])]);
    let found = set.lookup(coder.id().unwrap()).unwrap();
    assert_eq!((found.agent, found.path.as_str()), (CODER, "/slice/coder"));
    let agents = world.agents.id().unwrap();
    assert!(
        governs(&kernel, agents),
        "no gap for an agent whose source has not spoken yet"
    );
    set.release_leftovers(&HashSet::from([agents]));
    assert!(governs(&kernel, agents));
    set.release_leftovers(&HashSet::new());
    assert_eq!(kernel.governed(), [(coder.id().unwrap(), CODER)]);
}

#[test]
fn a_new_child_is_a_run_of_its_own_and_goes_when_it_is_removed() {
    let world = World::new();
    let coder = world.anchor.child("slice/coder").unwrap();
    let (set, kernel) = set(&world, &[(CODER, &["/slice/coder/**"])]);
    let (one, two) = (coder.child("one").unwrap(), coder.child("two").unwrap());
    let ids = [coder.id().unwrap(), one.id().unwrap(), two.id().unwrap()];
    eventually("the new children are governed", || {
        ids.iter().all(|id| governs(&kernel, *id))
    });
    let found = ids.map(|id| set.lookup(id).unwrap());
    let runs: HashSet<&str> = found.iter().map(|found| found.run.as_str()).collect();
    assert_eq!(runs.len(), 3);
    drop(one);
    eventually("the removed child is let go", || !governs(&kernel, ids[1]));
    assert!(set.lookup(ids[1]).is_none());
    assert_eq!(set.lookup(ids[2]).unwrap(), found[2]);
}

#[test]
fn a_child_that_was_removed_and_made_again_is_a_new_run() {
    let world = World::new();
    let coder = world.anchor.child("slice/coder").unwrap();
    let (set, _kernel) = set(&world, &[(CODER, &["/slice/coder/**"])]);
    let life = |_| {
        let one = coder.child("one").unwrap();
        set.lookup(one.id().unwrap())
            .expect("found although made a moment ago")
            .run
    };
    let runs: HashSet<String> = (0..5).map(life).collect();
    assert_eq!(runs.len(), 5);
}

#[test]
fn a_parent_that_is_made_later_is_followed_too() {
    let world = World::new();
    let (_set, kernel) = set(&world, &[(TESTER, &["/a/*/job@*.service"])]);
    let job = world.anchor.child("a/b/job@7.service").unwrap();
    let other = world.anchor.child("a/b/other.service").unwrap();
    eventually("the unit is governed", || governs(&kernel, job.id().unwrap()));
    assert!(!governs(&kernel, other.id().unwrap()));
}

#[test]
fn a_deep_descendant_belongs_to_the_run_above_it() {
    let world = World::new();
    let coder = world.anchor.child("slice/coder").unwrap();
    let (set, _kernel) = set(&world, &[(CODER, &["/slice/coder/**"])]);
    let deep = coder.child("one/x/y").unwrap();
    run(world.python("dial('203.0.113.10')").cgroup(&deep));
    let flow = world.accept().1.unwrap();
    assert_eq!(flow.agent, CODER);
    let found = set.lookup(flow.cgroup_id).unwrap();
    assert_eq!((found.agent, found.path.as_str()), (CODER, "/slice/coder/one"));
}

#[test]
fn an_adopted_run_keeps_its_id_and_is_removed_when_its_last_process_ends() {
    let world = World::new();
    let (set, kernel) = set(&world, &[]);
    let cgroup = world.anchor.child("guard.slice/coder/01JRUN").unwrap();
    let id = cgroup.id().unwrap();
    set.adopt_run(cgroup.path(), CODER, "01JRUN").unwrap();
    let expected = GovernedCgroup {
        agent: CODER,
        run: "01JRUN".into(),
        path: "/guard.slice/coder/01JRUN".into(),
    };
    assert_eq!(set.lookup(id), Some(expected.clone()));
    let mut process = world
        .python("dial('203.0.113.10'); time.sleep(600)")
        .cgroup(&cgroup)
        .start()
        .unwrap();
    assert_eq!(world.accept().1.unwrap().governed_cgroup_id, id);

    // The next daemon still knows the run.
    drop((set, kernel));
    let (set, kernel) = self::set(&world, &[]);
    assert_eq!(set.lookup(id), Some(expected));
    process.kill();
    eventually("the empty cgroup is removed", || !cgroup.path().exists());
    eventually("and let go", || !governs(&kernel, id));
}

#[test]
fn a_container_keeps_its_run_while_empty_and_is_let_go_when_its_engine_removes_it() {
    let world = World::new();
    let (set, kernel) = set(&world, &[]);
    let container = world.anchor.child("docker/0123abcd").unwrap();
    let id = container.id().unwrap();
    set.adopt_cgroup(container.path(), CODER, "0123abcd").unwrap();
    run(world.python("dial('203.0.113.10')").cgroup(&container));
    assert_eq!(
        set.lookup(world.accept().1.unwrap().cgroup_id).unwrap().run,
        "0123abcd"
    );
    set.set_patterns(&[]).unwrap();
    assert!(container.path().exists() && governs(&kernel, id));
    fs::remove_dir(container.path()).unwrap();
    eventually("the removed container is let go", || !governs(&kernel, id));
}

#[test]
fn a_reload_moves_a_cgroup_to_its_new_agent_and_lets_the_rest_go() {
    let world = World::new();
    let (one, two) = (
        world.anchor.child("s/one").unwrap(),
        world.anchor.child("s/two").unwrap(),
    );
    let (set, kernel) = set(&world, &[(CODER, &["/s/one", "/s/two"])]);
    set.release_leftovers(&HashSet::new());
    let before = set.lookup(one.id().unwrap()).unwrap();
    set.set_patterns(&owned(&[(TESTER, &["/s/one"])])).unwrap();
    assert_eq!(kernel.governed(), [(one.id().unwrap(), TESTER)]);
    let after = set.lookup(one.id().unwrap()).unwrap();
    assert!(after.agent == TESTER && after.run != before.run);
    assert!(set.lookup(two.id().unwrap()).is_none());
    assert!(set.set_patterns(&owned(&[(CODER, &["/**"])])).is_err());
    assert_eq!(kernel.governed().len(), 1, "a bad reload changes nothing");
}

#[test]
fn an_id_leads_to_its_path_until_the_cgroup_is_gone() {
    let world = World::new();
    let id = world.agents.id().unwrap();
    assert_eq!(cgroup::id_of(world.agents.path()).unwrap(), id);
    assert_eq!(
        cgroup::path_of(id, world.anchor.path()).unwrap(),
        world.agents.path()
    );
    let gone = world.anchor.child("gone").unwrap();
    let id = gone.id().unwrap();
    fs::remove_dir(gone.path()).unwrap();
    assert_eq!(
        cgroup::path_of(id, world.anchor.path())
            .unwrap_err()
            .raw_os_error(),
        Some(libc::ESTALE)
    );
}

#[test]
fn a_unit_is_governed_in_whatever_slice_it_starts_and_its_neighbours_are_not() {
    let world = World::new();
    let (set, kernel) = set(
        &world,
        &[(CODER, &["coder@*.service"]), (TESTER, &["agents.slice"])],
    );
    let make = |path: &str| world.anchor.child(path).unwrap();
    let coder = make("system.slice/system-coder.slice/coder@1.service");
    let tester = make("agents.slice/anything.service");
    let others = [
        make("system.slice/sshd.service"),
        make("user.slice/user-1000.slice/user@1000.service/app.slice/coder@1.service"),
        make("elsewhere/coder@1.service"),
    ];
    let ids = [coder.id().unwrap(), tester.id().unwrap()];
    eventually("the units are governed", || {
        ids.iter().all(|id| governs(&kernel, *id))
    });
    let found = set.lookup(coder.id().unwrap()).unwrap();
    assert_eq!(
        (found.agent, found.path.as_str()),
        (CODER, "/system.slice/system-coder.slice/coder@1.service")
    );
    assert_eq!(set.lookup(tester.id().unwrap()).unwrap().agent, TESTER);
    for other in &others {
        assert_eq!(
            set.lookup(other.id().unwrap()),
            None,
            "{}",
            other.path().display()
        );
    }
    // Started again, it is a new life.
    let before = found.run;
    drop(coder);
    let again = make("system.slice/system-coder.slice/coder@1.service");
    eventually("the next life is governed", || {
        governs(&kernel, again.id().unwrap())
    });
    assert_ne!(set.lookup(again.id().unwrap()).unwrap().run, before);
}

#[test]
fn a_unit_is_held_back_from_its_making_until_the_set_has_looked_at_it() {
    let world = World::new();
    if !world.has(NAMES) {
        return;
    }
    let names = ["coder@".to_owned()];
    let unit = |name: &str| world.anchor.child(&format!("system.slice/{name}")).unwrap();
    world.kernel.hold_names(&names).unwrap();
    // The second begins as an agent's does, and is nobody's; the third does not.
    let [coder, other, third] = ["coder@1.service", "coder@x.scope", "sshd.service"].map(unit);
    let mut held = world.kernel.held_by_name();
    held.sort_unstable();
    let mut expected = vec![coder.id().unwrap(), other.id().unwrap()];
    expected.sort_unstable();
    assert_eq!(held, expected);
    let dial = "attempt(lambda: dial('203.0.113.10'))";
    let (set, kernel) = set(&world, &[(CODER, &["coder@*.service"])]);
    eventually("it has looked", || kernel.held_by_name().is_empty());
    assert_eq!(set.lookup(coder.id().unwrap()).unwrap().agent, CODER);
    for stranger in [&other, &third] {
        assert_eq!(set.lookup(stranger.id().unwrap()), None);
        assert_eq!(
            set.is_nobodys(stranger.id().unwrap()),
            stranger.id().unwrap() == other.id().unwrap()
        );
        assert_eq!(run(world.python(dial).cgroup(stranger)), "ENETUNREACH");
    }
    // An escaped name, and one that is made while the set is there: found by either way, never late.
    let escaped = unit("_coder@2.service");
    assert_eq!(run(world.python(dial).cgroup(&escaped)), "ok");
    eventually("the new one is governed", || {
        governs(&kernel, escaped.id().unwrap())
    });
    eventually("nothing is held any more", || kernel.held_by_name().is_empty());
    // Another configuration: nothing is held back, and what is made is nobody's.
    set.set_patterns(&owned(&[(CODER, &["/nowhere"])])).unwrap();
    unit("coder@3.service");
    assert_eq!(kernel.held_by_name(), Vec::<u64>::new());
}

#[test]
fn a_unit_that_cannot_be_governed_stays_held_back() {
    let world = World::new();
    if !world.has(NAMES) {
        return;
    }
    let patterns: &[(u32, &[&str])] = &[(CODER, &["coder@*.service"])];
    let (set, kernel) = set(&world, patterns);
    let crowd = world.anchor.child("crowd").unwrap();
    let mut ids = Vec::new();
    loop {
        let one = crowd.path().join(ids.len().to_string());
        fs::create_dir(&one).unwrap();
        let id = cgroup::id_of(&one).unwrap();
        if kernel.govern(id, TESTER).is_err() {
            break;
        }
        ids.push(id);
    }
    let unit = world.anchor.child("system.slice/coder@1.service").unwrap();
    let id = unit.id().unwrap();
    let dial = "attempt(lambda: dial('203.0.113.10'))";
    for _ in 0..2 {
        set.set_patterns(&owned(patterns)).unwrap();
        assert_eq!(kernel.held_by_name(), [id]);
        assert!(!set.is_nobodys(id));
        assert_eq!(
            run(world.python(dial).cgroup(&unit)),
            "ok",
            "it went to the listener"
        );
    }
    kernel.ungovern(ids[0]).unwrap();
    set.set_patterns(&owned(patterns)).unwrap();
    assert!(governs(&kernel, id));
    assert_eq!(kernel.held_by_name(), Vec::<u64>::new());
}
