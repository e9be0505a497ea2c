//! `orrery run`: a graph over a recorded window.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use orrery_aligner::{ReplayRequest, Store};
use orrery_bus::{Bus, BusUrl, From, JournalBus, Message};
use orrery_edge_agent::clock::SystemClock;
use orrery_protocol::{AlignedBlock, Digest, ReplayDigest, StreamId, TaiNanos, topics};
use orrery_runtime::handle::GraphHandle;
use orrery_runtime::replay::closing;
use orrery_runtime::{Engine, EngineKind, replay_graph};

use super::{local, say, time};
use crate::cli::{Format, Run};
use crate::config::Config;
use crate::error::{Exit, Failure};
use crate::folder::{Folder, State};

/// Runs the graph over the stored rows of its streams, or again over the log it lived on, and prints what it computes.
pub async fn run(arguments: &Run) -> Result<(), Failure> {
    let (from, to) = (time("--from", &arguments.from)?, time("--to", &arguments.to)?);
    let State::Stopped(folder) = Folder::find(&arguments.data.data)? else {
        let message = "a running instance owns the folder and runs its graphs itself: stop it first";
        return Err(Failure::new(Exit::Conflict, message));
    };
    let engine = Engine::new(EngineKind::Cranelift).map_err(Failure::from_error)?;
    let graph = orrery_runtime::load(&arguments.graph, &engine).map_err(Failure::from_error)?;
    let blocks = if arguments.as_lived {
        as_lived(&folder, &graph, from, to).await?
    } else {
        afresh(&folder, &graph, from, to).await?
    };
    if arguments.digest {
        let mut digest = ReplayDigest::new();
        for block in &blocks {
            digest.rows(block.stream.as_str(), &block.batch, 0, block.len());
        }
        return say(digest.finish());
    }
    print(&blocks, arguments.output)
}

/// What the graph computes from what is known now: rows that came late are there, and the run starts with the window.
async fn afresh(
    folder: &Folder,
    graph: &GraphHandle,
    from: TaiNanos,
    to: TaiNanos,
) -> Result<Vec<AlignedBlock>, Failure> {
    let store = local::store(folder).await?;
    let mut log = Vec::new();
    for stream in graph.file.graph.streams.keys() {
        log.extend(recorded(&store, stream, from, to).await?);
    }
    let replayed = replay_graph(&graph.file, &graph.model, log, []).map_err(Failure::from_error)?;
    Ok(replayed.blocks)
}

/// What the graph published, computed again from the log that the bus has and the decisions that the trace names.
async fn as_lived(
    folder: &Folder,
    graph: &GraphHandle,
    from: TaiNanos,
    to: TaiNanos,
) -> Result<Vec<AlignedBlock>, Failure> {
    let config = Config::load(folder.root(), None)?;
    if config.bus.url != BusUrl::Journal {
        let message = "--as-lived reads the log from the journal of the data folder; this folder's log is on Kafka";
        return Err(Failure::new(Exit::Usage, message));
    }
    let clock = Arc::new(SystemClock::new());
    let bus = JournalBus::open(&folder.path("bus"), config.bus.journal.clone(), clock).await;
    let bus = bus.map_err(Failure::from_error)?;
    let streams: Vec<&StreamId> = graph.file.graph.streams.keys().collect();
    let log = published(&bus, topics::ALIGNED, &streams).await?;
    let output = graph.file.graph.output_stream();
    let trace = published(&bus, topics::TRACES, &[&output]).await?;
    let blocks = |published: &[Published]| -> Vec<AlignedBlock> {
        published.iter().map(|published| published.block.clone()).collect()
    };
    let replayed = replay_graph(&graph.file, &graph.model, blocks(&log), blocks(&trace));
    let within = |block: &AlignedBlock| !block.is_empty() && (from..to).contains(&block.time(0));
    let again = replayed.map_err(Failure::from_error)?.blocks;
    let again: Vec<AlignedBlock> = again.into_iter().filter(within).collect();
    hold_against(&again, trace.iter().filter(|published| within(&published.block)))?;
    Ok(again)
}

/// A block as the bus has it.
struct Published {
    block: AlignedBlock,
    bytes: Vec<u8>,
}

/// Says how many of the published rows came out again, byte for byte.
fn hold_against<'a>(again: &[AlignedBlock], trace: impl Iterator<Item = &'a Published>) -> Result<(), Failure> {
    let mut computed = BTreeMap::new();
    for block in again {
        computed.insert(block.key(0), block.encode().map_err(Failure::from_error)?);
    }
    // A crash may have published a row twice.
    let lived: BTreeMap<_, _> = trace
        .map(|published| (published.block.key(0), &published.bytes))
        .collect();
    let differing = lived.iter().find(|(key, bytes)| computed.get(*key) != Some(**bytes));
    match differing {
        None => {
            orrery_edge_agent::tell!("{} published rows, all computed again byte for byte", lived.len());
            Ok(())
        }
        Some((key, _)) => {
            let at = key.time.to_rfc3339();
            let message = format!(
                "the row of {at} is not what was published then: the graph, its model or the log changed since, or the \
                 log no longer reaches back to the start of that run"
            );
            Err(Failure::new(Exit::ProofFailed, message))
        }
    }
}

/// Every block of some streams on a topic.
async fn published(bus: &JournalBus, topic: &str, streams: &[&StreamId]) -> Result<Vec<Published>, Failure> {
    let end = bus.end(topic).await.map_err(Failure::from_error)?;
    let end = end.iter().map(|position| position.offset).max().unwrap_or(0);
    let mut found = Vec::new();
    let mut next = 0;
    if end == 0 {
        return Ok(found);
    }
    let mut messages = bus
        .subscribe(topic, From::Earliest)
        .await
        .map_err(Failure::from_error)?;
    while next < end {
        // Damage at the very end leaves offsets that nothing has.
        let batch = tokio::time::timeout(LAST_WAIT, messages.next()).await;
        let Ok(batch) = batch else { break };
        for Message { key, value, offset, .. } in batch.map_err(Failure::from_error)? {
            next = offset + 1;
            if !streams.iter().any(|stream| stream.as_str().as_bytes() == key.as_ref()) {
                continue;
            }
            if let Ok(block) = AlignedBlock::decode(&value) {
                let bytes = value.to_vec();
                found.push(Published { block, bytes });
            }
        }
    }
    Ok(found)
}

const LAST_WAIT: std::time::Duration = std::time::Duration::from_secs(2);

/// A stream's rows in the window, and the word that there are no more.
async fn recorded(
    store: &Store,
    stream: &StreamId,
    from: TaiNanos,
    to: TaiNanos,
) -> Result<Vec<AlignedBlock>, Failure> {
    let request = ReplayRequest {
        from,
        to,
        streams: vec![stream.clone()],
        revision: None,
    };
    let mut replay = store.replay(&request).map_err(Failure::from_error)?;
    let mut blocks = Vec::new();
    while let Some(run) = replay.next().await.map_err(Failure::from_error)? {
        let batch = run.rows();
        let descriptor = Digest([0; 32]);
        let stream = stream.clone();
        blocks.push(AlignedBlock {
            stream,
            descriptor,
            revision: 0,
            watermark: from,
            asymmetry_nanos: 0,
            extra: Default::default(),
            batch,
        });
    }
    blocks.push(closing(stream.clone(), to).map_err(Failure::from_error)?);
    Ok(blocks)
}

fn print(blocks: &[AlignedBlock], format: Format) -> Result<(), Failure> {
    let Some(first) = blocks.first() else {
        orrery_edge_agent::tell!("no tick ran in this window: the graph's streams have no complete rows in it");
        return Ok(());
    };
    let batches: Vec<&RecordBatch> = blocks.iter().map(|block| &block.batch).collect();
    let all = concat_batches(&first.batch.schema(), batches).map_err(Failure::from_error)?;
    let run = orrery_aligner::Run {
        stream: first.stream.clone(),
        count: all.num_rows(),
        batch: all.into(),
        first: 0,
    };
    let channels = first.batch.schema().fields()[5..].to_vec();
    let schema = orrery_aligner::replay_schema(&channels);
    let batch = orrery_aligner::replay_batch(&[run], &schema).map_err(Failure::from_error)?;
    let format = match format {
        Format::Csv => orrery_aligner::Format::Csv,
        Format::Ndjson => orrery_aligner::Format::Ndjson,
        _ => return Err(Failure::new(Exit::Usage, "run prints ndjson or csv")),
    };
    let mut renderer = orrery_aligner::Renderer::new(format, schema);
    let bytes = renderer.batch(&batch).map_err(Failure::from_error)?;
    let end = renderer.finish().map_err(Failure::from_error)?;
    super::print(&[bytes, end].concat()).map(drop)
}
