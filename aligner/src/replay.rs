//! Replays: rows of any streams in the total order `(time, stream, boot, sequence, index)`, whatever the segmentation.
//!
//! A k-way merge over cursors. A cursor is a tail part or a segment; a segment is opened when the merge reaches its
//! first row, and holds one decoded batch at a time, so memory follows the number of *overlapping* files.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{FieldRef, Int64Type, SchemaRef, UInt64Type};
use futures_util::StreamExt;
use object_store::path::Path as ObjectPath;
use orrery_protocol::{BootId, Digest, ReplayDigest, StreamId, TaiNanos};
use parquet::arrow::async_reader::{ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use parquet::file::statistics::Statistics;

use crate::Error;
use crate::columns::{self, ALIGNED_KEYS, Keys};
use crate::store::{Segment, SegmentReader, Store, Table, View};

pub(crate) const BATCH_ROWS: usize = 8192;

/// What to replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayRequest {
    /// From this instant on.
    pub from: TaiNanos,
    /// Up to this instant, exclusive.
    pub to: TaiNanos,
    /// Which streams; empty means all.
    pub streams: Vec<StreamId>,
    /// As of which commit; the latest when none.
    pub revision: Option<u64>,
}

/// Consecutive rows of one stream.
#[derive(Debug, Clone)]
pub struct Run {
    /// The stream.
    pub stream: StreamId,
    /// Rows in aligned layout; only `first..first + count` belong to this run.
    pub batch: Arc<RecordBatch>,
    /// First row.
    pub first: usize,
    /// How many rows.
    pub count: usize,
}

impl Run {
    /// The run's rows as a batch of their own; shares memory.
    pub fn rows(&self) -> RecordBatch {
        self.batch.slice(self.first, self.count)
    }
}

/// A running replay.
pub struct Replay {
    store: Store,
    /// Keeps the commit's tables for as long as the replay runs.
    view: Arc<View>,
    streams: Vec<Source>,
    cursors: Vec<Cursor>,
    heap: BinaryHeap<Reverse<Head>>,
    from: i64,
    to: i64,
    revision: u64,
}

struct Source {
    id: StreamId,
    schema: SchemaRef,
}

struct Cursor {
    stream: usize,
    rest: Rest,
    batch: Arc<RecordBatch>,
    keys: Option<Keys>,
    at: usize,
    end: usize,
}

/// What follows a cursor's present batch.
enum Rest {
    Nothing,
    Unopened(Arc<Segment>),
    Open(Arc<Segment>, Box<ParquetRecordBatchStream<SegmentReader>>),
}

/// A cursor's next row in the heap; owns its key so that it can be compared without the cursor.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    time: i64,
    stream: usize,
    boot: [u8; 16],
    sequence: u64,
    index: u32,
    cursor: usize,
}

impl Store {
    /// Starts a replay.
    ///
    /// # Errors
    /// [`Error::UnknownStream`], [`Error::UnknownRevision`], or a request whose window is empty the wrong way round.
    pub fn replay(&self, request: &ReplayRequest) -> Result<Replay, Error> {
        let view = self.view();
        let (names, revision) = resolve(&view, &request.streams, request.revision)?;
        if request.from > request.to {
            return Err(Error::Request(format!(
                "the window ends at {} before it starts at {}",
                request.to, request.from
            )));
        }
        let mut replay = Replay {
            store: self.clone(),
            view: Arc::clone(&view),
            streams: Vec::new(),
            cursors: Vec::new(),
            heap: BinaryHeap::new(),
            from: request.from.0,
            to: request.to.0,
            revision,
        };
        for name in names {
            let table = view.stream(name.as_str())?;
            replay.add(name.clone(), table)?;
        }
        Ok(replay)
    }

    pub(crate) async fn open_segment(
        &self,
        segment: &Segment,
    ) -> Result<ParquetRecordBatchStreamBuilder<SegmentReader>, Error> {
        self.check_segment(segment).await?;
        let files = self.files().ok_or_else(|| segment.broken("missing"))?;
        let path = ObjectPath::from(segment.path.as_str());
        let objects = files.objects.clone();
        let reader = SegmentReader {
            objects,
            path,
            size: segment.size,
        };
        ParquetRecordBatchStreamBuilder::new(reader)
            .await
            .map_err(|error| segment.broken(format!("corrupted: {error}")))
    }
}

pub(crate) fn resolve(view: &View, streams: &[StreamId], revision: Option<u64>) -> Result<(Vec<StreamId>, u64), Error> {
    let revision = revision.unwrap_or(view.revision);
    if revision > view.revision {
        return Err(Error::UnknownRevision {
            asked: revision,
            latest: view.revision,
        });
    }
    let mut names: Vec<StreamId> = if streams.is_empty() {
        view.streams().map(|(stream, _)| stream).collect()
    } else {
        streams
            .iter()
            .map(|stream| view.stream(stream.as_str()).map(|_| stream.clone()))
            .collect::<Result<_, _>>()?
    };
    names.sort();
    names.dedup();
    Ok((names, revision))
}

/// The rows of a sorted batch within a window and a revision.
pub(crate) fn window(
    batch: &RecordBatch,
    from: i64,
    to: i64,
    revision: u64,
    table: &str,
) -> Result<RecordBatch, Error> {
    let keys = Keys::of(batch).map_err(Error::arrow(table))?;
    let (first, end) = (keys.lower_bound(from), keys.lower_bound(to));
    let rows = batch.slice(first, end.saturating_sub(first));
    let Some(revisions) = rows
        .column_by_name("revision")
        .map(|column| column.as_primitive::<UInt64Type>().clone())
    else {
        return Ok(rows);
    };
    if revisions.values().iter().all(|known| *known <= revision) {
        return Ok(rows);
    }
    let visible: BooleanArray = revisions
        .values()
        .iter()
        .map(|known| Some(*known <= revision))
        .collect();
    filter_record_batch(&rows, &visible).map_err(Error::arrow(table))
}

/// Row groups that may hold rows in `from..to`, by their statistics.
pub(crate) fn row_groups(builder: &ParquetRecordBatchStreamBuilder<SegmentReader>, from: i64, to: i64) -> Vec<usize> {
    let metadata = builder.metadata();
    let column = builder
        .parquet_schema()
        .columns()
        .iter()
        .position(|column| column.name() == "time_tai");
    (0..metadata.num_row_groups())
        .filter(|group| {
            let statistics = column.and_then(|column| metadata.row_group(*group).column(column).statistics());
            match statistics {
                Some(Statistics::Int64(range)) => match (range.min_opt(), range.max_opt()) {
                    (Some(min), Some(max)) => *min < to && *max >= from,
                    _ => true,
                },
                _ => true,
            }
        })
        .collect()
}

impl Replay {
    fn add(&mut self, id: StreamId, table: &Table) -> Result<(), Error> {
        let stream = self.streams.len();
        let schema = columns::aligned_schema(&table.channels_at(self.revision));
        self.streams.push(Source {
            id,
            schema: Arc::clone(&schema),
        });
        for part in table.parts_within(self.from, self.to) {
            let rows = window(&part.batch, self.from, self.to, self.revision, &table.name)?;
            self.push_rows(stream, Rest::Nothing, &rows)?;
        }
        for segment in table.segments_within(self.from, self.to) {
            let cursor = self.cursors.len();
            let time = segment.min.max(self.from);
            let empty = Arc::new(RecordBatch::new_empty(Arc::clone(&schema)));
            let rest = Rest::Unopened(Arc::clone(segment));
            self.cursors.push(Cursor {
                stream,
                rest,
                batch: empty,
                keys: None,
                at: 0,
                end: 0,
            });
            self.heap.push(Reverse(Head {
                time,
                stream,
                boot: [0; 16],
                sequence: 0,
                index: 0,
                cursor,
            }));
        }
        Ok(())
    }

    fn push_rows(&mut self, stream: usize, rest: Rest, stored: &RecordBatch) -> Result<(), Error> {
        if stored.num_rows() == 0 {
            return Ok(());
        }
        let cursor = self.cursors.len();
        let empty = Arc::new(RecordBatch::new_empty(Arc::clone(&self.streams[stream].schema)));
        self.cursors.push(Cursor {
            stream,
            rest,
            batch: empty,
            keys: None,
            at: 0,
            end: 0,
        });
        self.load(cursor, stored)
    }

    /// Gives a cursor its next rows and puts it back into the heap.
    fn load(&mut self, cursor: usize, stored: &RecordBatch) -> Result<(), Error> {
        let source = &self.streams[self.cursors[cursor].stream];
        let fail = |error| Error::Arrow {
            table: source.id.to_string(),
            source: error,
        };
        let batch = columns::aligned_from_stored(stored, &source.schema).map_err(fail)?;
        let keys = Keys::of(&batch).map_err(fail)?;
        let held = &mut self.cursors[cursor];
        (held.at, held.end) = (0, batch.num_rows());
        held.batch = Arc::new(batch);
        held.keys = Some(keys);
        self.heap.push(Reverse(self.head(cursor)));
        Ok(())
    }

    fn head(&self, cursor: usize) -> Head {
        let held = &self.cursors[cursor];
        let (batch, row) = (&held.batch, held.at);
        Head {
            time: batch.column(0).as_primitive::<Int64Type>().value(row),
            stream: held.stream,
            boot: BootId::from_slice(batch.column(2).as_fixed_size_binary().value(row)).map_or([0; 16], |boot| boot.0),
            sequence: batch.column(3).as_primitive::<UInt64Type>().value(row),
            index: batch
                .column(4)
                .as_primitive::<arrow::datatypes::UInt32Type>()
                .value(row),
            cursor,
        }
    }

    /// The next run of rows; none at the end.
    ///
    /// # Errors
    /// [`Error::Segment`] when a file is gone or altered. Rows before it were good; the replay cannot go on.
    pub async fn next(&mut self) -> Result<Option<Run>, Error> {
        loop {
            let Some(Reverse(top)) = self.heap.pop() else {
                return Ok(None);
            };
            let cursor = top.cursor;
            if self.cursors[cursor].at == self.cursors[cursor].end {
                self.refill(cursor).await?;
                continue;
            }
            let limit = self.heap.peek().map(|Reverse(head)| head);
            let held = &self.cursors[cursor];
            let end = limit.map_or(held.end, |limit| self.rows_below(held, limit));
            let run = Run {
                stream: self.streams[held.stream].id.clone(),
                batch: Arc::clone(&held.batch),
                first: held.at,
                count: end - held.at,
            };
            self.cursors[cursor].at = end;
            if end < self.cursors[cursor].end {
                self.heap.push(Reverse(self.head(cursor)));
            } else {
                self.refill(cursor).await?;
            }
            return Ok(Some(run));
        }
    }

    /// Where the rows of a cursor that stand before `limit` end: by doubling steps, then by halving.
    fn rows_below(&self, held: &Cursor, limit: &Head) -> usize {
        let before = |row: usize| {
            let batch = &held.batch;
            let time = batch.column(0).as_primitive::<Int64Type>().value(row);
            let key = || {
                (
                    held.stream,
                    batch.column(2).as_fixed_size_binary().value(row),
                    batch.column(3).as_primitive::<UInt64Type>().value(row),
                    batch
                        .column(4)
                        .as_primitive::<arrow::datatypes::UInt32Type>()
                        .value(row),
                )
            };
            time < limit.time
                || time == limit.time && key() < (limit.stream, limit.boot.as_slice(), limit.sequence, limit.index)
        };
        // The head left the heap first, so at least its own row comes now.
        let (mut low, mut step) = (held.at + 1, 1);
        while low < held.end && before(low) {
            low += step;
            step *= 2;
        }
        let (mut known, mut end) = (low.saturating_sub(step / 2).max(held.at + 1), low.min(held.end));
        while known < end {
            let middle = known + (end - known) / 2;
            if before(middle) {
                known = middle + 1
            } else {
                end = middle
            }
        }
        known
    }

    async fn refill(&mut self, cursor: usize) -> Result<(), Error> {
        loop {
            let rest = std::mem::replace(&mut self.cursors[cursor].rest, Rest::Nothing);
            let (segment, mut reader) = match rest {
                Rest::Nothing => return Ok(()),
                Rest::Open(segment, reader) => (segment, reader),
                Rest::Unopened(segment) => {
                    let builder = self.store.open_segment(&segment).await?;
                    let groups = row_groups(&builder, self.from, self.to);
                    let reader = builder.with_row_groups(groups).with_batch_size(BATCH_ROWS).build();
                    let reader = reader.map_err(|error| segment.broken(format!("corrupted: {error}")))?;
                    (segment, Box::new(reader))
                }
            };
            let Some(batch) = reader.next().await else {
                return Ok(());
            };
            let batch = batch.map_err(|error| segment.broken(format!("corrupted: {error}")))?;
            let revision = if segment.max_revision <= self.revision {
                u64::MAX
            } else {
                self.revision
            };
            let rows = window(&batch, self.from, self.to, revision, &segment.table)?;
            self.cursors[cursor].rest = Rest::Open(segment, reader);
            if rows.num_rows() > 0 {
                return self.load(cursor, &rows);
            }
        }
    }

    /// Runs to the end and digests what comes: `(digest, rows)`.
    ///
    /// # Errors
    /// As for [`Replay::next`].
    pub async fn digest(mut self) -> Result<(Digest, u64), Error> {
        let mut digest = ReplayDigest::new();
        while let Some(run) = self.next().await? {
            digest.rows(run.stream.as_str(), &run.batch, run.first, run.count);
        }
        let rows = digest.row_count();
        Ok((digest.finish(), rows))
    }

    /// The commit it replays.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The schema of the rows of each stream, in order of name.
    pub fn schemas(&self) -> impl Iterator<Item = (&StreamId, &SchemaRef)> {
        self.streams.iter().map(|source| (&source.id, &source.schema))
    }

    /// The view it reads.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// The channels of all its streams as one set of columns; text where types differ.
    pub fn union_channels(&self) -> Vec<FieldRef> {
        let mut union: Vec<FieldRef> = Vec::new();
        for source in &self.streams {
            for field in &source.schema.fields()[ALIGNED_KEYS..] {
                match union.iter_mut().find(|known| known.name() == field.name()) {
                    None => union.push(Arc::clone(field)),
                    Some(known) if known.data_type() == field.data_type() => {}
                    Some(known) => {
                        let text = known.as_ref().clone().with_data_type(arrow::datatypes::DataType::Utf8);
                        *known = Arc::new(text);
                    }
                }
            }
        }
        union
    }
}
