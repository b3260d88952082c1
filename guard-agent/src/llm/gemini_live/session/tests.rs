use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::fuzz::replies::Rules;
use crate::llm::frames::message;
use crate::llm::gemini_live::LIVE;
use crate::llm::golden::conversations;
use crate::llm::socket::Mark;
use crate::llm::{Dialect, InReply, ReplyFacts};

/// The lines of a golden conversation.
fn lines(name: &str) -> Vec<String> {
    conversations::lines("gemini-live", name)
}

fn asked(live: &mut Live, message: &Value) -> Result<Asked, Unfit> {
    let asked = live.asked(message.to_string().as_bytes());
    if let Ok(Asked::Setup(..)) = asked {
        live.accepted(&BodyEdits::default());
    }
    asked
}

fn set_up() -> Live {
    let mut live = Live::default();
    let setup =
        json!({"setup": {"model": "models/gemini-3.8-live", "generationConfig": {"maxOutputTokens": 90}}});
    asked(&mut live, &setup).unwrap();
    live
}

fn told(live: &mut Live, message: &Value) -> Mark {
    live.told(message.to_string().as_bytes()).mark
}

#[test]
fn every_message_of_a_golden_client_is_read_or_told_why_not() {
    let mut all = Vec::new();
    for name in ["speech", "text", "unfit"] {
        let mut live = Live::default();
        for line in lines(&format!("{name}.client.jsonl")) {
            let line: Value = serde_json::from_str(&line).unwrap();
            let asked = asked(&mut live, &line);
            all.push(format!("{name}: {asked:?} needs {:?}", live.needs()));
        }
    }
    insta::with_settings!({
        snapshot_path => "../../golden/gemini-live",
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, {
        insta::assert_snapshot!("client", all.join("\n"));
    });
}

#[test]
fn a_socket_begins_with_one_setup_and_every_input_after_it_is_reserved_for() {
    let mut live = Live::default();
    assert!(live.needs().is_empty() && live.needs_setup());
    asked(&mut live, &json!({"realtimeInput": {"text": "hi"}})).unwrap_err();
    let mut live = set_up();
    assert!(!live.needs_setup());
    asked(&mut live, &json!({"setup": {"model": "models/other"}})).unwrap_err();
    let before = live.needs()[0].covers;
    let audio = json!({"realtimeInput": {"audio": {"data": "A".repeat(6_660), "mimeType": "audio/pcm"}}});
    assert_eq!(asked(&mut live, &audio), Ok(Asked::Input(Input::default())));
    let need = live.needs().remove(0);
    assert!((10..=11).contains(&(need.covers - before)), "{need:?}");
    let expected = live.expected(&need).unwrap();
    assert_eq!(expected.facts.model, "gemini-3.8-live");
    assert_eq!(
        (expected.facts.output_cap, expected.facts.carried),
        (Some(90), expected.covers)
    );
    // What a turn says that it read and made takes the place of the guess.
    told(
        &mut live,
        &json!({"serverContent": {"modelTurn": {"parts": [{"text": "a"}]}}}),
    );
    let usage = json!({"promptTokenCount": 500, "responseTokenCount": 40, "totalTokenCount": 540});
    told(
        &mut live,
        &json!({"serverContent": {"turnComplete": true}, "usageMetadata": usage}),
    );
    assert!((540..1_000).contains(&live.needs()[0].covers));
    told(
        &mut live,
        &json!({"serverContent": {"modelTurn": {"parts": []}, "turnComplete": true}}),
    );
    assert_eq!(live.needs()[0].covers, u64::MAX, "not known");
}

#[test]
fn the_results_of_tools_prolong_the_turn_that_called_them() {
    let mut live = set_up();
    let answer = json!({"toolResponse": {"functionResponses": []}});
    let Ok(Asked::Input(input)) = asked(&mut live, &answer) else {
        panic!("{answer}");
    };
    assert_eq!(input.extends, None);
    told(
        &mut live,
        &json!({"toolCall": {"functionCalls": [{"name": "Read", "args": {}}]}}),
    );
    let Ok(Asked::Input(input)) = asked(&mut live, &answer) else {
        panic!("{answer}");
    };
    assert_eq!(input.extends.map(|more| more.output), Some(90));
}

#[test]
fn a_message_has_one_place_in_a_turn() {
    let mut live = set_up();
    let content = |member: &str, value: Value| json!({"serverContent": {member: value}});
    let usage = json!({"promptTokenCount": 1, "responseTokenCount": 1});
    for (message, mark) in [
        (json!({"setupComplete": {}}), Mark::Aside),
        (content("inputTranscription", json!({"text": "x"})), Mark::Aside),
        (content("turnComplete", json!(true)), Mark::Aside),
        (json!({"usageMetadata": usage}), Mark::Aside),
        (content("modelTurn", json!({"parts": []})), Mark::Begin),
        (content("inputTranscription", json!({"text": "x"})), Mark::Aside),
        (json!({"toolCall": {}}), Mark::Part),
        (json!({"toolCallCancellation": {"ids": []}}), Mark::Part),
        (json!({"usageMetadata": usage}), Mark::Part),
        (content("interrupted", json!(true)), Mark::Part),
        (content("turnComplete", json!(true)), Mark::End),
        (
            json!({"serverContent": {"turnComplete": true}, "usageMetadata": usage}),
            Mark::Whole,
        ),
        (content("something", json!("new")), Mark::Begin),
        (content("turnComplete", json!(true)), Mark::End),
        (json!({"somethingElse": {}}), Mark::Begin),
        (json!("not an object"), Mark::Part),
    ] {
        assert_eq!(told(&mut live, &message), mark, "{message}");
    }
}

#[test]
fn a_setup_is_edited_in_place() {
    let setup = br#"{"setup":{"model":"models/m", "tools":[{"functionDeclarations":[{"name":"Read"},{"name":"Bash"}]}]}}"#;
    let edits = BodyEdits {
        output_cap: Some(7),
        strip_tools: vec!["Bash".to_owned()],
        ..BodyEdits::default()
    };
    let out = LIVE.rewrite(&Bytes::from_static(setup), &edits).unwrap();
    assert_eq!(
        String::from_utf8(out.into()).unwrap(),
        r#"{"setup":{"model":"models/m", "tools":[{"functionDeclarations":[{"name":"Read"}]}],"generationConfig":{"maxOutputTokens":7}}}"#
    );
}

#[test]
fn a_refusal_is_googles_own_error_with_its_code_beside_it() {
    let refusal = Refusal::new(Reason::BudgetExceeded, "The budget is used up.");
    let said: Value = serde_json::from_str(&Live::default().refusal(&refusal, "01ID", None)).unwrap();
    assert_eq!(
        (&said["code"], &said["error"]["code"]),
        (&json!(403), &json!(403))
    );
    assert_eq!(said["error"]["status"], "PERMISSION_DENIED");
    assert_eq!(
        said["error"]["message"],
        "The budget is used up. (Guard request 01ID)"
    );
}

/// What passes of a turn, and what was learnt.
fn read(how: Option<InReply>, messages: &[Value]) -> (Vec<Value>, ReplyFacts) {
    conversations::read(&Live::default(), &Request::default(), how, messages)
}

/// The messages of a golden turn.
fn turn(name: &str) -> Vec<Value> {
    let mut live = Live::default();
    let all = lines(&format!("{name}.provider.jsonl"));
    let own = all
        .iter()
        .filter(|line| live.told(line.as_bytes()).mark != Mark::Aside);
    own.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_turn_is_metered_by_its_own_word_and_passes_unchanged() {
    for name in ["speech", "call", "interrupted"] {
        let messages = turn(name);
        let (said, facts) = read(None, &messages);
        assert_eq!(said, messages, "{name}");
        insta::with_settings!({
            snapshot_path => "../../golden/gemini-live",
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, {
            insta::assert_json_snapshot!(format!("{name}.provider"), facts);
        });
    }
}

#[test]
fn no_byte_of_a_denied_call_passes_and_the_others_do() {
    for how in [InReply::Replace, InReply::Strip, InReply::Refuse] {
        let (said, facts) = read(Some(how), &turn("call"));
        let text = serde_json::to_string(&said).unwrap();
        assert!(
            !text.contains("\"DENIED\"") && !text.contains("\"f2\""),
            "{how:?} {text}"
        );
        assert!(text.contains("Let me see."));
        assert_eq!(text.contains("\"f1\""), how != InReply::Refuse, "{text}");
        assert_eq!(text.contains("\"error\""), how == InReply::Refuse, "{text}");
        assert_eq!(facts.tools_denied, ["Bash"]);
        assert_eq!(facts.usage.unwrap().total_input(), 240, "what was cut is metered");
    }
}

#[test]
fn the_model_is_told_that_a_denied_call_has_no_result() {
    for how in [InReply::Replace, InReply::Strip, InReply::Refuse] {
        let gate: Arc<dyn Gate> = Arc::new(Rules::new(how));
        let mut reader = Live::default().reader(&Request::default(), Some(&gate));
        let mut answers = Vec::new();
        for line in turn("call") {
            drop(reader.feed(Bytes::from(message(line.to_string().as_bytes()))));
            answers.extend(reader.answers());
        }
        assert_eq!(answers.len(), 1, "{answers:?}");
        let answer: Value = serde_json::from_str(&answers[0]).unwrap();
        let results = answer["toolResponse"]["functionResponses"].as_array().unwrap();
        assert_eq!((results.len(), &results[0]["id"]), (1, &json!("f2")));
        assert!(results[0]["response"]["error"].is_string());
    }
}

#[test]
fn a_turn_that_tells_no_usage_has_none() {
    let content = json!({"serverContent": {"modelTurn": {"parts": [{"text": "a"}]}, "turnComplete": true}});
    assert_eq!(read(None, &[content]).1.usage, None);
    // Nor one that tells none after it had called a tool.
    let mut messages = turn("call");
    messages[4] = json!({"serverContent": {"turnComplete": true}});
    assert_eq!(read(None, &messages).1.usage, None);
}

#[test]
fn what_is_seen_counts_by_its_pixels_and_sound_at_a_strange_rate_by_its_bytes() {
    let covers = |input: Value| {
        let mut live = set_up();
        let before = live.needs()[0].covers;
        asked(&mut live, &json!({"realtimeInput": input})).unwrap();
        live.needs()[0].covers - before
    };
    let picture = json!({"mimeType": "image/gif", "data": "R0lGODlhAQABAAAAACwAAAAAAQABAAACAkQBADs="});
    assert!(covers(json!({"mediaChunks": [picture]})) > 2_000);
    let sound = |kind: &str| json!({"audio": {"mimeType": kind, "data": "A".repeat(6_660)}});
    for kind in ["audio/pcm", "audio/pcm;rate=16000", "audio/pcm; rate=24000"] {
        assert_eq!(covers(sound(kind)), 11, "{kind}");
    }
    for kind in [
        "audio/pcm;rate=100",
        "audio/pcm;rate=16000;rate=1",
        "audio/pcmu",
        "audio/ogg",
    ] {
        assert_eq!(covers(sound(kind)), 6_662, "{kind}");
    }
}

#[test]
fn what_is_named_by_its_address_counts_as_all_that_the_model_can_read() {
    let mut live = set_up();
    let file = json!({"fileData": {"fileUri": "gs://b/film"}});
    let results = json!({"toolResponse": {"functionResponses": [{"id": "1", "name": "look", "response": {}, "parts": [file]}]}});
    asked(&mut live, &results).unwrap();
    assert_eq!(live.needs()[0].covers, u64::MAX);
    let mut live = Live::default();
    let setup = json!({"setup": {"model": "models/gemini-3.8-live", "systemInstruction": {"parts": [file]}}});
    asked(&mut live, &setup).unwrap();
    assert_eq!(live.needs()[0].covers, u64::MAX);
}
