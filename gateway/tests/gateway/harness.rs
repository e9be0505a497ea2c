//! A running gateway, a service to mount, and clients.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow_array::{ArrayRef, Float64Array};
use arrow_schema::{DataType, Field};
use axum::extract::{Extension, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::{SinkExt, StreamExt};
use orrery_bus::journal::JournalOptions;
use orrery_bus::{JournalBus, Record, SharedBus};
use orrery_gateway::{Bound, Config, Deps, Error, Mount};
use orrery_protocol::{
    AlignedBlock, BootId, Clock, ClockId, Digest, MonoNanos, Principal, Problem, StreamId, TaiNanos, topics,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;

pub const NOW: TaiNanos = TaiNanos(1_795_000_000_000_000_000);
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Every look at it moves it on by a microsecond, so that the order of looks shows.
pub struct TickingClock {
    looks: AtomicI64,
    id: ClockId,
}

impl Default for TickingClock {
    fn default() -> Self {
        Self {
            looks: AtomicI64::new(0),
            id: ClockId::host("test"),
        }
    }
}

impl TickingClock {
    pub fn advance(&self, span: Duration) {
        self.looks.fetch_add(span.as_micros() as i64, Ordering::SeqCst);
    }
}

impl Clock for TickingClock {
    fn wall(&self) -> TaiNanos {
        TaiNanos(NOW.0 + self.looks.fetch_add(1, Ordering::SeqCst) * 1_000)
    }

    fn monotonic(&self) -> MonoNanos {
        MonoNanos(self.looks.load(Ordering::SeqCst) * 1_000)
    }

    fn clock_id(&self) -> &ClockId {
        &self.id
    }
}

pub struct Gateway {
    pub url: String,
    pub token: String,
    pub bus: SharedBus,
    pub clock: Arc<TickingClock>,
    pub folder: Arc<TempDir>,
    pub http: reqwest::Client,
    pub shutdown: CancellationToken,
    tasks: JoinSet<Result<(), Error>>,
}

/// What a test wants to be different.
#[derive(Default)]
pub struct Setup {
    pub services: Vec<Mount>,
    pub adjust: Option<fn(&mut Config)>,
    pub folder: Option<Arc<TempDir>>,
    /// Puts something between the gateway and the bus.
    pub between: Option<fn(SharedBus) -> SharedBus>,
}

pub async fn start() -> Gateway {
    start_with(Setup::default()).await
}

pub async fn start_with(setup: Setup) -> Gateway {
    let folder = setup.folder.unwrap_or_else(|| Arc::new(tempfile::tempdir().unwrap()));
    let clock = Arc::new(TickingClock::default());
    let bus = open_bus(&folder, &clock).await;
    let mut config = Config {
        listen: "127.0.0.1:0".into(),
        keys_dir: folder.path().join("keys"),
        ..Config::default()
    };
    if let Some(adjust) = setup.adjust {
        adjust(&mut config);
    }
    let (bound, address) = oneshot::channel::<Bound>();
    let deps = Deps {
        bus: setup
            .between
            .map_or_else(|| Arc::clone(&bus), |between| between(Arc::clone(&bus))),
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        services: setup.services,
        command_keys: vec![orrery_protocol::SealKey::from_seed(&[9; 32]).public()],
        metrics: Vec::new(),
        checks: Vec::new(),
        build: "test".into(),
        bound: Some(bound),
    };
    let shutdown = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(orrery_gateway::run(config, deps, shutdown.clone()));
    let bound = timeout(PATIENCE, address).await.unwrap().unwrap();
    assert!(bound.sign_in_url().starts_with(&bound.url));
    let http = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .unwrap();
    let gateway = Gateway {
        url: bound.url,
        token: bound.operator_token,
        bus,
        clock,
        folder,
        http,
        shutdown,
        tasks,
    };
    until(async || gateway.http.get(gateway.at("/readyz")).send().await.unwrap().status() == 200).await;
    gateway
}

/// The journal of a gateway that has just stopped is let go a moment later, with the last of its connections.
async fn open_bus(folder: &TempDir, clock: &Arc<TickingClock>) -> SharedBus {
    let path = folder.path().join("bus");
    timeout(PATIENCE, async {
        loop {
            let clock = Arc::clone(clock) as Arc<dyn Clock>;
            match JournalBus::open(&path, JournalOptions::default(), clock).await {
                Ok(bus) => return Arc::new(bus) as SharedBus,
                Err(error) if error.to_string().contains("in use") => {
                    tokio::time::sleep(Duration::from_millis(10)).await
                }
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await
    .expect("the stopped gateway never let its journal go")
}

/// Waits until something holds.
pub async fn until(holds: impl AsyncFn() -> bool) {
    timeout(PATIENCE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("it should have come to hold");
}

impl Gateway {
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    pub fn api(&self, path: &str) -> String {
        format!("{}/api/v1{path}", self.url)
    }

    pub fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.get(self.api(path)).bearer_auth(&self.token)
    }

    pub fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.post(self.api(path)).bearer_auth(&self.token)
    }

    /// Makes a one-time token.
    pub async fn one_time(&self) -> String {
        let answer = self
            .post("/enrollment-tokens")
            .json(&json!({ "note": "bench" }))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 201);
        body(answer).await["token"].as_str().unwrap().to_owned()
    }

    /// Enrols devices that sign for themselves, and gives the agent's token.
    pub async fn enrol(&self, devices: &[&str]) -> String {
        use base64::Engine;
        let key = |at: usize| orrery_protocol::SealKey::from_seed(&[at as u8 + 1; 32]).public();
        let keys: Vec<String> = (0..devices.len())
            .map(|at| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(key(at).as_bytes()))
            .collect();
        let one_time = self.one_time().await;
        let answer = self.http.post(self.api("/enrollments")).bearer_auth(one_time);
        let answer = answer
            .json(&json!({ "device_ids": devices, "keys": keys }))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 201);
        body(answer).await["token"].as_str().unwrap().to_owned()
    }

    pub async fn publish_block(&self, block: &AlignedBlock) {
        let record = Record::new(block.stream.to_string(), block.encode().unwrap());
        self.bus.publish(topics::ALIGNED, vec![record]).await.unwrap();
    }

    pub async fn metric(&self, line_start: &str) -> f64 {
        let text = self
            .http
            .get(self.at("/metrics"))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let line = text.lines().find(|line| line.starts_with(line_start));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
            .unwrap_or(0.0)
    }

    pub async fn web_socket(&self) -> Socket {
        let mut request = self
            .api("/live")
            .replace("http://", "ws://")
            .into_client_request()
            .unwrap();
        let value = format!("Bearer {}", self.token).parse().unwrap();
        request.headers_mut().insert(header::AUTHORIZATION, value);
        let (socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        Socket(socket)
    }

    /// Stops the gateway and gives what `run` returned.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.shutdown.cancel();
        timeout(PATIENCE, self.tasks.join_next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
    }

    /// The result of `run`, once it has ended by itself.
    pub async fn ended(&mut self) -> Result<(), Error> {
        timeout(PATIENCE, self.tasks.join_next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
    }
}

pub async fn body(answer: reqwest::Response) -> Value {
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

/// The detail of a problem; panics when the answer is none.
pub async fn problem(answer: reqwest::Response) -> (u16, String) {
    assert_eq!(answer.headers()[header::CONTENT_TYPE], Problem::CONTENT_TYPE);
    let status = answer.status().as_u16();
    let problem: Problem = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(problem.status, status);
    (status, problem.detail)
}

pub struct Socket(pub WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    pub async fn say(&mut self, value: Value) {
        self.0.send(Message::text(value.to_string())).await.unwrap();
    }

    /// The next message of this type; others are passed over.
    pub async fn hear(&mut self, kind: &str) -> Value {
        timeout(PATIENCE, async {
            loop {
                let message = self.0.next().await.expect("the socket closed").unwrap();
                if let Message::Text(text) = message {
                    let value: Value = serde_json::from_str(&text).unwrap();
                    if value["type"] == kind {
                        return value;
                    }
                }
            }
        })
        .await
        .unwrap_or_else(|_| panic!("no `{kind}` message came"))
    }
}

/// Server-sent events as (id, event, data).
pub struct Events {
    answer: reqwest::Response,
    rest: String,
}

#[derive(Debug, Default)]
pub struct Event {
    pub id: String,
    pub data: String,
}

impl Events {
    pub async fn open(request: reqwest::RequestBuilder) -> Self {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/event-stream");
        Self {
            answer,
            rest: String::new(),
        }
    }

    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((head, rest)) = self.rest.split_once("\n\n") {
                let mut event = Event::default();
                for line in head.lines() {
                    match line.split_once(": ").or(line.split_once(':')) {
                        Some(("id", id)) => event.id = id.to_owned(),
                        Some(("data", data)) => event.data.push_str(data),
                        _ => {}
                    }
                }
                self.rest = rest.to_owned();
                if !event.data.is_empty() {
                    return Some(event);
                }
                continue;
            }
            let chunk = timeout(PATIENCE, self.answer.chunk())
                .await
                .expect("no event came")
                .ok()??;
            self.rest.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    pub async fn hear(&mut self, kind: &str) -> (Value, String) {
        loop {
            let event = self.next().await.expect("the stream ended");
            let value: Value = serde_json::from_str(&event.data).unwrap();
            if value["type"] == kind {
                return (value, event.id);
            }
        }
    }
}

pub fn block(stream: &str, start: TaiNanos, rows: usize, sequence: u64) -> AlignedBlock {
    let times = (0..rows as i64).map(|row| start.0 + row * 100_000_000).collect();
    let values: ArrayRef = Arc::new(Float64Array::from_iter_values((0..rows).map(|row| 20.0 + row as f64)));
    let channels = vec![(Arc::new(Field::new("t1", DataType::Float64, true)), values)];
    let boot = BootId([1; 16]);
    let sequences = vec![sequence; rows];
    let batch = AlignedBlock::batch(
        times,
        vec![1_000; rows],
        boot,
        sequences,
        (0..rows as u32).collect(),
        channels,
    );
    AlignedBlock {
        stream: StreamId::new(stream).unwrap(),
        descriptor: Digest([0; 32]),
        revision: 5,
        watermark: start,
        asymmetry_nanos: 0,
        extra: Default::default(),
        batch: batch.unwrap(),
    }
}

/// Speaks the HTTP of the aligner and the runtime as far as the gateway uses it.
#[derive(Clone, Default)]
pub struct Services {
    pub keys: Arc<Mutex<HashMap<String, (String, String)>>>,
    pub power: Arc<AtomicI64>,
    pub reads: Arc<AtomicI64>,
}

impl Services {
    pub fn routes(&self) -> Router {
        Router::new()
            .route("/devices", post(enrol_device).get(devices))
            .route("/control", get(control))
            .route(
                "/graphs",
                get(async || Json(json!({ "graphs": [{ "id": "twin", "state": "running" }] }))),
            )
            .route(
                "/graphs/{id}/forecast",
                get(async || Json(json!({ "assumption": "powers held" }))),
            )
            .route(
                "/whoami",
                get(async |Extension(who): Extension<Principal>| Json(who)).post(async |body: String| body),
            )
            .route("/window", get(async |Query(query): Query<Columns>| Json(query.columns)))
            .with_state(self.clone())
    }

    pub fn mount(&self) -> Vec<Mount> {
        let openapi = json!({ "paths": { "/devices": { "get": {}, "post": {} } } });
        vec![Mount::Local {
            service: "aligner",
            routes: self.routes(),
            openapi,
        }]
    }
}

#[derive(serde::Deserialize)]
struct Columns {
    columns: u32,
}

async fn enrol_device(
    State(services): State<Services>,
    Extension(who): Extension<Principal>,
    Json(body): Json<Value>,
) -> Response {
    let (device, key) = (
        body["device_id"].as_str().unwrap(),
        body["public_key"].as_str().unwrap(),
    );
    let mut keys = services.keys.lock().unwrap();
    match keys.get(device) {
        Some((known, _)) if known == key => StatusCode::OK.into_response(),
        Some(_) => {
            let problem = Problem::new(409, "another-key", "Another key", format!("{device} has another key"));
            (StatusCode::CONFLICT, Json(problem)).into_response()
        }
        None => {
            keys.insert(device.to_owned(), (key.to_owned(), who.name));
            (StatusCode::CREATED, Json(json!({ "device_id": device }))).into_response()
        }
    }
}

async fn devices(State(services): State<Services>) -> Json<Value> {
    services.reads.fetch_add(1, Ordering::SeqCst);
    let devices: Vec<String> = services.keys.lock().unwrap().keys().cloned().collect();
    Json(json!({ "devices": devices }))
}

async fn control(State(services): State<Services>) -> Json<Value> {
    Json(json!({ "channels": [{ "channel": "q1", "value": services.power.load(Ordering::SeqCst) }] }))
}
