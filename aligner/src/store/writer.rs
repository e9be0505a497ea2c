//! The single owner's side: commits, the tail's levels, compaction into segments.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::ipc::writer::StreamWriter;
use sqlx::{Connection, SqliteConnection};

use super::catalog::{Catalog, catalog_error, insert_part, insert_segment};
use super::commit::Commit;
use super::view::{Part, RAW_TABLE, Segment, Table, View};
use super::{Store, add_descriptor, empty_table, part_of, widen};
use crate::columns::{self, Keys};
use crate::{Config, Error};

/// So many parts of one level become one part of the next: keeps the tail's parts few at a small, logarithmic cost.
const FAN_IN: usize = 16;
/// Rows this far into the next bucket close a bucket, in nanoseconds of stream time.
const CLOSE_GRACE_NANOS: i64 = 30_000_000_000;
/// Late rows trickle: a table is compacted for closed buckets at most once in so many commits.
const COMPACT_EVERY: u64 = 240;

/// Commits to the catalog and is the only one who does.
pub struct Writer {
    store: Store,
    catalog: Catalog,
    epoch: i64,
    config: Config,
}

/// What a commit does to one table's tail and segments.
struct Change {
    table: Table,
    dropped: Vec<i64>,
    added: Vec<(i64, RecordBatch)>,
    segments: Vec<Segment>,
}

impl Writer {
    pub(super) fn new(store: Store, catalog: Catalog, epoch: i64, config: Config) -> Self {
        Self {
            store,
            catalog,
            epoch,
            config,
        }
    }

    /// Makes a commit durable, then visible.
    ///
    /// # Errors
    /// [`Error::EpochLost`] when another process owns the folder; otherwise what failed. Nothing of the commit is then
    /// visible, and the caller goes on from the catalog.
    pub async fn commit(&mut self, commit: Commit) -> Result<Arc<View>, Error> {
        let old = self.store.view();
        let mut view = View {
            revision: commit.revision,
            stamp: commit.stamp.max(old.stamp),
            tables: old.tables.clone(),
        };
        for descriptor in &commit.descriptors {
            let name = descriptor.stream.to_string();
            let mut table = view
                .tables
                .get(&name)
                .map_or_else(|| empty_table(&name), |table| (**table).clone());
            add_descriptor(&mut table, commit.revision, Arc::clone(descriptor))?;
            view.tables.insert(name, Arc::new(table));
        }
        let mut changes = Vec::new();
        for (name, batches) in &commit.rows {
            changes.push(self.change(&view, name, batches, commit.revision).await?);
        }
        self.store_durably(&commit, &mut view, changes).await?;
        self.store.set_view(view);
        Ok(self.store.view())
    }

    async fn change(&self, view: &View, name: &str, batches: &[RecordBatch], revision: u64) -> Result<Change, Error> {
        let mut table = view
            .tables
            .get(name)
            .map_or_else(|| empty_table(name), |table| (**table).clone());
        for batch in batches {
            widen(&mut table, batch)?;
        }
        let rows = columns::merge_sorted(&table.schema, batches).map_err(Error::arrow(name))?;
        let mut change = Change {
            table,
            dropped: Vec::new(),
            added: Vec::new(),
            segments: Vec::new(),
        };
        let bytes = rows.get_array_memory_size() as u64;
        change.table.tail.push(Arc::new(part_of(0, 0, bytes, rows)?));
        change.roll_up()?;
        self.compact(&mut change, revision).await?;
        for part in change.table.tail.iter().filter(|part| part.id == 0) {
            change.added.push((part.level, part.batch.clone()));
        }
        Ok(change)
    }

    /// Moves the rows of closed buckets, or all of them when there are too many, into segments.
    async fn compact(&self, change: &mut Change, revision: u64) -> Result<(), Error> {
        let raw = change.table.name == RAW_TABLE;
        let limit = if raw {
            self.config.raw_segment_bytes
        } else {
            self.config.segment_bytes
        };
        let full = change.table.tail_bytes() >= limit;
        let bucket = (self.config.segment_seconds.max(1) as i64).saturating_mul(1_000_000_000);
        let Some((_, last)) = change.table.span() else {
            return Ok(());
        };
        let open_from = last
            .0
            .saturating_sub(CLOSE_GRACE_NANOS.min(bucket / 2))
            .div_euclid(bucket)
            .saturating_mul(bucket);
        let closed = change.table.tail.iter().any(|part| part.min < open_from);
        let due = revision >= change.table.compacted_at + COMPACT_EVERY || bucket < 60_000_000_000;
        if !full && (!closed || !due) {
            return Ok(());
        }
        let until = if full { i64::MAX } else { open_from };
        let files = self
            .store
            .files()
            .ok_or_else(|| Error::Internal("the store was opened for reading only".to_owned()))?;

        let (taken, kept): (Vec<_>, Vec<_>) = change.table.tail.drain(..).partition(|part| part.min < until);
        let batches: Vec<RecordBatch> = taken.iter().map(|part| part.batch.clone()).collect();
        change
            .dropped
            .extend(taken.iter().map(|part| part.id).filter(|id| *id != 0));
        change.table.tail = kept;
        let all = columns::merge_sorted(&change.table.schema, &batches).map_err(Error::arrow(&change.table.name))?;
        let keys = Keys::of(&all).map_err(Error::arrow(&change.table.name))?;
        let mut first = 0;
        while first < keys.len() {
            let start = keys.time(first).div_euclid(bucket).saturating_mul(bucket);
            let end = start.saturating_add(bucket);
            let next = keys.lower_bound(end).max(first + 1);
            let rows = all.slice(first, next - first);
            if keys.time(first) >= until {
                let bytes = rows.get_array_memory_size() as u64;
                change
                    .table
                    .tail
                    .push(Arc::new(part_of(0, 0, bytes, compacted_copy(&rows)?)?));
            } else {
                let number = change.segments.len();
                let path = format!(
                    "{}/{start}-{}-{revision}-{number}.parquet",
                    change.table.name, self.epoch
                );
                let segment = files
                    .write(path, &change.table.name, compacted_copy(&rows)?, revision)
                    .await?;
                self.store.mark_checked(&segment.path);
                change.segments.push(segment);
            }
            first = next;
        }
        change.table.compacted_at = revision;
        change
            .table
            .segments
            .extend(change.segments.iter().cloned().map(Arc::new));
        change
            .table
            .segments
            .sort_by(|a, b| (a.min, &a.path).cmp(&(b.min, &b.path)));
        Ok(())
    }

    async fn store_durably(&mut self, commit: &Commit, view: &mut View, changes: Vec<Change>) -> Result<(), Error> {
        let path = self.catalog.path.clone();
        let failed = |source| catalog_error(&path, source);
        let mut transaction = Connection::begin(&mut self.catalog.connection).await.map_err(failed)?;
        let connection: &mut SqliteConnection = &mut transaction;

        // The guard comes first: whoever took over since has raised the epoch, and this commit must not land.
        let guarded = sqlx::query("UPDATE meta SET value = value WHERE name = 'epoch' AND value = ?1")
            .bind(self.epoch)
            .execute(&mut *connection)
            .await
            .map_err(failed)?;
        if guarded.rows_affected() != 1 {
            return Err(Error::EpochLost { ours: self.epoch });
        }
        sqlx::query("INSERT INTO commits VALUES (?1, ?2)")
            .bind(commit.revision as i64)
            .bind(view.stamp.0)
            .execute(&mut *connection)
            .await
            .map_err(failed)?;
        for descriptor in &commit.descriptors {
            sqlx::query("INSERT OR IGNORE INTO descriptors VALUES (?1, ?2, ?3, ?4)")
                .bind(descriptor.stream.as_str())
                .bind(descriptor.digest().0.to_vec())
                .bind(commit.revision as i64)
                .bind(descriptor.encode())
                .execute(&mut *connection)
                .await
                .map_err(failed)?;
        }
        for ((topic, partition), next) in &commit.offsets {
            sqlx::query("INSERT INTO offsets VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET next = excluded.next")
                .bind(topic)
                .bind(i64::from(*partition))
                .bind(*next as i64)
                .execute(&mut *connection)
                .await
                .map_err(failed)?;
        }
        for ((kind, name), value) in &commit.state {
            sqlx::query("INSERT INTO state VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET value = excluded.value")
                .bind(*kind)
                .bind(name)
                .bind(value)
                .execute(&mut *connection)
                .await
                .map_err(failed)?;
        }
        for mut change in changes {
            for id in &change.dropped {
                sqlx::query("DELETE FROM tail WHERE id = ?1")
                    .bind(id)
                    .execute(&mut *connection)
                    .await
                    .map_err(failed)?;
            }
            change.table.tail.retain(|part| part.id != 0);
            for (level, batch) in change.added {
                let bytes = encode_part(&batch).map_err(Error::arrow(&change.table.name))?;
                let id = insert_part(&mut *connection, &change.table.name, level, &bytes)
                    .await
                    .map_err(failed)?;
                let size = bytes.len() as u64;
                change.table.tail.push(Arc::new(part_of(id, level, size, batch)?));
            }
            for segment in &change.segments {
                insert_segment(&mut *connection, segment).await.map_err(failed)?;
            }
            view.tables.insert(change.table.name.clone(), Arc::new(change.table));
        }
        transaction.commit().await.map_err(failed)
    }

    /// Closes the catalog; its write-ahead log is folded in, so that the folder reads without recovery.
    pub async fn close(self) {
        let path = self.catalog.path.clone();
        if let Err(error) = self.catalog.connection.close().await {
            tracing::warn!(path = %path.display(), %error, "the catalog did not close cleanly; nothing is lost");
        }
    }
}

impl Change {
    /// Merges the parts of a level that is full into one part of the next.
    fn roll_up(&mut self) -> Result<(), Error> {
        let mut by_level: BTreeMap<i64, Vec<Arc<Part>>> = BTreeMap::new();
        for part in &self.table.tail {
            by_level.entry(part.level).or_default().push(Arc::clone(part));
        }
        let mut level = 0;
        while let Some(parts) = by_level.get(&level).filter(|parts| parts.len() >= FAN_IN).cloned() {
            let batches: Vec<RecordBatch> = parts.iter().map(|part| part.batch.clone()).collect();
            let merged = columns::merge_sorted(&self.table.schema, &batches).map_err(Error::arrow(&self.table.name))?;
            let bytes = parts.iter().map(|part| part.bytes).sum();
            by_level.remove(&level);
            self.dropped
                .extend(parts.iter().map(|part| part.id).filter(|id| *id != 0));
            level += 1;
            by_level
                .entry(level)
                .or_default()
                .push(Arc::new(part_of(0, level, bytes, merged)?));
        }
        self.table.tail = by_level.into_values().flatten().collect();
        Ok(())
    }
}

fn encode_part(batch: &RecordBatch) -> Result<Vec<u8>, arrow::error::ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
    writer.write(batch)?;
    writer.finish()?;
    writer.into_inner()
}

/// A copy of a slice that does not keep the whole alive.
fn compacted_copy(rows: &RecordBatch) -> Result<RecordBatch, Error> {
    arrow::compute::concat_batches(&rows.schema(), std::iter::once(rows)).map_err(Error::arrow("tail"))
}
