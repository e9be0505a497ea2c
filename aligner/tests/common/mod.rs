//! A simulated agent that seals what a real one would, and a bench of bus and aligner in a temporary folder.
#![allow(dead_code)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use orrery_aligner::{Config, Deps, Error, Handle, ReplayRequest, run};
use orrery_bus::{JournalBus, Record, SharedBus, cloudevents};
use orrery_protocol::{
    BootId, Chain, Channel, Clock, ClockId, ClockPair, ClockPayload, Descriptor, DeviceId, DeviceNanos,
    HeartbeatPayload, ManualClock, MonoNanos, PayloadType, Probe, SampleBuilder, SealKey, Sealed, StreamId, TaiNanos,
    Value, topics,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub const SECOND: i64 = 1_000_000_000;
/// Reference time when the host's monotonic clock showed zero.
pub const START: i64 = 1_795_000_000 * SECOND;

pub fn start() -> TaiNanos {
    TaiNanos(START)
}

/// A device with its chain.
pub struct Agent {
    pub id: DeviceId,
    pub key: SealKey,
    pub chain: Chain,
    pub descriptor: Descriptor,
    pub host: ClockId,
    pub device_clock: Option<ClockId>,
    pub offset_nanos: i64,
}

impl Agent {
    pub fn new(id: &str, stream: &str, channels: Vec<Channel>) -> Self {
        let id = DeviceId::new(id).unwrap();
        let seed = orrery_protocol::Digest::of(id.as_str().as_bytes()).0;
        let key = SealKey::from_seed(&seed);
        let boot = BootId::new(start(), [7; 10]);
        let descriptor = Descriptor {
            stream: StreamId::of(&id, stream).unwrap(),
            version: 1,
            title: format!("{id} test stream"),
            protocol: "serial".to_owned(),
            channels,
            nominal_rate_hz: Some(10.0),
            droppable: false,
            max_silence_ms: None,
            calibration: None,
        };
        Self {
            chain: Chain::start(id.clone(), boot, None),
            host: ClockId::host("testhost"),
            device_clock: None,
            offset_nanos: 0,
            id,
            key,
            descriptor,
        }
    }

    pub fn board() -> Self {
        Self::new(
            "tclab-01",
            "board",
            vec![Channel::f64("t1", "Cel"), Channel::f64("q1", "%")],
        )
    }

    pub fn stream(&self) -> StreamId {
        self.descriptor.stream.clone()
    }

    pub fn reboot(&mut self, random: u8) {
        let boot = BootId::new(start().plus(Duration::from_secs(u64::from(random))), [random; 10]);
        self.chain = Chain::start(self.id.clone(), boot, self.chain.previous());
    }

    pub fn seal(&mut self, at: i64, kind: PayloadType, payload: &[u8]) -> Sealed {
        self.chain.seal(&self.key, TaiNanos(START + at), kind, payload).unwrap()
    }

    pub fn announce(&mut self) -> Sealed {
        let payload = self.descriptor.encode();
        self.seal(0, PayloadType::Descriptor, &payload)
    }

    /// A wave of probes of the host clock; the way is symmetric, so the offset is exact.
    pub fn probe(&mut self, at: i64) -> Sealed {
        let probes = vec![Probe {
            t0: at,
            t1: START + at + 100_000,
            t2: START + at + 110_000,
            t3: at + 210_000,
        }];
        let pairs = vec![ClockPair {
            wall: TaiNanos(START + at),
            monotonic: MonoNanos(at),
        }];
        let payload = ClockPayload {
            clock_id: self.host.clone(),
            host: self.host.clone(),
            probes,
            pairs,
        }
        .encode();
        self.seal(at, PayloadType::Clock, &payload)
    }

    /// `rows` samples, one every `step` nanoseconds from `at` on the host clock.
    pub fn samples(&mut self, at: i64, step: i64, rows: usize) -> Sealed {
        let mut builder = SampleBuilder::new(&self.descriptor, self.host.clone());
        for row in 0..rows {
            let received = at + row as i64 * step;
            let stamp = self
                .device_clock
                .as_ref()
                .map(|_| DeviceNanos(START + received + self.offset_nanos));
            let values: Vec<Value> = (0..self.descriptor.channels.len())
                .map(|channel| Value::Float(received as f64 / 1e9 + channel as f64 * 100.0))
                .collect();
            builder.push(stamp, MonoNanos(received), &values);
        }
        let block = builder.take(self.device_clock.clone()).unwrap();
        self.seal(at + rows as i64 * step, PayloadType::Samples, &block.encode().unwrap())
    }

    pub fn heartbeat(&mut self, until: i64) -> Sealed {
        let payload = HeartbeatPayload {
            clock_id: self.host.clone(),
            complete_until: MonoNanos(until),
            streams: Vec::new(),
            except: Vec::new(),
            counters: Default::default(),
        }
        .encode();
        self.seal(until, PayloadType::Heartbeat, &payload)
    }

    /// Descriptor, three waves of probes, then `blocks` blocks of ten samples at 10 Hz with a heartbeat each.
    pub fn session(&mut self, blocks: usize) -> Vec<Sealed> {
        let mut sealed = vec![self.announce()];
        sealed.extend((0..3).map(|wave| self.probe(wave * SECOND)));
        for block in 0..blocks as i64 {
            let at = (3 + block) * SECOND;
            sealed.push(self.samples(at, SECOND / 10, 10));
            sealed.push(self.heartbeat(at + SECOND));
        }
        sealed
    }
}

/// A bus in a folder and a clock to go with it.
pub struct Bench {
    pub bus: SharedBus,
    pub clock: Arc<ManualClock>,
    pub config: Config,
    pub handle: Handle,
    pub shutdown: CancellationToken,
    pub tasks: JoinSet<Result<(), Error>>,
}

impl Bench {
    pub async fn open(folder: &Path) -> Self {
        Self::with(folder, |_| {}).await
    }

    pub async fn with(folder: &Path, change: impl FnOnce(&mut Config)) -> Self {
        let clock = Arc::new(ManualClock::new(start()));
        let shared: Arc<dyn Clock> = clock.clone();
        let bus = JournalBus::open(&folder.join("bus"), Default::default(), shared)
            .await
            .unwrap();
        let mut config = Config {
            commit_ms: 20,
            ..Config::for_data(folder)
        };
        change(&mut config);
        let mut bench = Self {
            bus: Arc::new(bus),
            clock,
            config,
            handle: Handle::new(),
            shutdown: CancellationToken::new(),
            tasks: JoinSet::new(),
        };
        bench.launch();
        bench.handle.ready().await;
        bench
    }

    fn launch(&mut self) {
        let clock: Arc<dyn Clock> = self.clock.clone();
        let deps = Deps {
            bus: Arc::clone(&self.bus),
            clock,
            handle: self.handle.clone(),
        };
        self.tasks.spawn(run(self.config.clone(), deps, self.shutdown.clone()));
    }

    pub async fn enrol(&self, agent: &Agent) {
        self.handle
            .enrol(agent.id.clone(), agent.key.public(), None, None)
            .await
            .unwrap();
    }

    pub async fn send(&self, sealed: &[Sealed]) {
        let records = sealed
            .iter()
            .map(|one| {
                let key = one.claims.device_id.as_str().as_bytes().to_vec();
                Record::new(key, one.bytes.clone()).with_headers(cloudevents(&one.claims))
            })
            .collect();
        self.bus.publish(topics::RAW, records).await.unwrap();
    }

    pub async fn send_bytes(&self, bytes: Vec<u8>) {
        self.bus
            .publish(topics::RAW, vec![Record::new(Vec::new(), bytes)])
            .await
            .unwrap();
    }

    /// Waits until a stream has this many rows committed.
    pub async fn rows(&self, stream: &StreamId, rows: u64) {
        let waited = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                let have = self.count(stream);
                assert!(have <= rows, "{stream} has {have} rows, {rows} were sent");
                if have == rows {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(
            waited.await.is_ok(),
            "{stream} has {} of {rows} rows after 20 s",
            self.count(stream)
        );
    }

    pub fn count(&self, stream: &StreamId) -> u64 {
        let view = self.handle.store().unwrap().view();
        view.stream(stream.as_str()).map_or(0, |table| table.rows())
    }

    pub async fn digest(&self) -> (String, u64) {
        let replay = self.handle.store().unwrap().replay(&everything()).unwrap();
        let (digest, rows) = replay.digest().await.unwrap();
        (digest.to_string(), rows)
    }

    /// All rows of a query as JSON values.
    pub async fn sql(&self, sql: &str) -> Vec<serde_json::Value> {
        sql_rows(&self.handle.store().unwrap(), sql).await.unwrap()
    }

    pub async fn stop(mut self) {
        self.shutdown.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap().unwrap();
        }
    }

    /// Ends it as a kill would: tasks are dropped where they stand.
    pub async fn kill(mut self) {
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
    }
}

pub async fn sql_rows(store: &orrery_aligner::Store, sql: &str) -> Result<Vec<serde_json::Value>, Error> {
    let mut answer = store.query(sql).await?;
    let mut renderer = orrery_aligner::Renderer::new(orrery_aligner::Format::Json, answer.schema());
    let mut bytes = Vec::new();
    while let Some(batch) = answer.next().await? {
        bytes.extend(renderer.batch(&batch)?);
    }
    bytes.extend(renderer.finish()?);
    Ok(serde_json::from_slice(&bytes).unwrap())
}

pub fn everything() -> ReplayRequest {
    ReplayRequest {
        from: TaiNanos(i64::MIN),
        to: TaiNanos(i64::MAX),
        streams: Vec::new(),
        revision: None,
    }
}

/// An engine that has this device enrolled, without store or bus.
pub fn engine(agent: &Agent) -> orrery_aligner::Engine {
    let config = Config::for_data("unused");
    let mut engine = orrery_aligner::Engine::recover(config, &Default::default(), &Default::default()).unwrap();
    engine
        .enrol(&agent.id, agent.key.public(), None, None, start())
        .unwrap();
    engine
}

/// A message of `orrery.raw`.
pub fn message(sealed: &Sealed, offset: u64) -> orrery_bus::Message {
    orrery_bus::Message {
        topic: topics::RAW.to_owned(),
        partition: 0,
        offset,
        key: Default::default(),
        headers: Vec::new(),
        value: sealed.bytes.clone().into(),
        appended: sealed.claims.timestamp,
    }
}
