//! New containers: held back until somebody says whose they are, without any engine.

use std::{collections::HashMap, net::TcpListener, sync::Arc, thread, time::Duration};

use guard_agent::{
    config,
    identify::{
        Identifier, Unidentified,
        containers::{Containers, Described, Door},
        number,
    },
    identity::Container,
    kernel::{Flow, Kernel, UNIDENTIFIED, governed::GovernedSet},
};
use guard_tests::{cgroup::Cgroup, process::Running};
use tokio::sync::mpsc;

use crate::world::{World, accept, eventually, run};

const ID: &str = "3f2a9c1b77d03f2a9c1b77d03f2a9c1b77d03f2a9c1b77d03f2a9c1b77d0abcd";
const OTHER: &str = "0f2a9c1b77d03f2a9c1b77d03f2a9c1b77d03f2a9c1b77d03f2a9c1b77d0abcd";
const DIAL: &str = "attempt(lambda: dial('203.0.113.10'))";
const CONFIG: &str = r#"
[host]
docker = "unix:///run/engine.sock"
container_cgroups = ["/containers/*", "/system.slice/docker-*.scope"]
[[agent]]
name = "coder"
owner = "platform"
match = [{ container_label = "guard.agent=coder" }]
providers = ["openai"]
"#;

#[test]
fn a_child_of_a_watched_parent_is_held_back_until_it_is_let_pass_or_governed() {
    let mut world = World::new();
    let parent = world.anchor.child("containers").unwrap();
    let (one, two) = (parent.child("one").unwrap(), parent.child("two").unwrap());
    let nested = one.child("deeper").unwrap();
    let dial = |world: &World, cgroup: &Cgroup| run(world.python(DIAL).cgroup(cgroup));
    assert_eq!(dial(&world, &one), "ENETUNREACH", "not watched: direct");
    world.kernel.hold_back(&[parent.id().unwrap()]).unwrap();
    for cgroup in [&one, &nested] {
        // There is a listener, so it may wait there until it is known.
        assert_eq!(dial(&world, cgroup), "ok");
        let flow = world.accept().1.unwrap();
        assert_eq!((flow.agent, flow.governed_cgroup_id), (0, one.id().unwrap()));
    }
    assert_eq!(dial(&world, &world.outside), "ENETUNREACH", "nobody else is");
    assert_eq!(
        dial(&world, &parent),
        "ENETUNREACH",
        "nor the parent's own processes"
    );
    world.kernel.let_pass(one.id().unwrap()).unwrap();
    assert_eq!(dial(&world, &one), "ENETUNREACH");
    assert_eq!(dial(&world, &nested), "ENETUNREACH");
    world.kernel.govern(two.id().unwrap(), 9).unwrap();
    assert_eq!(dial(&world, &two), "ok");
    assert_eq!(world.accept().1.unwrap().agent, 9);
    world.kernel.ungovern(two.id().unwrap()).unwrap();
    world.close_listeners();
    assert_eq!(dial(&world, &two), "ECONNREFUSED", "nobody there to wait at");
    world.kernel.hold_back(&[]).unwrap();
    assert_eq!(dial(&world, &two), "ENETUNREACH");
}

/// Containers over the world, as the daemon has them.
struct Engine {
    world: World,
    kernel: Arc<Kernel>,
    containers: Arc<Containers>,
    identifier: Identifier,
    doors: mpsc::Receiver<Door>,
    parent: Cgroup,
}

impl Engine {
    fn new() -> Self {
        Self::below("containers")
    }

    fn below(parent: &str) -> Self {
        let world = World::new();
        let config = config::parse(CONFIG, "guard.toml").unwrap();
        let parent = world.anchor.child(parent).unwrap();
        let kernel = Arc::new(world.start_again());
        let root = world.anchor.path().to_owned();
        let governed = Arc::new(GovernedSet::start(Arc::clone(&kernel), &root, &[]).unwrap());
        let (keeper, doors) = mpsc::channel(8);
        let containers = Containers::start(
            Arc::clone(&kernel),
            Arc::clone(&governed),
            &root,
            &config.host.container_cgroups,
            &config.agents,
            keeper,
        );
        let containers = Arc::new(containers.unwrap());
        let identifier = Identifier::new(governed, Some(Arc::clone(&containers)), root, &config.agents);
        containers.listed(Vec::new());
        Self {
            world,
            kernel,
            containers,
            identifier,
            doors,
            parent,
        }
    }

    /// A process in a new container that connects when it is told to.
    fn client(&self, id: &str) -> (Cgroup, Running) {
        let cgroup = self.parent.child(id).unwrap();
        let client = self.client_in(&cgroup);
        (cgroup, client)
    }

    fn client_in(&self, cgroup: &Cgroup) -> Running {
        let script = "print('ready', flush=True)\nfor i in range(100):\n    try: dial('203.0.113.10'); break\n    except OSError as e: time.sleep(0.02)\nprint('through', flush=True); time.sleep(60)";
        let mut client = self.world.python(script).cgroup(cgroup).start().unwrap();
        assert_eq!(client.line().unwrap(), "ready");
        client
    }

    fn listener(&mut self) -> TcpListener {
        match self.doors.blocking_recv() {
            Some(Door::Opened { listeners, .. }) => listeners.v4,
            other => panic!("no door was opened: {other:?}"),
        }
    }

    fn identify(&self, flow: &Flow) -> Result<guard_agent::identity::Identity, Unidentified> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let answer =
            async { tokio::time::timeout(Duration::from_secs(1), self.identifier.identify(flow)).await };
        runtime.block_on(answer).unwrap_or(Err(Unidentified::TooSlow))
    }
}

fn described(id: &str, labels: &[(&str, &str)]) -> Described {
    Described {
        about: Container {
            id: id.to_owned(),
            name: "web".to_owned(),
            image: "busybox".to_owned(),
        },
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect::<HashMap<_, _>>(),
        host_network: None,
    }
}

#[test]
fn a_container_that_the_engine_has_not_named_waits_and_is_then_what_its_label_says() {
    for (labels, expected) in [
        (&[("guard.agent", "coder")][..], Ok("coder")),
        (&[], Err(Unidentified::Bystander)),
    ] {
        let mut engine = Engine::new();
        let (_cgroup, _client) = engine.client(ID);
        let listener = engine.listener();
        let flow = accept(&listener).1.unwrap();
        assert_eq!(flow.agent, 0, "it is not known yet");
        let containers = Arc::clone(&engine.containers);
        let labels: Vec<(&'static str, &'static str)> = labels.to_vec();
        let late = thread::spawn(move || {
            thread::sleep(Duration::from_millis(300));
            containers.described(described(ID, &labels));
        });
        let identity = engine.identify(&flow);
        late.join().unwrap();
        match expected {
            Ok(agent) => {
                let identity = identity.unwrap();
                assert_eq!(&*identity.agent, agent);
                assert_eq!(identity.container.unwrap().name, "web");
            }
            Err(error) => assert_eq!(identity.unwrap_err(), error),
        }
    }
}

#[test]
fn a_container_that_is_never_named_is_refused_after_a_second() {
    let mut engine = Engine::new();
    let (_cgroup, _client) = engine.client(ID);
    let listener = engine.listener();
    let flow = accept(&listener).1.unwrap();
    assert_eq!(engine.identify(&flow).unwrap_err(), Unidentified::TooSlow);
}

#[test]
fn what_is_named_before_its_cgroup_exists_is_governed_as_soon_as_that_does() {
    let engine = Engine::new();
    engine
        .containers
        .described(described(ID, &[("guard.agent", "coder")]));
    engine.containers.described(described(OTHER, &[]));
    let (cgroup, other) = (
        engine.parent.child(ID).unwrap(),
        engine.parent.child(OTHER).unwrap(),
    );
    let kernel: &Kernel = &engine.world.kernel;
    let (cgroup, other) = (cgroup.id().unwrap(), other.id().unwrap());
    eventually("it is the agent's", || {
        kernel.governed().contains(&(cgroup, number("coder")))
    });
    eventually("the other passes", || kernel.passing().contains(&other));
}

#[test]
fn the_listener_of_a_container_is_closed_when_its_cgroup_goes() {
    let mut engine = Engine::new();
    engine
        .containers
        .described(described(ID, &[("guard.agent", "coder")]));
    let (cgroup, client) = engine.client(ID);
    let listener = engine.listener();
    let cookie = guard_agent::kernel::netns_cookie(&listener).unwrap();
    assert!(engine.world.kernel.listeners().contains(&cookie));
    drop(client);
    drop(cgroup);
    match engine.doors.blocking_recv() {
        Some(Door::Closed { netns_cookie }) => assert_eq!(netns_cookie, cookie),
        other => panic!("not closed: {other:?}"),
    }
    assert!(!engine.world.kernel.listeners().contains(&cookie));
}

/// As the engine has it with systemd's cgroup driver.
#[test]
fn a_container_beside_units_of_systemd_is_held_back_by_itself_until_it_is_named() {
    for labels in [&[("guard.agent", "coder")][..], &[]] {
        let mut engine = Engine::below("system.slice");
        let scope = format!("docker-{ID}.scope");
        let neighbours = [
            engine.parent.child("ssh.service").unwrap(),
            engine.parent.child("docker-x.scope").unwrap(),
            engine.parent.child("session-1.scope").unwrap(),
        ];
        let cgroup = engine.parent.child(&scope).unwrap();
        let (id, kernel) = (cgroup.id().unwrap(), Arc::clone(&engine.kernel));
        eventually("it is held back", || kernel.agent_of(id) == Some(UNIDENTIFIED));
        for neighbour in &neighbours {
            assert_eq!(kernel.agent_of(neighbour.id().unwrap()), None);
            let said = run(engine.world.python(DIAL).cgroup(neighbour));
            assert_eq!(said, "ENETUNREACH", "a unit goes direct");
        }
        let _client = engine.client_in(&cgroup);
        let listener = engine.listener();
        let flow = accept(&listener).1.unwrap();
        assert_eq!((flow.agent, flow.governed_cgroup_id), (UNIDENTIFIED, id));
        engine.containers.described(described(ID, labels));
        let identity = engine.identify(&flow);
        if labels.is_empty() {
            assert_eq!(identity.unwrap_err(), Unidentified::Bystander);
            eventually("nothing holds it any more", || kernel.agent_of(id).is_none());
        } else {
            assert_eq!(&*identity.unwrap().agent, "coder");
            assert_eq!(kernel.agent_of(id), Some(number("coder")));
        }
    }
}

#[test]
fn a_container_beside_units_that_goes_unnamed_is_forgotten_with_its_cgroup() {
    let engine = Engine::below("system.slice");
    let cgroup = engine.parent.child(&format!("docker-{ID}.scope")).unwrap();
    let (id, kernel) = (cgroup.id().unwrap(), Arc::clone(&engine.kernel));
    eventually("it is held back", || kernel.agent_of(id) == Some(UNIDENTIFIED));
    drop(cgroup);
    eventually("it is forgotten", || kernel.agent_of(id).is_none());
}
