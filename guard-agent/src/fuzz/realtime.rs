//! Realtime sockets: what a client says is what it is taken for, what the provider says has one owner.

use bytes::Bytes;
use serde_json::Value;

use super::sockets::{lines, opened, said, told};
use super::{broken, controls};
use crate::llm::provider::dialect_of;
use crate::llm::socket::{Asked, Mark, Request, Session};
use crate::llm::{BodyEdits, Dialect, DialectKind, RequestFacts};
use crate::refusal::{Reason, Refusal};

/// Bits of the first byte: the rest is from the provider; the client's message gets a cap, and loses tools.
const PROVIDER: u8 = 1;
const CAP: u8 = 1 << 1;
const STRIP: u8 = 1 << 3;

const TARGET: &str = "/v1/realtime?model=gpt-realtime";
/// Below the base path.
const LIVE: &str = "/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent";

/// OpenAI's: messages of the client's, or the provider's, one a line.
pub(super) fn openai(input: &[u8]) {
    let Some((mode, how, rest)) = controls(input) else {
        return;
    };
    let kind = DialectKind::OpenaiRealtime;
    let Some(session) = &mut opened(kind, TARGET) else {
        return;
    };
    let lines = lines(rest);
    if mode & PROVIDER == 0 {
        for line in lines {
            asked(session.as_mut(), mode, how, line);
        }
        return;
    }
    for line in &lines {
        let told = session.told(line);
        let of = said(line, &["type"]).unwrap_or_default();
        match told.mark {
            Mark::Begin => assert_eq!(of, "response.created"),
            Mark::End => assert_eq!(of, "response.done"),
            Mark::Whole => assert!(of.ends_with("transcription.completed")),
            Mark::Due => assert_eq!(of, "input_audio_buffer.committed"),
            Mark::Aside => {
                assert!(!of.starts_with("response."), "{of} belongs to no response");
                let call = said(line, &["item", "type"]).unwrap_or_default();
                assert!(!call.ends_with("_call"), "a call belongs to no response");
            }
            Mark::Part | Mark::Failed(_) | Mark::Doubt => {}
        }
    }
    let begins = |line: &&&[u8]| said(line, &["type"]).as_deref() == Some("response.created");
    // What is read as one response is one.
    if lines.iter().filter(begins).count() <= 1 {
        told(session.as_ref(), &Request::default(), mode, how, &lines);
    }
}

/// Gemini's: messages of the client's, or the provider's, one a line.
pub(super) fn live(input: &[u8]) {
    let Some((mode, how, rest)) = controls(input) else {
        return;
    };
    let kind = DialectKind::GeminiLive;
    let Some(session) = &mut opened(kind, LIVE) else {
        return;
    };
    let lines = lines(rest);
    if mode & PROVIDER == 0 {
        for line in lines {
            asked_live(session.as_mut(), mode, how, line);
        }
        return;
    }
    let mut active = false;
    let mut turns = 0;
    for line in &lines {
        let told = session.told(line);
        let value = serde_json::from_slice::<Value>(line).unwrap_or_default();
        let calls = !value["toolCall"].is_null() || !value["serverContent"]["modelTurn"].is_null();
        assert!(
            told.mark != Mark::Aside || !calls,
            "what the model makes belongs to no turn"
        );
        match told.mark {
            Mark::Begin | Mark::Whole => {
                assert!(!active, "a turn begins in another one");
                active = told.mark == Mark::Begin;
                turns += 1;
            }
            Mark::End => assert!(std::mem::take(&mut active), "a turn ends that has not begun"),
            _ => {}
        }
    }
    // What is read as one turn is one.
    if turns <= 1 {
        told(session.as_ref(), &Request::default(), mode, how, &lines);
    }
}

fn asked_live(session: &mut dyn Session, mode: u8, how: u8, text: &[u8]) {
    let value = serde_json::from_slice::<Value>(text).unwrap_or_default();
    let set = !session.needs().is_empty();
    match session.asked(text) {
        Err(unfit) => {
            let refusal = Refusal::new(Reason::Malformed, unfit.why);
            let said = session.refusal(&refusal, "id-1", None);
            let said = serde_json::from_str::<Value>(&said).unwrap_or_default();
            assert_eq!(
                (&said["code"], &said["error"]["code"]),
                (&Value::from(400), &Value::from(400))
            );
        }
        Ok(Asked::Setup(..)) => {
            assert!(!set && value["setup"].is_object(), "{value}");
            session.accepted(&BodyEdits::default());
            edited(DialectKind::GeminiLive, mode, how, text);
        }
        Ok(Asked::Input(_)) => {
            assert!(set && value["setup"].is_null(), "{value}");
        }
        Ok(other) => broken(&format!("{other:?} on a socket of Live")),
    }
    for need in session.needs() {
        let expected = session.expected(&need);
        assert!(expected.is_some_and(|expected| expected.covers >= need.covers && expected.facts.stream));
    }
}

fn facts(kind: DialectKind, text: &[u8]) -> Result<RequestFacts, String> {
    let target = match kind {
        DialectKind::GeminiLive => LIVE,
        _ => TARGET,
    };
    let mut session = opened(kind, target).ok_or("no socket")?;
    match session.asked(text) {
        Ok(Asked::Response(facts, _) | Asked::Setup(facts, ..)) => Ok(*facts),
        other => Err(format!("{other:?}")),
    }
}

/// Whether every value is a name, a number or a flag.
fn is_flat(value: &Value) -> bool {
    let flat = |value: &Value| !value.is_array() && !value.is_object();
    value
        .as_object()
        .is_some_and(|members| members.values().all(flat))
}

fn asked(session: &mut dyn Session, mode: u8, how: u8, text: &[u8]) {
    let value = serde_json::from_slice::<Value>(text).unwrap_or_default();
    let kind = value["type"].as_str().unwrap_or_default();
    match session.asked(text) {
        Err(unfit) => {
            let refusal = Refusal::new(Reason::Malformed, unfit.why);
            let said = session.refusal(&refusal, "id-1", unfit.named.as_deref());
            let said = serde_json::from_str::<Value>(&said).unwrap_or_default();
            assert_eq!(said["type"], "error");
            assert_eq!(said["error"]["event_id"].as_str(), unfit.named.as_deref());
        }
        Ok(Asked::Response(..)) => {
            assert_eq!(kind, "response.create");
            edited(DialectKind::OpenaiRealtime, mode, how, text);
        }
        Ok(Asked::Setup(..)) => {
            assert_eq!(kind, "session.update");
            session.accepted(&BodyEdits::default());
            edited(DialectKind::OpenaiRealtime, mode, how, text);
        }
        Ok(Asked::Input(_)) => assert!(
            matches!(
                kind,
                "input_audio_buffer.append" | "input_audio_buffer.commit" | "conversation.item.create"
            ),
            "{kind}"
        ),
        Ok(Asked::Stop) => assert!(kind == "response.cancel" && is_flat(&value), "{value}"),
        Ok(Asked::Aside) => assert!(kind == "conversation.item.create" || is_flat(&value), "{value}"),
    }
    for need in session.needs() {
        let expected = session.expected(&need);
        assert!(expected.is_some_and(|expected| expected.covers >= need.covers && expected.facts.stream));
    }
}

/// A cap holds, and a tool that is taken out is gone.
fn edited(kind: DialectKind, mode: u8, how: u8, text: &[u8]) {
    let Ok(before) = facts(kind, text) else {
        return;
    };
    let strip = |at: usize| mode & STRIP != 0 && (at + usize::from(how)).is_multiple_of(2);
    let names = before.tools.iter().map(|tool| tool.name.clone()).enumerate();
    let edits = BodyEdits {
        output_cap: (mode & CAP != 0).then_some(u64::from(how).max(1)),
        strip_tools: names.filter(|(at, _)| strip(*at)).map(|(_, name)| name).collect(),
        ..BodyEdits::default()
    };
    let dialect: &dyn Dialect = dialect_of(kind);
    let Ok(out) = dialect.rewrite(&Bytes::copy_from_slice(text), &edits) else {
        assert!(mode & (CAP | STRIP) != 0, "nothing was to be changed");
        return;
    };
    let after = match facts(kind, &out) {
        Ok(after) => after,
        Err(why) => return broken(&format!("{why}: {}", String::from_utf8_lossy(&out))),
    };
    assert_eq!(after.output_cap, edits.output_cap.or(before.output_cap));
    let kept = before
        .tools
        .iter()
        .filter(|tool| !edits.strip_tools.contains(&tool.name));
    assert!(kept.eq(&after.tools), "{:?} of {:?}", after.tools, before.tools);
}
