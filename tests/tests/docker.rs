//! Containers of a real Docker engine: who is governed, from the first packet on, and who feels nothing.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guard_tests::docker::{Container, Engine, Packets};
use guard_tests::lab::{Lab, OPENAI_KEY};
use guard_tests::provider::{Gate, Reply, Tokens};
use serde_json::{Value, json};

const GPT: &str = "openai --model gpt-5 --max-tokens 1000";
/// The fake OpenAI.
const PROVIDER: &str = "203.0.113.10";
/// As quickly as a program can: a static one that does nothing else, over and over. `nc` does not bound how long it waits
/// for a peer that is silent once it is connected, so `timeout` does.
const HURRY: &str =
    "i=0; while [ $i -lt 40 ]; do timeout 2 nc -w 1 203.0.113.10 443 </dev/null; i=$((i+1)); done; exit 0";
/// How often the race of a container's first packet is run, unless `GUARD_DOCKER_STARTS` says otherwise.
const STARTS: usize = 20;

fn words(line: &[String]) -> Vec<&str> {
    line.iter().map(String::as_str).collect()
}

/// One SDK call in a container; the last line that it printed.
fn call(engine: &Engine<'_>, lab: &Lab, container: &Container) -> Result<Value> {
    let command = engine.sdk(GPT);
    let done = engine
        .run(lab.coder(), container, &words(&command))?
        .run()?
        .ok()?;
    done.json_lines()?.pop().context("the client said nothing")
}

fn eventually(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !holds()? {
        ensure!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[test]
fn a_labelled_container_on_every_kind_of_network_is_governed_and_named_in_the_audit() -> Result<()> {
    let lab = Lab::builder().containers().start()?;
    let engine = Engine::start(&lab)?;
    lab.openai().require_key(OPENAI_KEY);
    engine.docker(["network", "create", "own"])?.ok()?;
    for (count, network) in ["bridge", "own", "host", "none"].into_iter().enumerate() {
        let name = format!("coder-{network}");
        let container = Container::new(&name).agent("coder").network(network);
        let said = call(&engine, &lab, &container).with_context(|| network.to_owned())?;
        assert_eq!(said["ok"], true, "{network}: {said}");
        let record = lab.calls(count + 1)?.pop().context("no record")?;
        assert_eq!(record["agent"], "coder", "{record}");
        assert_eq!(record["decision"], "allowed", "{record}");
        assert_eq!(record["container"]["name"], name.as_str(), "{record}");
        assert_eq!(record["container"]["image"], "lab:latest", "{record}");
        let id = record["container"]["id"].as_str().context("id")?;
        assert_eq!(id.len(), 64, "{record}");
        let run = record["run"].as_str().context("run")?;
        assert!(run.starts_with(&id[..12]), "one life of the container: {record}");
        assert_eq!(record["cgroup"], format!("/containers/{id}"), "{record}");
    }
    Ok(())
}

#[test]
fn an_unlabelled_container_beside_it_goes_direct_and_is_not_touched() -> Result<()> {
    let lab = Lab::builder().containers().start()?;
    let engine = Engine::start(&lab)?;
    let packets = Packets::to(&lab, PROVIDER)?;
    for network in ["bridge", "host"] {
        let container = Container::new(&format!("by-{network}")).network(network);
        let command = engine.sdk(GPT);
        // The environment of someone outside: the provider's own root alone, so that Guard's leaf would be refused.
        let done = engine
            .run(lab.outside(), &container, &words(&command))?
            .run()?
            .ok()?;
        let said = done.json_lines()?.pop().context("silent")?;
        assert_eq!(said["ok"], true, "{network}: {said}");
    }
    assert!(
        !packets.seen().is_empty(),
        "the capture sees a container's packets"
    );
    assert_eq!(lab.openai().seen().len(), 2, "the provider was called");
    let records = lab.audit()?;
    assert!(
        records.iter().all(|record| record["kind"] != "call"),
        "{records:#?}"
    );
    Ok(())
}

#[test]
fn a_label_that_names_no_agent_is_refused_in_words_and_never_ungoverned() -> Result<()> {
    let lab = Lab::builder().containers().start()?;
    let engine = Engine::start(&lab)?;
    let packets = Packets::to(&lab, PROVIDER)?;
    let said = call(&engine, &lab, &Container::new("stray").agent("nobody"))?;
    assert_eq!(said["ok"], false, "{said}");
    let message = said["message"].as_str().context("message")?;
    assert!(
        message.contains("guard.agent=nobody") && message.contains("stray"),
        "{message}"
    );
    assert_eq!(lab.openai().seen().len(), 0);
    assert_eq!(packets.seen(), Vec::<String>::new());
    let record = lab.calls(1)?.pop().context("no record")?;
    assert_eq!(record["decision"], "refused", "{record}");
    assert_eq!(record["reason"], "unidentified", "{record}");
    assert_eq!(record["container"]["name"], "stray", "{record}");
    assert_eq!(record["agent"], Value::Null, "{record}");
    Ok(())
}

#[test]
fn a_container_whose_first_act_is_to_connect_never_gets_a_packet_out() -> Result<()> {
    let lab = Lab::builder().containers().start()?;
    let engine = Engine::start(&lab)?;
    let packets = Packets::to(&lab, PROVIDER)?;
    let command = ["sh", "-c", HURRY];
    let starts = starts()?;
    for number in 0..starts {
        let network = if number % 5 == 4 { "none" } else { "bridge" };
        let container = Container::new(&format!("first-{number}"))
            .agent("coder")
            .network(network);
        let done = engine.run(lab.coder(), &container, &command)?.run()?;
        assert!(done.success(), "{done:?}");
    }
    assert_eq!(packets.seen(), Vec::<String>::new(), "in {starts} starts");
    // The same containers where Guard only follows them from their start on: the race is real, and would be seen.
    for number in 0..3 {
        let container = Container::new(&format!("late-{number}")).agent("coder");
        let container = container.cgroup_parent(&lab, "elsewhere")?;
        engine.run(lab.coder(), &container, &command)?.run()?;
    }
    assert!(!packets.seen().is_empty());
    Ok(())
}

#[test]
fn an_unlabelled_container_whose_first_act_is_to_connect_is_never_refused() -> Result<()> {
    let lab = Lab::builder().containers().start()?;
    let engine = Engine::start(&lab)?;
    for number in 0..starts()? {
        let network = if number % 5 == 4 { "host" } else { "bridge" };
        let container = Container::new(&format!("by-{number}")).network(network);
        let connect = ["nc", "-w", "10", PROVIDER, "443"];
        let done = engine.run(lab.outside(), &container, &connect)?.run()?;
        assert!(done.success(), "start {number}: {done:?}");
    }
    Ok(())
}

/// Frames to the provider's address, written by hand, from the first moment on: a UDP header is all they carry.
const FRAMES: &str = r#"
import socket, struct, sys, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
if sys.argv[1] == "past-the-queue": s.setsockopt(263, 20, 1)
s.bind(("eth0", 0x800))
own = bytes([172, 30, 0, 77])
to = socket.inet_aton("203.0.113.10")
def header(sum): return struct.pack("!BBHHHBBH4s4s", 69, 0, 28, 1, 0, 64, 17, sum, own, to)
sum = sum(struct.unpack("!10H", header(0)))
frame = b"\xff" * 6 + s.getsockname()[4] + b"\x08\x00" + header(~(sum % 65535) & 65535) + struct.pack("!HHHH", 9, 9, 8, 0)
for _ in range(40):
    s.send(frame)
    time.sleep(0.05)
print("sent")
"#;

/// What came past the host's end of a container's cable.
fn past_the_cable(packets: &Packets) -> Vec<String> {
    let seen = packets.seen().into_iter();
    seen.filter(|line| line.starts_with("docker0 ")).collect()
}

#[test]
fn no_frame_of_a_labelled_containers_packet_socket_comes_past_the_hosts_end_of_its_cable() -> Result<()> {
    let lab = Lab::builder().containers().start()?;
    let engine = Engine::start(&lab)?;
    let packets = Packets::to(&lab, PROVIDER)?;
    let python = lab.python().display().to_string();
    for (neighbours, how) in ["by-the-queue", "past-the-queue"].into_iter().enumerate() {
        // Where the kernel takes the program in front of socket() there is no such socket at all.
        let container = Container::new(&format!("agent-{how}")).agent("coder");
        let done = engine
            .run(lab.coder(), &container, &[&python, "-c", FRAMES, how])?
            .run()?;
        assert!(
            done.stdout.contains("sent") || done.stderr.contains("Address family not supported"),
            "{done:?}"
        );
        let past = past_the_cable(&packets);
        assert_eq!(
            past.len(),
            40 * neighbours,
            "{how}: only neighbours' frames came past: {past:?}"
        );
        let container = Container::new(&format!("neighbour-{how}"));
        let done = engine
            .run(lab.outside(), &container, &[&python, "-c", FRAMES, how])?
            .run()?;
        assert!(done.stdout.contains("sent"), "{done:?}");
    }
    let seen = past_the_cable(&packets);
    assert_eq!(
        seen.len(),
        80,
        "every frame of the neighbours, so an agent's would have been seen: {seen:?}"
    );
    let tried = lab.metrics()?;
    let labels = [("agent", "coder"), ("vector", "family")];
    assert!(tried.count("guard_bypass_attempts_total", &labels)? >= 1);
    Ok(())
}

fn starts() -> Result<usize> {
    Ok(std::env::var("GUARD_DOCKER_STARTS").map_or(Ok(STARTS), |text| text.parse())?)
}

#[test]
fn a_restart_is_a_new_run_and_exec_belongs_to_it() -> Result<()> {
    let lab = Lab::builder().containers().start()?;
    let engine = Engine::start(&lab)?;
    let container = Container::new("again").agent("coder");
    engine.start_container(lab.coder(), &container, &["sleep", "600"])?;
    let command = engine.sdk(GPT);
    let mut exec = vec!["exec", "again"];
    exec.extend(words(&command));
    let said = engine
        .docker(&exec)?
        .ok()?
        .json_lines()?
        .pop()
        .context("silent")?;
    assert_eq!(said["ok"], true, "{said}");
    engine.docker(["restart", "--time", "0", "again"])?.ok()?;
    let said = engine
        .docker(&exec)?
        .ok()?
        .json_lines()?
        .pop()
        .context("silent")?;
    assert_eq!(said["ok"], true, "{said}");
    let calls = lab.calls(2)?;
    assert_eq!(calls[0]["container"], calls[1]["container"]);
    assert_ne!(calls[0]["run"], calls[1]["run"]);
    Ok(())
}

#[test]
fn a_container_with_a_cgroup_parent_of_its_own_is_governed_once_it_runs() -> Result<()> {
    let lab = Lab::builder().containers().start()?;
    let engine = Engine::start(&lab)?;
    let container = Container::new("elsewhere")
        .agent("coder")
        .cgroup_parent(&lab, "elsewhere")?;
    let id = engine.start_container(lab.coder(), &container, &["sleep", "600"])?;
    let cgroup = format!("/elsewhere/{id}");
    eventually("it is followed", || Ok(lab.daemon_said().contains(&cgroup)))?;
    let command = engine.sdk(GPT);
    let mut exec = vec!["exec", "elsewhere"];
    exec.extend(words(&command));
    let mut said = json!(null);
    eventually("it is governed", || {
        said = engine.docker(&exec)?.json_lines()?.pop().unwrap_or_default();
        Ok(said["ok"] == true)
    })
    .with_context(|| said.to_string())?;
    let record = lab.calls(1)?.pop().context("no record")?;
    assert_eq!(record["container"]["name"], "elsewhere", "{record}");
    assert_eq!(record["cgroup"], cgroup, "{record}");
    Ok(())
}

#[test]
fn a_container_that_dies_in_the_middle_of_a_call_leaves_nothing_open() -> Result<()> {
    let lab = Lab::builder().containers().start()?;
    let engine = Engine::start(&lab)?;
    let gate = Gate::closed();
    lab.openai().next(
        Reply::billed(Tokens {
            input: 10,
            output: 10,
            ..Tokens::default()
        })
        .behind(&gate),
    );
    let container = Container::new("doomed").agent("coder");
    let command = engine.sdk(GPT);
    let id = engine.start_container(lab.coder(), &container, &words(&command))?;
    lab.openai().wait_for(1, Duration::from_secs(30))?;
    // A device goes with its namespace, and takes its other end with it.
    let process = first_process(&engine.cgroup_of(&id))?;
    lab.host().ip(&format!(
        "link add probe0 type veth peer name probe1 netns {process}"
    ))?;
    lab.host().ip("link show probe0")?;
    engine.docker(["kill", "doomed"])?.ok()?;
    // The provider bills a reply that nobody reads any more, so Guard reads it to its end.
    gate.open();
    eventually("the reservation is settled", || {
        let reserved = lab
            .metrics()?
            .usd("guard_budget_reserved_usd", &[("name", "coder")])?;
        Ok(reserved.0 == 0)
    })?;
    eventually("the namespace is gone", || {
        Ok(lab.host().ip("link show probe0").is_err())
    })?;
    let record = lab.calls(1)?.pop().context("no record")?;
    assert_eq!(record["container"]["name"], "doomed", "{record}");
    Ok(())
}

#[test]
fn a_restart_of_guard_or_of_the_engine_lets_nothing_out() -> Result<()> {
    let lab = Lab::builder().containers().start()?;
    let mut engine = Engine::start(&lab)?;
    let packets = Packets::to(&lab, PROVIDER)?;
    let container = Container::new("steady").agent("coder");
    engine.start_container(lab.coder(), &container, &["sleep", "600"])?;
    let command = engine.sdk(GPT);
    let mut exec = vec!["exec", "steady"];
    exec.extend(words(&command));
    let said = engine
        .docker(&exec)?
        .ok()?
        .json_lines()?
        .pop()
        .context("silent")?;
    assert_eq!(said["ok"], true, "{said}");
    lab.kill_daemon()?;
    // Unknown while Guard is down: `unknown_when_down` refuses it, label or not.
    let born = Container::new("born-meanwhile");
    let done = engine
        .run(lab.outside(), &born, &["nc", "-w", "1", PROVIDER, "443"])?
        .run()?;
    assert!(!done.success());
    lab.start_daemon()?;
    let mut said = json!(null);
    eventually("calls pass again", || {
        said = engine.docker(&exec)?.json_lines()?.pop().unwrap_or_default();
        Ok(said["ok"] == true)
    })
    .with_context(|| said.to_string())?;
    engine.stop_engine()?;
    engine.start_engine()?;
    let late = Container::new("after").agent("coder");
    let said = call(&engine, &lab, &late)?;
    assert_eq!(said["ok"], true, "{said}");
    assert_eq!(packets.seen(), Vec::<String>::new());
    let calls = lab.calls(3)?;
    assert_eq!(
        calls[0]["run"], calls[1]["run"],
        "Guard's restart is no new life of the container"
    );
    Ok(())
}

#[test]
fn a_name_that_only_the_engines_own_resolver_knows_is_answered_through_guard() -> Result<()> {
    let lab = Lab::builder().containers().start()?;
    let engine = Engine::start(&lab)?;
    engine.docker(["network", "create", "own"])?.ok()?;
    let peer = Container::new("peer").network("own");
    engine.start_container(lab.outside(), &peer, &["sleep", "600"])?;
    let format = "{{.NetworkSettings.Networks.own.IPAddress}}";
    let address = engine
        .docker(["inspect", "--format", format, "peer"])?
        .ok()?
        .stdout;
    let asker = Container::new("asker").agent("coder").network("own");
    let done = engine
        .run(lab.coder(), &asker, &["busybox", "nslookup", "peer"])?
        .run()?
        .ok()?;
    let said = &done.stdout;
    assert!(
        said.contains("127.0.0.11") && said.contains(address.trim()),
        "{done:?}"
    );
    let metrics = lab.metrics()?;
    let labels = [("agent", "coder"), ("outcome", "answered")];
    assert!(metrics.count("guard_dns_queries_total", &labels)? >= 1);
    Ok(())
}

fn first_process(cgroup: &Path) -> Result<u32> {
    let processes = fs::read_to_string(cgroup.join("cgroup.procs"))?;
    Ok(processes.lines().next().context("no process")?.parse()?)
}
