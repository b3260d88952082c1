//! Responses that the provider begins by itself.

use serde_json::{Value, json};

use super::*;

async fn open(room: Option<Seen>) -> Open {
    Open::of(
        DialectKind::OpenaiRealtime,
        "/v1/realtime?model=gpt-realtime",
        room,
    )
    .await
}

/// A socket on which so much output is paid for, and no more.
async fn paid(output: u64) -> Open {
    let input = 100_000;
    open(Some(Seen { input, output })).await
}

impl Open {
    async fn send(&mut self, event: Value) {
        self.client.send(Message::text(event.to_string())).await.unwrap();
    }

    /// What the provider gets next.
    async fn got(&mut self) -> Value {
        let message = self.provider.next().await.unwrap().unwrap();
        serde_json::from_str(message.to_text().unwrap()).unwrap()
    }

    async fn speak(&mut self) {
        self.send(json!({"type": "input_audio_buffer.append", "audio": "AQAB"}))
            .await;
        assert_eq!(self.got().await["type"], "input_audio_buffer.append");
    }

    async fn pass(&mut self, event: Value) {
        self.tell(&event).await;
        assert_eq!(self.heard().await, event);
    }

    /// Nothing more is admitted.
    fn refuse(&self) {
        self.poor.store(true, Ordering::SeqCst);
    }

    fn withdrawn(&self) -> usize {
        self.withdrawn.load(Ordering::SeqCst)
    }
}

fn created(id: &str) -> Value {
    json!({"type": "response.created", "response": {"id": id, "conversation_id": "c"}})
}

fn done(id: &str, output: u64) -> Value {
    let usage = json!({"input_tokens": 5, "output_tokens": output, "total_tokens": 5 + output});
    json!({"type": "response.done", "response": {"id": id, "status": "completed", "usage": usage}})
}

fn silent() -> Value {
    json!({"type": "session.updated", "session": {"audio": {"input": {"turn_detection": null}}}})
}

#[tokio::test(start_paused = true)]
async fn what_was_reserved_for_a_response_becomes_its_call_and_the_rest_is_given_back() {
    let mut open = open(None).await;
    open.speak().await;
    open.speak().await;
    open.pass(created("r")).await;
    // It may be interrupted, and then another one follows.
    open.speak().await;
    open.pass(done("r", 7)).await;
    let outcome = open.outcomes.recv().await.unwrap();
    assert_eq!(outcome.facts.usage.map(|usage| usage.output), Some(7));
    assert!(outcome.forwarded && outcome.request_bytes > 0);
    assert_eq!(open.withdrawn(), 0);
    open.client.close(None).await.unwrap();
    assert!(matches!(open.provider.next().await, Some(Ok(Message::Close(_)))));
    sleep(MINUTE).await;
    assert_eq!(open.withdrawn(), 1);
    assert!(open.outcomes.try_recv().is_err(), "there was one call");
}

#[tokio::test(start_paused = true)]
async fn a_response_that_nobody_foresaw_is_decided_when_it_begins() {
    let mut quiet = open(None).await;
    quiet.pass(silent()).await;
    quiet.speak().await;
    quiet.pass(created("r")).await;
    quiet.pass(done("r", 7)).await;
    let outcome = quiet.outcomes.recv().await.unwrap();
    assert_eq!(outcome.facts.usage.map(|usage| usage.output), Some(7));
    // One input may hold several turns.
    let mut several = open(None).await;
    several.speak().await;
    for (id, output) in [("r", 1), ("s", 2), ("t", 3)] {
        several.pass(created(id)).await;
        several.pass(done(id, output)).await;
        let outcome = several.outcomes.recv().await.unwrap();
        assert_eq!(outcome.facts.usage.map(|usage| usage.output), Some(output));
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_refused_when_it_begins_ends_the_socket_and_does_not_pass() {
    let mut poor = open(None).await;
    poor.pass(silent()).await;
    poor.speak().await;
    poor.refuse();
    poor.tell(&created("r")).await;
    assert_eq!(poor.heard().await["type"], "error");
    assert_eq!(poor.closed().await.0, CloseCode::Error);
    // Nor does a second one while the first is under way.
    let mut twice = open(None).await;
    twice.speak().await;
    twice.pass(created("r")).await;
    twice.tell(&created("s")).await;
    assert_eq!(twice.closed().await.0, CloseCode::Error);
    assert_eq!(twice.outcomes.recv().await.unwrap().facts.usage, None);
}

#[tokio::test(start_paused = true)]
async fn no_more_is_reserved_for_a_response_than_its_model_can_read() {
    let mut open = paid(100).await;
    open.speak().await;
    // How long that is, nobody knows.
    let picture = json!({"type": "input_image", "image_url": "https://example.com/a.png"});
    let item = json!({"type": "message", "role": "user", "content": [picture]});
    open.send(json!({"type": "conversation.item.create", "item": item}))
        .await;
    assert_eq!(open.got().await["type"], "conversation.item.create");
    open.speak().await;
    open.pass(created("r")).await;
}

#[tokio::test(start_paused = true)]
async fn a_response_that_had_to_come_is_paid_for_when_the_socket_breaks_before_it_does() {
    let mut open = open(None).await;
    open.speak().await;
    open.pass(json!({"type": "input_audio_buffer.committed", "item_id": "i"}))
        .await;
    drop(open.provider);
    let outcome = open.outcomes.recv().await.unwrap();
    assert!(outcome.forwarded && outcome.facts.usage.is_none());
    assert!(outcome.upstream_error.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_response_that_outgrows_what_is_paid_for_is_cancelled_and_the_socket_stays_open() {
    let mut open = paid(2).await;
    open.speak().await;
    open.pass(created("r")).await;
    let delta =
        json!({"type": "response.output_text.delta", "response_id": "r", "output_index": 0, "delta": "word"});
    open.pass(delta.clone()).await;
    open.pass(delta.clone()).await;
    open.pass(delta.clone()).await;
    let error = open.heard().await;
    assert_eq!(error["error"]["code"], "guard_budget_exceeded", "{error}");
    let end = open.heard().await;
    assert_eq!(end["response"]["status"], "failed", "{end}");
    assert_eq!(
        open.got().await,
        json!({"type": "response.cancel", "response_id": "r"})
    );
    // What still comes is metered, and does not pass.
    open.tell(&delta).await;
    open.tell(&done("r", 9)).await;
    let outcome = open.outcomes.recv().await.unwrap();
    assert_eq!(outcome.facts.usage.map(|usage| usage.output), Some(9));
    assert_eq!(outcome.cut, Some(Reason::BudgetExceeded));
    open.speak().await;
    open.pass(created("s")).await;
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_does_not_end_what_it_was_told_to_end_is_let_go() {
    let mut open = paid(0).await;
    open.speak().await;
    open.pass(created("r")).await;
    open.tell(&json!({"type": "response.output_text.delta", "response_id": "r", "delta": "word"}))
        .await;
    for _ in 0..3 {
        open.heard().await;
    }
    assert_eq!(open.closed().await.0, CloseCode::Error);
    assert!(open.began.elapsed() < MINUTE);
    assert_eq!(open.outcomes.recv().await.unwrap().facts.usage, None, "not known");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_has_most_probably_failed_gives_way_to_the_next_and_costs_nothing() {
    let mut open = open(None).await;
    open.pass(silent()).await;
    let create = json!({"type": "response.create"});
    open.send(create.clone()).await;
    open.got().await;
    let error = json!({"type": "error", "error": {"code": "x", "event_id": null}});
    open.pass(error.clone()).await;
    open.send(create.clone()).await;
    open.got().await;
    let outcome = open.outcomes.recv().await.unwrap();
    assert_eq!(outcome.status, Some(StatusCode::BAD_REQUEST));
    // An error that was about something else: the response comes after all.
    open.pass(error).await;
    open.pass(created("r")).await;
    open.pass(done("r", 3)).await;
    let outcome = open.outcomes.recv().await.unwrap();
    assert_eq!(outcome.status, Some(StatusCode::OK));
    assert_eq!(outcome.facts.usage.map(|usage| usage.output), Some(3));
}

#[tokio::test(start_paused = true)]
async fn an_error_that_names_a_request_ends_that_one_alone() {
    let mut open = open(None).await;
    open.send(json!({"type": "response.create", "event_id": "mine"}))
        .await;
    open.got().await;
    open.pass(json!({"type": "error", "error": {"code": "x", "event_id": "other"}}))
        .await;
    assert!(open.outcomes.try_recv().is_err());
    open.pass(json!({"type": "error", "error": {"code": "x", "event_id": "mine"}}))
        .await;
    assert_eq!(
        open.outcomes.recv().await.unwrap().status,
        Some(StatusCode::BAD_REQUEST)
    );
}

#[tokio::test(start_paused = true)]
async fn what_follows_a_cancelled_response_waits_for_its_end_and_nothing_overtakes_it() {
    let mut open = open(None).await;
    open.pass(silent()).await;
    open.send(json!({"type": "response.create"})).await;
    open.got().await;
    open.pass(created("r")).await;
    open.send(json!({"type": "response.create", "event_id": "early"}))
        .await;
    let busy = open.heard().await;
    assert_eq!(
        (&busy["type"], &busy["error"]["event_id"]),
        (&json!("error"), &json!("early"))
    );
    open.send(json!({"type": "response.cancel"})).await;
    open.send(json!({"type": "response.create", "event_id": "next"}))
        .await;
    open.send(json!({"type": "input_audio_buffer.clear"})).await;
    assert_eq!(open.got().await["type"], "response.cancel");
    open.pass(done("r", 1)).await;
    assert_eq!(open.got().await["event_id"], "next");
    assert_eq!(open.got().await["type"], "input_audio_buffer.clear");
}
