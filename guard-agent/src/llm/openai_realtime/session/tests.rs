use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::llm::InReply;
use crate::llm::frames::message;
use crate::llm::golden::conversations::{self, read};
use crate::llm::openai_realtime::open::SOCKET;
use crate::llm::socket::{Mark, Opening, SocketFormat};

fn opened(target: &'static str) -> Result<Box<dyn Session>, Malformed> {
    let target = http::Uri::from_static(target);
    let headers = HeaderMap::new();
    SOCKET.open(&Opening {
        target: &target,
        headers: &headers,
    })
}

fn socket() -> Box<dyn Session> {
    opened("/v1/realtime?model=gpt-realtime").unwrap()
}

/// The lines of a golden conversation.
fn lines(name: &str) -> Vec<String> {
    conversations::lines("openai-realtime", name)
}

fn set(session: &mut dyn Session, settings: &Value) -> RequestFacts {
    let update = json!({"type": "session.update", "session": settings});
    match session.asked(update.to_string().as_bytes()).unwrap() {
        Asked::Setup(facts, ..) => {
            session.accepted(&BodyEdits::default());
            *facts
        }
        other => panic!("{other:?}"),
    }
}

fn create(session: &mut dyn Session, response: &Value) -> (RequestFacts, Request) {
    let create = json!({"type": "response.create", "event_id": "e1", "response": response});
    match session.asked(create.to_string().as_bytes()).unwrap() {
        Asked::Response(facts, request) => {
            session.sent(&request);
            (*facts, request)
        }
        other => panic!("{other:?}"),
    }
}

fn told(session: &mut dyn Session, event: &Value) -> (Option<String>, Mark) {
    let told = session.told(event.to_string().as_bytes());
    (told.lane, told.mark)
}

fn append(session: &mut dyn Session, chars: usize) {
    let audio = json!({"type": "input_audio_buffer.append", "audio": "A".repeat(chars)});
    let asked = session.asked(audio.to_string().as_bytes()).unwrap();
    assert_eq!(asked, Asked::Input(Input::default()));
}

fn tool(name: &str) -> Value {
    json!({"type": "function", "name": name, "parameters": {}})
}

#[test]
fn a_socket_names_its_model_once_and_joins_no_call() {
    assert!(opened("/v1/realtime?model=gpt-realtime").is_ok());
    assert!(opened("/openai/realtime?api-version=2025-04-01-preview&deployment=mine").is_ok());
    for target in [
        "/v1/realtime",
        "/v1/realtime?model=a&model=b",
        "/v1/realtime?model=a&%6dodel=b",
        "/v1/realtime?model=a&Model=b",
        "/v1/realtime?model=a&intent=transcription",
        "/v1/realtime?model=a&call_id=rtc_1",
    ] {
        assert!(opened(target).is_err(), "{target}");
    }
}

#[test]
fn every_message_of_a_golden_client_is_read_or_told_why_not() {
    let mut all = Vec::new();
    for name in ["text", "speech", "preview", "unfit"] {
        let mut session = socket();
        for line in lines(&format!("{name}.client.jsonl")) {
            let asked = session.asked(line.as_bytes());
            if let Ok(Asked::Setup(..)) = asked {
                session.accepted(&BodyEdits::default());
            }
            if let Ok(Asked::Response(_, request)) = &asked {
                session.sent(request);
            }
            all.push(format!("{name}: {asked:?} needs {:?}", session.needs()));
        }
    }
    insta::with_settings!({
        snapshot_path => "../../golden/openai-realtime",
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, {
        insta::assert_snapshot!("client", all.join("\n"));
    });
}

#[test]
fn what_a_response_does_not_say_is_what_the_session_says() {
    let mut session = socket();
    set(
        session.as_mut(),
        &json!({"type": "realtime", "tools": [tool("Read")], "max_output_tokens": 500}),
    );
    let (facts, request) = create(session.as_mut(), &json!({}));
    assert_eq!(
        (facts.model.as_str(), facts.output_cap),
        ("gpt-realtime", Some(500))
    );
    assert_eq!(facts.tools[0].name, "Read");
    assert!(facts.stream && facts.audio == Audio::Spoken && !facts.unseen_input);
    assert_eq!((request.lane, request.named.as_deref()), (None, Some("e1")));
    let (facts, request) = create(
        session.as_mut(),
        &json!({"conversation": "none", "tools": [tool("Bash")], "max_output_tokens": "inf"}),
    );
    assert_eq!((facts.output_cap, facts.tools[0].name.as_str()), (None, "Bash"));
    assert_eq!(request.lane.as_deref(), Some(APART));
    let (facts, _) = create(session.as_mut(), &json!({"prompt": {"id": "pmpt_1"}}));
    assert!(facts.unseen_input && facts.tools[0].server_side);
}

#[test]
fn tools_that_were_stripped_and_a_cap_that_was_lowered_hold_for_the_session() {
    let mut session = socket();
    let update = json!({"type": "session.update", "session": {"type": "realtime", "tools": [tool("Read"), tool("Bash")]}});
    session.asked(update.to_string().as_bytes()).unwrap();
    session.accepted(&BodyEdits {
        strip_tools: vec!["Bash".to_owned()],
        output_cap: Some(90),
        ..BodyEdits::default()
    });
    let (facts, _) = create(session.as_mut(), &json!({}));
    assert_eq!((facts.tools.len(), facts.output_cap), (1, Some(90)));
    assert_eq!(facts.tools[0].name, "Read");
}

#[test]
fn until_the_provider_confirms_otherwise_it_may_begin_responses_by_itself() {
    let off = json!({"type": "realtime", "audio": {"input": {"turn_detection": null}}});
    let on = json!({"type": "realtime", "audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}});
    let silent = json!({"type": "realtime", "audio": {"input": {"turn_detection": {"type": "server_vad", "create_response": false}}}});
    let updated = |session: &Value| json!({"type": "session.updated", "session": session});
    for quiet in [&off, &silent] {
        let mut session = socket();
        assert_eq!(session.needs().len(), 1);
        set(session.as_mut(), quiet);
        assert_eq!(session.needs().len(), 1, "not confirmed yet");
        told(session.as_mut(), &updated(quiet));
        assert!(session.needs().is_empty());
        set(session.as_mut(), &on);
        assert_eq!(session.needs().len(), 1, "at once");
        set(session.as_mut(), quiet);
        // The first of the two is confirmed, the second is not.
        told(session.as_mut(), &updated(&on));
        assert_eq!(session.needs().len(), 1);
        told(session.as_mut(), &updated(quiet));
        assert!(session.needs().is_empty());
    }
    // An answer to the one before says nothing of the one that is on its way.
    let mut session = socket();
    set(session.as_mut(), &off);
    set(session.as_mut(), &on);
    told(session.as_mut(), &updated(&off));
    assert_eq!(session.needs().len(), 1);
}

#[test]
fn what_is_reserved_has_room_for_all_that_was_said() {
    let mut session = socket();
    let bound = |session: &dyn Session| session.needs()[0].covers;
    assert_eq!(bound(session.as_ref()), 0);
    append(session.as_mut(), 64_000);
    assert_eq!(bound(session.as_ref()), 20, "a second of speech");
    let item = json!({"type": "conversation.item.create", "item": {"type": "message", "role": "user",
        "content": [{"type": "input_text", "text": "hi"}]}})
    .to_string();
    assert_eq!(session.asked(item.as_bytes()), Ok(Asked::Aside));
    assert_eq!(bound(session.as_ref()), 20 + item.len() as u64);
    let need = session.needs().remove(0);
    let expected = session.expected(&need).unwrap();
    assert!(expected.grows && expected.covers == need.covers + HEADROOM);
    assert_eq!(expected.facts.carried, expected.covers);
    // What a response says that it read and made takes the place of the guess.
    let usage = json!({"input_tokens": 500, "output_tokens": 100});
    ended(session.as_mut(), "completed", &usage);
    assert_eq!(bound(session.as_ref()), 600 + 20 + item.len() as u64);
    ended(session.as_mut(), "incomplete", &usage);
    assert_eq!(bound(session.as_ref()), 600);
    // Telephone sound is shorter for the same speech.
    let mut session = socket();
    set(
        session.as_mut(),
        &json!({"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcmu"}}}}),
    );
    let before = bound(session.as_ref());
    append(session.as_mut(), 5_330);
    assert_eq!(bound(session.as_ref()), before + 10);
    // Also what is spoken, of one response or of all.
    let spoken = json!({"audio": {"output": {"format": {"type": "audio/pcmu"}}}});
    let mut session = socket();
    create(session.as_mut(), &spoken);
    append(session.as_mut(), 5_330);
    assert_eq!(bound(session.as_ref()), 10);
}

fn ended(session: &mut dyn Session, status: &str, usage: &Value) {
    let response = json!({"id": "r", "status": status, "usage": usage});
    told(session, &json!({"type": "response.done", "response": response}));
}

/// A session whose conversation holds a thousand tokens.
fn long() -> Box<dyn Session> {
    let mut session = socket();
    let usage = json!({"input_tokens": 900, "output_tokens": 100});
    ended(session.as_mut(), "completed", &usage);
    assert_eq!(session.needs()[0].covers, 1_000);
    session
}

#[test]
fn a_response_that_was_cut_off_says_nothing_of_the_conversations_length() {
    for (status, usage) in [
        (
            "cancelled",
            json!({"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}),
        ),
        ("cancelled", json!({"input_tokens": 7, "output_tokens": 1})),
        ("failed", Value::Null),
        ("completed", Value::Null),
        ("completed", json!({"input_tokens": 0, "output_tokens": 0})),
    ] {
        let mut session = long();
        let delta = json!({"type": "response.output_text.delta", "response_id": "r", "delta": "word"});
        told(session.as_mut(), &delta);
        let sound =
            json!({"type": "response.output_audio.delta", "response_id": "r", "delta": "A".repeat(6_398)});
        told(session.as_mut(), &sound);
        ended(session.as_mut(), status, &usage);
        // What it had made by then: six bytes of text, two twentieths of a second.
        assert_eq!(session.needs()[0].covers, 1_008, "{status} {usage}");
    }
}

#[test]
fn a_response_that_reads_something_else_says_nothing_of_the_conversations_length() {
    let brief = json!({"input_tokens": 15, "output_tokens": 5});
    let item = json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]});
    let mut session = long();
    create(session.as_mut(), &json!({"input": [item]}));
    ended(session.as_mut(), "completed", &brief);
    assert_eq!(session.needs()[0].covers, 1_000);
    // Beside the conversation it may read what it likes.
    let mut session = long();
    create(
        session.as_mut(),
        &json!({"conversation": "none", "input": [item]}),
    );
    ended(
        session.as_mut(),
        "completed",
        &json!({"input_tokens": 700, "output_tokens": 5}),
    );
    assert_eq!(session.needs()[0].covers, 705);
    // One with instructions of its own did not read the session's.
    let mut session = long();
    let settings = json!({"type": "realtime", "instructions": "Speak like a pirate."});
    set(session.as_mut(), &settings);
    let instructed = json!({"type": "session.update", "session": settings})
        .to_string()
        .len() as u64;
    create(session.as_mut(), &json!({"instructions": "Say hi."}));
    ended(session.as_mut(), "completed", &brief);
    let added = instructed;
    assert_eq!(session.needs()[0].covers, 20 + added + instructed);
}

#[test]
fn pictures_count_by_their_pixels() {
    // A PNG of 2,000 by 2,000 pixels: the head is enough to know that.
    let head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x07\xd0\0\0\x07\xd0";
    let url = format!(
        "data:image/png;base64,{}",
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, head)
    );
    let item =
        json!({"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": url}]});
    let mut session = socket();
    let create = json!({"type": "conversation.item.create", "item": item}).to_string();
    session.asked(create.as_bytes()).unwrap();
    assert!(session.needs()[0].covers > 10_000, "{:?}", session.needs());
}

#[test]
fn a_cap_that_the_provider_did_not_take_is_no_cap() {
    let facts_of = |session: &mut dyn Session| {
        let need = session.needs().remove(0);
        session.expected(&need).unwrap().facts
    };
    let capped = json!({"type": "realtime", "max_output_tokens": 1, "bogus": 1});
    let mut session = socket();
    set(session.as_mut(), &capped);
    assert_eq!(facts_of(session.as_mut()).output_cap, Some(1));
    told(
        session.as_mut(),
        &json!({"type": "error", "error": {"code": "unknown_parameter"}}),
    );
    assert_eq!(facts_of(session.as_mut()).output_cap, None);
    // What it confirms is what it keeps to.
    set(session.as_mut(), &capped);
    told(
        session.as_mut(),
        &json!({"type": "session.updated", "session": {"max_output_tokens": 50}}),
    );
    assert_eq!(facts_of(session.as_mut()).output_cap, Some(50));
    told(
        session.as_mut(),
        &json!({"type": "error", "error": {"code": "of something else"}}),
    );
    assert_eq!(facts_of(session.as_mut()).output_cap, Some(50));
    set(session.as_mut(), &capped);
    told(
        session.as_mut(),
        &json!({"type": "session.updated", "session": {"max_output_tokens": "inf"}}),
    );
    assert_eq!(facts_of(session.as_mut()).output_cap, None);
}

#[test]
fn what_is_written_down_is_charged_as_the_model_that_the_provider_says_it_has() {
    let mut session = socket();
    let by = |model: &str| json!({"audio": {"input": {"transcription": {"model": model}}}});
    told(
        session.as_mut(),
        &json!({"type": "session.updated", "session": by("gpt-4o-transcribe")}),
    );
    let cheap = json!({"type": "realtime", "bogus": 1, "audio": {"input": {"transcription": {"model": "gpt-4o-mini-transcribe"}}}});
    set(session.as_mut(), &cheap);
    let request = Request {
        lane: Some(TRANSCRIPTION.to_owned()),
        ..Request::default()
    };
    assert_eq!(
        session.reader(&request, None).finish().1.model.as_deref(),
        Some("gpt-4o-transcribe")
    );
}

#[test]
fn what_nobody_foresaw_is_known_by_its_lane() {
    let mut session = socket();
    told(
        session.as_mut(),
        &json!({"type": "session.updated", "session": {"audio": {"input": {"turn_detection": null}}}}),
    );
    append(session.as_mut(), 64_000);
    assert!(session.needs().is_empty());
    let need = session.unforeseen(None).unwrap();
    assert_eq!((need.covers, need.model), (20, None));
    assert!(session.unforeseen(Some(TRANSCRIPTION)).is_none() && session.unforeseen(Some(APART)).is_none());
}

#[test]
fn each_turn_that_is_not_written_down_yet_has_a_reservation_of_its_own() {
    let mut session = socket();
    let update = json!({"type": "session.update", "session": {"type": "realtime",
        "audio": {"input": {"transcription": {"model": "whisper-1"}, "turn_detection": null}}}});
    let Ok(Asked::Setup(_, _, Some(beside))) = session.asked(update.to_string().as_bytes()) else {
        panic!("{update}");
    };
    assert_eq!(beside.model.as_deref(), Some("whisper-1"));
    session.accepted(&BodyEdits::default());
    told(
        session.as_mut(),
        &json!({"type": "session.updated", "session": {"audio": {"input": {"transcription": {"model": "whisper-1"}, "turn_detection": null}}}}),
    );
    append(session.as_mut(), 64_000);
    let need = session.needs().remove(0);
    assert_eq!(
        (need.lane.as_deref(), need.count, need.covers),
        (Some(TRANSCRIPTION), 1, 1_000)
    );
    let expected = session.expected(&need).unwrap();
    assert_eq!(expected.facts.model, "whisper-1");
    assert_eq!(expected.facts.audio, Audio::Heard);
    assert_eq!(
        expected.facts.bound.unwrap().units,
        Units::of(Unit::AudioMillis, SPEECH)
    );
    assert!(!expected.grows);
    let committed = json!({"type": "input_audio_buffer.committed", "item_id": "i"});
    assert_eq!(told(session.as_mut(), &committed).1, Mark::Aside);
    assert_eq!(session.needs()[0].count, 2);
    let done = json!({"type": "conversation.item.input_audio_transcription.completed", "item_id": "i", "transcript": "x",
        "usage": {"type": "duration", "seconds": 1.5}});
    assert_eq!(
        told(session.as_mut(), &done),
        (Some(TRANSCRIPTION.to_owned()), Mark::Whole)
    );
    assert_eq!((session.needs()[0].count, session.needs()[0].covers), (1, 0));
    let request = session.expected(&need).unwrap().request;
    let (said, facts) = read(session.as_ref(), &request, None, std::slice::from_ref(&done));
    assert_eq!(said, [done]);
    assert_eq!(facts.model.as_deref(), Some("whisper-1"));
    assert_eq!(
        facts.usage.unwrap().units,
        crate::llm::Units::of(crate::llm::Unit::AudioMillis, 1_500)
    );
}

#[test]
fn an_event_has_one_owner() {
    let mut session = socket();
    let (_, plain) = create(session.as_mut(), &json!({}));
    let (_, apart) = create(session.as_mut(), &json!({"conversation": "none"}));
    assert_eq!(
        (plain.lane.as_deref(), apart.lane.as_deref()),
        (None, Some(APART))
    );
    let created = |id: &str, of: Value| json!({"type": "response.created", "response": {"id": id, "conversation_id": of}});
    let lane = |name: Option<&str>, mark| (name.map(str::to_owned), mark);
    let mut check = |event: Value, wanted| assert_eq!(told(session.as_mut(), &event), wanted, "{event}");
    check(created("b", Value::Null), lane(Some(APART), Mark::Begin));
    check(created("a", json!("conv_1")), lane(None, Mark::Begin));
    let delta = |id: &str| json!({"type": "response.output_text.delta", "response_id": id, "delta": "x"});
    check(delta("a"), lane(None, Mark::Part));
    check(delta("b"), lane(Some(APART), Mark::Part));
    check(
        json!({"type": "response.done", "response": {"id": "b"}}),
        lane(Some(APART), Mark::End),
    );
    check(
        json!({"type": "response.done", "response": {"id": "a"}}),
        lane(None, Mark::End),
    );
    check(
        json!({"type": "input_audio_buffer.committed"}),
        lane(None, Mark::Due),
    );
    check(json!({"type": "rate_limits.updated"}), lane(None, Mark::Aside));
    // A call among the items is part of a response, whoever tells it.
    let item = |kind: &str, id: &str| json!({"type": "conversation.item.added", "item": {"id": "i", "type": kind, "call_id": id}});
    check(item("message", "c"), lane(None, Mark::Aside));
    check(item("function_call", "c"), lane(None, Mark::Part));
    check(
        json!({"type": "nonsense", "item": {"type": "function_call"}}),
        lane(None, Mark::Part),
    );
}

#[test]
fn a_call_that_the_client_wrote_into_the_conversation_is_its_own() {
    let mut session = socket();
    let own = json!({"type": "conversation.item.create", "item": {"type": "function_call", "call_id": "mine", "name": "Bash", "arguments": "{}"}});
    session.asked(own.to_string().as_bytes()).unwrap();
    let item = |id: &str| json!({"type": "conversation.item.added", "item": {"id": "i", "type": "function_call", "call_id": id}});
    assert_eq!(told(session.as_mut(), &item("mine")).1, Mark::Aside);
    assert_eq!(told(session.as_mut(), &item("other")).1, Mark::Part);
}

#[test]
fn an_error_belongs_to_the_message_that_it_names() {
    let mut session = socket();
    let error = |of: Value| json!({"type": "error", "error": {"code": "x", "event_id": of}});
    assert_eq!(told(session.as_mut(), &error(json!("e1"))).1, Mark::Aside);
    create(session.as_mut(), &json!({}));
    assert_eq!(told(session.as_mut(), &error(json!("e0"))).1, Mark::Aside);
    assert_eq!(told(session.as_mut(), &error(Value::Null)).1, Mark::Aside);
    assert_eq!(told(session.as_mut(), &error(json!("e1"))).1, Mark::Failed(None));
    assert_eq!(told(session.as_mut(), &error(json!("e1"))).1, Mark::Aside, "once");
    let Ok(Asked::Response(_, request)) = session.asked(br#"{"type":"response.create"}"#) else {
        panic!("a response is asked for");
    };
    session.sent(&request);
    assert_eq!(told(session.as_mut(), &error(Value::Null)).1, Mark::Doubt);
}

#[test]
fn a_response_can_be_ended_once_its_id_is_known() {
    let mut session = socket();
    assert_eq!(session.cancel(None), None);
    told(
        session.as_mut(),
        &json!({"type": "response.created", "response": {"id": "r1", "conversation_id": "c"}}),
    );
    let cancel: Value = serde_json::from_str(&session.cancel(None).unwrap()).unwrap();
    assert_eq!(cancel, json!({"type": "response.cancel", "response_id": "r1"}));
    assert_eq!(session.cancel(Some(APART)), None);
}

#[test]
fn a_refusal_is_the_providers_own_error_event() {
    let refusal = Refusal::new(Reason::BudgetExceeded, "The budget is used up.");
    let event: Value = serde_json::from_str(&socket().refusal(&refusal, "01ID", Some("e1"))).unwrap();
    assert_eq!(
        (&event["type"], &event["event_id"]),
        (&json!("error"), &json!("event_guard_01ID"))
    );
    let error = &event["error"];
    assert_eq!(error["code"], "guard_budget_exceeded");
    assert_eq!(error["message"], "The budget is used up. (Guard request 01ID)");
    assert_eq!(
        (&error["event_id"], &error["param"]),
        (&json!("e1"), &Value::Null)
    );
}

/// The events of a golden response that belong to it.
fn response(session: &mut dyn Session, name: &str) -> Vec<Value> {
    let mut own = Vec::new();
    for line in lines(&format!("{name}.provider.jsonl")) {
        let told = session.told(line.as_bytes());
        if told.lane.is_none() && matches!(told.mark, Mark::Begin | Mark::Part | Mark::End) {
            own.push(serde_json::from_str(&line).unwrap());
        }
    }
    own
}

#[test]
fn a_response_is_metered_by_its_own_word_and_passes_unchanged() {
    for name in ["speech", "call", "cancelled"] {
        let mut session = socket();
        let events = response(session.as_mut(), name);
        let (said, facts) = read(session.as_ref(), &Request::default(), None, &events);
        assert_eq!(said, events, "{name}");
        insta::with_settings!({
            snapshot_path => "../../golden/openai-realtime",
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, {
            insta::assert_json_snapshot!(format!("{name}.provider"), facts);
        });
    }
}

#[test]
fn no_byte_of_a_denied_call_passes_whatever_tells_of_it() {
    for how in [InReply::Replace, InReply::Strip, InReply::Refuse] {
        let mut session = socket();
        let events = response(session.as_mut(), "call");
        let (said, facts) = read(session.as_ref(), &Request::default(), Some(how), &events);
        let text = serde_json::to_string(&said).unwrap();
        assert!(
            !text.contains("Bash") && !text.contains("function_call"),
            "{how:?} {text}"
        );
        assert!(text.contains("Let me see."));
        assert_eq!(said.last().unwrap()["type"], "response.done");
        let failed = said.last().unwrap()["response"]["status"] == "failed";
        assert_eq!(failed, how == InReply::Refuse, "{text}");
        assert_eq!(facts.tools_denied, ["Bash"]);
        assert_eq!(facts.usage.unwrap().total_input(), 132, "what was cut is metered");
    }
}

#[test]
fn sound_is_counted_by_its_length_and_text_by_its_pieces() {
    let session = socket();
    let mut reader = session.reader(&Request::default(), None);
    let mut feed = |kind: &str, delta: String| {
        let event = json!({"type": kind, "output_index": 0, "delta": delta});
        drop(reader.feed(Bytes::from(message(event.to_string().as_bytes()))));
        reader.seen().output
    };
    assert_eq!(feed("response.output_audio.delta", "A".repeat(6_400)), 2);
    assert_eq!(feed("response.audio.delta", "A".repeat(3_200)), 3);
    assert_eq!(
        feed("response.output_audio_transcript.delta", "Hello".to_owned()),
        4
    );
}
