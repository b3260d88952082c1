//! Bodies that no honest client or provider would send: each ends at its documented limit, in the provider's own words,
//! while the worker's memory stays bounded and other agents' calls go on.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use guard_tests::lab::{Lab, Place};
use guard_tests::provider::{Raw, Reply};
use serde_json::Value;

/// What the worker may grow by for one body: it is held as it comes, decoded, and changed, each at most 32 MiB.
const GROWTH: u64 = 128 << 20;
/// How many seconds another agent's call may take meanwhile, its SDK's start included, on a machine that is busy with the
/// bodies themselves.
const OTHERS: f64 = 20.0;
const BYSTANDER: &str = "anthropic --model claude-sonnet-4-5 --max-tokens 100 --retries 0";
const USUAL: &str =
    "providers = [\"openai\", \"anthropic\"]\nmodels = [\"gpt-5*\", \"claude-*\", \"text-embedding-*\"]";
const BUDGET: &str = "budget = [{ window = \"day\", usd = 1000000.0 }]";
const JSON: &str = "application/json";

/// Sends one body and takes the answer.
fn body(place: Place<'_>, shape: &str) -> Result<Value> {
    let patience = Duration::from_secs(150);
    let done = place.python("bodies.py", shape)?.patience(patience).run()?.ok()?;
    let said = done.json_lines()?.pop().context("the client said nothing")?;
    ensure!(said["end"] != "patience", "{shape}: no answer: {said}");
    Ok(said)
}

/// Runs `work` while another agent makes one call after another; none of them may fail or be slow.
fn beside<T>(bystander: Place<'_>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let others = scope.spawn(|| -> Result<u32> {
            let mut calls = 0;
            while !over.load(Ordering::SeqCst) {
                let said = bystander.call(BYSTANDER)?;
                ensure!(
                    said["ok"] == true && said["seconds"].as_f64().is_some_and(|seconds| seconds < OTHERS),
                    "another agent's call: {said}"
                );
                calls += 1;
            }
            Ok(calls)
        });
        let done = work();
        over.store(true, Ordering::SeqCst);
        let calls = others
            .join()
            .map_err(|_panic| anyhow::anyhow!("the other agent panicked"))??;
        ensure!(calls > 0 || done.is_err(), "no other call was made");
        done
    })
}

/// Checks the worker's peak since the last look against what it had before.
fn bounded(lab: &Lab, before: u64, what: &str) -> Result<()> {
    let grown = lab.worker_peak()?.saturating_sub(before);
    eprintln!("{what}: the worker grew by {} MiB", grown >> 20);
    ensure!(grown < GROWTH, "{what}: the worker grew by {} MiB", grown >> 20);
    Ok(())
}

/// A lab whose worker has served a call, and what it had at most until then.
fn warm(coder: &str, other: &str) -> Result<(Lab, u64)> {
    let lab = Lab::builder().coder(coder).other(other).start()?;
    ensure!(lab.coder().call(BYSTANDER)?["ok"] == true);
    ensure!(body(lab.coder(), "plain")?["status"] == 200);
    ensure!(lab.other().call(BYSTANDER)?["ok"] == true);
    let before = lab.worker_peak()?;
    Ok((lab, before))
}

#[test]
fn a_body_that_no_client_sends_meets_its_limit_in_the_providers_words_while_other_calls_go_on() -> Result<()>
{
    let rules = format!("{USUAL}\n{BUDGET}\ntools = {{ allow = [\"Read\"], on_violation = \"strip\" }}");
    let (lab, before) = warm(&rules, &format!("{USUAL}\n{BUDGET}"))?;
    beside(lab.other(), || {
        for (shape, status, code) in [
            ("hundred-megabytes", 413, "guard_body_too_large"),
            ("gzip-bomb", 413, "guard_body_too_large"),
            ("deflate-bomb", 413, "guard_body_too_large"),
            ("zstd-bomb", 413, "guard_body_too_large"),
            ("deep", 400, "guard_malformed"),
            ("million-names", 400, "guard_malformed"),
            ("tools", 400, "guard_malformed"),
        ] {
            let seen = lab.openai().seen().len();
            let said = body(lab.coder(), shape)?;
            ensure!(said["status"] == status, "{shape}: {said}");
            let text = said["body"].as_str().unwrap_or_default();
            let error: Value = serde_json::from_str(text).with_context(|| format!("{shape}: {said}"))?;
            ensure!(error["error"]["code"] == code, "{shape}: {error}");
            ensure!(
                said["sent"].as_u64().is_none_or(|sent| sent < 64 << 20),
                "{shape}: {said}"
            );
            ensure!(lab.openai().seen().len() == seen, "{shape}: it was forwarded");
            bounded(&lab, before, shape)?;
        }
        // Large, strange, and within the limits: these pass, and are no dearer to hold.
        for shape in [
            "one-string",
            "one-name",
            "choices",
            "messages",
            "tokens",
            "single-bytes",
        ] {
            let said = body(lab.coder(), shape)?;
            ensure!(said["status"] == 200, "{shape}: {said}");
            bounded(&lab, before, shape)?;
        }
        Ok(())
    })
}

/// A chat completion with something more in it: before and after.
fn reply(more: &str) -> (String, &'static str) {
    let head = format!(
        "{{\"id\":\"c\",\"object\":\"chat.completion\",\"model\":\"gpt-5\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"hi\"}},\"finish_reason\":\"stop\"}}],\"usage\":{{\"prompt_tokens\":1000,\"completion_tokens\":100,\"total_tokens\":1100}},{more}"
    );
    (head, "}")
}

fn filled(more: &str, unit: &str, bytes: usize, end: &str) -> Raw {
    let (head, tail) = reply(more);
    let piece = unit.repeat(65_536 / unit.len());
    Raw {
        times: bytes / piece.len(),
        unit: Bytes::from(piece),
        tail: Bytes::from(format!("{end}{tail}")),
        ..Raw::whole(JSON, None, head)
    }
}

fn coded(coding: &'static str) -> Result<Raw> {
    const SPACES: usize = 64 << 20;
    let (head, tail) = reply("\"pad\":\"");
    let piece = vec![b' '; 1 << 20];
    let write = |out: &mut dyn Write| -> Result<()> {
        out.write_all(head.as_bytes())?;
        for _ in 0..SPACES / piece.len() {
            out.write_all(&piece)?;
        }
        Ok(out.write_all(format!("\"{tail}").as_bytes())?)
    };
    let best = flate2::Compression::fast();
    let bytes = match coding {
        "gzip" => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), best);
            write(&mut out)?;
            out.finish()?
        }
        "deflate" => {
            let mut out = flate2::write::ZlibEncoder::new(Vec::new(), best);
            write(&mut out)?;
            out.finish()?
        }
        "br" => {
            let mut out = brotli::CompressorWriter::new(Vec::new(), 1 << 16, 2, 22);
            write(&mut out)?;
            out.into_inner()
        }
        _ => {
            let mut out = zstd::Encoder::new(Vec::new(), 1)?;
            write(&mut out)?;
            out.finish()?
        }
    };
    ensure!(
        bytes.len() < 1 << 20,
        "{coding}: {} bytes are no bomb",
        bytes.len()
    );
    Ok(Raw::whole(JSON, Some(coding), bytes))
}

/// A reply, whether its usage can be read without tool rules, and whether it passes under them.
fn replies() -> Result<Vec<(&'static str, Raw, bool, bool)>> {
    let event = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-5\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n";
    let last = "data: {\"id\":\"c\",\"model\":\"gpt-5\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: {\"id\":\"c\",\"model\":\"gpt-5\",\"choices\":[],\"usage\":{\"prompt_tokens\":1000,\"completion_tokens\":100,\"total_tokens\":1100}}\n\ndata: [DONE]\n\n";
    let stream = Raw {
        unit: event.into(),
        times: 1_000_000,
        tail: last.into(),
        ..Raw::whole("text/event-stream", None, "")
    };
    let deep = format!("\"x\":{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let names: String = (0..1_000_000).map(|name| format!("\"{name}\":0,")).collect();
    // The text of the whole has to be taken apart, because there is a call in it that is denied.
    let mut objects = filled("\"x\":[0", ",{\"\":0}", 15 << 20, "]");
    let call = r#""tool_calls":[{"id":"1","type":"function","function":{"name":"Evil","arguments":"{}"}}]"#;
    objects.head = String::from_utf8(objects.head.to_vec())?
        .replace("\"content\":\"hi\"", call)
        .into();
    Ok(vec![
        ("a million events", stream, true, true),
        ("gzip", coded("gzip")?, false, false),
        ("deflate", coded("deflate")?, false, false),
        ("br", coded("br")?, false, false),
        ("zstd", coded("zstd")?, false, false),
        // Nobody looks into what is neither usage nor a call.
        ("deep", filled(&deep, " ", 0, ""), true, true),
        (
            "a million names",
            filled(&format!("\"x\":{{{names}\"z\":0}}"), " ", 0, ""),
            true,
            true,
        ),
        (
            "one text of 15 MiB",
            filled("\"x\":\"", "x", 15 << 20, "\""),
            true,
            true,
        ),
        (
            "one text of 40 MiB",
            filled("\"x\":\"", "x", 40 << 20, "\""),
            false,
            false,
        ),
        ("small objects", objects, true, false),
        ("choices", choices(), false, false),
    ])
}

/// A reply with millions of choices.
fn choices() -> Raw {
    let piece = ",{}".repeat(20_000);
    Raw {
        times: (15 << 20) / piece.len(),
        unit: Bytes::from(piece),
        tail: Bytes::from_static(
            b"],\"usage\":{\"prompt_tokens\":1000,\"completion_tokens\":100,\"total_tokens\":1100}}",
        ),
        ..Raw::whole(JSON, None, "{\"model\":\"gpt-5\",\"choices\":[{}")
    }
}

#[test]
fn a_reply_that_no_provider_sends_passes_unread_or_is_withheld_and_never_fills_the_memory() -> Result<()> {
    let free = format!("{USUAL}\n{BUDGET}");
    let (lab, before) = warm(&free, &format!("{free}\ntools = {{ allow = [\"Read\"] }}"))?;
    let replies = replies()?;
    let mut asked = calls(&lab, 1)?.len();
    let mut take = |place: Place<'_>, name: &str, raw: &Raw| -> Result<(Value, Value)> {
        lab.openai().next(Reply::raw(raw.clone()));
        let shape = if raw.kind == JSON { "plain" } else { "streamed" };
        let said = body(place, shape)?;
        asked += 1;
        let record = calls(&lab, asked)?.pop().context("no record")?;
        ensure!(record["cost_pico_usd"].as_u64() > Some(0), "{name}: {record}");
        bounded(&lab, before, name)?;
        Ok((said, record))
    };
    beside(lab.other(), || {
        for (name, raw, known, _) in &replies {
            let (said, record) = take(lab.coder(), name, raw)?;
            ensure!(said["status"] == 200, "{name}: {said}");
            // Chunked framing comes on top.
            let received = said["received"].as_u64().context("received")?;
            ensure!(
                received >= raw.len() as u64,
                "{name}: {received} of {}",
                raw.len()
            );
            ensure!(record["usage"]["known"] == *known, "{name}: {record}");
        }
        Ok(())
    })?;
    beside(lab.coder(), || {
        for (name, raw, _, passes) in &replies {
            let (said, _) = take(lab.other(), &format!("{name}, under tool rules"), raw)?;
            let text = said["body"].as_str().unwrap_or_default();
            ensure!(
                text.contains("guard_tool_denied") != *passes,
                "{name}, under tool rules: {said}"
            );
            ensure!(
                said["status"] == if *passes { 200 } else { 400 },
                "{name}, under tool rules: {said}"
            );
        }
        Ok(())
    })?;
    ensure!(lab.daemon_runs()?);
    Ok(())
}

/// Audit records of calls to OpenAI, as soon as there are so many: others call somebody else.
fn calls(lab: &Lab, count: usize) -> Result<Vec<Value>> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let mut records = lab.audit()?;
        records.retain(|record| record["kind"] == "call" && record["provider"] == "openai");
        if records.len() >= count {
            return Ok(records);
        }
        ensure!(Instant::now() < deadline, "{} of {count} records", records.len());
        std::thread::sleep(Duration::from_millis(20));
    }
}
