//! The lab itself: clients reach the fake providers as they would the real ones, and what the providers write down
//! is what happened. No daemon runs here.
#![allow(clippy::float_arithmetic, reason = "a test compares times")]

use std::time::Duration;

use anyhow::Result;
use guard_tests::authority::Alpn;
use guard_tests::lab::{Lab, OPENAI_KEY, PLACEHOLDER};
use guard_tests::provider::{Billed, Certificate, Fault, Gate, Pace, Reply, Tokens};
use serde_json::Value;

const CHAT: &str = "https://api.openai.com/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-5","messages":[{"role":"user","content":"Hi"}]}"#;

fn lab() -> Result<Lab> {
    Lab::builder().start_without_daemon()
}

#[test]
fn the_sdks_of_both_vendors_call_their_provider() -> Result<()> {
    let lab = lab()?;
    for (provider, arguments) in [
        (lab.openai(), "openai --model gpt-5"),
        (lab.anthropic(), "anthropic --model claude-haiku-4-5"),
    ] {
        for mode in ["", " --stream --usage"] {
            provider.next(Reply::billed(Tokens::new(12, 34)));
            let said = lab.outside().call(&format!("{arguments}{mode}"))?;
            assert_eq!(said["ok"], true, "{said}");
            assert_eq!(said["text"], "Hello from the provider.");
            let usage = &said["usage"];
            let output = usage["completion_tokens"]
                .as_u64()
                .or(usage["output_tokens"].as_u64());
            assert_eq!(output, Some(34), "{said}");
        }
        let seen = provider.seen();
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0].credential(), Some(PLACEHOLDER));
        assert_eq!(seen[0].attempt(), Some(0));
        assert_eq!(provider.billed()[1].tokens, Tokens::new(12, 34));
        assert_eq!(seen[0].from.ip().to_string(), "198.51.100.2");
    }
    Ok(())
}

#[test]
fn usage_is_streamed_only_to_a_client_that_asks() -> Result<()> {
    let lab = lab()?;
    let silent = lab.outside().call("openai --model gpt-5 --stream")?;
    assert_eq!(silent["usage"], Value::Null);
    let counted = lab.outside().call("openai --model gpt-5 --stream --usage")?;
    assert_eq!(counted["usage"]["prompt_tokens"], 1000);
    Ok(())
}

#[test]
fn curl_speaks_http_1_and_2_over_both_address_families() -> Result<()> {
    for (lab, from) in [
        (lab()?, "198.51.100.2"),
        (Lab::builder().ipv6().start_without_daemon()?, "2001:db8:1::2"),
    ] {
        for (option, version) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2.0")] {
            let done = lab.outside().curl([option, "-d", BODY, CHAT])?.run()?.ok()?;
            assert!(done.stdout.contains("\"chat.completion\""), "{}", done.stdout);
            let seen = lab.openai().last()?;
            assert_eq!(format!("{:?}", seen.version), version);
            assert_eq!(seen.from.ip().to_string(), from);
            assert_eq!(seen.body, BODY);
        }
    }
    Ok(())
}

#[test]
fn a_provider_may_refuse_http_2_and_show_a_wrong_certificate() -> Result<()> {
    let lab = lab()?;
    lab.openai().alpn(Alpn::Http1);
    lab.outside().curl(["--http2", "-d", BODY, CHAT])?.run()?.ok()?;
    assert_eq!(format!("{:?}", lab.openai().last()?.version), "HTTP/1.1");
    lab.openai().alpn(Alpn::Both);
    for wrong in [Certificate::WrongName, Certificate::WrongAuthority] {
        lab.openai().certificate(wrong);
        let done = lab.outside().curl(["-d", BODY, CHAT])?.run()?;
        assert_eq!(
            done.code(),
            60,
            "curl's code for a certificate that does not verify: {}",
            done.stderr
        );
    }
    assert_eq!(
        lab.openai().seen().len(),
        1,
        "no request got past a wrong certificate"
    );
    assert_eq!(lab.openai().connections(), 3);
    Ok(())
}

#[test]
fn tools_are_called_and_models_listed() -> Result<()> {
    let lab = lab()?;
    let call = |reply: Reply| reply.calling("Read", r#"{"path":"/etc/motd"}"#);
    for (provider, arguments) in [
        (lab.openai(), "openai --model gpt-5 --tools Read,Bash"),
        (
            lab.anthropic(),
            "anthropic --model claude-haiku-4-5 --tools Read,Bash",
        ),
    ] {
        for mode in ["", " --stream"] {
            provider.next(call(Reply::default()));
            let said = lab.outside().call(&format!("{arguments}{mode}"))?;
            assert_eq!(said["tools"], serde_json::json!(["Read"]), "{said}");
            assert_eq!(provider.last()?.tools(), ["Read", "Bash"]);
        }
    }
    for host in ["api.openai.com", "api.anthropic.com"] {
        let done = lab
            .outside()
            .curl([format!("https://{host}/v1/models")])?
            .run()?
            .ok()?;
        let json: Value = serde_json::from_str(&done.stdout)?;
        assert!(json["data"][0]["id"].is_string(), "{json}");
    }
    Ok(())
}

#[test]
fn a_key_may_be_required() -> Result<()> {
    let lab = lab()?;
    lab.openai().require_key(OPENAI_KEY);
    let refused = lab.outside().call("openai --model gpt-5")?;
    assert_eq!(
        (&refused["status"], &refused["code"]),
        (&401.into(), &"invalid_api_key".into())
    );
    assert!(lab.openai().billed().is_empty(), "a refused call is not billed");
    let accepted = lab
        .outside()
        .sdk("openai --model gpt-5")?
        .env("OPENAI_API_KEY", OPENAI_KEY)
        .run()?
        .ok()?;
    assert_eq!(accepted.json_lines()?[0]["ok"], true);
    Ok(())
}

#[test]
fn events_leave_one_by_one_on_command() -> Result<()> {
    let lab = lab()?;
    let steps = Gate::closed();
    lab.openai()
        .next(Reply::default().paced(Pace::Stepped(steps.clone())));
    let mut client = lab
        .outside()
        .sdk("openai --model gpt-5 --stream")?
        .patience(Duration::from_secs(10))
        .start()?;
    lab.openai().wait_for(1, Duration::from_secs(10))?;
    // the first event has the role only
    steps.let_pass(2);
    assert_eq!(client.line()?, r#"{"delta": "Hello"}"#);
    steps.let_pass(1);
    assert_eq!(client.line()?, r#"{"delta": " from"}"#);
    assert_eq!(
        client.said().0.lines().count(),
        2,
        "nothing came that was not let pass"
    );
    steps.open();
    let done = client.wait(Duration::from_secs(10))?.ok()?;
    assert_eq!(
        done.json_lines()?.pop().unwrap_or_default()["text"],
        "Hello from the provider."
    );
    Ok(())
}

#[test]
fn replies_wait_at_a_gate() -> Result<()> {
    let lab = lab()?;
    let gate = Gate::closed();
    lab.openai().always(Reply::default().behind(&gate));
    let client = lab.outside().sdk("openai --model gpt-5 --parallel 5")?.start()?;
    lab.openai().wait_for(5, Duration::from_secs(20))?;
    assert_eq!(client.said().0, "");
    gate.open();
    assert_eq!(client.wait(Duration::from_secs(10))?.ok()?.json_lines()?.len(), 5);
    Ok(())
}

#[test]
fn a_provider_fails_lies_and_breaks_off_as_it_is_told() -> Result<()> {
    let lab = lab()?;
    let (openai, outside) = (lab.openai(), lab.outside());
    openai.always(Reply::faulty(Fault::Status(500)));
    let failed = outside.call("openai --model gpt-5")?;
    assert_eq!(failed["status"], 500);
    let attempts: Vec<_> = openai.seen().iter().map(|seen| seen.attempt()).collect();
    assert_eq!(attempts, [Some(0), Some(1), Some(2)], "the SDK's own retries");
    assert!(openai.billed().is_empty());

    let lie = Reply {
        told: Some(Tokens::new(1, 1)),
        ..Reply::billed(Tokens::new(900, 80))
    };
    openai.always(lie);
    assert_eq!(
        outside.call("openai --model gpt-5")?["usage"]["completion_tokens"],
        1
    );
    openai.always(Reply::faulty(Fault::NoUsage));
    assert_eq!(outside.call("openai --model gpt-5")?["usage"], Value::Null);
    openai.always(Reply::faulty(Fault::CutAfter(3)));
    let cut = outside.call("openai --model gpt-5 --stream")?;
    assert_eq!(cut["ok"], false, "{cut}");
    let cut = outside.curl(["--http2", "-d", BODY, CHAT])?.run()?;
    assert!(!cut.success(), "half a plain reply is an error: {}", cut.stdout);
    openai.always(Reply::faulty(Fault::Garbage));
    assert_eq!(outside.call("openai --model gpt-5 --retries 0")?["ok"], false);

    let billed: Vec<_> = openai.billed().into_iter().map(|billed| billed.tokens).collect();
    assert_eq!(
        billed[0],
        Tokens::new(900, 80),
        "the bill is the truth, whatever was told"
    );
    assert_eq!(billed.len(), 5, "what was cut or garbled is billed nonetheless");
    Ok(())
}

#[test]
fn anthropic_is_overloaded_in_its_own_words_and_streams_running_totals() -> Result<()> {
    let lab = lab()?;
    lab.anthropic().always(Reply::faulty(Fault::Status(529)));
    let said = lab
        .outside()
        .call("anthropic --model claude-haiku-4-5 --retries 0")?;
    assert_eq!(
        (&said["status"], &said["code"]),
        (&529.into(), &"overloaded_error".into())
    );
    let tokens = Tokens {
        input: 10,
        cached: 20,
        cache_write: 30,
        output: 40,
        reasoning: 0,
    };
    lab.anthropic().always(Reply::billed(tokens));
    let said = lab
        .outside()
        .call("anthropic --model claude-haiku-4-5 --stream")?;
    let usage = &said["usage"];
    assert_eq!(usage["cache_read_input_tokens"], 20, "{usage}");
    assert_eq!(
        usage["output_tokens"], 40,
        "the last total, not the placeholder of the start"
    );
    let expected = Billed {
        request: 1,
        model: "claude-haiku-4-5".to_owned(),
        tokens,
    };
    assert_eq!(lab.anthropic().billed(), [expected]);
    Ok(())
}

#[test]
fn nothing_is_left_when_the_lab_is_dropped() -> Result<()> {
    let lab = lab()?;
    let cgroup = lab.cgroup_root().path().to_owned();
    let state = lab.state_dir();
    let sleeper = lab.coder().spawn("sleep").arg("600").start()?;
    let pid = sleeper.pid();
    std::mem::forget(sleeper);
    drop(lab);
    assert!(!cgroup.exists() && !state.exists());
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(
        state.is_empty() || state.contains(") Z "),
        "the process is gone, or waits only to be reaped: {state}"
    );
    Ok(())
}

#[test]
fn the_raw_client_misbehaves_as_it_says() -> Result<()> {
    let lab = lab()?;
    let end = |arguments: &str| -> Result<Value> {
        let done = lab.outside().python("raw.py", arguments)?.run()?.ok()?;
        Ok(done.json_lines()?.pop().unwrap_or_default())
    };
    assert_eq!(end("silent --patience 1")?["end"], "patience");
    assert_eq!(end("http-garbage --patience 5")?["status"], 400);
    assert_eq!(end("tls-garbage --patience 5")?["end"], "closed");
    let slow = end("http-slow --patience 2")?;
    assert!(slow["sent"].as_u64() < Some(6), "a byte each half second: {slow}");
    assert!(lab.openai().seen().is_empty());
    let broken = end("json-broken --patience 5")?;
    assert_eq!(
        (&broken["status"], lab.openai().last()?.json()),
        (&400.into(), Value::Null)
    );
    let stalled = end("h2-stalled --patience 1")?;
    assert_eq!(stalled["end"], "patience", "{stalled}");
    assert_eq!(lab.openai().seen().len(), 9);
    assert_eq!(lab.openai().last()?.json()["stream"], true);
    Ok(())
}
