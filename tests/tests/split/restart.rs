//! A restart by the service manager: no connection is refused, and every call ends with an end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guard_agent::money::Pico;
use guard_tests::lab::Lab;
use guard_tests::provider::{Gate, Pace, Reply};

const CALL: &str = "openai --model gpt-5 --max-tokens 1000 --stream --retries 0";
const CHAT: &str = "https://api.openai.com/v1/chat/completions";
const BODY: &str =
    r#"{"model":"gpt-5","stream":true,"max_tokens":1000,"messages":[{"role":"user","content":"Hi"}]}"#;

/// Connections all the time; what became of each is counted.
const HAMMER: &str = "import socket, sys, time
print('on', flush=True)
bad = {}; good = 0
end = time.time() + 30
while time.time() < end:
    s = socket.socket(); s.settimeout(60)
    try: s.connect(('203.0.113.30', 443)); good += 1
    except OSError as e: bad[str(e)] = bad.get(str(e), 0) + 1
    s.close(); time.sleep(0.01)
print(good, bad)";

/// Waits until the daemon has said something this often.
fn said(lab: &Lab, what: &str, times: usize) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while lab.daemon_said().matches(what).count() < times {
        ensure!(
            Instant::now() < deadline,
            "not {times} times {what:?}: {}",
            lab.daemon_said()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[test]
fn a_restart_under_load_refuses_no_connection_and_ends_every_call_with_an_end() -> Result<()> {
    let lab = Lab::builder().start_without_daemon()?;
    lab.start_managed_daemon()?;
    assert_eq!(lab.coder().call(CALL)?["ok"], true);
    let record = lab.calls(1)?.pop().context("no record")?;
    let settled = record["cost_pico_usd"]
        .as_u64()
        .with_context(|| record.to_string())?;

    // One stream that will end while Guard waits for it, and one that never will.
    let (soon, never) = (Gate::closed(), Gate::closed());
    let mut streams = Vec::new();
    for (at, gate) in [&soon, &never].into_iter().enumerate() {
        lab.openai()
            .next(Reply::default().paced(Pace::Stepped(gate.clone())));
        let stream = lab.coder().curl(["-N", "-m", "60", "-d", BODY, CHAT])?;
        streams.push(stream.start()?);
        lab.openai().wait_for(2 + at, Duration::from_secs(30))?;
        gate.let_pass(2);
    }
    for stream in &mut streams {
        while !stream.line()?.starts_with("data: ") {}
    }
    // Connections all the time, each with a whole exchange; none may be refused, whatever is restarted meanwhile.
    let mut client = lab.coder().spawn("python3").args(["-c", HAMMER]).start()?;
    assert_eq!(client.line()?, "on");
    let connections = lab.site().connections();

    lab.restart_managed_daemon()?;
    said(&lab, "stopping: calls in flight may end", 1)?;
    soon.open();
    let never_ends = streams.pop().context("no stream")?;
    let ended = streams
        .pop()
        .context("no stream")?
        .wait(Duration::from_secs(30))?
        .ok()?;
    assert!(
        ended.stdout.ends_with("data: [DONE]\n\n"),
        "its own end: {}",
        ended.stdout
    );
    let cut = never_ends.wait(Duration::from_secs(60))?.ok()?;
    assert!(
        cut.stdout.ends_with("data: [DONE]\n\n"),
        "a final event: {}",
        cut.stdout
    );
    assert!(cut.stdout.contains("guard_stopping"), "{}", cut.stdout);

    // Another keeper serves what waited meanwhile, on the sockets of the first.
    said(&lab, "guard-agent serves", 2)?;
    let again = lab.coder().call(CALL)?;
    assert_eq!(again["ok"], true, "{again}");
    let counted = client.line()?;
    let (good, bad) = counted.split_once(' ').context("no counts")?;
    assert_eq!(bad, "{}", "{counted}");
    assert!(good.parse::<u64>()? > 100, "{counted}");
    assert_eq!(lab.site().connections(), connections, "nothing went past Guard");
    never.open();

    settled_once(&lab, settled)?;
    on_the_same_socket(&lab)
}

/// Three calls that ended by themselves, and one that was cut.
fn settled_once(lab: &Lab, settled: u64) -> Result<()> {
    let records = lab.calls(4)?;
    let cut = records.iter().find(|record| record["reason"] == "stopping");
    let cut = cut.context("nothing says that a call was cut")?;
    assert_eq!(
        cut["cost_pico_usd"], cut["reserved_pico_usd"],
        "charged as reserved: {cut}"
    );
    assert_eq!(
        records
            .iter()
            .filter(|record| record["usage"]["known"] == true)
            .count(),
        3
    );
    let scope = [("scope", "agent"), ("name", "coder")];
    let metrics = lab.metrics()?;
    assert_eq!(
        metrics.usd("guard_budget_settled_usd", &scope)?,
        Pico(3 * settled + cut["cost_pico_usd"].as_u64().context("no cost")?),
        "nothing is lost, and nothing charged twice"
    );
    assert_eq!(metrics.usd("guard_budget_reserved_usd", &scope)?, Pico::ZERO);
    assert_eq!(metrics.count("guard_worker_restarts_total", &[])?, 0);
    Ok(())
}

/// The second keeper listens where the first did.
fn on_the_same_socket(lab: &Lab) -> Result<()> {
    let log = lab.daemon_said();
    assert!(!log.contains("did not settle these calls"), "{log}");
    assert!(log.contains("alive"), "the watchdog hears: {log}");
    let port = |line: &str| {
        line.split("port=")
            .nth(1)
            .map(|rest| rest.split(' ').next().map(str::to_owned))
    };
    let ports: Vec<_> = log
        .lines()
        .filter(|line| line.contains("arrive here"))
        .filter_map(port)
        .collect();
    assert_eq!(ports.len(), 2, "{log}");
    assert_eq!(ports.first(), ports.last(), "the same socket: {log}");
    Ok(())
}
