use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::fixtures;
use super::formats::{BINARY, ENDINGS, binary};
use super::snapshot;
use crate::fuzz::replies::Rules;
use crate::llm::frames::{Frames, Lines, is_lines};
use crate::llm::provider::dialect_of;
use crate::llm::sse::Found;
use crate::llm::{DialectKind, Gate, InReply, ReplyHead};
use crate::money::Pico;
use crate::refusal::{Class, MoneyDetail, Reason, Refusal};

const REASONS: [Reason; 22] = [
    Reason::BudgetExceeded,
    Reason::BudgetReserved,
    Reason::CallTooLarge,
    Reason::ProviderDenied,
    Reason::ModelDenied,
    Reason::EndpointDenied,
    Reason::ToolDenied,
    Reason::KeyDenied,
    Reason::KeyMissing,
    Reason::OutputCap,
    Reason::Unpriced,
    Reason::Malformed,
    Reason::BodyTooLarge,
    Reason::UnsupportedEncoding,
    Reason::AuthorityMismatch,
    Reason::UpgradeRequired,
    Reason::InFlight,
    Reason::Unidentified,
    Reason::Upstream,
    Reason::NotRecordable,
    Reason::Stopping,
    Reason::Internal,
];

fn refusal(reason: Reason) -> Refusal {
    let mut refusal = Refusal::new(reason, "What happened. What to do next.");
    if matches!(
        reason,
        Reason::BudgetExceeded | Reason::BudgetReserved | Reason::CallTooLarge
    ) {
        refusal.money = Some(Box::new(MoneyDetail {
            scope: "agent",
            name: "coder".into(),
            window: "day".into(),
            limit: Pico::from_usd_text("20").unwrap().into(),
            spent: Pico::from_usd_text("19.990001").unwrap().into(),
            reserved: Pico::from_usd_text("0.000000000001").unwrap().into(),
            requested: Pico(u64::MAX).into(),
            resets_at: Some("2026-11-24T00:00:00Z".parse().unwrap()),
        }));
        refusal.retry_after = Some(3600);
    }
    refusal
}

#[test]
fn every_reason_in_the_provider_s_own_words() {
    for kind in DialectKind::ALL {
        let mut all = serde_json::Map::new();
        for reason in REASONS {
            let reply = dialect_of(kind).refusal(&refusal(reason), "01JABC");
            let headers: serde_json::Map<String, Value> = reply
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()))
                .collect();
            let body: &serde_json::value::RawValue = serde_json::from_slice(&reply.body).unwrap();
            let body = body.get().to_owned();
            all.insert(
                reason.code(),
                json!({"status": reply.status.as_u16(), "headers": headers, "body": body}),
            );
        }
        snapshot(kind, "refusals", &all);
    }
}

/// A reply of this media type that has begun like the first fixture that has it, under tool rules or without.
fn begun(
    kind: DialectKind,
    ending: &str,
    media: &'static str,
    gate: Option<&Arc<dyn Gate>>,
) -> Option<(Box<dyn crate::llm::ReplyReader>, Bytes)> {
    let (_, fixture) = fixtures(kind, ending).into_iter().next()?;
    let between: &[u8] = if ending == ".reply.sse" { b"\n\n" } else { b"\n" };
    let first = fixture
        .windows(between.len())
        .position(|piece| piece == between)
        .map_or(fixture.len(), |at| at + between.len());
    let first = match media == BINARY {
        true => binary(&fixture[..first]),
        false => fixture[..first].to_vec(),
    };
    let headers: HeaderMap = [(CONTENT_TYPE, HeaderValue::from_static(media))]
        .into_iter()
        .collect();
    let head = ReplyHead {
        status: StatusCode::OK,
        headers: &headers,
        hide_usage_event: false,
        gate,
    };
    Some((dialect_of(kind).reply(&head), Bytes::from(first)))
}

#[test]
fn a_stream_that_is_ended_says_why_in_the_formats_own_last_event() {
    for kind in DialectKind::ALL {
        let mut all = serde_json::Map::new();
        for (ending, media) in ENDINGS
            .into_iter()
            .filter(|(_, media)| *media != "application/json")
        {
            for reason in [Reason::ToolDenied, Reason::RunTimeout, Reason::Stopping] {
                let Some((mut reader, first)) = begun(kind, ending, media, None) else {
                    continue;
                };
                assert_eq!(reader.feed(first.clone()), first, "{kind:?} {media}");
                let last = reader.cut(&refusal(reason), "01JABC");
                assert!(reader.stopped() && !last.is_empty(), "{kind:?} {media}");
                assert!(reader.feed(first).is_empty(), "{kind:?} {media}");
                all.insert(
                    format!("{media} {}", reason.code()),
                    last.escape_ascii().to_string().into(),
                );
            }
        }
        if !all.is_empty() {
            snapshot(kind, "refusals_midway", &all);
        }
    }
}

/// What a client's own framing finds in these bytes; nothing, if they end inside an event.
fn whole_events(media: &str, bytes: &[u8]) -> Option<usize> {
    let mut frames: Box<dyn Frames> = match media {
        BINARY => Box::new(crate::llm::eventstream::Scanner::default()),
        _ if is_lines(media) => Box::new(Lines::default()),
        _ => Box::new(crate::llm::sse::Scanner::default()),
    };
    let (mut from, mut events) = (0, 0);
    while let Some(step) = frames.next(bytes, from) {
        let Found::Event(data) = &step.found else {
            return None;
        };
        let data = data.trim_ascii();
        let readable = data.is_empty() || data == b"[DONE]" || serde_json::from_slice::<Value>(data).is_ok();
        if !readable {
            return None;
        }
        (from, events) = (step.end, events + 1);
    }
    (from == bytes.len()).then_some(events)
}

#[test]
fn a_stream_that_is_ended_at_any_byte_ends_between_two_of_its_events() {
    for kind in DialectKind::ALL {
        for (ending, media) in ENDINGS
            .into_iter()
            .filter(|(_, media)| *media != "application/json")
        {
            let Some((_, fixture)) = fixtures(kind, ending).into_iter().next() else {
                continue;
            };
            let body = match media {
                BINARY => binary(&fixture),
                _ => fixture,
            };
            for at in 0..body.len() {
                let (mut reader, _) = begun(kind, ending, media, None).unwrap();
                let mut got = reader.feed(Bytes::copy_from_slice(&body[..at])).to_vec();
                let passed = whole_events(media, &got);
                got.extend_from_slice(&reader.cut(&refusal(Reason::BudgetExceeded), "01JABC"));
                let all = whole_events(media, &got);
                assert!(passed.is_some() && all > passed, "{kind:?} {media} at {at}");
            }
        }
    }
}

#[test]
fn a_plain_reply_that_may_not_pass_is_replaced_by_the_formats_own_error() {
    for kind in DialectKind::ALL {
        let gate: Arc<dyn Gate> = Arc::new(Rules::new(InReply::Refuse));
        let Some((mut reader, first)) = begun(kind, ".reply.json", "application/json", Some(&gate)) else {
            continue;
        };
        // No call can be in speech or images, so nothing of them is held or judged.
        if kind == DialectKind::Media {
            assert_eq!(reader.feed(first.clone()), first);
            continue;
        }
        // Cut short, so that nobody can say which calls would be in it.
        assert!(reader.feed(first.slice(..first.len() / 2)).is_empty());
        let (last, _) = reader.finish();
        let body: Value = serde_json::from_slice(&last).unwrap();
        snapshot(kind, "refusals_instead", &body);
    }
}

#[test]
fn no_refusal_makes_a_client_retry_or_log_in_again() {
    for kind in DialectKind::ALL {
        // The SDKs of Google and Amazon stop at a 403, and show the message; to others it means another login.
        let takes_403 = matches!(
            kind,
            DialectKind::Gemini
                | DialectKind::GeminiLive
                | DialectKind::BedrockConverse
                | DialectKind::BedrockInvoke
        );
        for reason in REASONS {
            let reply = dialect_of(kind).refusal(&refusal(reason), "01JABC");
            let own_decision = reason.class() != Class::Upstream;
            assert_ne!(reply.status, StatusCode::UNAUTHORIZED, "{kind:?} {reason:?}");
            assert!(
                takes_403 || reply.status != StatusCode::FORBIDDEN,
                "{kind:?} {reason:?}"
            );
            assert!(
                !(own_decision && reply.status.is_server_error()),
                "{kind:?} {reason:?}"
            );
            let (final_mark, wait) = (
                reply.headers.get("x-should-retry"),
                reply.headers.get("retry-after"),
            );
            match reason.class() {
                Class::Transient => {
                    assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS);
                    let seconds: u32 = wait.unwrap().to_str().unwrap().parse().unwrap();
                    assert!((1..=20).contains(&seconds) && final_mark.is_none());
                }
                Class::Upstream => assert!(final_mark.is_none() && wait.is_none()),
                _ => assert!(final_mark.unwrap() == "false" && wait.is_none(), "{reason:?}"),
            }
            // A status inside the body is that of the answer.
            let body: Value = serde_json::from_slice(&reply.body).unwrap();
            if let Some(inside) = body.pointer("/error/code").and_then(Value::as_u64) {
                assert_eq!(inside, u64::from(reply.status.as_u16()), "{kind:?} {reason:?}");
            }
        }
    }
}

#[test]
fn the_request_id_is_in_the_text_and_in_the_provider_s_header() {
    for (kind, header) in [
        (DialectKind::OpenaiChat, "x-request-id"),
        (DialectKind::AnthropicMessages, "request-id"),
    ] {
        let reply = dialect_of(kind).refusal(&refusal(Reason::ModelDenied), "01JABC");
        let body: Value = serde_json::from_slice(&reply.body).unwrap();
        assert!(body["error"]["message"].as_str().unwrap().contains("01JABC"));
        assert_eq!(reply.headers.get(header).unwrap(), "01JABC");
        // A value that can't be a header must not lose the refusal.
        let reply = dialect_of(kind).refusal(&refusal(Reason::ModelDenied), "a\nb");
        assert!(reply.headers.get(header).is_none() && !reply.body.is_empty());
    }
}
