//! Clock probes, and commands for agents behind HTTPS.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use orrery_bus::Record;
use orrery_protocol::topics;
use serde_json::json;

use crate::harness::{Events, Gateway, NOW, Services, Setup, body, problem, start, start_with};

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_is_stamped_on_arrival_first_and_on_leaving_last() {
    let gateway = start().await;
    let answer = gateway
        .post("/clock/probe")
        .json(&json!({ "t0": "-17" }))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.headers()["content-type"], "application/json");
    let answer = body(answer).await;
    assert_eq!(answer["t0"], "-17");
    let stamp = |name: &str| answer[name].as_str().unwrap().parse::<i64>().unwrap();
    assert!(stamp("t1") >= NOW.0 && stamp("t2") > stamp("t1"), "{answer}");
    for t0 in [json!(5), json!("five"), json!("99999999999999999999"), json!(null)] {
        let answer = gateway
            .post("/clock/probe")
            .json(&json!({ "t0": t0 }))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 400, "{t0}");
    }
}

async fn command(gateway: &Gateway, device: &str, text: &str) {
    let record = Record::new(device.to_owned(), text.to_owned());
    gateway.bus.publish(topics::CONTROL, vec![record]).await.unwrap();
}

async fn next(events: &mut Events) -> (String, String) {
    let event = events.next().await.expect("the stream ended");
    let bytes = STANDARD.decode(event.data).unwrap();
    (String::from_utf8(bytes).unwrap(), event.id)
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_reach_their_agent_in_order_and_resume_where_it_left_off() {
    let services = Services::default();
    let gateway = start_with(Setup {
        services: services.mount(),
        ..Setup::default()
    })
    .await;
    let token = gateway.enrol(&["a", "b"]).await;
    let open = async |query: &str, last: Option<&str>| {
        let request = gateway
            .http
            .get(gateway.api(&format!("/control/stream?{query}")))
            .bearer_auth(&token);
        Events::open(
            last.into_iter()
                .fold(request, |request, id| request.header("last-event-id", id)),
        )
        .await
    };
    command(&gateway, "a", "one").await;
    command(&gateway, "stranger", "not yours").await;
    command(&gateway, "b", "two").await;
    let mut events = open("devices=a,b", None).await;
    assert_eq!(next(&mut events).await.0, "one");
    let (two, id) = next(&mut events).await;
    assert_eq!(two, "two");
    drop(events);

    command(&gateway, "a", "three").await;
    command(&gateway, "b", "four").await;
    let mut events = open("devices=a", Some(&id)).await;
    assert_eq!(next(&mut events).await.0, "three");
    command(&gateway, "a", "five").await;
    assert_eq!(next(&mut events).await.0, "five");
    let mut from = open(&format!("devices=a,b&from={id}"), None).await;
    assert_eq!(next(&mut from).await.0, "two");
    let mut latest = open("devices=a,b&from=latest", None).await;
    command(&gateway, "b", "six").await;
    assert_eq!(next(&mut latest).await.0, "six");

    // An id of another bus, one of several partitions: the agent is told to start again, not to wait.
    let request = gateway.http.get(gateway.api("/control/stream?devices=a"));
    let refused = request
        .bearer_auth(&token)
        .header("last-event-id", "0:5,1:3")
        .send()
        .await;
    let (status, detail) = problem(refused.unwrap()).await;
    assert_eq!(status, 410);
    assert!(
        detail.contains("has no partition 1: start again with `from=latest`"),
        "{detail}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_hears_only_its_own_devices() {
    let services = Services::default();
    let gateway = start_with(Setup {
        services: services.mount(),
        ..Setup::default()
    })
    .await;
    let token = gateway.enrol(&["a"]).await;
    for (query, status, named) in [
        ("devices=a,other", 403, "other"),
        ("devices=", 400, "no device"),
        ("from=1", 400, "devices"),
        ("devices=a&from=yesterday", 400, "yesterday"),
    ] {
        let request = gateway
            .http
            .get(gateway.api(&format!("/control/stream?{query}")))
            .bearer_auth(&token);
        let (found, detail) = problem(request.send().await.unwrap()).await;
        assert_eq!(found, status, "{detail}");
        assert!(detail.contains(named), "{detail}");
    }
}
