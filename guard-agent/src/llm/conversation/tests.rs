use serde_json::{Value, json};

use super::*;
use crate::llm::Dialect;
use crate::llm::anthropic::ANTHROPIC;
use crate::llm::openai_chat::OPENAI;

fn messages(list: &[Value]) -> Conversation {
    let body = json!({"model": "m", "max_tokens": 1, "messages": list});
    ANTHROPIC
        .request(body.to_string().as_bytes())
        .unwrap()
        .conversation
}

fn chat(list: &[Value]) -> Conversation {
    let body = json!({"model": "m", "messages": list});
    OPENAI.request(body.to_string().as_bytes()).unwrap().conversation
}

fn used(id: &str, name: &str, input: Value) -> Value {
    json!({"role": "assistant", "content": [{"type": "tool_use", "id": id, "name": name, "input": input}]})
}

fn got(id: &str, text: &str, failed: bool) -> Value {
    json!({"role": "user", "content":
        [{"type": "tool_result", "tool_use_id": id, "content": text, "is_error": failed}]})
}

fn said(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

#[test]
fn both_formats_show_the_same_calls_with_their_results() {
    let ours = messages(&[
        said("go"),
        used("a", "read", json!({"path": "x", "line": 1})),
        got("a", "content", false),
        used("b", "read", json!({"line": 1, "path": "x"})),
        got("b", "content", false),
    ]);
    let call = |id: &str, arguments: &str| {
        json!({"role": "assistant", "content": null, "tool_calls":
            [{"id": id, "type": "function", "function": {"name": "read", "arguments": arguments}}]})
    };
    let result = |id: &str| json!({"role": "tool", "tool_call_id": id, "content": "content"});
    let theirs = chat(&[
        said("go"),
        call("a", "{\"path\":\"x\",\"line\":1}"),
        result("a"),
        call("b", "{ \"line\": 1, \"path\": \"x\" }"),
        result("b"),
    ]);
    assert_eq!(ours, theirs);
    let [first, second] = &ours.steps[..] else {
        panic!("{ours:?}")
    };
    assert!(first.repeats(second), "the order of names does not count");
    assert_eq!((first.turn, second.turn), (1, 2));
    assert!(first.result.is_some() && first.result == second.result);
}

#[test]
fn arguments_that_differ_in_digits_or_in_one_word_of_many_resemble_each_other() {
    let step = |input: Value| {
        messages(&[said("go"), used("a", "search", input)])
            .steps
            .remove(0)
    };
    let [one, two] = ["try 1", "try 22"].map(|query| step(json!({"query": query})));
    assert!(!one.repeats(&two) && one.resembles(&two));
    let long = |word: &str| {
        let filler: Vec<String> = (0..120).map(|n| format!("word{}x", n * 7919 % 1000)).collect();
        step(json!({"query": format!("{} {word} end", filler.join(" "))}))
    };
    assert!(long("alpha").resembles(&long("beta")) && !long("alpha").repeats(&long("beta")));
    let other = step(json!({"query": "something else entirely"}));
    assert!(!other.resembles(&one));
}

#[test]
fn a_user_who_speaks_begins_a_new_part_and_a_harness_that_repeats_itself_does_not() {
    let calls = |between: &[Value]| {
        let mut list = vec![said("go"), used("a", "t", json!({})), got("a", "r", false)];
        list.extend_from_slice(between);
        list.extend([used("b", "t", json!({})), got("b", "r", false)]);
        messages(&list)
    };
    assert_eq!(calls(&[]).steps.len(), 2);
    assert_eq!(calls(&[said("stop, do something else")]).steps.len(), 1);
    // A text beside results that a harness adds every time.
    let beside = |text: &str| {
        json!({"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "c", "content": "r"}, {"type": "text", "text": text}]})
    };
    let mut list = vec![said("go")];
    for turn in 0..9 {
        list.extend([
            used("c", "t", json!({})),
            beside(&format!("{} turns are left", 9 - turn)),
        ]);
    }
    assert_eq!(messages(&list).steps.len(), 8, "all but the first are one text");
    let reminded = messages(&[
        said("go"),
        used("c", "t", json!({})),
        beside("<system-reminder>x</system-reminder>"),
    ]);
    assert_eq!(reminded.steps.len(), 1);
    let spoken = messages(&[
        said("go"),
        used("c", "t", json!({})),
        beside("no, use the other file"),
    ]);
    assert!(spoken.steps.is_empty());
    assert_ne!(spoken.user, reminded.user);
    assert_eq!(spoken.thread, reminded.thread);
    // The same words on their own: three times a person, then a script.
    let mut list = vec![said("go")];
    let mut last = Vec::new();
    for _ in 0..5 {
        list.extend([used("d", "t", json!({})), got("d", "r", false), said("continue")]);
        last.push(messages(&list).steps.len());
    }
    assert_eq!(last, [0, 0, 0, 1, 2]);
}

#[test]
fn failures_are_declared_by_the_format_or_only_likely() {
    let theirs = |text: &str| {
        let list = [
            said("go"),
            json!({"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "t", "arguments": "{}"}}]}),
            json!({"role": "tool", "tool_call_id": "a", "content": text}),
        ];
        chat(&list).steps.remove(0).sign
    };
    assert_eq!(theirs("Error: no such file"), Sign::Likely);
    assert_eq!(theirs("{\"error\": \"nope\"}"), Sign::Likely);
    assert_eq!(theirs("it went well, no errors"), Sign::Fine);
    let ours = |failed| {
        messages(&[said("go"), used("a", "t", json!({})), got("a", "Error", failed)])
            .steps
            .remove(0)
            .sign
    };
    assert_eq!((ours(true), ours(false)), (Sign::Declared, Sign::Fine));
    let timed = |text: &str| {
        messages(&[said("go"), used("a", "t", json!({})), got("a", text, true)])
            .steps
            .remove(0)
            .result
    };
    assert_eq!(timed("refused at 12:01:07"), timed("refused at 12:02:11"));
}

#[test]
fn tools_that_wait_are_known_by_their_name_or_their_command() {
    let waits = |name: &str, input: Value| messages(&[said("go"), used("a", name, input)]).steps[0].waits;
    assert!(waits("checkBuildStatus", json!({})) && waits("wait_for", json!({})));
    assert!(waits("Bash", json!({"command": "sleep 20; gh run view"})));
    assert!(!waits("Bash", json!({"command": "cargo test"})) && !waits("waiter", json!({})));
}

#[test]
fn a_hostile_conversation_costs_bounded_memory_and_time() {
    let huge = "x".repeat(1_000_000);
    let mut list = vec![said("go")];
    for turn in 0..10_000 {
        let id = format!("t{turn}");
        list.push(used(&id, &"n".repeat(1_000), json!({"a": turn})));
        list.push(got(&id, "r", false));
    }
    list.push(used("last", "write", json!({"text": huge})));
    let body = json!({"model": "m", "max_tokens": 1, "messages": list}).to_string();
    let began = std::time::Instant::now();
    let seen = super::super::anthropic::ANTHROPIC
        .request(body.as_bytes())
        .unwrap()
        .conversation;
    assert!(
        began.elapsed() < std::time::Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
    assert_eq!((seen.steps.len(), seen.turns), (STEPS, 10_001));
    assert!(seen.steps.iter().all(|step| step.tool.len() <= NAME));
}

#[test]
fn what_does_not_fit_is_left_out() {
    for list in [
        json!([{"role": "assistant", "content": [{"type": "tool_use"}]}]),
        json!([{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "nobody's"}]}]),
        json!([{"role": "user"}]),
    ] {
        let seen = messages(list.as_array().unwrap());
        assert!(seen.steps.len() <= 1);
    }
}
