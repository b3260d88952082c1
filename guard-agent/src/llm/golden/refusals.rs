use http::StatusCode;
use serde_json::{Value, json};

use super::{KINDS, snapshot};
use crate::llm::DialectKind;
use crate::llm::provider::dialect_of;
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
    for kind in KINDS {
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

#[test]
fn no_refusal_makes_a_client_retry_or_log_in_again() {
    for kind in KINDS {
        for reason in REASONS {
            let reply = dialect_of(kind).refusal(&refusal(reason), "01JABC");
            let own_decision = reason.class() != Class::Upstream;
            assert!(reply.status != StatusCode::UNAUTHORIZED && reply.status != StatusCode::FORBIDDEN);
            assert!(!(own_decision && reply.status.is_server_error()), "{reason:?}");
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
