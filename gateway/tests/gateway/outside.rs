//! What lies around the API: health, metrics, the OpenAPI document, the page, and services that run apart.

use axum::Router;
use axum::http::header;
use orrery_gateway::{Mount, behind_gateway};
use orrery_protocol::{Principal, Role};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{Services, Setup, body, problem, start, start_with};

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_need_no_token() {
    let gateway = start().await;
    let answer = gateway.http.get(gateway.at("/healthz")).send().await.unwrap();
    assert_eq!(body(answer).await["status"], "alive");
    let ready = body(gateway.http.get(gateway.at("/readyz")).send().await.unwrap()).await;
    assert_eq!(
        ready,
        json!({ "status": "ready", "checks": { "bus": "ok", "gateway": "ok" } })
    );
    gateway.get("/nothing/at/all").send().await.unwrap();
    let answer = gateway.http.get(gateway.at("/metrics")).send().await.unwrap();
    assert!(
        answer.headers()[header::CONTENT_TYPE]
            .to_str()
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
    let text = answer.text().await.unwrap();
    assert!(text.contains("orrery_build_info{version=\"test\"} 1\n"), "{text}");
    assert!(
        text.contains("orrery_http_request_duration_seconds_bucket{route=\"/readyz\",method=\"GET\",status=\"2xx\"")
    );
    assert!(!text.contains("nothing"), "a path became a label");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.starts_with("orrery_"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openapi_document_lists_routes_that_exist() {
    let services = Services::default();
    let gateway = start_with(Setup {
        services: services.mount(),
        ..Setup::default()
    })
    .await;
    let document = body(gateway.http.get(gateway.api("/openapi.json")).send().await.unwrap()).await;
    let paths = document["paths"].as_object().unwrap();
    for own in [
        "/envelopes",
        "/clock/probe",
        "/control/stream",
        "/enrollments",
        "/enrollment-tokens",
        "/live",
        "/live/events",
        "/openapi.json",
        "/healthz",
        "/readyz",
        "/metrics",
        "/devices",
    ] {
        assert!(paths.contains_key(own), "{own} is missing");
    }
    for (path, item) in paths {
        let url = if item["servers"][0]["url"] == "/" {
            gateway.at(path)
        } else {
            gateway.api(path)
        };
        for method in item.as_object().unwrap().keys().filter(|key| *key != "servers") {
            let request = gateway
                .http
                .request(method.to_uppercase().parse().unwrap(), &url)
                .bearer_auth(&gateway.token);
            let status = request.send().await.unwrap().status();
            assert!(
                status != 404 && status != 405,
                "{method} {path} is documented but answers {status}"
            );
        }
    }
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let target = document.pointer(reference.trim_start_matches('#'));
        assert!(target.is_some(), "{reference} leads nowhere");
    }
}

fn collect_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(entries) => {
            found.extend(entries.get("$ref").and_then(Value::as_str).map(str::to_owned));
            entries.values().for_each(|value| collect_references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| collect_references(value, found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_guards_the_browser() {
    let gateway = start().await;
    for path in ["/", "/healthz", "/api/v1/whoami", "/no-such-file.js", "/api/v2/x"] {
        let answer = gateway.http.get(gateway.at(path)).send().await.unwrap();
        let headers = answer.headers();
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("script-src 'self' 'wasm-unsafe-eval';") && policy.contains("frame-ancestors 'none'"));
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
        assert_eq!(headers[header::REFERRER_POLICY], "no-referrer", "{path}");
    }
    assert_eq!(
        gateway
            .http
            .get(gateway.at("/no-such-file.js"))
            .send()
            .await
            .unwrap()
            .status(),
        404
    );
    assert_eq!(
        problem(gateway.http.get(gateway.at("/api/v2/x")).send().await.unwrap())
            .await
            .0,
        404
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_of_services_are_compressed_and_the_gateways_own_are_not() {
    let services = Services::default();
    let gateway = start_with(Setup {
        services: services.mount(),
        ..Setup::default()
    })
    .await;
    let zipped = |request: reqwest::RequestBuilder| request.header(header::ACCEPT_ENCODING, "gzip");
    let answer = zipped(gateway.post("/whoami"))
        .body("x".repeat(10_000))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.headers()[header::CONTENT_ENCODING], "gzip");
    assert!(answer.bytes().await.unwrap().len() < 200);
    let probe = zipped(gateway.post("/clock/probe"))
        .json(&json!({ "t0": "1" }))
        .send()
        .await
        .unwrap();
    assert!(!probe.headers().contains_key(header::CONTENT_ENCODING));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_runs_apart_answers_through_the_gateway_alone() {
    let services = Services::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    let routes = behind_gateway(Router::new().nest("/api/v1", services.routes()), "shared");
    tasks.spawn(axum::serve(listener, routes).into_future());
    let proxy = |service, prefix: &str, base_url: &str, secret: &str| Mount::Proxy {
        service,
        prefixes: vec![prefix.to_owned()],
        base_url: base_url.to_owned(),
        secret: secret.to_owned(),
        openapi: json!({}),
    };
    let mounts = vec![
        proxy("aligner", "/devices", &base_url, "shared"),
        proxy("runtime", "/whoami", &base_url, "shared"),
        proxy("impostor", "/control", &base_url, "wrong"),
        proxy("provenance", "/provenance", "http://127.0.0.1:1", "shared"),
    ];
    let gateway = start_with(Setup {
        services: mounts,
        ..Setup::default()
    })
    .await;

    let who: Principal = serde_json::from_value(body(gateway.get("/whoami").send().await.unwrap()).await).unwrap();
    assert_eq!(who.role, Role::Operator);
    let echo = gateway.post("/whoami").body("to and fro").send().await.unwrap();
    assert_eq!(echo.text().await.unwrap(), "to and fro");
    gateway.enrol(&["bench"]).await;
    assert!(
        services.keys.lock().unwrap().contains_key("bench"),
        "calls from inside pass the proxy too"
    );

    assert_eq!(problem(gateway.get("/control").send().await.unwrap()).await.0, 403);
    let direct = gateway
        .http
        .get(format!("{base_url}/api/v1/whoami"))
        .bearer_auth(&gateway.token);
    assert_eq!(problem(direct.send().await.unwrap()).await.0, 403);
    let forged = gateway
        .get("/control")
        .header("x-orrery-gateway", "c2hhcmVk")
        .send()
        .await
        .unwrap();
    assert_eq!(forged.status(), 403, "a caller cannot bring the secret along");
    let (status, detail) = problem(gateway.get("/provenance/status").send().await.unwrap()).await;
    assert_eq!(status, 502);
    assert!(detail.contains("orrery serve provenance"), "{detail}");
}
