//! What a chart draws: per pixel column the first, least, greatest and last value (M4, Jugel et al. 2014), so that the
//! drawing is the same as of all rows and no spike is hidden.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use orrery_protocol::{StreamId, TaiNanos};
use serde::Serialize;

use crate::{Error, ReplayRequest, Store};

/// What to draw.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowRequest {
    /// The stream.
    pub stream: StreamId,
    /// Left edge, UNIX milliseconds UTC.
    pub from_ms: f64,
    /// Right edge.
    pub to_ms: f64,
    /// Pixel columns.
    pub columns: usize,
}

/// Points of one channel; times in UNIX milliseconds UTC.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Points {
    /// Times.
    pub t: Vec<f64>,
    /// Values; null where there is none.
    pub v: Vec<Option<f64>>,
}

/// A chart's data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Window {
    /// The stream.
    pub stream: String,
    /// The commit it shows; 64-bit integers are strings.
    pub revision: String,
    /// Left edge.
    pub from_ms: f64,
    /// Right edge.
    pub to_ms: f64,
    /// Whether columns stand for rows.
    pub bucketed: bool,
    /// Numeric channels.
    pub channels: BTreeMap<String, Points>,
}

/// Running first, least, greatest, last of one column: (row's place, time, value).
#[derive(Clone, Copy)]
struct Bucket {
    first: (i64, f64),
    least: (i64, f64),
    most: (i64, f64),
    last: (i64, f64),
}

impl Store {
    /// Reads a window for a chart.
    ///
    /// # Errors
    /// [`Error::UnknownStream`], a window that makes no sense, or a segment that is gone.
    pub async fn window(&self, request: &WindowRequest) -> Result<Window, Error> {
        let columns = request.columns.clamp(1, 10_000);
        if !(request.from_ms.is_finite() && request.to_ms.is_finite() && request.from_ms < request.to_ms) {
            return Err(Error::Request(format!(
                "the window {} to {} ms is empty",
                request.from_ms, request.to_ms
            )));
        }
        let (from, to) = (
            TaiNanos::from_unix_millis(request.from_ms),
            TaiNanos::from_unix_millis(request.to_ms),
        );
        let ask = ReplayRequest {
            from,
            to,
            streams: vec![request.stream.clone()],
            revision: None,
        };
        let mut replay = self.replay(&ask)?;
        let fields: Vec<String> = replay
            .union_channels()
            .iter()
            .filter(|field| is_numeric(field.data_type()))
            .map(|field| field.name().clone())
            .collect();

        let span = (to.0.saturating_sub(from.0)).max(1) as f64;
        let mut buckets: Vec<Vec<Option<Bucket>>> = vec![vec![None; columns]; fields.len()];
        // Raw points are kept while a bucketed answer would not be smaller.
        let mut raw: Vec<Vec<(i64, Option<f64>)>> = vec![Vec::new(); fields.len()];
        let mut rows = 0;
        while let Some(run) = replay.next().await? {
            let times = run.batch.column(0).as_primitive::<Int64Type>();
            rows += run.count;
            for (at, name) in fields.iter().enumerate() {
                let Some(values) = run.batch.column_by_name(name).and_then(as_floats) else {
                    continue;
                };
                let values = values.as_primitive::<Float64Type>();
                for row in run.first..run.first + run.count {
                    let time = times.value(row);
                    let value = (values.is_valid(row) && values.value(row).is_finite()).then(|| values.value(row));
                    if rows <= 4 * columns {
                        raw[at].push((time, value));
                    }
                    let Some(value) = value else { continue };
                    let column = (time.saturating_sub(from.0) as f64 / span * columns as f64) as usize;
                    add(&mut buckets[at][column.min(columns - 1)], (time, value));
                }
            }
        }
        let bucketed = rows > 4 * columns;
        let points = |at: usize| {
            if bucketed {
                bucket_points(&buckets[at])
            } else {
                raw_points(&raw[at])
            }
        };
        Ok(Window {
            stream: request.stream.to_string(),
            revision: replay.revision().to_string(),
            from_ms: request.from_ms,
            to_ms: request.to_ms,
            bucketed,
            channels: fields
                .iter()
                .enumerate()
                .map(|(at, name)| (name.clone(), points(at)))
                .collect(),
        })
    }

    /// Per device, whether it had any row in each of `columns` stretches of the window.
    ///
    /// # Errors
    /// As for [`Store::window`].
    pub async fn presence(&self, from_ms: f64, to_ms: f64, columns: usize) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let columns = columns.clamp(1, 10_000);
        if !(from_ms.is_finite() && to_ms.is_finite() && from_ms < to_ms) {
            return Err(Error::Request(format!("the window {from_ms} to {to_ms} ms is empty")));
        }
        let (from, to) = (TaiNanos::from_unix_millis(from_ms), TaiNanos::from_unix_millis(to_ms));
        let span = to.0.saturating_sub(from.0).max(1) as f64;
        let view = self.view();
        let mut devices: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for (stream, table) in view.streams() {
            let derived = matches!(stream.name(), "acks" | "log" | "events");
            if derived || table.rows() == 0 {
                continue;
            }
            let bins = devices
                .entry(stream.device().to_string())
                .or_insert_with(|| vec![0; columns]);
            let mut replay = self.replay(&ReplayRequest {
                from,
                to,
                streams: vec![stream],
                revision: None,
            })?;
            while let Some(run) = replay.next().await? {
                for &time in &run.batch.column(0).as_primitive::<Int64Type>().values()[run.first..run.first + run.count]
                {
                    let column = (time.saturating_sub(from.0) as f64 / span * columns as f64) as usize;
                    bins[column.min(columns - 1)] = 1;
                }
            }
        }
        Ok(devices)
    }
}

fn is_numeric(kind: &DataType) -> bool {
    matches!(
        kind,
        DataType::Float64 | DataType::Float32 | DataType::Int64 | DataType::Boolean
    )
}

fn as_floats(column: &ArrayRef) -> Option<ArrayRef> {
    if column.data_type() == &DataType::Float64 {
        Some(column.clone())
    } else {
        cast(column, &DataType::Float64).ok()
    }
}

fn add(bucket: &mut Option<Bucket>, point: (i64, f64)) {
    match bucket {
        None => {
            *bucket = Some(Bucket {
                first: point,
                least: point,
                most: point,
                last: point,
            })
        }
        Some(known) => {
            if point.1 < known.least.1 {
                known.least = point;
            }
            if point.1 > known.most.1 {
                known.most = point;
            }
            known.last = point;
        }
    }
}

fn bucket_points(buckets: &[Option<Bucket>]) -> Points {
    let mut points = Points::default();
    for bucket in buckets.iter().flatten() {
        let mut four = [bucket.first, bucket.least, bucket.most, bucket.last];
        four.sort_by_key(|point| point.0);
        let mut previous = None;
        for point in four {
            if previous != Some(point.0) {
                points.t.push(TaiNanos(point.0).to_unix_millis());
                points.v.push(Some(point.1));
            }
            previous = Some(point.0);
        }
    }
    points
}

fn raw_points(raw: &[(i64, Option<f64>)]) -> Points {
    Points {
        t: raw.iter().map(|point| TaiNanos(point.0).to_unix_millis()).collect(),
        v: raw.iter().map(|point| point.1).collect(),
    }
}
