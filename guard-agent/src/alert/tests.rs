use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::Value;

use super::*;
use crate::policy::fixture::{USUAL, World};
use crate::policy::tests_support::config;

fn event(name: &str, about: &str) -> Event {
    Event {
        name: name.to_owned(),
        agent: Some("coder".into()),
        owner: Some("team".into()),
        message: "the tool <t> & more".to_owned(),
        about: about.to_owned(),
        time: Timestamp::UNIX_EPOCH,
        id: "01J".to_owned(),
    }
}

fn rules(tables: &str) -> Vec<AlertRule> {
    config(&format!("{USUAL}\n{tables}")).alerts
}

fn ends(world: &World, end: &str) -> String {
    world.metric(&format!("guard_alerts_total{{end=\"{end}\"}}"))
}

#[test]
fn only_what_is_asked_for_is_told_and_each_thing_once() {
    let world = World::new(USUAL);
    let rules = rules("[[alert]]\nwhen = [\"budget.*\", \"loop\"]\nto = \"log\"");
    let (alerts, mut waiting) = Alerts::new(rules, world.metrics.clone());
    for (name, about) in [
        ("loop", "a"),
        ("loop", "a"),
        ("loop", "b"),
        ("finding", "a"),
        ("budget.soft", "a"),
    ] {
        alerts.raise(event(name, about));
    }
    let mut told = Vec::new();
    while let Ok(event) = waiting.queue.try_recv() {
        told.push((event.name, event.about));
    }
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(ends(&world, "repeated"), "1");
    let later = Instant::now() + QUIET;
    assert!(alerts.is_new(&event("loop", "a"), later));
    for n in 0..10_000 {
        alerts.raise(event("loop", &n.to_string()));
    }
    assert!(alerts.told.lock().unwrap().len() <= REMEMBERED);
    assert!(ends(&world, "lost").parse::<u64>().unwrap() > 9_000);
}

/// A web server that answers so, one connection after the other, and gives what it was sent.
fn server(answers: &'static [&'static str]) -> (String, std::thread::JoinHandle<Vec<Value>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let thread = std::thread::spawn(move || {
        let mut seen = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut text = Vec::new();
            let mut chunk = [0; 4096];
            while !text.ends_with(b"}") {
                let count = stream.read(&mut chunk).unwrap();
                assert!(count > 0, "cut short");
                text.extend_from_slice(&chunk[..count]);
            }
            let text = String::from_utf8(text).unwrap();
            seen.push(serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap());
            write!(
                stream,
                "HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
            .unwrap();
        }
        seen
    });
    (address, thread)
}

async fn told(world: &World, address: &str, kind: &str, pauses: &[Duration]) -> AlertEnd {
    let rules = rules(&format!(
        "[[alert]]\nwhen = [\"*\"]\nto = \"{kind}:http://{address}/x\""
    ));
    let AlertTo::Hook(hook) = &rules[0].to else {
        panic!("{rules:?}")
    };
    deliver::hooked(hook, &event("loop", "a"), &world.recorder, pauses).await
}

#[tokio::test]
async fn a_receiver_that_fails_is_tried_again_in_both_shapes() {
    let world = World::new(USUAL);
    let pauses = [Duration::ZERO; 3];
    let (address, thread) = server(&["503 No", "200 OK"]);
    assert_eq!(told(&world, &address, "webhook", &pauses).await, AlertEnd::Sent);
    let seen = thread.join().unwrap();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1]["alert"], "loop");
    assert_eq!(seen[1]["message"], "the tool <t> & more");
    let (address, thread) = server(&["200 OK"]);
    assert_eq!(told(&world, &address, "slack", &pauses).await, AlertEnd::Sent);
    let text = thread.join().unwrap()[0]["text"].to_string();
    assert!(text.contains("the tool &lt;t&gt; &amp; more"), "{text}");
}

#[tokio::test]
async fn what_cannot_be_delivered_is_recorded_and_a_refusal_is_not_tried_again() {
    let world = World::new(USUAL);
    let (address, thread) = server(&["404 Gone"]);
    let pauses = [Duration::ZERO; 3];
    assert_eq!(told(&world, &address, "webhook", &pauses).await, AlertEnd::Failed);
    assert_eq!(thread.join().unwrap().len(), 1);
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    assert_eq!(told(&world, &nobody, "webhook", &pauses).await, AlertEnd::Failed);
    let records = world.records(2);
    for record in &records {
        assert_eq!(record["alert"], "alert.undelivered");
        assert!(record["message"].to_string().contains("the tool"), "{record}");
        assert!(
            !record.to_string().contains("/x"),
            "the address is a secret: {record}"
        );
    }
}
