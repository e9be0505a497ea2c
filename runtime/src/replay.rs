//! Running a graph over a recorded log: the same progress as live, so the same trace, byte for byte.

use orrery_protocol::{AlignedBlock, Digest, ReplayDigest, TaiNanos};

use crate::engine::Model;
use crate::error::{GraphError, NodeError};
use crate::graph::GraphFile;
use crate::layout::Layout;
use crate::node::Node;
use crate::progress::Progress;
use crate::readings::rows;
use crate::trace::{TraceWriter, decision_of};

/// Why a graph did not run over a log.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The graph does not fit its model.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The model failed; the trace ends before this tick.
    #[error("graph `{graph}` stopped after {ticks} ticks: {error}")]
    Node {
        /// The graph.
        graph: String,
        /// Ticks that ran.
        ticks: usize,
        /// Why.
        error: NodeError,
    },
    /// The log holds nothing that the graph could run on.
    #[error("graph `{graph}` never ran: {reason}")]
    Idle {
        /// The graph.
        graph: String,
        /// What it lacked.
        reason: String,
    },
    /// A block cannot be written.
    #[error("a trace row does not encode: {0}")]
    Encode(#[from] orrery_protocol::AlignedError),
}

/// What a replay computed.
#[derive(Debug)]
pub struct Replayed {
    /// One block per tick, as a live graph publishes them.
    pub blocks: Vec<AlignedBlock>,
    /// The replay digest over all rows.
    pub digest: Digest,
}

/// Runs a graph over blocks, each stream in its own order. `published` is the trace of an earlier run, whose
/// decisions are repeated; without it the replay may know more than the run did (late rows), and decides afresh.
///
/// # Errors
/// [`ReplayError`] says what does not fit or what failed.
pub fn replay_graph(
    file: &GraphFile,
    model: &Model,
    log: impl IntoIterator<Item = AlignedBlock>,
    published: impl IntoIterator<Item = AlignedBlock>,
) -> Result<Replayed, ReplayError> {
    let layout = Layout::bind(&file.graph, model.meta(), &file.digest, &model.digest())?;
    let failed = |error, ticks| ReplayError::Node {
        graph: file.graph.id.to_string(),
        ticks,
        error,
    };
    let node = model.node(file.graph.limits).map_err(|error| failed(error, 0))?;
    let writer = TraceWriter::new(&file.graph, &layout);
    let mut progress = Progress::new(layout, node);
    for block in published {
        if let Some((tick, decision)) = decision_of(&block, progress.layout()) {
            progress.follow(tick, decision);
        }
    }
    let mut replayed = Replayed {
        blocks: Vec::new(),
        digest: Digest([0; 32]),
    };
    let mut digest = ReplayDigest::new();
    let mut lacking = None;
    for block in log {
        lacking = lacking.or_else(|| progress.layout().lacking(&block));
        push_block(&mut progress, &block);
        while let Some(trace) = progress.tick().map_err(|error| failed(error, replayed.blocks.len()))? {
            let block = writer.block(&trace)?;
            digest.rows(block.stream.as_str(), &block.batch, 0, block.len());
            replayed.blocks.push(block);
        }
    }
    if replayed.blocks.is_empty() {
        let graph = file.graph.id.to_string();
        let reason = lacking.unwrap_or_else(|| progress.blocked().to_string());
        return Err(ReplayError::Idle { graph, reason });
    }
    replayed.digest = digest.finish();
    Ok(replayed)
}

/// Hands a block to the stream it is of; blocks of other streams are nothing to this graph. Returns late rows.
pub(crate) fn push_block<N: Node>(progress: &mut Progress<N>, block: &AlignedBlock) -> u64 {
    let Some(stream) = progress.layout().stream_index(&block.stream) else {
        return 0;
    };
    let rows = rows(block, &progress.layout().streams[stream].channels);
    progress.push(stream, rows, block.watermark)
}

/// A block that only says that a stream is complete below an instant: what a stored log ends with.
pub fn closing(
    stream: orrery_protocol::StreamId,
    watermark: TaiNanos,
) -> Result<AlignedBlock, orrery_protocol::AlignedError> {
    let batch = AlignedBlock::batch(vec![], vec![], orrery_protocol::BootId([0; 16]), vec![], vec![], vec![])?;
    Ok(AlignedBlock {
        stream,
        descriptor: Digest([0; 32]),
        revision: 0,
        watermark,
        asymmetry_nanos: 0,
        extra: Default::default(),
        batch,
    })
}
