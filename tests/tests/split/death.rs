//! What the death of either process does to calls, connections and money.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guard_agent::money::Pico;
use guard_tests::lab::{Lab, status};
use guard_tests::provider::{Gate, Pace, Reply};

const CALL: &str = "openai --model gpt-5 --max-tokens 1000 --stream --retries 0";

/// Waits for another worker than this one.
fn next_worker(lab: &Lab, old: u32) -> Result<u32> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match lab.worker() {
            // A busy machine takes a while to get it ready, and one that never served was never restarted.
            Ok(worker) if worker != old && lab.daemon_said().contains(&format!("serves pid={worker} ")) => {
                return Ok(worker);
            }
            _ => ensure!(
                Instant::now() < deadline,
                "no other worker: {}",
                lab.daemon_said()
            ),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_worker_that_is_killed_refuses_no_connection_and_loses_no_money() -> Result<()> {
    let lab = Lab::builder().start()?;
    assert_eq!(lab.coder().call(CALL)?["ok"], true);
    let record = lab.calls(1)?.pop().context("no record")?;
    let number = |name: &str| record[name].as_u64().with_context(|| record.to_string());
    let (settled, each) = (number("cost_pico_usd")?, number("reserved_pico_usd")?);
    let steps = Gate::closed();
    lab.openai()
        .next(Reply::default().paced(Pace::Stepped(steps.clone())));
    let mut stream = lab.coder().sdk(CALL)?.start()?;
    lab.openai().wait_for(2, Duration::from_secs(30))?;
    steps.let_pass(2);
    assert!(stream.line()?.contains("delta"));

    // Connections are opened all the time, each to an ordinary site; none may be refused.
    let hammer = "import socket, time
print('on', flush=True)
bad = {}; good = 0; end = time.time() + 6
while time.time() < end:
    s = socket.socket(); s.settimeout(20)
    try: s.connect(('203.0.113.30', 443)); good += 1
    except OSError as e: bad[str(e)] = bad.get(str(e), 0) + 1
    s.close(); time.sleep(0.01)
print(good, bad)";
    let mut client = lab.coder().spawn("python3").args(["-c", hammer]).start()?;
    assert_eq!(client.line()?, "on");
    let (keeper, mut worker) = (lab.keeper()?, lab.worker()?);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(500));
        lab.kill_one(worker)?;
        worker = next_worker(&lab, worker)?;
    }
    let said = client.line()?;
    let (good, bad) = said.split_once(' ').context("no counts")?;
    assert_eq!(bad, "{}", "{said}");
    assert!(good.parse::<u64>()? > 50, "{said}");
    let ended = stream.wait(Duration::from_secs(30))?.ok()?.json_lines()?;
    assert_eq!(
        ended.last().context("nothing said")?["ok"],
        false,
        "the call in flight is cut"
    );
    steps.open();

    assert_eq!(lab.keeper()?, keeper, "the keeper outlives its workers");
    assert_eq!(lab.coder().call(CALL)?["ok"], true, "and work goes on");
    lab.calls(2)?;
    let metrics = lab.metrics()?;
    assert_eq!(metrics.count("guard_worker_restarts_total", &[])?, 3);
    let scope = [("scope", "agent"), ("name", "coder")];
    assert_eq!(
        metrics.usd("guard_budget_settled_usd", &scope)?,
        Pico(2 * settled + each),
        "what was in flight is charged in full, once"
    );
    assert_eq!(metrics.usd("guard_budget_reserved_usd", &scope)?, Pico::ZERO);
    let audit = lab.audit()?;
    let restarts = audit
        .iter()
        .filter(|record| record["alert"] == "worker.restarted");
    assert_eq!(restarts.count(), 3, "{audit:#?}");
    assert_eq!(lab.guard(["audit", "verify"])?.code(), 0);
    Ok(())
}

#[test]
fn when_the_keeper_is_killed_the_worker_goes_with_it_and_the_governed_are_refused() -> Result<()> {
    let lab = Lab::builder().start()?;
    let (keeper, worker) = (lab.keeper()?, lab.worker()?);
    lab.kill_one(keeper)?;
    let deadline = Instant::now() + Duration::from_secs(5);
    // A zombie is dead, too: nobody may have waited for it yet.
    while status(worker, "State").is_ok_and(|state| !state.starts_with('Z')) {
        ensure!(Instant::now() < deadline, "the worker lives on");
        std::thread::sleep(Duration::from_millis(5));
    }
    let refused = lab
        .coder()
        .spawn("curl")
        .args(["-sS", "-m", "5", "https://api.openai.com/"])
        .run()?;
    assert_eq!(refused.code(), 7, "{}", refused.stderr);
    lab.start_daemon()?;
    assert_eq!(lab.coder().call(CALL)?["ok"], true);
    Ok(())
}

#[test]
fn a_second_keeper_is_told_that_there_is_one() -> Result<()> {
    let lab = Lab::builder().start()?;
    let second = lab.command(["daemon"])?.run()?;
    assert_eq!(second.code(), 1);
    assert!(second.stderr.contains("stop it first"), "{}", second.stderr);
    assert_eq!(lab.coder().call(CALL)?["ok"], true);
    Ok(())
}
