//! What `POST /envelopes` answers 202 to is on the bus, byte for byte; what it refuses is not.

use axum::http::header;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use orrery_bus::{From, Message};
use orrery_gateway::{ENVELOPES, MAX_BODY};
use orrery_protocol::{BootId, Chain, DeviceId, PayloadType, PublicKey, SealKey, Unverified, topics};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::harness::{Gateway, NOW, PATIENCE, Services, Setup, body, problem, start_with};

async fn with_services() -> (Gateway, Services) {
    let services = Services::default();
    (
        start_with(Setup {
            services: services.mount(),
            ..Setup::default()
        })
        .await,
        services,
    )
}

fn sealed(device: &str, count: usize) -> Vec<Vec<u8>> {
    let key = SealKey::from_seed(&[1; 32]);
    let mut chain = Chain::start(DeviceId::new(device).unwrap(), BootId([1; 16]), None);
    (0..count)
        .map(|at| {
            chain
                .seal(&key, NOW, PayloadType::Event, &[at as u8; 100])
                .unwrap()
                .bytes
        })
        .collect()
}

fn framed(envelopes: &[Vec<u8>]) -> Vec<u8> {
    let mut body = Vec::new();
    for envelope in envelopes {
        body.extend_from_slice(&(envelope.len() as u32).to_be_bytes());
        body.extend_from_slice(envelope);
    }
    body
}

async fn send(gateway: &Gateway, token: &str, body: Vec<u8>) -> reqwest::Response {
    let request = gateway.http.post(gateway.api("/envelopes")).bearer_auth(token);
    request
        .header(header::CONTENT_TYPE, ENVELOPES)
        .body(body)
        .send()
        .await
        .unwrap()
}

async fn raw(gateway: &Gateway, count: usize) -> Vec<Message> {
    let mut subscription = gateway.bus.subscribe(topics::RAW, From::Earliest).await.unwrap();
    let mut found = Vec::new();
    while found.len() < count {
        found.extend(
            timeout(PATIENCE, subscription.next())
                .await
                .expect("an envelope is missing")
                .unwrap(),
        );
    }
    found
}

async fn raw_count(gateway: &Gateway) -> u64 {
    gateway
        .bus
        .end(topics::RAW)
        .await
        .unwrap()
        .iter()
        .map(|position| position.offset)
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn accepted_envelopes_are_on_the_bus_unaltered_and_survive_a_restart() {
    let (gateway, services) = with_services().await;
    let token = gateway.enrol(&["bench"]).await;
    let envelopes = sealed("bench", 5);
    let answer = send(&gateway, &token, framed(&envelopes)).await;
    assert_eq!(answer.status(), 202);
    assert_eq!(body(answer).await, json!({ "accepted": 5 }));
    let folder = gateway.folder.clone();
    gateway.stop().await.unwrap();

    let setup = Setup {
        services: services.mount(),
        folder: Some(folder),
        ..Setup::default()
    };
    let gateway = start_with(setup).await;
    let found = raw(&gateway, 5).await;
    let values: Vec<Vec<u8>> = found.iter().map(|message| message.value.to_vec()).collect();
    assert_eq!(values, envelopes);
    assert!(found.iter().all(|message| &message.key[..] == b"bench"));
    assert_eq!(found[3].header("ce_type"), Some("orrery.event"));
    assert_eq!(found[3].header("ce_source"), Some("/devices/bench"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_frame_refuses_the_whole_request_and_is_named() {
    let (gateway, _) = with_services().await;
    let token = gateway.enrol(&["bench"]).await;
    let good = sealed("bench", 2);
    let with = |extra: &[u8]| [framed(&good), extra.to_vec()].concat();
    for (body, status, named) in [
        (with(&[0, 0]), 400, "frame 2"),
        (with(&[0, 0, 0, 0]), 400, "frame 2"),
        (with(&[0xff, 0xff, 0xff, 0xff, 1]), 400, "4294967295"),
        (with(&framed(&[b"not an envelope".to_vec()])), 400, "COSE_Sign1"),
        (with(&framed(&sealed("foreign", 1))), 403, "foreign"),
        (Vec::new(), 400, "no envelope"),
        (vec![0; MAX_BODY + 1], 413, "split it"),
    ] {
        let (found, detail) = problem(send(&gateway, &token, body).await).await;
        assert_eq!(found, status, "{detail}");
        assert!(detail.contains(named), "{detail}");
    }
    assert_eq!(
        raw_count(&gateway).await,
        0,
        "a refused request left something on the bus"
    );
    assert_eq!(gateway.metric("orrery_ingest_refused_total").await, 6.0);
}

fn reading(device: &str, text: &str) -> Value {
    json!({
        "device_id": device,
        "timestamp": "2026-11-21T14:32:07.5Z",
        "payload_type": "event",
        "payload": STANDARD.encode(text),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_readings_are_sealed_in_one_chain_across_restarts() {
    let (gateway, services) = with_services().await;
    for text in ["one", "two"] {
        let answer = gateway
            .post("/envelopes")
            .json(&reading("scale", text))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 202);
    }
    let folder = gateway.folder.clone();
    gateway.stop().await.unwrap();
    let setup = Setup {
        services: services.mount(),
        folder: Some(folder),
        ..Setup::default()
    };
    let gateway = start_with(setup).await;
    let answer = gateway
        .post("/envelopes")
        .json(&reading("scale", "three"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 202);

    let enrolled = services.keys.lock().unwrap()["scale"].0.clone();
    let key = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(enrolled)
        .unwrap();
    let key = PublicKey::from_bytes(&key).unwrap();
    let mut found = raw(&gateway, 4).await;
    assert_eq!(
        found[1].value, found[2].value,
        "the last envelope of a run is published again: a harmless duplicate"
    );
    found.remove(2);
    let mut previous = None;
    let mut payloads = Vec::new();
    for message in found {
        let envelope = Unverified::parse(message.value.to_vec()).unwrap();
        assert!(envelope.claims().attested);
        assert_eq!(envelope.claims().previous, previous);
        previous = Some(envelope.digest());
        let sequence = envelope.claims().sequence;
        let verified = envelope.verify(&key).unwrap();
        payloads.push((sequence, verified.payload().to_vec()));
    }
    assert_eq!(
        payloads,
        [(0, b"one".to_vec()), (1, b"two".to_vec()), (0, b"three".to_vec())]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_that_is_none_is_refused_and_named() {
    let (gateway, services) = with_services().await;
    let token = gateway.enrol(&["bench"]).await;
    let with = |name: &str, value: Value| {
        let mut reading = reading("bench", "x");
        reading[name] = value;
        reading
    };
    for (request, status, named) in [
        (with("timestamp", json!("yesterday")), 400, "`yesterday` is not a time"),
        (with("payload_type", json!("smell")), 400, "`smell`"),
        (with("payload", json!("***")), 400, "base64"),
        (with("device_id", json!("a b")), 400, "device_id"),
        (with("colour", json!("red")), 400, "colour"),
        (
            with("payload", json!(STANDARD.encode(vec![0; 600 * 1024]))),
            413,
            "split it",
        ),
        (with("device_id", json!("other")), 403, "other"),
        // The device signs for itself: the gateway must not sign in its name.
        (with("payload", json!("AAAA")), 409, "another key"),
    ] {
        let answer = gateway
            .http
            .post(gateway.api("/envelopes"))
            .bearer_auth(&token)
            .json(&request);
        let (found, detail) = problem(answer.send().await.unwrap()).await;
        assert_eq!(found, status, "{detail}");
        assert!(detail.contains(named), "{detail}");
    }
    assert_eq!(raw_count(&gateway).await, 0);
    assert!(!services.keys.lock().unwrap().contains_key("other"));
}
