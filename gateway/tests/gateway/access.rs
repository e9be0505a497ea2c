//! Who gets in, and who does not.

use std::time::Duration;

use axum::http::header;
use serde_json::json;

use crate::harness::{Services, Setup, body, problem, start, start_with};

async fn with_services() -> (crate::harness::Gateway, Services) {
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

#[tokio::test(flavor = "multi_thread")]
async fn what_a_services_framework_refuses_is_a_problem_too() {
    let (gateway, _) = with_services().await;
    let ask = |path: &str| gateway.http.get(gateway.api(path)).bearer_auth(&gateway.token).send();
    let answer = ask("/window?columns=-1").await.unwrap();
    assert_eq!(answer.status(), 400);
    let (_, detail) = problem(answer).await;
    assert!(detail.contains("columns"), "{detail}");
    assert_eq!(ask("/window?columns=4").await.unwrap().text().await.unwrap(), "4");

    let posted = gateway
        .http
        .post(gateway.api("/devices"))
        .bearer_auth(&gateway.token)
        .body("{");
    let answer = posted.send().await.unwrap();
    assert_eq!(answer.status(), 415);
    assert!(problem(answer).await.1.contains("application/json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_reaches_its_routes_and_no_others() {
    let (gateway, _) = with_services().await;
    let agent = gateway.enrol(&["bench"]).await;
    let one_time = gateway.one_time().await;
    let routes = [
        // method, path, operator, agent, enroller, anyone
        ("GET", "/whoami", 200, 403, 403, 401),
        ("GET", "/devices", 200, 403, 403, 401),
        ("POST", "/clock/probe", 400, 400, 403, 401),
        ("POST", "/envelopes", 415, 415, 403, 401),
        ("GET", "/control/stream", 400, 400, 403, 401),
        ("GET", "/live/events?streams=,bad", 400, 403, 403, 401),
        ("POST", "/enrollments", 400, 403, 400, 401),
        ("POST", "/enrollment-tokens?x", 400, 403, 403, 401),
        ("GET", "/openapi.json", 200, 200, 200, 200),
        ("GET", "/nothing", 404, 403, 403, 401),
        ("PUT", "/devices", 405, 403, 403, 401),
    ];
    for (method, path, operator, by_agent, enroller, anyone) in routes {
        let request = || {
            let request = gateway.http.request(method.parse().unwrap(), gateway.api(path));
            if method == "POST" { request.body("{") } else { request }
        };
        for (token, expected) in [
            (Some(&gateway.token), operator),
            (Some(&agent), by_agent),
            (Some(&one_time), enroller),
            (None, anyone),
        ] {
            let request = token
                .into_iter()
                .fold(request(), |request, token| request.bearer_auth(token));
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), expected, "{method} {path} with {token:?}");
            if expected >= 400 {
                assert!(problem(answer).await.1.len() > 20);
            }
        }
    }
    assert_eq!(
        gateway.metric("orrery_auth_refused_total{reason=\"forbidden\"}").await,
        16.0
    );
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_say_what_to_do() {
    let (gateway, _) = with_services().await;
    for (authorization, remedy) in [
        ("Bearer rubbish", "orrery up"),
        ("Bearer orr_op_AAAA", "orrery up"),
        ("Bearer orr_ag_AAAA", "enrol the agent again"),
        ("Bearer orr_en_AAAA", "enrollment-tokens"),
        ("Basic dXNlcg==", "Bearer"),
    ] {
        let answer = gateway
            .http
            .get(gateway.api("/whoami"))
            .header(header::AUTHORIZATION, authorization);
        let answer = answer.send().await.unwrap();
        assert!(answer.headers().contains_key(header::WWW_AUTHENTICATE));
        let (status, detail) = problem(answer).await;
        assert_eq!(status, 401);
        assert!(detail.contains(remedy), "{authorization}: {detail}");
    }
    // A valid cookie does not repair a wrong token.
    let cookie = sign_in(&gateway).await;
    let answer = gateway
        .http
        .get(gateway.api("/whoami"))
        .header(header::COOKIE, &cookie)
        .bearer_auth("rubbish");
    assert_eq!(answer.send().await.unwrap().status(), 401);
}

async fn sign_in(gateway: &crate::harness::Gateway) -> String {
    let answer = gateway
        .http
        .get(gateway.at(&format!("/?token={}", gateway.token)))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 303);
    assert_eq!(answer.headers()[header::LOCATION], "/");
    let cookie = answer.headers()[header::SET_COOKIE].to_str().unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && cookie.contains("Path=/"));
    assert!(!cookie.contains(&gateway.token), "the cookie must not be the token");
    cookie.split(';').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_signs_in_by_url_and_other_sites_cannot_use_its_session() {
    let (gateway, _) = with_services().await;
    let cookie = sign_in(&gateway).await;
    let with_cookie = |request: reqwest::RequestBuilder| request.header(header::COOKIE, &cookie);
    assert_eq!(
        with_cookie(gateway.http.get(gateway.api("/whoami")))
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(
        with_cookie(gateway.http.get(gateway.at("/")))
            .send()
            .await
            .unwrap()
            .status(),
        200
    );

    let origin = gateway.url.clone();
    for (origin, status) in [
        (Some(origin.as_str()), 200),
        (Some("http://127.0.0.1:1"), 403),
        (Some("https://evil.example"), 403),
        (None, 403),
    ] {
        let request = with_cookie(gateway.http.post(gateway.api("/whoami"))).body("x");
        let request = origin
            .into_iter()
            .fold(request, |request, origin| request.header(header::ORIGIN, origin));
        assert_eq!(request.send().await.unwrap().status(), status, "{origin:?}");
    }
    // The same for opening a WebSocket, which browsers allow across sites.
    let request = with_cookie(gateway.http.get(gateway.api("/live")))
        .header(header::UPGRADE, "websocket")
        .header(header::CONNECTION, "upgrade")
        .header(header::ORIGIN, "https://evil.example");
    assert_eq!(request.send().await.unwrap().status(), 403);

    let page = gateway.http.get(gateway.at("/")).send().await.unwrap();
    assert_eq!(page.status(), 401);
    assert!(
        page.text()
            .await
            .unwrap()
            .contains("Paste its token here".to_lowercase().as_str())
    );
    let wrong = gateway
        .http
        .get(gateway.at("/login?token=orr_op_wrong"))
        .send()
        .await
        .unwrap();
    assert_eq!(wrong.status(), 401);
    assert!(!wrong.headers().contains_key(header::SET_COOKIE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_time_token_opens_once_and_survives_a_conflict() {
    let (gateway, services) = with_services().await;
    services
        .keys
        .lock()
        .unwrap()
        .insert("taken".into(), ("other".into(), "x".into()));
    let one_time = gateway.one_time().await;
    let enrol = async |devices: serde_json::Value| {
        let request = gateway.http.post(gateway.api("/enrollments")).bearer_auth(&one_time);
        request.json(&json!({ "device_ids": devices })).send().await.unwrap()
    };
    let (status, detail) = problem(enrol(json!(["taken"])).await).await;
    assert_eq!((status, detail.as_str()), (409, "taken has another key"));

    let answer = enrol(json!(["bench"])).await;
    assert_eq!(answer.status(), 201);
    let answer = body(answer).await;
    assert_eq!(answer["device_ids"], json!(["bench"]));
    assert_eq!(answer["command_keys"].as_array().unwrap().len(), 1);
    assert_eq!(services.keys.lock().unwrap()["bench"].1, "enrolment bench");

    let (status, detail) = problem(enrol(json!(["second"])).await).await;
    assert_eq!(status, 401);
    assert!(detail.contains("used already"), "{detail}");
    assert!(!services.keys.lock().unwrap().contains_key("second"));

    let late = gateway.one_time().await;
    gateway.clock.advance(Duration::from_secs(3_700));
    let answer = gateway
        .http
        .post(gateway.api("/enrollments"))
        .bearer_auth(late)
        .json(&json!({ "device_ids": ["z"] }));
    let (status, detail) = problem(answer.send().await.unwrap()).await;
    assert_eq!(status, 401);
    assert!(detail.contains("expired"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn enrolments_that_make_no_sense_are_refused_before_anything_is_enrolled() {
    let (gateway, services) = with_services().await;
    for (request, named) in [
        (json!({ "device_ids": [] }), "device_ids"),
        (json!({ "device_ids": ["a", "a"] }), "twice"),
        (json!({ "device_ids": ["a/b"] }), "device_ids[0]"),
        (json!({ "device_ids": ["a", "b"], "keys": ["AAAA"] }), "keys[0]"),
        (json!({ "device_ids": ["a"], "keys": [null, null] }), "2 entries"),
        (json!({ "device_ids": ["a"], "colour": "red" }), "colour"),
    ] {
        let answer = gateway.post("/enrollments").json(&request).send().await.unwrap();
        let (status, detail) = problem(answer).await;
        assert_eq!(status, 400);
        assert!(detail.contains(named), "{request}: {detail}");
    }
    assert!(services.keys.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_outlive_a_restart_and_no_file_is_readable_by_others() {
    let (gateway, services) = with_services().await;
    let agent = gateway.enrol(&["bench"]).await;
    let (token, folder) = (gateway.token.clone(), gateway.folder.clone());
    gateway.stop().await.unwrap();
    for file in std::fs::read_dir(folder.path().join("keys")).unwrap() {
        use std::os::unix::fs::PermissionsExt;
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        }
    }
    let setup = Setup {
        services: services.mount(),
        folder: Some(folder),
        ..Setup::default()
    };
    let gateway = start_with(setup).await;
    assert_eq!(gateway.token, token);
    let probe = gateway
        .http
        .post(gateway.api("/clock/probe"))
        .bearer_auth(agent)
        .json(&json!({ "t0": "1" }));
    assert_eq!(probe.send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_aligner_enrolment_waits() {
    let gateway = start().await;
    let answer = gateway
        .post("/enrollments")
        .json(&json!({ "device_ids": ["a"] }))
        .send()
        .await
        .unwrap();
    assert!(answer.headers().contains_key(header::RETRY_AFTER));
    let (status, detail) = problem(answer).await;
    assert_eq!(status, 503);
    assert!(detail.contains("aligner"), "{detail}");
}
