//! Soft limits that do something: another model, a note for the model.

use serde_json::{Value, json};

use super::*;

/// One dollar a day, half of which is soft; `lines` follow.
fn world(on_soft: &str, lines: &str) -> World {
    World::new(&format!(
        "providers = [\"openai\", \"anthropic\"]\n\
         budget = [{{ window = \"day\", usd = 1.0, soft = 0.5, on_soft = {{ {on_soft} }} }}]\n{lines}"
    ))
}

/// Spends so many millionths of a dollar.
fn spend(world: &World, micros: u64) {
    // The output cap reserves as much.
    settle(world.chat(&body(micros / 10)).unwrap(), answered(micros, 0));
}

fn dear(cap: u64) -> String {
    json!({"model": "dear", "messages": [{"role": "user", "content": "hi"}], "max_tokens": cap}).to_string()
}

fn rewrites(world: &World, records: usize) -> Value {
    world.records(records).pop().unwrap()["rewrites"].clone()
}

#[test]
fn from_the_soft_limit_on_a_call_goes_to_the_cheaper_model_and_is_reserved_at_its_price() {
    let world = world("model = \"m\"", "");
    let asked = dear(100);
    let before = world.chat(&asked).unwrap();
    assert_eq!(before.edits.model, None);
    settle(before, Outcome::default());
    spend(&world, 500_000);
    let permit = world.chat(&asked).unwrap();
    assert_eq!(permit.edits.model.as_deref(), Some("m"));
    assert_eq!(permit.edits.output_cap, None);
    assert_eq!(world.account(Window::Day), (500_000 * MICRO, worst(&asked, 100)));
    settle(permit, answered(12, 34));
    assert_eq!(world.account(Window::Day), (500_352 * MICRO, 0));
    let record = world.records(3).pop().unwrap();
    assert_eq!(record["rewrites"], json!(["key", "model"]));
    assert_eq!(record["model_requested"], "dear");
    assert_eq!(
        world.metric("guard_calls_total{agent=\"coder\",model=\"m\",outcome=\"ok\",provider=\"openai\"}"),
        "2"
    );
}

#[test]
fn a_model_that_is_not_cheaper_not_allowed_or_not_the_provider_s_is_left_alone() {
    for (on_soft, lines) in [
        ("model = \"dear\"", ""),
        ("model = \"m\"", "models = [\"dear\", \"m-2026\"]"),
        ("model = \"big\"", ""),
        ("model = \"unheard-of\"", ""),
        ("model = \"m\"", "\n[host]\nmode = \"observe\""),
    ] {
        let world = world(on_soft, lines);
        settle(
            world.chat(&body(50_000).replace("\"m\"", "\"m-2026\"")).unwrap(),
            answered(500_000, 0),
        );
        let asked = if on_soft.contains("dear") {
            body(10)
        } else {
            dear(10)
        };
        let permit = world.chat(&asked).unwrap();
        assert_eq!(permit.edits.model, None, "{on_soft} {lines}");
        settle(permit, answered(1, 1));
    }
}

#[test]
fn a_body_with_a_checksum_stays_as_it_is() {
    let world = world("model = \"big\", steer = \"Stop soon.\"", "");
    settle(
        world
            .ask(Asked::messages(
                r#"{"model":"big","max_tokens":50000,"messages":[]}"#,
            ))
            .unwrap(),
        answered(500_000, 0),
    );
    let asked = json!({"model": "big", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}],
        "system": [{"type": "text", "text": "x-anthropic-billing-header: cc_version=2; cch=abcde;"}]})
    .to_string();
    let permit = world.ask(Asked::messages(&asked)).unwrap();
    assert!(permit.edits.is_empty(), "{:?}", permit.edits);
    settle(permit, answered(1, 1));
    assert_eq!(rewrites(&world, 2), json!(["key"]));
}

#[test]
fn a_longer_answer_than_the_cheaper_model_gives_is_capped_to_what_it_gives() {
    let world = world("model = \"m\"", "");
    spend(&world, 500_000);
    let permit = world.chat(&dear(1_000_000)).unwrap();
    assert_eq!(permit.edits.model.as_deref(), Some("m"));
    assert_eq!(permit.edits.output_cap, Some(1000));
    settle(permit, answered(1, 1));
}

#[test]
fn the_model_is_told_how_the_budget_stands_and_what_its_owner_says() {
    let world = world("steer = \"Finish what you are at.\"", "");
    spend(&world, 600_000);
    let asked =
        json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 10}).to_string();
    let permit = world.chat(&asked).unwrap();
    let note = permit.edits.note.clone().unwrap();
    assert_eq!(
        note,
        "[Notice from the operator of this host: $0.60 of the $1.00 budget of agent \"coder\" for this day are used. \
         Finish what you are at.]"
    );
    // The note is paid for too.
    let reserved = world.account(Window::Day).1;
    assert_eq!(reserved, worst(&asked, 10) + note.len() as u64 * MICRO);
    settle(permit, answered(1, 1));
    assert_eq!(rewrites(&world, 2), json!(["key", "steer"]));
    // Where the model speaks last there is no place for it.
    let prefilled = r#"{"model":"m","messages":[{"role":"assistant","content":"I"}],"max_tokens":10}"#;
    assert_eq!(world.chat(prefilled).unwrap().edits.note, None);
}

#[test]
fn a_warning_of_a_loop_may_speak_to_the_model() {
    let circling: Vec<Value> = (0..2)
        .flat_map(|time| {
            let id = format!("c{time}");
            [
                json!({"role": "assistant", "content": null, "tool_calls": [
                    {"id": id, "type": "function", "function": {"name": "search", "arguments": "{\"q\": \"x\"}"}}]}),
                json!({"role": "tool", "tool_call_id": id, "content": "nothing found"}),
            ]
        })
        .collect();
    let mut messages = vec![json!({"role": "user", "content": "find it"})];
    messages.extend(circling);
    let asked = json!({"model": "m", "messages": messages, "max_tokens": 10}).to_string();
    let loops = "loops = { repeat = { warn = 2, trip = 9 }, on_warn = \"steer\" }";
    for (on_warn, told) in [(loops.to_owned(), true), (loops.replace("steer", "alert"), false)] {
        let world = World::new(&format!("providers = [\"openai\"]\n{on_warn}"));
        let permit = world.chat(&asked).unwrap();
        let note = permit.edits.note.clone();
        assert_eq!(note.is_some(), told);
        assert!(note.is_none_or(|note| note.contains("called 2 times") && note.contains("try another way")));
        settle(permit, answered(1, 1));
    }
}
