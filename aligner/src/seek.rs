//! What was known at an instant: the last row of each stream at or before it.

use std::cmp::{Ordering, Reverse};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, UInt64Type};
use futures_util::StreamExt;
use orrery_protocol::{StreamId, TaiNanos};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};

use crate::Error;
use crate::columns::{self, Keys};
use crate::replay::{BATCH_ROWS, resolve, row_groups, window};
use crate::store::{Segment, Store, Table};

/// The last row of a stream at or before an instant.
#[derive(Debug, Clone)]
pub struct LastRow {
    /// The stream.
    pub stream: StreamId,
    /// One row in aligned layout; none when the stream has no row so early.
    pub row: Option<RecordBatch>,
}

impl Store {
    /// The last row at or before an instant, per stream: what was known then.
    ///
    /// # Errors
    /// As for [`Store::replay`], and [`Error::Segment`] when a file it needs is gone or altered.
    pub async fn seek(
        &self,
        time: TaiNanos,
        streams: &[StreamId],
        revision: Option<u64>,
    ) -> Result<Vec<LastRow>, Error> {
        let view = self.view();
        let (names, revision) = resolve(&view, streams, revision)?;
        let mut rows = Vec::with_capacity(names.len());
        for stream in names {
            let table = view.stream(stream.as_str())?;
            let row = self.last_row(table, time.0, revision).await?;
            rows.push(LastRow { stream, row });
        }
        Ok(rows)
    }

    async fn last_row(&self, table: &Table, time: i64, revision: u64) -> Result<Option<RecordBatch>, Error> {
        let schema = columns::aligned_schema(&table.channels_at(revision));
        let mut best: Option<RecordBatch> = None;
        let end = time.saturating_add(1);
        for part in table.parts_within(i64::MIN, end) {
            let rows = window(&part.batch, i64::MIN, end, revision, &table.name)?;
            if rows.num_rows() > 0 {
                take_later(&mut best, rows.slice(rows.num_rows() - 1, 1), &table.name)?;
            }
        }
        let mut segments: Vec<_> = table.segments_within(i64::MIN, end).collect();
        segments.sort_by_key(|segment| Reverse(segment.max));
        for segment in segments {
            let known = best
                .as_ref()
                .map(|row| row.column(1).as_primitive::<Int64Type>().value(0));
            if known.is_some_and(|known| segment.max < known) {
                break;
            }
            if let Some(row) = self.last_in_segment(segment, end, revision).await? {
                take_later(&mut best, row, &table.name)?;
            }
        }
        best.map(|row| columns::aligned_from_stored(&row, &schema).map_err(Error::arrow(&table.name)))
            .transpose()
    }

    /// Finds the row by the time column alone, then reads only that row's other columns.
    async fn last_in_segment(&self, segment: &Segment, end: i64, revision: u64) -> Result<Option<RecordBatch>, Error> {
        let broken = |error: parquet::errors::ParquetError| segment.broken(format!("corrupted: {error}"));
        let builder = self.open_segment(segment).await?;
        let groups = row_groups(&builder, i64::MIN, end);
        for group in groups.into_iter().rev() {
            let builder = self.open_segment(segment).await?;
            let mask = ProjectionMask::columns(builder.parquet_schema(), ["time_tai", "revision"]);
            let mut times = builder
                .with_row_groups(vec![group])
                .with_projection(mask)
                .with_batch_size(BATCH_ROWS)
                .build()
                .map_err(broken)?;
            let (mut offset, mut found) = (0, None);
            while let Some(batch) = times.next().await {
                let batch = batch.map_err(broken)?;
                let time = batch.column(0).as_primitive::<Int64Type>();
                let revisions = batch.column(1).as_primitive::<UInt64Type>();
                let until = time.values().partition_point(|time| *time < end);
                if let Some(row) = (0..until).rev().find(|row| revisions.value(*row) <= revision) {
                    found = Some(offset + row);
                }
                if until < batch.num_rows() {
                    break;
                }
                offset += batch.num_rows();
            }
            let Some(row) = found else { continue };
            let builder = self.open_segment(segment).await?;
            let selection = RowSelection::from(vec![RowSelector::skip(row), RowSelector::select(1)]);
            let mut rows = builder
                .with_row_groups(vec![group])
                .with_row_selection(selection)
                .build()
                .map_err(broken)?;
            return rows.next().await.transpose().map_err(broken);
        }
        Ok(None)
    }
}

fn take_later(best: &mut Option<RecordBatch>, row: RecordBatch, table: &str) -> Result<(), Error> {
    let later = match best {
        None => true,
        Some(known) => {
            let (new, old) = (
                Keys::of(&row).map_err(Error::arrow(table))?,
                Keys::of(known).map_err(Error::arrow(table))?,
            );
            new.compare(0, &old, 0) == Ordering::Greater
        }
    };
    if later {
        *best = Some(row);
    }
    Ok(())
}
