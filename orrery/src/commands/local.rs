//! The same answers from a folder that nobody runs: read under its lock, nothing written.

use orrery_aligner::{Renderer, ReplayRequest, Store, replay_batch, replay_schema, seek_json};
use orrery_protocol::{StreamId, TaiNanos};
use serde_json::Value;

use super::{print, say};
use crate::cli::Format;
use crate::error::{Exit, Failure};
use crate::folder::Folder;

/// Runs of a replay that are printed together.
const RUNS_PER_BATCH: usize = 1024;

/// Stream ids of the command line.
pub fn streams(texts: &[String]) -> Result<Vec<StreamId>, Failure> {
    let parse = |text: &String| StreamId::new(text).map_err(|error| Failure::new(Exit::Usage, error.to_string()));
    texts.iter().map(parse).collect()
}

/// The store of a stopped folder.
pub async fn store(folder: &Folder) -> Result<Store, Failure> {
    Store::open_read_only(folder.root()).await.map_err(Failure::from_error)
}

/// Answers a statement.
pub async fn query(folder: &Folder, sql: &str, format: Format) -> Result<(), Failure> {
    let store = store(folder).await?;
    let mut answer = store
        .query(sql)
        .await
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    let mut renderer = Renderer::new(renderer_format(format), answer.schema());
    while let Some(batch) = answer.next().await.map_err(Failure::from_error)? {
        if !print(&renderer.batch(&batch).map_err(Failure::from_error)?)? {
            return Ok(());
        }
    }
    print(&renderer.finish().map_err(Failure::from_error)?).map(drop)
}

/// Prints a window, or its digest.
pub async fn replay(folder: &Folder, request: &ReplayRequest, format: Format, digest: bool) -> Result<(), Failure> {
    let store = store(folder).await?;
    let mut replay = store.replay(request).map_err(Failure::from_error)?;
    if digest {
        let (digest, rows) = replay.digest().await.map_err(Failure::from_error)?;
        if rows == 0 {
            super::say_empty();
        }
        return say(digest);
    }
    let schema = replay_schema(&replay.union_channels());
    let mut renderer = Renderer::new(renderer_format(format), schema.clone());
    let mut runs = Vec::new();
    loop {
        let run = replay.next().await.map_err(Failure::from_error)?;
        let is_last = run.is_none();
        runs.extend(run);
        if runs.len() == RUNS_PER_BATCH || is_last && !runs.is_empty() {
            let batch = replay_batch(&runs, &schema).map_err(Failure::from_error)?;
            runs.clear();
            if !print(&renderer.batch(&batch).map_err(Failure::from_error)?)? {
                return Ok(());
            }
        }
        if is_last {
            return print(&renderer.finish().map_err(Failure::from_error)?).map(drop);
        }
    }
}

/// The last row of each stream.
pub async fn seek(folder: &Folder, at: TaiNanos, streams: &[StreamId]) -> Result<Value, Failure> {
    let store = store(folder).await?;
    let rows = store.seek(at, streams, None).await.map_err(Failure::from_error)?;
    seek_json(&rows).map_err(Failure::from_error)
}

fn renderer_format(format: Format) -> orrery_aligner::Format {
    match format {
        Format::Table => orrery_aligner::Format::Table,
        Format::Json => orrery_aligner::Format::Json,
        Format::Ndjson => orrery_aligner::Format::Ndjson,
        Format::Csv => orrery_aligner::Format::Csv,
        Format::Arrow => orrery_aligner::Format::Arrow,
    }
}
