//! What the front door costs: a request, an intake, and the way of a sample from the bus to 200 live clients, beside
//! the bus alone as the floor.
//!
//! `cargo bench -p orrery-gateway` prints milliseconds, p50 and p99.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, Float64Array};
use arrow_schema::{DataType, Field};
use futures_util::{SinkExt, StreamExt};
use orrery_bus::journal::JournalOptions;
use orrery_bus::{From, JournalBus, Record, SharedBus};
use orrery_gateway::{Config, Deps, ENVELOPES};
use orrery_protocol::{
    AlignedBlock, BootId, Chain, Clock, DeviceId, Digest, ManualClock, PayloadType, SealKey, StreamId, TaiNanos, topics,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const CLIENTS: usize = 200;
const BLOCKS: usize = 200;
const REQUESTS_PER_CLIENT: usize = 50;
const NOW: TaiNanos = TaiNanos(1_795_000_000_000_000_000);

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(NOW));
    let bus_folder = folder.path().join("bus");
    let bus = JournalBus::open(&bus_folder, JournalOptions::default(), Arc::clone(&clock)).await?;
    let bus: SharedBus = Arc::new(bus);
    let (bound, address) = oneshot::channel();
    let deps = Deps {
        bus: Arc::clone(&bus),
        clock,
        services: Vec::new(),
        command_keys: Vec::new(),
        metrics: Vec::new(),
        checks: Vec::new(),
        build: "bench".to_owned(),
        bound: Some(bound),
    };
    let config = Config {
        listen: "127.0.0.1:0".to_owned(),
        keys_dir: folder.path().join("keys"),
        client_queue_kib: 8 * 1024,
        ..Config::default()
    };
    let mut gateway = JoinSet::new();
    gateway.spawn(orrery_gateway::run(config, deps, Default::default()));
    let bound = address.await?;

    let profile = if cfg!(debug_assertions) {
        "dev profile"
    } else {
        "release profile"
    };
    println!(
        "{CLIENTS} clients at once on {} cores, {profile}, journal bus",
        std::thread::available_parallelism()?
    );
    let probe = |http: reqwest::Client, url: String, token: String| async move {
        http.post(format!("{url}/api/v1/clock/probe"))
            .bearer_auth(token)
            .body(r#"{"t0":"1"}"#)
            .header("content-type", "application/json")
            .send()
            .await?
            .error_for_status()?
            .bytes()
            .await
    };
    requests("clock probe", &bound.url, &bound.operator_token, probe).await?;
    let body = envelopes()?;
    let intake = move |http: reqwest::Client, url: String, token: String| {
        let body = body.clone();
        async move {
            http.post(format!("{url}/api/v1/envelopes"))
                .bearer_auth(token)
                .body(body)
                .header("content-type", ENVELOPES)
                .send()
                .await?
                .error_for_status()?
                .bytes()
                .await
        }
    };
    requests(
        "intake of 4 envelopes, fsynced",
        &bound.url,
        &bound.operator_token,
        intake,
    )
    .await?;
    live(&bus, &bound.url, &bound.operator_token, 1, 0).await?;
    live(&bus, &bound.url, &bound.operator_token, CLIENTS, BLOCKS).await?;
    Ok(())
}

fn envelopes() -> Result<bytes::Bytes, Failure> {
    let key = SealKey::from_seed(&[1; 32]);
    let mut chain = Chain::start(DeviceId::new("bench")?, BootId([1; 16]), None);
    let mut body = Vec::new();
    for _ in 0..4 {
        let sealed = chain.seal(&key, NOW, PayloadType::Event, &[7; 600])?;
        body.extend_from_slice(&u32::try_from(sealed.bytes.len())?.to_be_bytes());
        body.extend_from_slice(&sealed.bytes);
    }
    Ok(body.into())
}

async fn requests<F, A>(name: &str, url: &str, token: &str, ask: F) -> Result<(), Failure>
where
    F: Fn(reqwest::Client, String, String) -> A + Clone + Send + 'static,
    A: Future<Output = Result<bytes::Bytes, reqwest::Error>> + Send,
{
    let http = reqwest::Client::builder().no_proxy().build()?;
    let started = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (http, url, token, ask) = (http.clone(), url.to_owned(), token.to_owned(), ask.clone());
        clients.spawn(async move {
            let mut took = Vec::with_capacity(REQUESTS_PER_CLIENT);
            for _ in 0..REQUESTS_PER_CLIENT {
                let asked = Instant::now();
                ask(http.clone(), url.clone(), token.clone()).await?;
                took.push(asked.elapsed());
            }
            Ok::<_, reqwest::Error>(took)
        });
    }
    let mut took = Vec::new();
    while let Some(client) = clients.join_next().await {
        took.extend(client??);
    }
    let per_second = took.len() as f64 / started.elapsed().as_secs_f64();
    report(name, took);
    println!("{:>54} {per_second:.0} requests/s", "");
    Ok(())
}

/// From the moment a block is given to the bus until a client has its message. `first` numbers the blocks on: a block of
/// the past would be an invalidation.
async fn live(bus: &SharedBus, url: &str, token: &str, count: usize, first: usize) -> Result<(), Failure> {
    let (arrived, mut arrivals) = mpsc::channel(count * BLOCKS);
    let (joined, mut ready) = mpsc::channel(count);
    let mut clients: JoinSet<Result<(), Failure>> = JoinSet::new();
    for _ in 0..count {
        let mut request = format!("{}/api/v1/live", url.replace("http", "ws")).into_client_request()?;
        request
            .headers_mut()
            .insert("authorization", format!("Bearer {token}").parse()?);
        let (arrived, joined) = (arrived.clone(), joined.clone());
        clients.spawn(async move {
            let (mut socket, _) = tokio_tungstenite::connect_async(request).await?;
            socket
                .send(Message::text(r#"{"type":"subscribe","streams":["a/b"],"topics":[]}"#))
                .await?;
            while let Some(message) = socket.next().await {
                let at = Instant::now();
                let Message::Text(text) = message? else {
                    continue;
                };
                if text.contains(r#""type":"resume""#) {
                    joined.send(()).await?;
                } else if text.contains(r#""type":"samples""#) {
                    arrived.send((sequence(&text), at)).await?;
                }
            }
            Ok(())
        });
    }
    for _ in 0..count {
        ready.recv().await.ok_or("a client went away")?;
    }
    let mut floor = bus.subscribe(topics::ALIGNED, From::Latest).await?;
    let (mut sent, mut durable) = (Vec::new(), Vec::new());
    for sequence in first..first + BLOCKS {
        let value = block(sequence)?.encode()?;
        sent.push(Instant::now());
        bus.publish(topics::ALIGNED, vec![Record::new("a/b", value)]).await?;
        floor.next().await?;
        durable.push(Instant::now());
        sleep(Duration::from_millis(20)).await;
    }
    let (mut whole, mut beyond_bus) = (Vec::new(), Vec::new());
    for _ in 0..count * BLOCKS {
        let (sequence, at): (usize, Instant) = arrivals.recv().await.ok_or("a client lost a block")?;
        whole.push(at - sent[sequence - first]);
        beyond_bus.push(at.saturating_duration_since(durable[sequence - first]));
    }
    report(
        "the bus alone, publish to subscriber (fsync)",
        sent.iter().zip(&durable).map(|(a, b)| *b - *a).collect(),
    );
    report(&format!("publish to each of {count} clients"), whole);
    report("of that, after a plain subscriber had it", beyond_bus);
    Ok(())
}

fn sequence(text: &str) -> usize {
    let digits = text.split("\"seq\":[").nth(1).and_then(|rest| rest.split(',').next());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

fn block(sequence: usize) -> Result<AlignedBlock, Failure> {
    let start = NOW.0 + i64::try_from(sequence)? * 100_000_000;
    let channel = |name: &str| {
        let values: ArrayRef = Arc::new(Float64Array::from(vec![43.4]));
        (Arc::new(Field::new(name, DataType::Float64, true)), values)
    };
    let channels = ["t1", "t2", "q1", "q2"].map(channel).into();
    let (times, boot) = (vec![start], BootId([1; 16]));
    let batch = AlignedBlock::batch(times, vec![1_000], boot, vec![sequence as u64], vec![0], channels)?;
    Ok(AlignedBlock {
        stream: StreamId::new("a/b")?,
        descriptor: Digest([0; 32]),
        revision: 1,
        watermark: TaiNanos(start),
        asymmetry_nanos: 0,
        extra: Default::default(),
        batch,
    })
}

fn report(name: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!("{name:<48} p50 {:>7.3} ms  p99 {:>7.3} ms", at(0.5), at(0.99));
}
