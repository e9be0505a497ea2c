//! Samples per second from raw messages to committed rows, and rows per second of a replay scan.
//!
//! `cargo bench -p orrery-aligner`. The engine and the store run without the bus, whose own bench measures its fsync.

#![allow(clippy::unwrap_used)]

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Agent, SECOND, engine, everything, message};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use orrery_aligner::{Config, Engine, Store};
use orrery_protocol::{Sealed, TaiNanos};

const ROWS: usize = 1_000;
const BLOCKS: usize = 200;

fn envelopes(agent: &mut Agent, rows: usize, blocks: usize) -> Vec<Sealed> {
    let mut sealed = vec![agent.announce(), agent.probe(0)];
    let step = 1_000_000;
    sealed.extend((0..blocks).map(|block| agent.samples((1 + block) as i64 * rows as i64 * step + SECOND, step, rows)));
    sealed
}

fn ingest(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("raw → aligned → committed");
    group.sample_size(10);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (rows, blocks) in [(ROWS, BLOCKS), (10, 2_000), (1, 2_000)] {
        group.throughput(Throughput::Elements((rows * blocks) as u64));
        group.bench_function(format!("{rows} samples a block"), |bencher| {
            bencher.iter_with_setup(
                || {
                    let folder = tempfile::tempdir().unwrap();
                    let mut agent = Agent::board();
                    let sealed = envelopes(&mut agent, rows, blocks);
                    let config = Config::for_data(folder.path());
                    let opened = runtime.block_on(Store::open(&config, TaiNanos(0))).unwrap();
                    (folder, engine(&agent), sealed, opened)
                },
                |(folder, mut engine, sealed, (store, mut writer, _))| {
                    runtime.block_on(async {
                        commit_all(&mut engine, &sealed, &mut writer).await;
                    });
                    (folder, store, writer)
                },
            );
        });
    }
    group.finish();
}

async fn commit_all(engine: &mut Engine, sealed: &[Sealed], writer: &mut orrery_aligner::Writer) {
    for (offset, one) in sealed.iter().enumerate() {
        engine.on_raw(&message(one, offset as u64));
        drop(engine.take_outbox());
        if engine.pending_bytes() > 8 << 20 {
            writer.commit(engine.seal(TaiNanos(1)).unwrap()).await.unwrap();
        }
    }
    writer.commit(engine.seal(TaiNanos(1)).unwrap()).await.unwrap();
}

fn scan(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        segment_bytes: 8 << 20,
        ..Config::for_data(folder.path())
    };
    let mut agent = Agent::board();
    let sealed = envelopes(&mut agent, ROWS, 1_000);
    let store = runtime.block_on(async {
        let (store, mut writer, _) = Store::open(&config, TaiNanos(0)).await.unwrap();
        commit_all(&mut engine(&agent), &sealed, &mut writer).await;
        store
    });
    let mut group = criterion.benchmark_group("one million rows");
    group.sample_size(10).throughput(Throughput::Elements(1_000_000));
    group.bench_function("replay scan", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let mut replay = store.replay(&everything()).unwrap();
                let mut rows = 0;
                while let Some(run) = replay.next().await.unwrap() {
                    rows += run.count;
                }
                assert_eq!(rows, 1_000_000);
            });
        });
    });
    group.bench_function("replay digest", |bencher| {
        bencher.iter(|| runtime.block_on(async { store.replay(&everything()).unwrap().digest().await.unwrap() }));
    });
    group.bench_function("SQL average", |bencher| {
        bencher.iter(|| {
            runtime
                .block_on(common::sql_rows(
                    &store,
                    "SELECT avg(t1), max(q1) FROM \"tclab-01/board\"",
                ))
                .unwrap()
        });
    });
    group.bench_function("seek", |bencher| {
        let middle = TaiNanos(common::START + 500 * SECOND);
        bencher.iter(|| runtime.block_on(store.seek(middle, &[], None)).unwrap());
    });
    group.finish();
}

criterion_group!(benches, ingest, scan);
criterion_main!(benches);
