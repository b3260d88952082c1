//! Replies on their way: never held back, never lost count of.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;

use super::fakes::*;

async fn next(body: &mut Incoming) -> Option<Bytes> {
    let frame = tokio::time::timeout(Duration::from_secs(5), body.frame())
        .await
        .expect("held back");
    frame.map(|frame| frame.unwrap().into_data().unwrap())
}

/// Answers the first request with a body that the test feeds.
fn fed_handler() -> (tokio::sync::mpsc::Sender<&'static str>, Handler) {
    let (feed, body) = fed();
    let body = Mutex::new(Some(body));
    let handler: Handler = Arc::new(move |_| {
        let body = body.lock().unwrap().take().unwrap();
        Box::pin(async move { http::Response::new(body) })
    });
    (feed, handler)
}

#[tokio::test]
async fn each_event_passes_before_the_next_is_made() {
    for (h2, alpn) in [
        (false, &b"h2"[..]),
        (true, b"h2"),
        (false, b"http/1.1"),
        (true, b"http/1.1"),
    ] {
        let (feed, handler) = fed_handler();
        let upstream = fake_provider(HOST, alpn, handler).await;
        let mut setup = setup(&upstream).await;
        let mut client = setup.client(h2).await;
        let mut body = client.send(post(h2, "m")).await.into_body();
        for event in ["data: one\n\n", "data: two\n\n", "data: usage=3\n\n"] {
            // The provider says the next event only when the client has had the one before.
            feed.send(event).await.unwrap();
            assert_eq!(next(&mut body).await.unwrap(), event);
        }
        drop(feed);
        assert_eq!(next(&mut body).await, None);
        assert_eq!(setup.outcome().await.facts.usage.unwrap().output, 3);
    }
}

#[tokio::test]
async fn a_client_that_leaves_mid_stream_is_settled_once_with_what_it_cost() {
    for h2 in [false, true] {
        let (feed, handler) = fed_handler();
        let upstream = fake_provider(HOST, b"h2", handler).await;
        let mut setup = setup(&upstream).await;
        let mut client = setup.client(h2).await;
        let mut body = client.send(post(h2, "m")).await.into_body();
        feed.send("data: one\n\n").await.unwrap();
        next(&mut body).await.unwrap();
        drop((body, client));
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(setup.outcomes.try_recv().is_err(), "read on, not settled yet");
        feed.send("data: usage=9\n\n").await.unwrap();
        drop(feed);
        let outcome = setup.outcome().await;
        assert!(outcome.client_gone && outcome.forwarded);
        assert_eq!(outcome.facts.usage.unwrap().output, 9);
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_is_settled_once_with_what_it_cost() {
    let (go, wait) = tokio::sync::oneshot::channel::<()>();
    let wait = Mutex::new(Some(wait));
    let (arrived, mut arrival) = tokio::sync::mpsc::channel(1);
    let handler: Handler = Arc::new(move |_| {
        let wait = wait.lock().unwrap().take().unwrap();
        let arrived = arrived.clone();
        Box::pin(async move {
            arrived.send(()).await.unwrap();
            wait.await.unwrap();
            http::Response::new(full("usage=11"))
        })
    });
    let upstream = fake_provider(HOST, b"http/1.1", handler).await;
    let mut setup = setup(&upstream).await;
    let mut client = setup.client(false).await;
    let call = tokio::spawn(async move { client.send(post(false, "m")).await });
    arrival.recv().await.unwrap();
    call.abort();
    tokio::time::sleep(Duration::from_millis(100)).await;
    go.send(()).unwrap();
    let outcome = setup.outcome().await;
    assert!(outcome.client_gone && outcome.forwarded);
    assert_eq!(outcome.facts.usage.unwrap().output, 11);
}

#[tokio::test]
async fn a_stream_that_is_cut_says_what_is_known() {
    let handler: Handler = Arc::new(|_| {
        let frames = futures_util::stream::unfold(0, async |step| {
            assert_eq!(step, 0, "the provider dies");
            tokio::task::yield_now().await;
            Some((Ok(Frame::data(Bytes::from_static(b"data: one\n\n"))), 1))
        });
        Box::pin(async { http::Response::new(StreamBody::new(Box::pin(frames)).boxed_unsync()) })
    });
    let upstream = fake_provider(HOST, b"http/1.1", handler).await;
    let mut setup = setup(&upstream).await;
    let mut client = setup.client(false).await;
    let sent = match &mut client {
        Client::H1(sender) => sender.send_request(post(false, "m")).await,
        Client::H2(_) => unreachable!(),
    };
    if let Ok(response) = sent {
        assert!(!response.status().is_success() || response.into_body().collect().await.is_err());
    }
    let outcome = setup.outcome().await;
    assert_eq!(outcome.facts.usage, None);
    assert!(outcome.upstream_error.is_some() && outcome.forwarded);
}

/// A body of `flood` gets small events without end; anything else ten slow ones.
fn flood_or_trickle() -> Handler {
    Arc::new(|request| {
        Box::pin(async move {
            let flood = request.into_body().collect().await.unwrap().to_bytes() == "flood";
            let frames = futures_util::stream::unfold(0_u32, move |step| async move {
                if flood {
                    tokio::task::yield_now().await;
                } else {
                    tokio::time::sleep(Duration::from_millis(60)).await;
                }
                let frame = Ok(Frame::data(Bytes::from_static(&[b'x'; 64])));
                (flood || step < 10).then_some((frame, step + 1))
            });
            http::Response::new(StreamBody::new(Box::pin(frames)).boxed_unsync())
        })
    })
}

async fn trickle(client: &mut Client, h2: bool) -> usize {
    let body = client.send(post(h2, "trickle")).await.into_body();
    body.collect().await.unwrap().to_bytes().len()
}

#[tokio::test]
async fn a_stalled_reader_does_not_disturb_other_streams() {
    let upstream = fake_provider(HOST, b"h2", flood_or_trickle()).await;
    let setup = setup(&upstream).await;
    let (mut one, mut other) = (setup.client(true).await, setup.client(false).await);
    // Two streams of one agent share an upstream connection, the harder case; the third is another agent's.
    let stalled = one.send(post(true, "flood")).await;
    let lengths = tokio::join!(trickle(&mut one, true), trickle(&mut other, false));
    assert_eq!(lengths, (640, 640));
    assert_eq!(
        upstream.connections.load(Ordering::Relaxed),
        2,
        "one connection for each agent"
    );
    drop(stalled);
}

#[tokio::test]
async fn a_drain_lets_streams_end_and_cuts_at_its_deadline() {
    let upstream = fake_provider(HOST, b"h2", flood_or_trickle()).await;
    let mut first = setup(&upstream).await;
    let mut client = first.client(false).await;
    let reading = tokio::spawn(async move { trickle(&mut client, false).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(first.proxy.drain().finish(Duration::from_secs(5)).await, 0);
    assert_eq!(reading.await.unwrap(), 640, "all ten events");
    first.outcome().await;

    let mut second = setup(&upstream).await;
    let mut client = second.client(true).await;
    let stalled = client.send(post(true, "flood")).await;
    assert!(second.proxy.drain().finish(Duration::from_millis(100)).await > 0);
    assert!(second.outcome().await.forwarded, "what was cut is settled");
    drop(stalled);
}
