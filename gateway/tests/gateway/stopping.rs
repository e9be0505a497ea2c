//! Starting on a taken port, and stopping with work under way.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use orrery_gateway::{Config, Error, Mount};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::harness::{Setup, start, start_with};

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_with_its_remedy() {
    let gateway = start().await;
    let taken = gateway.url.trim_start_matches("http://").to_owned();
    let config = Config {
        listen: taken.clone(),
        keys_dir: gateway.folder.path().join("keys"),
        ..Config::default()
    };
    let deps = orrery_gateway::Deps {
        bus: gateway.bus.clone(),
        clock: gateway.clock.clone(),
        services: Vec::new(),
        command_keys: Vec::new(),
        metrics: Vec::new(),
        checks: Vec::new(),
        build: String::new(),
        bound: None,
    };
    let error = orrery_gateway::run(config, deps, Default::default()).await.unwrap_err();
    assert!(matches!(error, Error::PortInUse { .. }));
    let message = error.to_string();
    assert!(message.contains(&taken) && message.contains("--listen"), "{message}");
}

fn slow(seconds: u64) -> Vec<Mount> {
    let answer = move || async move {
        sleep(Duration::from_secs(seconds)).await;
        "done"
    };
    vec![Mount::Local {
        service: "slow",
        routes: Router::new().route("/slow", get(answer)),
        openapi: json!({}),
    }]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_way_ends_before_the_gateway_does() {
    let gateway = start_with(Setup {
        services: slow(1),
        ..Setup::default()
    })
    .await;
    let mut requests = JoinSet::new();
    requests.spawn(gateway.get("/slow").send());
    sleep(Duration::from_millis(300)).await;
    gateway.stop().await.unwrap();
    let answer = requests.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(answer.text().await.unwrap(), "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_end_is_cut_off_at_the_deadline() {
    let adjust: fn(&mut Config) = |config| config.drain_ms = 400;
    let mut gateway = start_with(Setup {
        services: slow(60),
        adjust: Some(adjust),
        ..Setup::default()
    })
    .await;
    let mut requests = JoinSet::new();
    requests.spawn(gateway.get("/slow").send());
    sleep(Duration::from_millis(300)).await;
    let started = Instant::now();
    gateway.shutdown.cancel();
    gateway.ended().await.unwrap();
    let took = started.elapsed();
    assert!(
        took >= Duration::from_millis(390) && took < Duration::from_secs(5),
        "{took:?}"
    );
}
