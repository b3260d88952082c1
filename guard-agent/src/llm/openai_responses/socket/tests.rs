use std::sync::Arc;

use super::*;
use crate::llm::gate::Unjudged;
use crate::llm::{Denial, InReply, Judgement};
use crate::refusal::Reason;

fn asked(message: &str) -> Result<Asked, Unfit> {
    { SOCKET }.asked(message.as_bytes())
}

fn request(message: &str) -> (crate::llm::RequestFacts, Request) {
    match asked(message).unwrap() {
        Asked::Response(facts, request) => (*facts, request),
        _ => panic!("{message}"),
    }
}

#[test]
fn a_create_is_read_as_the_body_of_a_post_is() {
    let (facts, request) = request(
        r#"{"type":"response.create","model":"gpt-5","input":"hi","max_output_tokens":9,"tools":[{"type":"function","name":"Read"}]}"#,
    );
    assert_eq!(
        (facts.model.as_str(), facts.output_cap, facts.stream),
        ("gpt-5", Some(9), true)
    );
    assert_eq!(facts.tools[0].name, "Read");
    assert!(!facts.unseen_input);
    assert_eq!(
        (request.lane, request.prepares, request.continues),
        (None, false, false)
    );
}

#[test]
fn what_goes_on_from_before_has_input_that_is_not_seen() {
    let (facts, asked) = request(
        r#"{"type":"response.create","model":"m","stream_id":"a","generate":false,"previous_response_id":"resp_1","input":[]}"#,
    );
    assert!(facts.unseen_input && asked.continues && asked.prepares);
    assert_eq!(asked.lane.as_deref(), Some("a"));
    let (_, none) =
        request(r#"{"type":"response.create","model":"m","previous_response_id":null,"generate":true}"#);
    assert!(!none.continues && !none.prepares);
}

#[test]
fn what_would_not_be_bounded_does_not_go_on() {
    for (message, lane) in [
        (
            r#"{"type":"response.steer","previous_response_id":"r","input":"more"}"#,
            None,
        ),
        (
            r#"{"type":"response.create","stream_id":"a","model":"m","background":true}"#,
            Some("a"),
        ),
        (
            r#"{"type":"response.create","stream_id":"a","response":{"model":"m"}}"#,
            Some("a"),
        ),
        (
            r#"{"type":"response.create","stream_id":"a","input":"no model"}"#,
            Some("a"),
        ),
        (r#"{"type":"response.create","model":"m","model":"n"}"#, None),
        (
            r#"{"type":"response.create","type":"response.cancel","model":"m"}"#,
            None,
        ),
        (r#"{"Type":"response.create","type":"response.cancel"}"#, None),
        (r#"{"type":"response.create","model":"m","Generate":false}"#, None),
        (r#"{"type":"response.create","model":"m","generate":"no"}"#, None),
        (
            r#"{"type":"response.create","model":"m"} {"type":"response.create"}"#,
            None,
        ),
        (r#"{"type":"session.update","session":{}}"#, None),
        (r#"{"type":"response.cancel","input":["more"]}"#, None),
        (r#"{"model":"m"}"#, None),
        ("[]", None),
        ("", None),
    ] {
        let unfit = asked(message).unwrap_err();
        assert_eq!(unfit.named.as_deref(), lane, "{message}");
        assert!(!unfit.why.is_empty());
    }
    let long = format!(
        r#"{{"type":"response.create","model":"m","stream_id":"{}"}}"#,
        "a".repeat(LANE + 1)
    );
    asked(&long).unwrap_err();
    let stop = r#"{"type":"response.cancel","response_id":"resp_1"}"#;
    assert_eq!(asked(stop), Ok(Asked::Stop));
}

#[test]
fn an_event_is_placed_by_its_type_and_lane() {
    for (message, lane, mark) in [
        (
            r#"{"type":"response.created","response":{"id":"r"}}"#,
            None,
            Mark::Begin,
        ),
        (
            r#"{"type":"response.output_text.delta","stream_id":"a","delta":"x"}"#,
            Some("a"),
            Mark::Part,
        ),
        (r#"{"type":"response.completed"}"#, None, Mark::End),
        (r#"{"type":"response.incomplete"}"#, None, Mark::End),
        (r#"{"type":"response.failed"}"#, None, Mark::End),
        (
            r#"{"type":"error","status":400,"error":{}}"#,
            None,
            Mark::Failed(Some(400)),
        ),
        (r#"{"type":"error"}"#, None, Mark::Failed(None)),
        (r#"{"type":"codex.rate_limits"}"#, None, Mark::Aside),
        ("not JSON", None, Mark::Part),
    ] {
        let told = { SOCKET }.told(message.as_bytes());
        assert_eq!((told.lane.as_deref(), told.mark), (lane, mark), "{message}");
    }
}

#[test]
fn a_refusal_is_an_error_message_with_the_names_that_clients_read() {
    let refusal = Refusal::new(Reason::BudgetExceeded, "The budget is used up.");
    let text = SOCKET.refusal(&refusal, "01ID", None);
    let event: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&event["type"], &event["status"]), (&json!("error"), &json!(400)));
    assert_eq!(event["error"]["code"], "guard_budget_exceeded");
    assert_eq!(
        event["error"]["message"],
        "The budget is used up. (Guard request 01ID)"
    );
    assert_eq!(event.as_object().unwrap().len(), 3, "{text}");
    let laned: Value = serde_json::from_str(&SOCKET.refusal(&refusal, "01ID", Some("a"))).unwrap();
    assert_eq!(laned["stream_id"], "a");
}

/// Lets no tool but `Read` pass.
struct OnlyRead(InReply);

impl Gate for OnlyRead {
    fn by_name(&self, name: &str) -> Judgement {
        if name == "Read" {
            return Judgement::Pass;
        }
        Judgement::Deny(Box::new(self.unjudged(Unjudged::Call)))
    }
    fn by_arguments(&self, _: &str, _: &str) -> Judgement {
        Judgement::Pass
    }
    fn unjudged(&self, _: Unjudged) -> Denial {
        Denial {
            how: self.0,
            refusal: Refusal::new(Reason::ToolDenied, "no such tool"),
        }
    }
    fn request_id(&self) -> &str {
        "01ID"
    }
}

fn read(
    lane: Option<&str>,
    generates: bool,
    how: Option<InReply>,
    messages: &[Value],
) -> (Vec<Value>, ReplyFacts) {
    let request = Request {
        lane: lane.map(str::to_owned),
        prepares: !generates,
        ..Request::default()
    };
    let gate = how.map(|how| Arc::new(OnlyRead(how)) as Arc<dyn Gate>);
    let mut reader = SOCKET.reader(&request, gate.as_ref());
    let mut out = Vec::new();
    for event in messages {
        out.extend_from_slice(&reader.feed(Bytes::from(message(event.to_string().as_bytes()))));
    }
    let (rest, facts) = reader.finish();
    out.extend_from_slice(&rest);
    let told = out.split(|byte| *byte == crate::llm::frames::MESSAGE_END);
    let told = told.filter(|text| !text.is_empty());
    (
        told.map(|text| serde_json::from_slice(text).unwrap()).collect(),
        facts,
    )
}

fn call(tool: &str, lane: Option<&str>) -> Vec<Value> {
    let item = |status: &str, arguments: &str| json!({"type": "function_call", "id": "fc", "call_id": "c", "name": tool, "status": status, "arguments": arguments});
    let usage = json!({"input_tokens": 10, "output_tokens": 5, "total_tokens": 15});
    let mut events = vec![
        json!({"type": "response.created", "response": {"id": "r", "object": "response", "model": "m", "status": "in_progress"}}),
        json!({"type": "response.output_item.added", "output_index": 0, "item": item("in_progress", "")}),
        json!({"type": "response.function_call_arguments.delta", "output_index": 0, "delta": "{\"a\":1}"}),
        json!({"type": "response.output_item.done", "output_index": 0, "item": item("completed", "{\"a\":1}")}),
        json!({"type": "response.completed", "response": {"id": "r", "object": "response", "model": "m", "status": "completed",
            "output": [item("completed", "{\"a\":1}")], "usage": usage}}),
    ];
    events.iter_mut().for_each(|event| echo(event, lane));
    events
}

#[test]
fn a_reply_in_messages_is_read_as_one_in_events_and_passes_unchanged() {
    for how in [None, Some(InReply::Replace)] {
        let events = call("Read", None);
        let (told, facts) = read(None, true, how, &events);
        assert_eq!(told, events);
        assert_eq!((facts.usage.unwrap().input, facts.usage.unwrap().output), (10, 5));
        assert_eq!(
            (facts.tools_called, facts.complete),
            (vec!["Read".to_owned()], true)
        );
    }
}

#[test]
fn no_byte_of_a_denied_call_passes_and_what_takes_its_place_is_in_the_same_lane() {
    for how in [InReply::Replace, InReply::Strip, InReply::Refuse] {
        let (told, facts) = read(Some("a"), true, Some(how), &call("Bash", Some("a")));
        let text = format!("{told:?}");
        assert!(
            !text.contains("Bash") && !text.contains("function_call"),
            "{text}"
        );
        assert!(told.iter().all(|event| event["stream_id"] == "a"), "{text}");
        assert_eq!(text.contains("no such tool"), how != InReply::Strip, "{text}");
        let last = if how == InReply::Refuse {
            "response.failed"
        } else {
            "response.completed"
        };
        assert_eq!(told.last().unwrap()["type"], last);
        assert_eq!(facts.tools_denied, ["Bash"]);
        assert_eq!(facts.usage.unwrap().output, 5, "what was cut is metered");
    }
}

#[test]
fn what_prepares_a_later_response_is_free_unless_the_provider_says_otherwise() {
    let end = |usage: Value| {
        vec![
            json!({"type": "response.completed", "response": {"id": "r", "object": "response", "model": "m",
            "status": "completed", "output": [], "usage": usage}}),
        ]
    };
    let (_, free) = read(None, false, None, &end(Value::Null));
    assert_eq!(free.usage, Some(Usage::default()));
    let used = json!({"input_tokens": 7, "output_tokens": 0, "total_tokens": 7});
    let (_, paid) = read(None, false, None, &end(used));
    assert_eq!(paid.usage.unwrap().input, 7);
    let (_, unknown) = read(None, true, None, &end(Value::Null));
    assert_eq!(unknown.usage, None);
    let (_, broken_off) = read(None, false, None, &[json!({"type": "response.created"})]);
    assert_eq!(broken_off.usage, None);
}

#[test]
fn a_reply_that_is_cut_ends_with_a_failed_response() {
    let request = Request {
        lane: Some("a".to_owned()),
        ..Request::default()
    };
    let mut reader = SOCKET.reader(&request, None);
    drop(reader.feed(Bytes::from(message(
        call("Read", Some("a"))[0].to_string().as_bytes(),
    ))));
    let words = reader.cut(&Refusal::new(Reason::RunTimeout, "The time is over."), "01ID");
    let event: Value = serde_json::from_slice(words.strip_suffix(&[0xff]).unwrap()).unwrap();
    assert_eq!(
        (&event["type"], &event["stream_id"]),
        (&json!("response.failed"), &json!("a"))
    );
    assert_eq!(event["response"]["error"]["code"], "invalid_prompt");
    assert_eq!(event["response"]["id"], "r");
    assert!(reader.stopped());
}
