//! A bus that cannot be asked for a while costs repeated ticks after a restart, never the graph.
#![allow(clippy::unwrap_used)] // Helpers of tests; a failed unwrap is a failed test.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use orrery_bus::{Bus, BusError, From, JournalBus, Position, Record, SharedBus, Subscription};
use orrery_protocol::{AlignedBlock, Clock, ManualClock, SealKey, TaiNanos, topics};
use orrery_runtime::Config;
use orrery_runtime::service::{Deps, Runtime};
use support::*;
use tokio_util::sync::CancellationToken;

/// A bus whose ends nobody knows while it is away.
struct Away {
    inner: SharedBus,
    is_away: AtomicBool,
}

#[async_trait]
impl Bus for Away {
    async fn publish(&self, topic: &str, records: Vec<Record>) -> Result<Vec<Position>, BusError> {
        self.inner.publish(topic, records).await
    }
    async fn subscribe(&self, topic: &str, from: From) -> Result<Box<dyn Subscription>, BusError> {
        self.inner.subscribe(topic, from).await
    }
    async fn commit(&self, group: &str, topic: &str, position: Position) -> Result<(), BusError> {
        self.inner.commit(group, topic, position).await
    }
    async fn committed(&self, group: &str, topic: &str) -> Result<Vec<Position>, BusError> {
        self.inner.committed(group, topic).await
    }
    async fn end(&self, topic: &str) -> Result<Vec<Position>, BusError> {
        if self.is_away.load(Ordering::Relaxed) {
            return Err(BusError::Unreachable {
                address: "kafka:9092".to_owned(),
                reason: "all brokers are down".to_owned(),
            });
        }
        self.inner.end(topic).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graph_outlives_an_outage_of_its_bus() {
    let folder = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(TaiNanos(T0)));
    let journal = JournalBus::open(&folder.path().join("bus"), Default::default(), Arc::clone(&clock)).await;
    let bus = Arc::new(Away {
        inner: Arc::new(journal.unwrap()),
        is_away: AtomicBool::new(false),
    });
    std::fs::write(folder.path().join("twin.toml"), GRAPH).unwrap();
    std::fs::write(folder.path().join("plate.mo"), MODEL).unwrap();
    let config = Config {
        data: folder.path().join("runtime"),
        graphs: vec![folder.path().join("twin.toml")],
        // A snapshot after every turn: each asks the bus for its end.
        snapshot_every_ms: 0,
        ..Config::default()
    };
    let deps = Deps {
        bus: Arc::clone(&bus) as SharedBus,
        clock,
        control_key: SealKey::from_seed(&[3; 32]),
    };
    let shutdown = CancellationToken::new();
    let running = Runtime::open(config, deps).unwrap().run(shutdown.clone());
    let mut running = tokio::task::JoinSet::from_iter([running]);

    let at = |n: i64| T0 + n * 100_000_000;
    let rows: Vec<Sample> = (0..80)
        .map(|n| Sample {
            at: at(n) + 5_000_000,
            values: vec![25.0 + n as f64 * 0.01, 20.0],
        })
        .collect();
    let ambient = Sample {
        at: T0 - 3_000_000_000,
        values: vec![21.0],
    };
    let mut blocks = vec![block(&air(), &AIR, &[ambient], 0, at(80))];
    blocks.extend(cut(&board(), &BOARD, &rows, &[1], at(80)));
    let publish = async |blocks: &[AlignedBlock]| {
        let record = |block: &AlignedBlock| Record::new(block.stream.as_str().to_owned(), block.encode().unwrap());
        bus.publish(topics::ALIGNED, blocks.iter().map(record).collect())
            .await
            .unwrap();
    };
    let mut traces = bus.subscribe(topics::TRACES, From::Earliest).await.unwrap();
    let mut read = async |count: usize| {
        let mut seen = 0;
        while seen < count {
            let batch = tokio::time::timeout(Duration::from_secs(20), traces.next()).await;
            seen += batch.expect("the graph goes on").unwrap().len();
        }
    };

    publish(&blocks[..40]).await;
    read(30).await;
    bus.is_away.store(true, Ordering::Relaxed);
    publish(&blocks[40..60]).await;
    read(20).await;
    bus.is_away.store(false, Ordering::Relaxed);
    publish(&blocks[60..]).await;
    read(10).await;
    shutdown.cancel();
    running.join_next().await.unwrap().unwrap().unwrap();
}
