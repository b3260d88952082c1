//! The parts of a refusal that all formats share: the class's status, the headers, the machine-readable details.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderName, RETRY_AFTER, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::ledger::{Amount, Unit};
use crate::llm::RefusalReply;
use crate::refusal::{Class, MoneyDetail, Refusal};

/// Longest wait that a transient refusal asks for. Some SDKs sleep whatever they are told, hours included.
const LONGEST_WAIT: u32 = 20;

/// Wait when the refusal names none.
const USUAL_WAIT: u32 = 5;

/// Obeyed by the OpenAI and Anthropic SDKs and by Claude Code: `false` ends their retries at any status.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The numbers behind a refusal, as clients and tools read them.
#[derive(Debug, Serialize)]
pub(crate) struct Details {
    /// The stable code.
    pub(crate) code: String,
    #[serde(flatten)]
    money: Option<Money>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u32>,
}

#[derive(Debug, Serialize)]
struct Money {
    scope: &'static str,
    name: String,
    window: Cow<'static, str>,
    #[serde(flatten)]
    numbers: Numbers,
    resets_at: Option<String>,
}

/// The unit stands in the name of each number.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Numbers {
    Usd {
        limit_usd: Option<Box<RawValue>>,
        spent_usd: Option<Box<RawValue>>,
        reserved_usd: Option<Box<RawValue>>,
        requested_usd: Option<Box<RawValue>>,
    },
    Tokens {
        limit_tokens: u64,
        spent_tokens: u64,
        reserved_tokens: u64,
        requested_tokens: u64,
    },
    Calls {
        limit_calls: u64,
        spent_calls: u64,
        reserved_calls: u64,
        requested_calls: u64,
    },
}

impl Numbers {
    fn of(money: &MoneyDetail) -> Self {
        let [limit, spent, reserved, requested] =
            [money.limit, money.spent, money.reserved, money.requested].map(|amount| amount.count);
        match money.limit.unit {
            Unit::Usd => Self::Usd {
                limit_usd: usd(money.limit),
                spent_usd: usd(money.spent),
                reserved_usd: usd(money.reserved),
                requested_usd: usd(money.requested),
            },
            Unit::Tokens => Self::Tokens {
                limit_tokens: limit,
                spent_tokens: spent,
                reserved_tokens: reserved,
                requested_tokens: requested,
            },
            Unit::Calls => Self::Calls {
                limit_calls: limit,
                spent_calls: spent,
                reserved_calls: reserved,
                requested_calls: requested,
            },
        }
    }
}

impl Details {
    /// What `refusal` says in numbers.
    pub(crate) fn of(refusal: &Refusal) -> Self {
        Self {
            code: refusal.reason.code(),
            money: refusal.money.as_ref().map(|money| Money {
                scope: money.scope,
                name: money.name.to_string(),
                window: money.window.clone(),
                numbers: Numbers::of(money),
                resets_at: money.resets_at.map(|at| at.to_string()),
            }),
            retry_after: wait(refusal),
        }
    }
}

/// A JSON number with exactly the amount's decimals; no binary fraction in between.
fn usd(amount: Amount) -> Option<Box<RawValue>> {
    RawValue::from_string(amount.to_string().trim_start_matches('$').to_owned()).ok()
}

fn wait(refusal: &Refusal) -> Option<u32> {
    let transient = refusal.reason.class() == Class::Transient;
    transient.then(|| refusal.retry_after.unwrap_or(USUAL_WAIT).clamp(1, LONGEST_WAIT))
}

/// The message with the id by which `guard-agent explain` finds the decision.
pub(crate) fn message(refusal: &Refusal, request_id: &str) -> String {
    format!("{} (Guard request {request_id})", refusal.message.trim_end())
}

/// Puts a refusal together. `money` is the status of a final money refusal, where the formats differ.
pub(crate) fn reply(
    refusal: &Refusal,
    money: StatusCode,
    id_header: &'static str,
    request_id: &str,
    body: &impl Serialize,
) -> RefusalReply {
    let class = refusal.reason.class();
    let status = match class {
        Class::Money => money,
        Class::Policy | Class::Malformed => StatusCode::BAD_REQUEST,
        Class::Transient => StatusCode::TOO_MANY_REQUESTS,
        Class::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Class::Misdirected => StatusCode::MISDIRECTED_REQUEST,
        Class::Upgrade => StatusCode::UPGRADE_REQUIRED,
        Class::Upstream => StatusCode::BAD_GATEWAY,
    };
    let mut headers = HeaderMap::new();
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(HeaderName::from_static(id_header), id);
    }
    match class {
        Class::Transient => {
            let seconds = wait(refusal).unwrap_or(USUAL_WAIT);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        // Not a decision: what the client's own retry rules say about the provider's faults holds.
        Class::Upstream => {}
        Class::Money
        | Class::Policy
        | Class::Malformed
        | Class::TooLarge
        | Class::Misdirected
        | Class::Upgrade => {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
    }
    if class == Class::Upgrade {
        // RFC 9110 §15.5.22: a 426 names the protocol to use instead.
        headers.insert(UPGRADE, HeaderValue::from_static("HTTP/1.1"));
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    // Strings and numbers only: writing them can't fail; an empty body would still carry the status.
    let body = serde_json::to_vec(body).map(Bytes::from).unwrap_or_default();
    RefusalReply {
        status,
        headers,
        body,
    }
}
