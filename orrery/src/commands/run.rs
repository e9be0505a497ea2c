//! `orrery run`: a graph over a recorded window.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use orrery_aligner::{ReplayRequest, Store};
use orrery_protocol::{AlignedBlock, Digest, StreamId, TaiNanos};
use orrery_runtime::replay::closing;
use orrery_runtime::{Engine, EngineKind, replay_graph};

use super::{local, time};
use crate::cli::{Format, Run};
use crate::error::{Exit, Failure};
use crate::folder::{Folder, State};

/// Runs the graph over the stored rows of its streams and prints what it computes.
pub async fn run(arguments: &Run) -> Result<(), Failure> {
    let (from, to) = (time("--from", &arguments.from)?, time("--to", &arguments.to)?);
    let State::Stopped(folder) = Folder::find(&arguments.data.data)? else {
        let message = "a running instance owns the folder and runs its graphs itself: stop it first";
        return Err(Failure::new(Exit::Conflict, message));
    };
    let store = local::store(&folder).await?;
    let engine = Engine::new(EngineKind::Cranelift).map_err(Failure::from_error)?;
    let graph = orrery_runtime::load(&arguments.graph, &engine).map_err(Failure::from_error)?;
    let mut log = Vec::new();
    for stream in graph.file.graph.streams.keys() {
        log.extend(recorded(&store, stream, from, to).await?);
    }
    let replayed = replay_graph(&graph.file, &graph.model, log, []).map_err(Failure::from_error)?;
    if arguments.digest {
        println!("{}", replayed.digest);
        return Ok(());
    }
    print(&replayed.blocks, arguments.output)
}

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
    let Some(first) = blocks.first() else { return Ok(()) };
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
    std::io::stdout().write_all(&bytes).map_err(Failure::from_error)
}
