//! Samples a second through batch, seal and spool: blocks of 1,000 rows, and one row an envelope.
//!
//! `cargo bench -p orrery-edge-agent`. The spool is a real one on the disk of the temporary folder, fsync included.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use orrery_edge_agent::connector::{Emitter, Reading};
use orrery_edge_agent::device::Sealer;
use orrery_edge_agent::spool::Spool;
use orrery_edge_agent::{Status, SystemClock};
use orrery_protocol::{BootId, Chain, Channel, Clock, Descriptor, DeviceId, DeviceNanos, SealKey, StreamId, Value};

fn sealer(clock: &SystemClock, max_rows: usize) -> Sealer {
    let device = DeviceId::new("bench").expect("a device id");
    let descriptor = Descriptor {
        stream: StreamId::of(&device, "s").expect("a stream id"),
        version: 1,
        title: "bench".to_owned(),
        protocol: "bench".to_owned(),
        channels: ["a", "b", "c", "d"].map(|name| Channel::f64(name, "1")).to_vec(),
        nominal_rate_hz: None,
        droppable: true,
        max_silence_ms: None,
        calibration: None,
    };
    let boot = BootId::new(clock.wall(), [7; 10]);
    let chain = Chain::start(device, boot, None);
    Sealer::new(
        SealKey::from_seed(&[1; 32]),
        chain,
        vec![descriptor],
        clock.clock_id().clone(),
        max_rows,
    )
}

fn edge(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let clock = SystemClock::new();
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let (emit, _input, _) = Emitter::new("bench", Arc::clone(&shared), Arc::default());
    let reading = |n: i64| Reading {
        stream: 0,
        device_time: Some(DeviceNanos(n)),
        received: emit.stamp(),
        values: vec![
            Value::Float(n as f64),
            Value::Float(0.5),
            Value::Float(21.5),
            Value::Float(45.0),
        ],
        durable: None,
    };
    let mut group = criterion.benchmark_group("edge");
    group.sample_size(20);
    for rows in [1_000usize, 1] {
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_function(format!("seal, {rows} rows"), |bencher| {
            let mut sealer = sealer(&clock, rows);
            bencher.iter(|| {
                for n in 0..rows {
                    sealer.push(&reading(n as i64));
                }
                black_box(sealer.seal_samples(clock.wall()).expect("sealed"))
            });
        });
        group.bench_function(format!("seal and spool with fsync, {rows} rows"), |bencher| {
            let folder = tempfile::tempdir().expect("a folder");
            let spool = Spool::open(folder.path(), 1 << 30, Arc::clone(&shared), Status::new()).expect("a spool");
            let mut sealer = sealer(&clock, rows);
            bencher.iter(|| {
                for n in 0..rows {
                    sealer.push(&reading(n as i64));
                }
                let (sealed, _) = sealer.seal_samples(clock.wall()).expect("sealed");
                for samples in sealed {
                    runtime.block_on(spool.append(&samples.envelopes, samples.is_droppable));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, edge);
criterion_main!(benches);
