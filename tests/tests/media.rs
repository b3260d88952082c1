//! What is billed in other ways than by its text, from the vendors' own unmodified SDKs through the kernel and the daemon to
//! a provider and back: reserved at the most that it can cost, settled at what the reply states, refused in one attempt.

use anyhow::{Context, Result, ensure};
use guard_tests::clients;
use guard_tests::lab::{COHERE_KEY, Lab, OPENAI_KEY, Place};
use guard_tests::provider::{Raw, Reply, Tokens};
use serde_json::{Value, json};

/// An agent that may use all of it.
const AGENT: &str = r#"
providers = ["openai", "cohere"]
models = ["*"]
budget = [{ window = "day", usd = 100.0 }]
"#;

/// A dollar in pico-dollars.
const DOLLAR: u64 = 1_000_000_000_000;

/// One call by the vendor's SDK.
fn call(place: Place<'_>, arguments: &str) -> Result<Value> {
    let python = place
        .client(clients::formats()?)?
        .arg(clients::script("formats.py"));
    let done = python.args(arguments.split_whitespace()).run()?.ok()?;
    done.json_lines()?.pop().context("the client said nothing")
}

/// The record of the call with this number, from one on.
fn record(lab: &Lab, number: usize) -> Result<Value> {
    lab.calls(number)?.pop().context("no record")
}

/// $2.00 for 1,000 searches (cohere.com/pricing); 150 documents are two.
#[test]
fn a_rerank_is_reserved_and_settled_by_the_search_and_its_tokens_are_not_known() -> Result<()> {
    let lab = Lab::builder().coder(AGENT).start()?;
    lab.cohere().require_key(COHERE_KEY);
    let said = call(lab.coder(), "rerank --model rerank-v3.5 --number 150")?;
    ensure!(said["text"] == "150" && said["usage"] == 2.0, "{said}");
    let record = record(&lab, 1)?;
    assert_eq!(record["dialect"], "cohere", "{record}");
    assert_eq!(record["cost_pico_usd"], 2 * DOLLAR / 500, "{record}");
    assert_eq!(record["reserved_pico_usd"], 2 * DOLLAR / 500, "{record}");
    let usage = &record["usage"];
    assert_eq!(
        (&usage["known"], &usage["input"], &usage["search_unit"]),
        (&json!(false), &Value::Null, &json!(2)),
        "{record}"
    );
    assert!(!record.to_string().contains("a document"), "{record}");
    Ok(())
}

/// A call, what its usage says, and what it costs.
struct Case {
    arguments: &'static str,
    tokens: Tokens,
    told: &'static [(&'static str, u64)],
    /// In pico-dollars, at the prices of developers.openai.com/api/docs/models.
    cost: u64,
}

#[test]
fn speech_and_images_are_settled_at_what_the_reply_states_plain_and_streamed() -> Result<()> {
    let micro = DOLLAR / 1_000_000;
    let cases = [
        // $0.006 a minute.
        Case {
            arguments: "transcribe --model whisper-1 --number 30",
            tokens: Tokens::new(30, 0),
            told: &[("audio_ms", 30_000)],
            cost: 3_000 * micro,
        },
        // $2.50 a million heard, $10 written.
        Case {
            arguments: "transcribe --model gpt-4o-transcribe",
            tokens: Tokens::new(40, 20),
            told: &[("input_audio", 40), ("output", 20)],
            cost: 300 * micro,
        },
        Case {
            arguments: "transcribe --model gpt-4o-transcribe --stream",
            tokens: Tokens::new(40, 20),
            told: &[("input_audio", 40), ("output", 20)],
            cost: 300 * micro,
        },
        // $0.60 a million read, $12 spoken.
        Case {
            arguments: "speech --model gpt-4o-mini-tts --stream",
            tokens: Tokens::new(10, 50),
            told: &[("input", 10), ("output_audio", 50)],
            cost: 606 * micro,
        },
        // $5 a million of text, $32 of images.
        Case {
            arguments: "images --model gpt-image-1.5 --number 3",
            tokens: Tokens::new(20, 816),
            told: &[("input", 20), ("output_image", 816)],
            cost: 100 * micro + 816 * 32 * micro,
        },
        Case {
            arguments: "images --model gpt-image-1.5 --number 1 --stream",
            tokens: Tokens::new(20, 372),
            told: &[("input", 20), ("output_image", 372)],
            cost: 100 * micro + 372 * 32 * micro,
        },
        Case {
            arguments: "edit --model gpt-image-1.5 --number 1",
            tokens: Tokens::new(20, 272),
            told: &[("input", 20), ("output_image", 272)],
            cost: 100 * micro + 272 * 32 * micro,
        },
        Case {
            arguments: "edit --model gpt-image-1.5 --number 1 --stream",
            tokens: Tokens::new(20, 372),
            told: &[("input", 20), ("output_image", 372)],
            cost: 100 * micro + 372 * 32 * micro,
        },
    ];
    let lab = Lab::builder().coder(AGENT).start()?;
    lab.openai().require_key(OPENAI_KEY);
    let placeholder = lab.coder().variable("OPENAI_API_KEY")?;
    for (number, case) in cases.iter().enumerate() {
        lab.openai().next(Reply::billed(case.tokens));
        let said = call(lab.coder(), case.arguments)?;
        ensure!(said["ok"] == true, "{}: {said}", case.arguments);
        let record = record(&lab, number + 1)?;
        assert_eq!(record["dialect"], "media", "{record}");
        assert_eq!(record["stream"], case.arguments.contains("--stream"), "{record}");
        assert_eq!(record["cost_pico_usd"], case.cost, "{} {record}", case.arguments);
        for (name, count) in case.told {
            assert_eq!(record["usage"][*name], *count, "{} {record}", case.arguments);
        }
        let reserved = record["reserved_pico_usd"].as_u64().context("nothing reserved")?;
        assert!(reserved >= case.cost, "{} {record}", case.arguments);
        assert_eq!(record["findings"], json!([]), "{record}");
        // Neither the prompt nor what was made of it is kept.
        for content in ["Say hello", "Hello from", "AAAA", "RIFF"] {
            assert!(!record.to_string().contains(content), "{record}");
        }
        let seen = lab.openai().last()?;
        let sent = String::from_utf8_lossy(&seen.body).into_owned();
        assert!(!sent.contains(&placeholder) && seen.credential() == Some(OPENAI_KEY));
    }
    Ok(())
}

/// $15 for a million characters; a transcript in plain text, and speech in a model's tokens, state nothing.
#[test]
fn where_the_reply_states_nothing_the_text_or_what_was_reserved_is_charged() -> Result<()> {
    let lab = Lab::builder().coder(AGENT).start()?;
    let raw = |kind, body: &'static [u8]| Reply {
        raw: Some(Raw::whole(kind, None, body)),
        ..Reply::default()
    };
    lab.openai().next(raw("audio/mpeg", b"\xff\xfbsound"));
    let said = call(lab.coder(), "speech --model tts-1")?;
    ensure!(
        said["ok"] == true && said["text"].as_str().is_some_and(|text| text.contains("sound")),
        "{said}"
    );
    let spoken = record(&lab, 1)?;
    // Ten characters.
    assert_eq!(spoken["cost_pico_usd"], 10 * 15 * DOLLAR / 1_000_000, "{spoken}");
    assert_eq!(
        (&spoken["usage"]["known"], &spoken["usage"]["character"]),
        (&json!(false), &json!(10))
    );

    lab.openai().next(raw("audio/mpeg", b"\xff\xfbsound"));
    call(lab.coder(), "speech --model gpt-4o-mini-tts")?;
    lab.openai().next(raw("text/plain; charset=utf-8", b"Hello.\n"));
    let said = call(
        lab.coder(),
        "transcribe --model whisper-1 --number 30 --response-format text",
    )?;
    ensure!(said["text"] == "Hello.\n", "{said}");
    for (number, least) in [(2, 0), (3, 3_000 * DOLLAR / 1_000_000)] {
        let record = record(&lab, number)?;
        assert_eq!(record["usage"]["known"], false, "{record}");
        assert_eq!(record["cost_pico_usd"], record["reserved_pico_usd"], "{record}");
        assert!(
            record["cost_pico_usd"]
                .as_u64()
                .is_some_and(|cost| cost > 0 && cost >= least),
            "{record}"
        );
    }
    Ok(())
}

#[test]
fn a_form_that_can_be_read_in_two_ways_does_not_leave() -> Result<()> {
    let lab = Lab::builder().coder(AGENT).start()?;
    let part = |name: &str, value: &str| {
        format!("--x\\r\\nContent-Disposition: form-data; name=\"{name}\"\\r\\n\\r\\n{value}\\r\\n")
    };
    let file = "--x\\r\\nContent-Disposition: form-data; name=\"file\"; filename=\"a.ogg\"\\r\\n\\r\\nOggS\\r\\n--x--\\r\\n";
    let twice = format!(
        "{}{}{file}",
        part("model", "whisper-1"),
        part("model", "gpt-4o-transcribe")
    );
    let command = format!(
        "printf %b '{twice}' | curl -sS -o /dev/null -w '%{{http_code}}' --data-binary @- -H 'content-type: multipart/form-data; boundary=x' -H \"authorization: Bearer $OPENAI_API_KEY\" https://api.openai.com/v1/audio/transcriptions"
    );
    let done = lab.coder().shell(&command)?.ok()?;
    assert_eq!(done.stdout, "400");
    let record = record(&lab, 1)?;
    assert_eq!(record["reason"], "malformed", "{record}");
    assert!(lab.openai().seen().is_empty());
    Ok(())
}

#[test]
fn what_does_not_fit_into_the_budget_or_is_not_allowed_is_refused_in_one_attempt() -> Result<()> {
    let lab = Lab::builder()
        .coder(&AGENT.replace("usd = 100.0", "usd = 0.000001"))
        .other(&AGENT.replace("\"*\"", "\"nothing\""))
        .start()?;
    let mut refused = 0;
    for arguments in [
        "rerank --model rerank-v3.5",
        "transcribe --model whisper-1 --number 60",
        "transcribe --model gpt-4o-transcribe --stream",
        "speech --model tts-1",
        "speech --model gpt-4o-mini-tts --stream",
        "images --model gpt-image-1.5",
        "edit --model gpt-image-1.5 --stream",
    ] {
        for (place, words) in [(lab.coder(), "budget"), (lab.other(), "may not use the model")] {
            let said = call(place, arguments)?;
            let message = said["message"].as_str().unwrap_or_default();
            ensure!(
                said["ok"] == false && message.contains(words),
                "{arguments}: {said}"
            );
            refused += 1;
            // As many records as calls: one attempt each.
            assert_eq!(lab.calls(refused)?.len(), refused, "{arguments}");
        }
    }
    assert!(lab.openai().seen().is_empty() && lab.cohere().seen().is_empty());
    Ok(())
}
