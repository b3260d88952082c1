//! The classical ways in which an agent's bill multiplies, replayed by an agent's loop around the vendors' own SDKs: each is
//! stopped at the configured point, named in an alert and a finding, and its waste counted. A long session that gets on is
//! not stopped, and not even warned of.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result};
use guard_agent::money::Pico;
use guard_tests::clients;
use guard_tests::lab::Lab;
use guard_tests::provider::{Fault, Gate, Pace, Reply, Tokens};
use serde_json::Value;

/// 1,000 tokens at $1.25 and 100 at $10 per million.
const GPT_COST: u64 = 2_250_000_000;
/// 1,000 tokens at $1 and 100 at $5 per million.
const HAIKU_COST: u64 = 1_500_000_000;

/// An agent that may do what agents usually do, with these further lines.
fn lab(lines: &str) -> Result<Lab> {
    let usual = "providers = [\"openai\", \"anthropic\"]\nbudget = [{ window = \"day\", usd = 100.0 }]";
    Lab::builder().coder(&format!("{usual}\n{lines}")).start()
}

/// What the agent's loop printed, one object for each request.
fn agent(lab: &Lab, arguments: &str) -> Result<Vec<Value>> {
    let spawn = lab.coder().python("agent.py", arguments)?;
    spawn.patience(Duration::from_secs(120)).run()?.ok()?.json_lines()
}

fn refused(said: &[Value]) -> Vec<&Value> {
    said.iter().filter(|said| said["ok"] == false).collect()
}

/// The messages of the alerts of this name, as soon as there are some.
fn alerts(lab: &Lab, name: &str) -> Result<Vec<String>> {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        let mut records = lab.audit()?;
        records.retain(|record| record["kind"] == "alert" && record["alert"] == name);
        if !records.is_empty() || std::time::Instant::now() > deadline {
            return Ok(records
                .iter()
                .filter_map(|record| record["message"].as_str())
                .map(str::to_owned)
                .collect());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn wasted(lab: &Lab, cause: &str) -> Result<Pico> {
    lab.metrics()?
        .usd("guard_wasted_usd_total", &[("agent", "coder"), ("cause", cause)])
}

fn findings(lab: &Lab, kind: &str) -> Result<u64> {
    lab.metrics()?
        .count("guard_findings_total", &[("agent", "coder"), ("kind", kind)])
}

#[test]
fn a_retry_loop_under_an_outage_ends_at_the_configured_attempt() -> Result<()> {
    let lab = lab("retries = { per_body = 5 }\nloops = { failures = \"off\" }")?;
    // Breaks in the middle and is billed all the same: the SDK tries three times, and the program around it ten times.
    lab.openai().always(Reply::faulty(Fault::CutAfter(1)));
    let said = agent(&lab, "openai --stubborn 9 --turns 10")?;
    assert_eq!(said.len(), 10, "{said:#?}");
    assert_eq!(lab.openai().seen().len(), 6, "the first attempt and five retries");
    let last = said.last().context("nothing was said")?;
    assert_eq!(
        (&last["status"], &last["code"]),
        (&400.into(), &"guard_retry_body".into()),
        "{last}"
    );
    let calls = lab.calls(14)?;
    // Eight of the ten were refused, each in one attempt.
    let turned_away = calls.iter().filter(|call| call["reason"] == "retry_body").count();
    assert_eq!((calls.len(), turned_away), (14, 8));
    let said = alerts(&lab, "retries")?;
    assert_eq!(said.len(), 1, "{said:#?}");
    assert!(said[0].contains("failed 6 times"), "{said:#?}");
    // What the provider did not report is charged as reserved: one attempt failed, five were retries.
    let reserved = calls[0]["reserved_pico_usd"].as_u64().context("reserved")?;
    assert_eq!(wasted(&lab, "failed")?, Pico(reserved));
    assert_eq!(wasted(&lab, "retried")?, Pico(5 * reserved));
    let retries = lab
        .metrics()?
        .count("guard_client_retries_total", &[("agent", "coder")])?;
    assert_eq!(retries, 13, "all but the first");
    Ok(())
}

#[test]
fn calls_to_a_provider_that_is_down_are_stopped_whatever_their_bodies() -> Result<()> {
    let lab = lab("loops = { failures = 8 }")?;
    lab.openai().always(Reply::faulty(Fault::Status(503)));
    for prompt in 0..6 {
        lab.coder().call(&format!(
            "openai --model gpt-5 --max-tokens 100 --prompt p{prompt}"
        ))?;
    }
    // Three attempts for each prompt, and the ninth is refused.
    assert_eq!(lab.openai().seen().len(), 8);
    assert!(findings(&lab, "loop_failures")? >= 4);
    let said = alerts(&lab, "loop")?;
    assert!(
        said.iter().any(|said| said.contains("loops.failures")),
        "{said:#?}"
    );
    let said = lab
        .coder()
        .call("anthropic --model claude-haiku-4-5 --max-tokens 100")?;
    assert_eq!(said["ok"], true, "another provider is not down: {said}");
    Ok(())
}

#[test]
fn a_flaky_tool_that_is_called_over_and_over_is_stopped_and_the_user_is_heard() -> Result<()> {
    let lab = lab("")?;
    lab.anthropic()
        .always(Reply::default().calling("fetch", "{\"url\": \"https://flaky.example\"}"));
    let said = agent(&lab, "anthropic --turns 30 --stubborn 2 --then-say Stop.")?;
    // Ten calls are made; with ten of them in it, the eleventh request is refused, and so is each that insists.
    let no = refused(&said);
    assert_eq!((said.len(), no.len()), (14, 3), "{said:#?}");
    assert_eq!(no[0]["status"], 400);
    assert_eq!(no[0]["code"], "guard_loop");
    let message = no[0]["message"].to_string();
    assert!(
        message.contains("fetch") && message.contains("10 times"),
        "{message}"
    );
    assert_eq!(said[13]["ok"], true, "a new message of the user gets through");
    assert_eq!(lab.anthropic().seen().len(), 11);
    let calls = lab.calls(14)?;
    let id = calls[10]["id"].as_str().context("id")?;
    let explained = lab.guard(["explain", id])?.stdout;
    for part in ["rule `loop`", "10 times", "[[agent]] \"coder\""] {
        assert!(explained.contains(part), "{part}: {explained}");
    }
    assert!(
        alerts(&lab, "loop")?
            .iter()
            .any(|said| said.contains("loops.repeat"))
    );
    // From the fifth result on each call is one too many: requests six to ten.
    assert_eq!(wasted(&lab, "looping")?, Pico(5 * HAIKU_COST));
    Ok(())
}

#[test]
fn in_every_format_a_tool_that_is_called_over_and_over_is_stopped_and_the_user_is_heard() -> Result<()> {
    let prices = clients::script("prices.toml").display().to_string();
    let lines = "providers = [\"openai\", \"gemini\", \"bedrock\", \"cohere\", \"ollama\"]
models = [\"gpt-*\", \"gemini-*\", \"*claude-*\", \"command-*\"]
budget = [{ window = \"day\", usd = 100.0 }]";
    let lab = Lab::builder()
        .further(&format!("\n[prices]\noverlay = {prices:?}\n"))
        .coder(lines)
        .start()?;
    let formats = [
        ("responses", lab.openai()),
        ("gemini", lab.gemini()),
        ("converse", lab.bedrock()),
        ("cohere", lab.cohere()),
        ("ollama", lab.ollama()),
    ];
    for (format, provider) in formats {
        provider.always(Reply::default().calling("fetch", "{\"url\": \"https://flaky.example\"}"));
        let python = lab.coder().client(clients::formats()?)?;
        let agent = python.arg(clients::script("agent.py"));
        let done = agent.args([format, "--turns", "30", "--then-say", "Stop."]);
        let said = done
            .patience(Duration::from_secs(120))
            .run()?
            .ok()?
            .json_lines()?;
        let no = refused(&said);
        assert_eq!((said.len(), no.len()), (12, 1), "{format}: {said:#?}");
        let message = no[0].to_string();
        for part in ["loops.repeat", "fetch", "10 times"] {
            assert!(message.contains(part), "{format}: {message}");
        }
        assert_eq!(
            said[11]["ok"], true,
            "{format}: a new message of the user gets through"
        );
        assert_eq!(provider.seen().len(), 11, "{format}");
    }
    assert!(!alerts(&lab, "loop")?.is_empty());
    Ok(())
}

#[test]
fn two_tools_in_alternation_are_stopped() -> Result<()> {
    let lab = lab("loops = { alternate = 4 }")?;
    for round in 0..20 {
        let (tool, query) = if round % 2 == 0 {
            ("search", "a")
        } else {
            ("find", "b")
        };
        lab.openai()
            .next(Reply::default().calling(tool, &format!("{{\"q\": \"{query}\"}}")));
    }
    let said = agent(&lab, "openai --turns 30")?;
    assert_eq!(refused(&said).len(), 1, "{said:#?}");
    assert_eq!(lab.openai().seen().len(), 8, "four rounds of two");
    assert!(
        alerts(&lab, "loop")?
            .iter()
            .any(|said| said.contains("loops.alternate"))
    );
    // With two rounds in it a request is warned of: those with four to seven calls.
    assert_eq!(wasted(&lab, "looping")?, Pico(4 * GPT_COST));
    Ok(())
}

#[test]
fn a_context_that_grows_by_three_thousand_tokens_a_turn_is_stopped() -> Result<()> {
    let lab = lab("loops = { growth = 2500, growth_turns = 10 }")?;
    for turn in 0..30_u64 {
        let reply = Reply::billed(Tokens::new(5_000 + turn * 3_000, 100));
        lab.openai()
            .next(reply.calling("read", &format!("{{\"path\": \"{turn}.rs\"}}")));
    }
    let said = agent(&lab, "openai --turns 40")?;
    assert_eq!(lab.openai().seen().len(), 10, "{said:#?}");
    let no = refused(&said);
    assert!(
        no[0]["message"].to_string().contains("about 3000 tokens"),
        "{no:#?}"
    );
    let metrics = lab.metrics()?;
    assert_eq!(
        metrics.count("guard_context_tokens_per_turn", &[("agent", "coder")])?,
        3_000
    );
    assert_eq!(metrics.count("guard_loop_score", &[("agent", "coder")])?, 120);
    assert!(
        alerts(&lab, "loop")?
            .iter()
            .any(|said| said.contains("loops.growth"))
    );
    Ok(())
}

#[test]
fn sub_agents_in_parallel_are_held_to_their_number() -> Result<()> {
    let lab = lab("loops = { parallel = 8 }")?;
    let gate = Gate::closed();
    lab.openai().always(Reply::default().behind(&gate));
    let agents = lab
        .coder()
        .sdk("openai --model gpt-5 --max-tokens 100 --parallel 12")?
        .start()?;
    lab.openai().wait_for(7, Duration::from_secs(30))?;
    // The others have their answer before the first seven have theirs.
    lab.calls(5)?;
    gate.open();
    let said = agents.wait(Duration::from_secs(60))?.ok()?.json_lines()?;
    let codes: Vec<&Value> = refused(&said).into_iter().map(|said| &said["code"]).collect();
    assert_eq!(codes, ["guard_loop"; 5], "{said:#?}");
    assert_eq!(lab.openai().seen().len(), 7);
    assert!(
        alerts(&lab, "loop")?
            .iter()
            .any(|said| said.contains("loops.parallel"))
    );
    Ok(())
}

#[test]
fn failing_over_to_another_provider_evades_neither_a_loop_nor_a_budget() -> Result<()> {
    let lab = lab("")?;
    lab.openai()
        .always(Reply::default().calling("search", "{\"q\": \"x\"}"));
    let said = agent(&lab, "openai --turns 30 --fail-over")?;
    let no = refused(&said);
    let by: Vec<(&Value, &Value)> = no.iter().map(|no| (&no["provider"], &no["code"])).collect();
    let (openai, anthropic) = (Value::from("openai"), Value::from("anthropic"));
    let code = Value::from("guard_loop");
    assert_eq!(by, [(&openai, &code), (&anthropic, &code)], "{said:#?}");
    assert!(lab.anthropic().seen().is_empty());
    drop(lab);

    let lab = Lab::builder()
        .coder("providers = [\"openai\", \"anthropic\"]\nbudget = [{ window = \"day\", usd = 0.015 }]")
        .start()?;
    lab.openai()
        .always(Reply::billed(Tokens::new(10_000, 100)).calling("read", "{\"path\": \"x\"}"));
    let said = agent(&lab, "openai --turns 30 --fail-over")?;
    let no = refused(&said);
    assert_eq!(no.len(), 2, "{said:#?}");
    assert!(lab.anthropic().seen().is_empty(), "one budget over all providers");
    Ok(())
}

#[test]
fn a_long_session_that_gets_on_is_neither_stopped_nor_warned_of() -> Result<()> {
    let lab = lab(
        "retries = { per_body = 5 }\nloops = { growth = 2500, growth_turns = 10, alternate = 4, parallel = 8, failures = 8 }",
    )?;
    // Reads, edits, tests after each edit, searches with other words, a build that is waited for, a file read again.
    let step = |turn: u64| -> (&'static str, String) {
        let file = turn * 7 % 5;
        match turn % 10 {
            0 | 4 => ("read", format!("{{\"path\": \"src/{file}.rs\"}}")),
            1 | 5 | 8 => (
                "edit",
                format!(
                    "{{\"path\": \"src/{file}.rs\", \"old\": \"line {turn}\", \"new\": \"word{}\"}}",
                    turn * turn
                ),
            ),
            2 | 6 | 9 => ("test", "{\"all\": true}".to_owned()),
            3 => (
                "search",
                format!(
                    "{{\"q\": \"{}\"}}",
                    ["parse", "lock", "drain", "book"][turn as usize / 10 % 4]
                ),
            ),
            _ => ("check_build", "{\"id\": 1}".to_owned()),
        }
    };
    for turn in 0..60_u64 {
        let (tool, arguments) = step(turn);
        let size = 8_000 + turn * 700 + turn * turn % 13 * 90;
        lab.openai()
            .next(Reply::billed(Tokens::new(size, 200)).calling(tool, &arguments));
        lab.anthropic()
            .next(Reply::billed(Tokens::new(size, 200)).calling(tool, &arguments));
    }
    for provider in ["openai", "anthropic"] {
        let said = agent(&lab, &format!("{provider} --turns 70"))?;
        assert_eq!(said.len(), 61, "{said:#?}");
        assert!(refused(&said).is_empty(), "{said:#?}");
    }
    let metrics = lab.metrics()?;
    for name in [
        "guard_refusals_total",
        "guard_wasted_usd_total",
        "guard_client_retries_total",
    ] {
        assert!(metrics.lines(name).is_empty(), "{:#?}", metrics.lines(name));
    }
    // The provider's numbers are made up: that they do not fit the size of the requests is found, and nothing else.
    let mut found = metrics.lines("guard_findings_total");
    found.retain(|line| !line.contains("cost_above_reservation"));
    assert!(found.is_empty(), "{found:#?}");
    let score = metrics.count("guard_loop_score", &[("agent", "coder")])?;
    assert!(score < 100, "{score}");
    Ok(())
}

#[test]
fn what_is_frozen_stays_so_over_a_restart_and_outcomes_give_the_cost_of_a_success() -> Result<()> {
    let lab = lab("")?;
    let call = "openai --model gpt-5 --max-tokens 100";
    assert_eq!(lab.coder().call(call)?["ok"], true);
    let run = lab.calls(1)?[0]["run"].as_str().context("run")?.to_owned();
    lab.guard(["outcome", &run, "success"])?;
    let cost = lab
        .metrics()?
        .usd("guard_cost_per_success_usd", &[("agent", "coder")])?;
    assert_eq!(cost, Pico(GPT_COST));

    lab.guard(["freeze", "coder", "--why", "spends without getting on"])?;
    lab.stop_daemon()?;
    lab.start_daemon()?;
    let said = lab.coder().call(call)?;
    assert_eq!(said["code"], "guard_frozen", "{said}");
    assert!(
        said["message"].to_string().contains("spends without getting on"),
        "{said}"
    );
    assert_eq!(
        lab.openai().seen().len(),
        1,
        "one attempt, and not at the provider"
    );
    assert_eq!(lab.other().call(call)?["ok"], true, "others are not frozen");
    lab.guard(["unfreeze", "coder"])?;
    assert_eq!(lab.coder().call(call)?["ok"], true);
    let cost = lab
        .metrics()?
        .usd("guard_cost_per_success_usd", &[("agent", "coder")])?;
    assert_eq!(cost, Pico(GPT_COST), "kept over the restart");
    let done: Vec<String> = lab
        .audit()?
        .iter()
        .filter(|record| record["kind"] == "admin")
        .filter_map(|record| record["action"].as_str().map(str::to_owned))
        .filter(|action| ["freeze", "unfreeze", "outcome"].contains(&action.as_str()))
        .collect();
    assert_eq!(done, ["outcome", "freeze", "unfreeze"]);
    Ok(())
}

#[test]
fn a_run_that_has_lasted_too_long_ends_its_streams_with_a_readable_event_and_begins_no_more() -> Result<()> {
    let lab = lab("caps = { run_timeout = \"12s\" }")?;
    for (provider, arguments) in [
        (
            "openai",
            "openai --model gpt-5 --max-tokens 100 --stream --retries 0",
        ),
        (
            "anthropic",
            "anthropic --model claude-haiku-4-5 --max-tokens 100 --stream --retries 0",
        ),
    ] {
        for fake in [lab.openai(), lab.anthropic()] {
            let mut reply = Reply::default().paced(Pace::Every(Duration::from_millis(500)));
            reply.words = vec![" word".to_owned(); 60];
            fake.always(reply);
        }
        // Each a run of its own, which begins now.
        let script = clients::script("llm.py");
        let mut command: Vec<OsString> = ["run", "--agent", "coder", "--"].map(Into::into).to_vec();
        command.push(lab.python().as_os_str().to_owned());
        command.push(script.into_os_string());
        command.extend(arguments.split(' ').map(Into::into));
        command.extend(["--calls".into(), "2".into()]);
        let run = lab.command(command)?.patience(Duration::from_secs(60));
        let said = run.run()?.ok()?.json_lines()?;
        let outcomes: Vec<&Value> = said.iter().filter(|said| said.get("ok").is_some()).collect();
        assert_eq!(outcomes.len(), 2, "{said:#?}");
        assert!(said.len() > 3, "words came before the cut: {said:#?}");
        let cut = outcomes[0];
        assert_eq!(cut["ok"], false, "{provider}: {cut}");
        assert!(cut["message"].to_string().contains("began"), "{provider}: {cut}");
        assert!(
            cut["seconds"].as_f64().is_some_and(|seconds| seconds < 14.0),
            "{cut}"
        );
        let next = outcomes[1];
        assert_eq!(next["status"], 400, "{provider}: {next}");
        assert!(
            next["message"].to_string().contains("caps.run_timeout"),
            "{provider}: {next}"
        );
    }
    let calls = lab.calls(4)?;
    let reasons: Vec<(&Value, &Value)> = calls
        .iter()
        .map(|call| (&call["decision"], &call["reason"]))
        .collect();
    let (allowed, refused, reason) = ("allowed".into(), "refused".into(), "run_timeout".into());
    let each = [(&allowed, &reason), (&refused, &reason)];
    assert_eq!(reasons, [each[0], each[1], each[0], each[1]]);
    for provider in ["openai", "anthropic"] {
        let cut = [("agent", "coder"), ("outcome", "cut"), ("provider", provider)];
        assert_eq!(lab.metrics()?.count("guard_calls_total", &cut)?, 1);
    }
    Ok(())
}

/// Takes alerts on port 9400 of the lab's host, and gives each as it comes.
fn receiver(lab: &Lab) -> Result<mpsc::Receiver<Value>> {
    let listener = lab.host().run(|| Ok(TcpListener::bind("127.0.0.1:9400")?))?;
    let (sender, receiver) = mpsc::sync_channel(16);
    // Ends with the test's process: nothing waits for it.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let took = stream.map_err(anyhow::Error::from).and_then(take);
            if took.is_ok_and(|alert| sender.send(alert).is_err()) {
                return;
            }
        }
    });
    Ok(receiver)
}

fn take(mut stream: TcpStream) -> Result<Value> {
    let (mut text, mut chunk) = (Vec::new(), [0; 4096]);
    while !text.ends_with(b"}") {
        let count = stream.read(&mut chunk)?;
        anyhow::ensure!(count > 0, "cut short");
        text.extend_from_slice(chunk.get(..count).unwrap_or_default());
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
    let text = String::from_utf8(text)?;
    let (_, body) = text.split_once("\r\n\r\n").context("no body")?;
    Ok(serde_json::from_str(body)?)
}

#[test]
fn an_alert_reaches_a_web_server_once() -> Result<()> {
    let lab = Lab::builder()
        .further(
            "[[alert]]\nwhen = [\"loop\", \"finding\"]\nto = \"webhook:http://127.0.0.1:9400/guard\"\n\
             [[alert]]\nwhen = [\"budget.*\"]\nto = \"slack:http://127.0.0.1:9400/slack\"\n",
        )
        .coder("providers = [\"openai\"]\nbudget = [{ window = \"day\", usd = 0.1, soft = 0.1 }]")
        .start_without_daemon()?;
    let alerts = receiver(&lab)?;
    lab.start_daemon()?;
    lab.openai()
        .always(Reply::default().calling("search", "{\"q\": \"x\"}"));
    agent(&lab, "openai --turns 30 --stubborn 3")?;
    let mut told = Vec::new();
    while told.len() < 3 {
        told.push(alerts.recv_timeout(Duration::from_secs(20)).context("no alert")?);
    }
    let (slack, generic): (Vec<&Value>, Vec<&Value>) =
        told.iter().partition(|alert| alert.get("text").is_some());
    assert_eq!((slack.len(), generic.len()), (1, 2), "{told:#?}");
    assert!(slack[0]["text"].to_string().contains("budget.soft"), "{told:#?}");
    for (alert, count) in generic.iter().zip([5, 10]) {
        assert_eq!(
            (&alert["alert"], &alert["agent"], &alert["owner"]),
            (&"loop".into(), &"coder".into(), &"coder-team".into())
        );
        assert!(
            alert["message"]
                .to_string()
                .contains(&format!("called {count} times")),
            "{alert}"
        );
    }
    let again = alerts.recv_timeout(Duration::from_secs(3));
    assert!(again.is_err(), "told twice: {again:?}");
    assert_eq!(lab.metrics()?.count("guard_alerts_total", &[("end", "sent")])?, 3);
    Ok(())
}
