//! The live stream, over both of its transports.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use futures_util::StreamExt;
use orrery_bus::{Bus, BusError, From, Position, Record, SharedBus, Subscription};
use orrery_protocol::topics;
use serde_json::json;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Events, NOW, PATIENCE, Services, Setup, block, start, start_with, until};

fn later(seconds: i64) -> orrery_protocol::TaiNanos {
    orrery_protocol::TaiNanos(NOW.0 + seconds * 1_000_000_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn both_transports_carry_the_same_messages() {
    let gateway = start().await;
    let mut socket = gateway.web_socket().await;
    let hello = socket.hear("hello").await;
    assert_eq!(hello["build"], "test");
    assert!(hello["leap_expires"].as_str().unwrap().starts_with("20"));
    socket
        .say(json!({ "type": "subscribe", "streams": ["a/b"], "cursor": null }))
        .await;
    assert_eq!(socket.hear("resume").await["streams"], json!({ "a/b": null }));
    let mut events = Events::open(gateway.get("/live/events?streams=a/b")).await;
    events.hear("hello").await;
    events.hear("resume").await;

    gateway.publish_block(&block("c/d", NOW, 1, 0)).await;
    gateway.publish_block(&block("a/b", NOW, 3, 7)).await;
    let traces = block("a/b", later(1), 1, 8);
    let record = Record::new("a/b", traces.encode().unwrap());
    gateway.bus.publish(topics::TRACES, vec![record]).await.unwrap();
    for _ in 0..2 {
        let heard = socket.hear("samples").await;
        let (same, id) = events.hear("samples").await;
        assert_eq!(heard, same);
        assert_eq!(heard["cursor"], id);
        assert_eq!(heard["stream"], "a/b");
    }
    let mut empty = block("a/b", later(2), 1, 9);
    empty.batch = empty.batch.slice(0, 0);
    gateway.publish_block(&empty).await;
    let heard = socket.hear("watermark").await;
    assert_eq!(heard["watermark_ms"], later(2).to_unix_millis());
    assert_eq!(events.hear("watermark").await.0, heard);
}

/// A bus whose subscriptions fail once what says so is published on the dead letters.
struct Failing(SharedBus);

struct FailingReader {
    inner: Box<dyn Subscription>,
    fuse: Box<dyn Subscription>,
}

#[async_trait]
impl Bus for Failing {
    async fn publish(&self, topic: &str, records: Vec<Record>) -> Result<Vec<Position>, BusError> {
        self.0.publish(topic, records).await
    }
    async fn subscribe(&self, topic: &str, from: From) -> Result<Box<dyn Subscription>, BusError> {
        let fuse = self.0.subscribe(topics::DEADLETTER, From::Latest).await?;
        let inner = self.0.subscribe(topic, from).await?;
        Ok(Box::new(FailingReader { inner, fuse }))
    }
    async fn commit(&self, group: &str, topic: &str, position: Position) -> Result<(), BusError> {
        self.0.commit(group, topic, position).await
    }
    async fn committed(&self, group: &str, topic: &str) -> Result<Vec<Position>, BusError> {
        self.0.committed(group, topic).await
    }
    async fn end(&self, topic: &str) -> Result<Vec<Position>, BusError> {
        self.0.end(topic).await
    }
}

#[async_trait]
impl Subscription for FailingReader {
    async fn next(&mut self) -> Result<Vec<orrery_bus::Message>, BusError> {
        tokio::select! {
            biased;
            _ = self.fuse.next() => Err(BusError::Unreachable {
                address: "kafka:9092".to_owned(),
                reason: "the test says so".to_owned(),
            }),
            batch = self.inner.next() => batch,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_while_the_bus_could_not_be_read_comes_after() {
    let gateway = start_with(Setup {
        between: Some(|bus| Arc::new(Failing(bus))),
        ..Setup::default()
    })
    .await;
    let mut socket = gateway.web_socket().await;
    socket
        .say(json!({ "type": "subscribe", "streams": ["a/b"], "cursor": null }))
        .await;
    socket.hear("resume").await;
    gateway.publish_block(&block("a/b", NOW, 1, 0)).await;
    socket.hear("samples").await;
    gateway
        .bus
        .publish(topics::DEADLETTER, vec![Record::new("x", "fail")])
        .await
        .unwrap();
    for n in 1..4u32 {
        gateway.publish_block(&block("a/b", later(n.into()), 1, n.into())).await;
    }
    for n in 1..4u32 {
        let heard = socket.hear("samples").await;
        assert_eq!(heard["t"][0], later(n.into()).to_unix_millis(), "{heard}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_block_invalidates_what_it_touches() {
    let gateway = start().await;
    let mut socket = gateway.web_socket().await;
    socket.say(json!({ "type": "subscribe", "streams": ["*"] })).await;
    socket.hear("resume").await;
    gateway.publish_block(&block("a/b", later(10), 2, 5)).await;
    socket.hear("samples").await;
    gateway.publish_block(&block("a/b", later(0), 4, 2)).await;
    let heard = socket.hear("invalidate").await;
    assert_eq!(heard["stream"], "a/b");
    assert_eq!(heard["from_ms"], NOW.to_unix_millis());
    assert!(heard["to_ms"].as_f64() > heard["from_ms"].as_f64());
    assert_eq!(heard["revision"], "5");
    // Bytes that are no block are left out, and the stream goes on.
    gateway
        .bus
        .publish(topics::ALIGNED, vec![Record::new("a/b", &b"rubbish"[..])])
        .await
        .unwrap();
    gateway.publish_block(&block("a/b", later(20), 1, 6)).await;
    assert_eq!(socket.hear("samples").await["seq"], json!([6, 6]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_resumes_also_after_the_gateway_was_restarted() {
    let gateway = start().await;
    let mut socket = gateway.web_socket().await;
    socket
        .say(json!({ "type": "subscribe", "streams": ["a/b"], "topics": [] }))
        .await;
    socket.hear("resume").await;
    gateway.publish_block(&block("a/b", NOW, 3, 7)).await;
    let last = socket.hear("samples").await;
    let (cursor, last_ms) = (last["cursor"].as_str().unwrap().to_owned(), last["t"][2].as_f64());
    gateway.publish_block(&block("a/b", later(5), 1, 8)).await;
    let head_ms = socket.hear("samples").await["t"][0].as_f64();

    let mut events = Events::open(gateway.get(&format!("/live/events?streams=a/b&cursor={cursor}"))).await;
    let (resume, _) = events.hear("resume").await;
    assert_eq!(resume["streams"]["a/b"].as_f64(), last_ms);
    assert_eq!(resume["head"]["a/b"].as_f64(), head_ms);
    let folder = gateway.folder.clone();
    gateway.stop().await.unwrap();

    let gateway = start_with(Setup {
        folder: Some(folder),
        ..Setup::default()
    })
    .await;
    let request = gateway.get("/live/events?streams=a/b").header("last-event-id", cursor);
    let (resume, _) = Events::open(request).await.hear("resume").await;
    assert_eq!(resume["streams"]["a/b"].as_f64(), last_ms);
    let refused = gateway
        .get("/live/events?streams=a/b&cursor=rubbish")
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_says_is_answered_or_named() {
    let gateway = start().await;
    let mut socket = gateway.web_socket().await;
    socket.say(json!({ "type": "ping", "t0_ms": 12.5 })).await;
    let pong = socket.hear("pong").await;
    assert_eq!(pong["t0_ms"], 12.5);
    assert!(pong["t1_ms"].as_f64().unwrap() >= NOW.to_unix_millis());
    for (said, named) in [
        (json!({ "type": "dance" }), "dance"),
        (json!({ "type": "subscribe", "streams": ["no stream"] }), "no stream"),
        (
            json!({ "type": "subscribe", "streams": [], "topics": ["weather"] }),
            "weather",
        ),
        (
            json!({ "type": "subscribe", "streams": [], "cursor": "rubbish" }),
            "cursor",
        ),
    ] {
        socket.say(said).await;
        assert!(socket.hear("problem").await["detail"].as_str().unwrap().contains(named));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_read_only_while_somebody_wants_them() {
    let services = Services::default();
    let gateway = start_with(Setup {
        services: services.mount(),
        ..Setup::default()
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_millis(1_300)).await;
    assert_eq!(services.reads.load(Ordering::SeqCst), 0);

    let mut socket = gateway.web_socket().await;
    socket.say(json!({ "type": "subscribe", "streams": [] })).await;
    assert_eq!(socket.hear("devices").await["devices"], json!([]));
    let forecast = socket.hear("forecast").await;
    assert_eq!(
        (&forecast["graph"], &forecast["assumption"]),
        (&json!("twin"), &json!("powers held"))
    );
    assert_eq!(socket.hear("control").await["channels"][0]["value"], 0);
    services.power.store(58, Ordering::SeqCst);
    until(async || services.power.load(Ordering::SeqCst) == 58).await;
    let mut changed = socket.hear("control").await;
    while changed["channels"][0]["value"] == 0 {
        changed = socket.hear("control").await;
    }
    assert_eq!(changed["channels"][0]["value"], 58);
    drop(socket);
    until(async || gateway.metric("orrery_live_clients").await == 0.0).await;
    let reads = services.reads.load(Ordering::SeqCst);
    tokio::time::sleep(std::time::Duration::from_millis(1_300)).await;
    assert!(services.reads.load(Ordering::SeqCst) <= reads + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_loses_the_oldest_is_told_and_holds_nobody_back() {
    let gateway = start_with(Setup {
        adjust: Some(|config| config.client_queue_kib = 256),
        ..Setup::default()
    })
    .await;
    let mut slow = gateway.web_socket().await;
    slow.say(json!({ "type": "subscribe", "streams": ["a/b"], "topics": [] }))
        .await;
    slow.hear("resume").await;
    let mut fast = gateway.web_socket().await;
    fast.say(json!({ "type": "subscribe", "streams": ["a/b"], "topics": [] }))
        .await;
    fast.hear("resume").await;

    // `slow` does not read: the kernel's buffers fill, then its queue, and then the oldest go.
    let mut sent = 0;
    while gateway.metric("orrery_live_dropped_total").await == 0.0 {
        assert!(sent < 1_000, "a client that does not read never lost anything");
        gateway
            .publish_block(&block("a/b", later(sent * 200), 2_000, sent as u64))
            .await;
        let heard = fast.hear("samples").await;
        assert_eq!(heard["seq"][0], sent, "the fast client missed something");
        sent += 1;
    }
    let gap = slow.hear("gap").await;
    assert_eq!(gap["reason"], "slow client");
    assert!(gap["messages"].as_u64().unwrap() >= 1);
    let lost_to = gap["streams"]["a/b"]["to_ms"].as_f64().unwrap();
    assert!(
        slow.hear("samples").await["t"][0].as_f64().unwrap() > lost_to,
        "the gap covers what was lost, no more"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_limited_and_a_plain_get_is_told_what_to_use() {
    let gateway = start_with(Setup {
        adjust: Some(|config| config.max_streams = 1),
        ..Setup::default()
    })
    .await;
    let first = gateway.web_socket().await;
    assert_eq!(
        gateway.get("/live/events?streams=*").send().await.unwrap().status(),
        503
    );
    drop(first);
    until(async || gateway.get("/live/events?streams=*").send().await.unwrap().status() == 200).await;
    let answer = gateway.get("/live").send().await.unwrap();
    let (status, detail) = crate::harness::problem(answer).await;
    assert_eq!(status, 400);
    assert!(detail.contains("/live/events"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_closes_web_sockets_with_a_reason() {
    let gateway = start().await;
    let mut socket = gateway.web_socket().await;
    socket.hear("hello").await;
    let mut events = Events::open(gateway.get("/live/events?streams=*")).await;
    events.hear("resume").await;
    gateway.shutdown.cancel();
    let closed = timeout(PATIENCE, async {
        loop {
            match socket.0.next().await {
                Some(Ok(Message::Close(frame))) => return frame,
                Some(Ok(_)) => {}
                other => panic!("the socket broke instead of closing: {other:?}"),
            }
        }
    });
    let frame = closed.await.unwrap().unwrap();
    assert_eq!(u16::from(frame.code), 1001);
    assert!(events.next().await.is_none(), "the event stream ends");
    gateway.stop().await.unwrap();
}
