//! The path of one call, from an unmodified client through the kernel and the daemon to a provider and back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guard_agent::money::Pico;
use guard_tests::clients;
use guard_tests::lab::{ANTHROPIC_KEY, Lab, OPENAI_KEY};
use guard_tests::process::Spawn;
use guard_tests::provider::{Certificate, Fault, Gate, Pace, Reply, Tokens};
use serde_json::{Value, json};

const CHAT: &str = "https://api.openai.com/v1/chat/completions";
const GPT: &str = "openai --model gpt-5 --max-tokens 1000";
const HAIKU: &str = "anthropic --model claude-haiku-4-5 --max-tokens 1000";
/// 1,000 tokens at $1.25 and 100 at $10 per million.
const GPT_COST: u64 = 2_250_000_000;
/// 1,000 tokens at $1 and 100 at $5 per million.
const HAIKU_COST: u64 = 1_500_000_000;

#[test]
fn an_allowed_call_is_metered_to_the_token_and_the_pico_dollar() -> Result<()> {
    let lab = Lab::builder().start()?;
    let mut asked = 0;
    for (provider, model, arguments, cost) in [
        ("openai", "gpt-5", GPT, GPT_COST),
        ("anthropic", "claude-haiku-4-5", HAIKU, HAIKU_COST),
    ] {
        for mode in ["", " --stream"] {
            let said = lab.coder().call(&format!("{arguments}{mode}"))?;
            assert_eq!(said["text"], "Hello from the provider.", "{said}");
            asked += 1;
            let record = lab.calls(asked)?.pop().context("no record")?;
            assert_eq!(record["decision"], "allowed", "{record}");
            assert_eq!(record["provider"], provider);
            assert_eq!(record["model"], model);
            assert_eq!(record["stream"], !mode.is_empty());
            assert_eq!(
                (&record["usage"]["known"], &record["usage"]["input"]),
                (&json!(true), &json!(1000))
            );
            assert_eq!(record["usage"]["output"], 100);
            assert_eq!(record["cost_pico_usd"], cost);
            assert_eq!(record["status"], 200);
        }
        let metrics = lab.metrics()?;
        let labels = [("agent", "coder"), ("provider", provider), ("model", model)];
        let tokens = |kind| metrics.count("guard_tokens_total", &[&labels[..], &[("kind", kind)]].concat());
        assert_eq!((tokens("input")?, tokens("output")?), (2000, 200));
        assert_eq!(metrics.usd("guard_cost_usd_total", &labels)?, Pico(2 * cost));
    }
    let total = 2 * (GPT_COST + HAIKU_COST);
    let settled = lab.metrics()?.usd(
        "guard_budget_settled_usd",
        &[("scope", "agent"), ("name", "coder")],
    )?;
    assert_eq!(settled, Pico(total));
    let status = lab.status()?;
    let agents = status["agents"].as_array().context("agents")?;
    let coder = agents
        .iter()
        .find(|agent| agent["name"] == "coder")
        .context("coder")?;
    assert_eq!(
        (&coder["calls"], &coder["refusals"]),
        (&json!(4), &json!(0)),
        "{coder}"
    );
    assert_eq!(coder["budgets"][0]["settled"], total, "{coder}");
    Ok(())
}

#[test]
fn cached_input_and_reasoning_are_priced_as_what_they_are() -> Result<()> {
    let lab = Lab::builder().start()?;
    // 200 at $1.25, 800 at $0.125, 300 at $10 per million; reasoning is part of output
    let tokens = Tokens {
        input: 200,
        cached: 800,
        cache_write: 0,
        output: 300,
        reasoning: 120,
    };
    lab.openai().next(Reply::billed(tokens));
    lab.coder().call(GPT)?;
    // 100 at $1, 200 at $0.10, 400 at $1.25, 50 at $5 per million
    let tokens = Tokens {
        input: 100,
        cached: 200,
        cache_write: 400,
        output: 50,
        reasoning: 0,
    };
    lab.anthropic().next(Reply::billed(tokens));
    lab.coder().call(&format!("{HAIKU} --stream"))?;
    let calls = lab.calls(2)?;
    assert_eq!(
        calls[0]["cost_pico_usd"],
        250_000_000 + 100_000_000 + 3_000_000_000_u64
    );
    assert_eq!(calls[0]["usage"]["reasoning"], 120);
    assert_eq!(
        calls[1]["cost_pico_usd"],
        100_000_000 + 20_000_000 + 500_000_000 + 250_000_000
    );
    Ok(())
}

#[test]
fn the_real_key_reaches_the_provider_and_nobody_else() -> Result<()> {
    let lab = Lab::builder().start()?;
    lab.openai().require_key(OPENAI_KEY);
    lab.anthropic().require_key(ANTHROPIC_KEY);
    for arguments in [GPT, HAIKU] {
        assert_eq!(lab.coder().call(arguments)?["ok"], true);
    }
    let reply = lab
        .coder()
        .curl(["-i", "https://api.openai.com/v1/models"])?
        .run()?
        .ok()?
        .stdout;
    assert!(reply.contains("\"gpt-5\""), "{reply}");
    let seen = [
        ("environment", lab.coder().shell("env")?.stdout),
        ("reply", reply),
        ("audit", json!(lab.audit()?).to_string()),
        ("log", lab.daemon_said()),
        ("metrics", lab.metrics()?.lines("").join("\n")),
        ("status", lab.status()?.to_string()),
    ];
    for (place, text) in seen {
        for key in [OPENAI_KEY, ANTHROPIC_KEY] {
            assert!(!text.contains(key), "a real key is in the {place}");
        }
    }
    Ok(())
}

#[test]
fn a_key_of_ones_own_or_someone_elses_placeholder_is_refused() -> Result<()> {
    let lab = Lab::builder().start()?;
    for key in [
        "sk-proj-brought-from-home".to_owned(),
        lab.other().variable("OPENAI_API_KEY")?,
    ] {
        let done = lab.coder().sdk(GPT)?.env("OPENAI_API_KEY", key).run()?.ok()?;
        let said = &done.json_lines()?[0];
        assert_eq!(
            (&said["status"], &said["code"]),
            (&json!(400), &json!("guard_key_denied")),
            "{said}"
        );
    }
    assert!(lab.openai().seen().is_empty());
    Ok(())
}

#[test]
fn a_tool_that_is_not_allowed_is_stripped_or_the_call_refused() -> Result<()> {
    let usual = r#"providers = ["openai", "anthropic"]"#;
    let lab = Lab::builder()
        .coder(&format!("{usual}\ntools = {{ allow = [\"Read\"] }}"))
        .other(&format!(
            "{usual}\ntools = {{ allow = [\"Read\"], on_violation = \"refuse\" }}"
        ))
        .start()?;
    for (provider, arguments) in [(lab.openai(), GPT), (lab.anthropic(), HAIKU)] {
        let said = lab.coder().call(&format!("{arguments} --tools Read,Bash"))?;
        assert_eq!(said["ok"], true, "{said}");
        assert_eq!(provider.last()?.tools(), ["Read"]);
        let said = lab.other().call(&format!("{arguments} --tools Read,Bash"))?;
        assert_eq!(said["status"], 400, "{said}");
        assert!(said["message"].to_string().contains("Bash"), "{said}");
        assert_eq!(provider.seen().len(), 1);
    }
    Ok(())
}

#[test]
fn a_model_that_is_not_allowed_is_refused_in_one_attempt() -> Result<()> {
    let lab = Lab::builder()
        .coder("providers = [\"openai\", \"anthropic\"]\nmodels = [\"gpt-5\"]")
        .start()?;
    for (arguments, exception) in [
        ("openai --model gpt-5-pro --max-tokens 10", "BadRequestError"),
        ("anthropic --model claude-haiku-4-5", "BadRequestError"),
    ] {
        let said = lab.coder().call(arguments)?;
        assert_eq!(
            (&said["status"], &said["exception"]),
            (&json!(400), &json!(exception)),
            "{said}"
        );
        assert_eq!(said["headers"]["x-should-retry"], "false", "{said}");
    }
    let calls = lab.calls(2)?;
    let reasons: Vec<_> = calls
        .iter()
        .map(|call| (&call["decision"], &call["reason"]))
        .collect();
    assert_eq!(
        reasons,
        [(&json!("refused"), &json!("model_denied")); 2],
        "one attempt each"
    );
    assert!(lab.openai().seen().is_empty() && lab.anthropic().seen().is_empty());
    assert_eq!(
        lab.metrics()?.count(
            "guard_refusals_total",
            &[("agent", "coder"), ("reason", "model_denied")]
        )?,
        2
    );
    Ok(())
}

/// Each call settles at $0.01 and reserves a little more, so three fit into $0.035 and the fourth does not.
#[test]
fn the_budget_refuses_exactly_the_call_that_does_not_fit_in_one_attempt() -> Result<()> {
    let rules = r#"
        providers = ["openai", "anthropic"]
        budget = [{ window = "day", usd = 0.035 }]
    "#;
    let lab = Lab::builder().coder(rules).other(rules).start()?;
    lab.openai().always(Reply::billed(Tokens::new(0, 1000)));
    lab.anthropic().always(Reply::billed(Tokens::new(0, 2000)));
    for (place, arguments, status, exception, provider) in [
        (
            lab.coder(),
            "openai --model gpt-5 --max-tokens 1000",
            400,
            "BadRequestError",
            lab.openai(),
        ),
        (
            lab.other(),
            "anthropic --model claude-haiku-4-5 --max-tokens 2000",
            402,
            "PaymentRequiredError",
            lab.anthropic(),
        ),
    ] {
        let before = lab.audit()?.len();
        let said = place
            .sdk(&format!("{arguments} --calls 4"))?
            .run()?
            .ok()?
            .json_lines()?;
        let passed: Vec<_> = said.iter().map(|line| line["ok"] == true).collect();
        assert_eq!(passed, [true, true, true, false], "{said:?}");
        assert_eq!(said[3]["status"], status, "{}", said[3]);
        assert!([exception, "APIStatusError"].contains(&said[3]["exception"].as_str().unwrap_or_default()));
        let message = said[3]["message"].to_string();
        assert!(
            message.contains("budget") && message.contains("$0.035"),
            "readable: {message}"
        );
        assert_eq!(provider.seen().len(), 3);
        let attempts = lab
            .audit()?
            .iter()
            .skip(before)
            .filter(|record| record["decision"] == "refused")
            .count();
        assert_eq!(attempts, 1);
    }
    Ok(())
}

#[test]
fn the_same_command_outside_the_agent_is_untouched() -> Result<()> {
    let lab = Lab::builder().coder("providers = [\"anthropic\"]").start()?;
    let said = lab.outside().call(GPT)?;
    assert_eq!(said["ok"], true, "{said}");
    let seen = lab.openai().last()?;
    assert_eq!(seen.credential(), Some(guard_tests::lab::PLACEHOLDER));
    let done = lab
        .outside()
        .curl(["-v", "https://api.openai.com/v1/models"])?
        .run()?
        .ok()?;
    assert!(done.stderr.contains("issuer: CN=Lab Root"), "{}", done.stderr);
    assert!(lab.calls(0)?.is_empty(), "no record of what is not governed");
    Ok(())
}

#[test]
fn an_ordinary_site_is_passed_through_with_its_own_certificate_and_counted() -> Result<()> {
    let lab = Lab::builder().start()?;
    let arguments = [
        "-v",
        "-d",
        "as it was",
        "-H",
        "Authorization: Bearer my-own",
        "https://www.example.org/a?b=c",
    ];
    let done = lab.coder().curl(arguments)?.run()?.ok()?;
    assert!(done.stderr.contains("issuer: CN=Lab Root"), "{}", done.stderr);
    let echo: Value = serde_json::from_str(&done.stdout)?;
    assert_eq!(
        (&echo["path"], &echo["body"]),
        (&json!("/a?b=c"), &json!("as it was"))
    );
    assert_eq!(echo["credential"], "my-own");
    // Counted as they are relayed; the client may be done a moment earlier.
    let counted = || -> Result<bool> {
        let bytes = lab.metrics()?.lines("guard_passthrough_bytes_total");
        Ok(bytes
            .iter()
            .any(|line| line.contains("coder") && !line.ends_with(" 0")))
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    while !counted()? {
        ensure!(Instant::now() < deadline, "the bytes were never counted");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[test]
fn a_large_transfer_with_an_ordinary_site_arrives_whole_and_is_counted() -> Result<()> {
    const SIZE: usize = 5_000_000;
    let lab = Lab::builder().start()?;
    let (worker, body) = (lab.worker()?, tempfile::NamedTempFile::new()?);
    let text: String = (0..SIZE / 10).map(|line| format!("{line:09}\n")).collect();
    std::fs::write(body.path(), &text)?;
    let data = format!("@{}", body.path().display());
    // Both directions are long enough to be spliced, in a process that may make few system calls.
    let done = lab
        .coder()
        .curl(["--data-binary", &data, "https://www.example.org/echo"])?
        .run()?
        .ok()?;
    let echo: Value = serde_json::from_str(&done.stdout)?;
    assert!(echo["body"] == text.as_str(), "{} bytes", done.stdout.len());
    let counted = || -> Result<u64> {
        let labels = [("agent", "coder")];
        lab.metrics()?.count("guard_passthrough_bytes_total", &labels)
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    while counted()? < 2 * u64::try_from(SIZE)? {
        ensure!(Instant::now() < deadline, "{} bytes were counted", counted()?);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(lab.worker()?, worker, "its filter lets it");
    Ok(())
}

#[test]
fn every_event_of_a_stream_arrives_when_it_is_sent() -> Result<()> {
    let lab = Lab::builder().start()?;
    let body =
        r#"{"model":"gpt-5","stream":true,"max_tokens":100,"messages":[{"role":"user","content":"Hi"}]}"#;
    for (number, option) in (1..).zip(["--http1.1", "--http2"]) {
        let steps = Gate::closed();
        lab.openai()
            .next(Reply::default().paced(Pace::Stepped(steps.clone())));
        let client = lab.coder().curl([option, "--no-buffer", "-d", body, CHAT])?;
        let mut client = client.patience(Duration::from_secs(5)).start()?;
        lab.openai().wait_for(number, Duration::from_secs(10))?;
        for piece in ["\"role\"", "Hello", " from"] {
            steps.let_pass(1);
            assert!(
                client.line()?.contains(piece),
                "{option}: {piece} came at its time"
            );
            assert_eq!(client.line()?, "");
        }
        steps.open();
        let done = client.wait(Duration::from_secs(10))?.ok()?;
        assert!(done.stdout.ends_with("data: [DONE]\n\n"), "{}", done.stdout);
        assert!(
            !done.stdout.contains("total_tokens") && !done.stdout.contains("\"choices\":[]"),
            "what the client did not ask for is hidden: {}",
            done.stdout
        );
    }
    let calls = lab.calls(2)?;
    assert!(
        calls.iter().all(|call| call["usage"]["known"] == true),
        "and metered all the same: {calls:?}"
    );
    Ok(())
}

#[test]
fn who_called_is_known_from_the_kernel() -> Result<()> {
    let lab = Lab::builder().start()?;
    let client = lab.coder().sdk(GPT)?.start()?;
    let pid = client.pid();
    client.wait(Duration::from_secs(30))?.ok()?;
    lab.other()
        .curl(["--http2", "https://api.openai.com/v1/models"])?
        .user(65534)
        .run()?;
    lab.other().call(HAIKU)?;
    let calls = lab.calls(2)?;
    let coder = calls
        .iter()
        .find(|call| call["agent"] == "coder")
        .context("coder")?;
    let facts: BTreeMap<_, _> = [
        ("owner", json!("coder-team")),
        ("cgroup", json!("/agents/coder")),
        ("sni", json!("api.openai.com")),
        ("original_destination", json!("203.0.113.10:443")),
        ("dialect", json!("openai-chat")),
        ("endpoint", json!("/v1/chat/completions")),
        ("model_requested", json!("gpt-5")),
        ("key", json!("lab-openai")),
    ]
    .into();
    for (name, value) in facts {
        assert_eq!(coder[name], value, "{name} of {coder}");
    }
    assert_eq!(
        (&coder["process"]["pid"], &coder["process"]["uid"]),
        (&json!(pid), &json!(0))
    );
    assert!(coder["process"]["exe"].to_string().contains("python"), "{coder}");
    assert!(coder["run"].is_string() && coder["id"].is_string());
    let other = calls
        .iter()
        .find(|call| call["agent"] == "second")
        .context("second")?;
    assert_eq!(other["owner"], "second-team");
    assert_ne!(other["run"], coder["run"]);
    assert_eq!(lab.guard(["audit", "verify"])?.code(), 0);
    Ok(())
}

#[test]
fn a_call_over_ipv6_is_the_same_call() -> Result<()> {
    let lab = Lab::builder().ipv6().start()?;
    assert_eq!(lab.coder().call(GPT)?["ok"], true);
    let record = &lab.calls(1)?[0];
    assert_eq!(record["original_destination"], "[2001:db8:203::10]:443");
    assert_eq!(record["cost_pico_usd"], GPT_COST);
    Ok(())
}

#[test]
fn what_a_provider_does_wrong_is_told_as_it_is_and_never_costs_nothing_by_mistake() -> Result<()> {
    let lab = Lab::builder().start()?;
    let quick = format!("{GPT} --retries 0");
    lab.openai().next(Reply::faulty(Fault::Status(500)));
    assert_eq!(
        lab.coder().call(&quick)?["status"],
        500,
        "a provider's failure is the provider's"
    );
    lab.openai().next(Reply::faulty(Fault::NoUsage));
    assert_eq!(lab.coder().call(&quick)?["ok"], true);
    lab.openai().next(Reply::faulty(Fault::CutAfter(3)));
    assert_eq!(lab.coder().call(&format!("{quick} --stream"))?["ok"], false);
    let calls = lab.calls(3)?;
    assert_eq!(calls[0]["cost_pico_usd"], 0, "{}", calls[0]);
    for unknown in &calls[1..] {
        assert_eq!(unknown["usage"]["known"], false, "{unknown}");
        assert_eq!(
            unknown["cost_pico_usd"], unknown["reserved_pico_usd"],
            "charged at the reservation"
        );
    }
    Ok(())
}

#[test]
fn a_provider_with_a_wrong_certificate_gets_neither_key_nor_request() -> Result<()> {
    let lab = Lab::builder().start()?;
    for wrong in [Certificate::WrongName, Certificate::WrongAuthority] {
        lab.openai().certificate(wrong);
        let said = lab.coder().call(&format!("{GPT} --retries 0"))?;
        assert_eq!(
            (&said["status"], &said["code"]),
            (&json!(502), &json!("guard_upstream")),
            "{said}"
        );
    }
    assert!(lab.openai().seen().is_empty());
    assert!(lab.openai().connections() >= 2);
    let reserved = lab.metrics()?.usd(
        "guard_budget_reserved_usd",
        &[("scope", "agent"), ("name", "coder")],
    )?;
    assert_eq!(reserved, Pico::ZERO, "the reservations are released");
    Ok(())
}

#[test]
fn a_provider_over_plain_http_is_refused_in_words() -> Result<()> {
    let lab = Lab::builder().start()?;
    // It would be answered.
    let python = Spawn::new(lab.python()).netns(lab.net());
    let server = clients::talk(python, &["serve", "203.0.113.10=80=http"]);
    let mut server = server.start()?;
    server.line()?;
    let done = lab
        .coder()
        .curl(["-i", "http://api.openai.com/v1/models"])?
        .run()?
        .ok()?;
    assert!(done.stdout.starts_with("HTTP/1.1 400"), "{}", done.stdout);
    assert!(done.stdout.contains("guard_https_required"), "{}", done.stdout);
    Ok(())
}

#[test]
fn a_command_that_guard_started_is_governed_and_keeps_its_exit_code() -> Result<()> {
    let lab = Lab::builder().start()?;
    let script = guard_tests::clients::script("llm.py").display().to_string();
    let python = lab.python().display().to_string();
    let call = ["openai", "--model", "gpt-5", "--max-tokens", "1000"];
    let command = ["run", "--agent", "second", "--", &python, &script]
        .into_iter()
        .chain(call);
    let run = lab
        .command(command)?
        .env("OPENAI_API_KEY", "sk-a-key-from-home")
        .run()?
        .ok()?;
    assert_eq!(run.json_lines()?[0]["ok"], true, "{}", run.stdout);
    assert_eq!(lab.openai().last()?.credential(), Some(OPENAI_KEY));
    assert_eq!(lab.calls(1)?[0]["agent"], "second");
    let run = lab
        .command(["run", "--agent", "second", "--", "sh", "-c", "exit 7"])?
        .run()?;
    assert_eq!(run.code(), 7);
    Ok(())
}

#[test]
fn a_providers_address_without_its_name_is_no_way_around() -> Result<()> {
    let lab = Lab::builder().start()?;
    let ways: [&[&str]; 3] = [
        // no server name: curl sends none for an address
        &["-k", "https://203.0.113.10/v1/models"],
        // somebody else's
        &[
            "-k",
            "--connect-to",
            "::203.0.113.10:443",
            "https://www.example.org/v1/models",
        ],
        // no TLS at all; Guard answers that itself, with 403
        &["--fail", "http://203.0.113.10:443/v1/models"],
    ];
    // The daemon looks the addresses up when it has started.
    let deadline = Instant::now() + Duration::from_secs(10);
    while lab.coder().curl(ways[0])?.run()?.code() == 0 {
        ensure!(Instant::now() < deadline, "the address is never known");
        std::thread::sleep(Duration::from_millis(50));
    }
    let before = lab.openai().seen().len();
    for way in ways {
        let done = lab.coder().curl(way)?.run()?;
        assert_ne!(done.code(), 0, "{way:?}: {}", done.stdout);
    }
    assert_eq!(lab.openai().seen().len(), before);
    let denied = |record: &&Value| {
        record["kind"] == "connection"
            && record["decision"] == "refused"
            && record["original_destination"] == "203.0.113.10:443"
            && record["rule"]
                .as_str()
                .is_some_and(|rule| rule.contains("a provider's address"))
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    while lab.audit()?.iter().filter(denied).count() < ways.len() {
        ensure!(Instant::now() < deadline, "{:#?}", lab.audit()?);
        std::thread::sleep(Duration::from_millis(20));
    }
    // The name itself goes on working, and so does another site.
    assert_eq!(lab.coder().call(GPT)?["ok"], true);
    lab.coder().curl(["https://www.example.org/"])?.run()?.ok()?;
    // Whoever is not governed is not asked.
    lab.outside().curl(ways[0])?.run()?.ok()?;
    Ok(())
}

#[test]
fn an_agent_that_guard_does_not_start_gets_its_environment_by_name() -> Result<()> {
    let lab = Lab::builder().start()?;
    let shown = lab.guard(["ca", "env", "--agent", "coder"])?.stdout;
    assert!(shown.contains("export SSL_CERT_FILE="), "{shown}");
    let key = lab.coder().variable("OPENAI_API_KEY")?;
    assert!(
        shown.contains(&format!("export OPENAI_API_KEY={key}\n")),
        "{shown}"
    );
    for key in [OPENAI_KEY, ANTHROPIC_KEY] {
        assert!(!shown.contains(key), "{shown}");
    }
    let unknown = lab.command(["ca", "env", "--agent", "nobody"])?.run()?;
    assert_eq!(unknown.code(), 1);
    assert!(
        unknown.stderr.contains("no [[agent]] is named"),
        "{}",
        unknown.stderr
    );
    Ok(())
}
