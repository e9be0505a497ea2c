//! A clock estimated from stamps that travel one way: (stamp of the device, reception on the host clock).
//!
//! Delay only ever adds, so the truth lies along the *lower envelope* of reception minus stamp. The window keeps
//! the least delay of each time bucket; the line is the edge of their lower convex hull below the window's
//! centre, which is the line under all points with the least summed distance to them (Moon, Skelly, Towsley 1999).
//! What no one-way stamp can show is the least delay itself: it is the asymmetry bound, configured.

use serde::{Deserialize, Serialize};

use super::Line;
use super::doubt::{LATE_NANOS, Run};

const MAX_BUCKETS: usize = 192;
const FIRST_WIDTH_SECONDS: f64 = 1.0;
/// Beyond this width the window slides: a crystal's frequency does not stay put for longer.
const LAST_WIDTH_SECONDS: f64 = 4.0;
/// Scatter assumed before anything is known (5 ms), and the least scatter believed (1 µs).
const SCATTER_PRIOR_NANOS: f64 = 5e6;
const SCATTER_LEAST_NANOS: f64 = 1e3;
/// One way does not tell wander from delay, so a bare crystal's is assumed: 1 ppb per √s, in ppb²/s.
const WANDER: f64 = 1.0;
const DRIFT_MOST_PPB: f64 = 200_000.0;
/// So many pairs in a row far above the envelope mean that the device's clock stepped back.
const ABOVE_TO_RESET: u32 = 40;

/// The least delay seen in one stretch of device time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Bucket {
    slot: i64,
    seconds: f64,
    delay_nanos: f64,
}

/// Host time as a function of a device's stamps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OneWay {
    origin: i64,
    base_nanos: i64,
    width_seconds: f64,
    buckets: Vec<Bucket>,
    line: Line,
    /// Pairs far above the envelope.
    #[serde(default)]
    above_run: Option<Run>,
    /// Pairs held in doubt.
    #[serde(default)]
    doubt: Option<Run>,
    pairs: u64,
}

/// What a pair did to the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StampOutcome {
    /// The stamp is believed.
    Believed,
    /// The stamp is not believed: it lies far from the line, and nothing confirms it yet.
    Doubted,
    /// The device's clock stepped: the model begins anew with this pair.
    Stepped,
}

impl OneWay {
    /// Starts from a first pair, both in nanoseconds.
    pub fn start(device_nanos: i64, received_nanos: i64) -> Self {
        let base_nanos = received_nanos.saturating_sub(device_nanos);
        Self {
            origin: device_nanos,
            base_nanos,
            width_seconds: FIRST_WIDTH_SECONDS,
            buckets: vec![Bucket {
                slot: 0,
                seconds: 0.0,
                delay_nanos: 0.0,
            }],
            line: Line {
                at: device_nanos,
                base_nanos,
                offset_nanos: 0.0,
                drift_ppb: 0.0,
                covariance: [SCATTER_PRIOR_NANOS * SCATTER_PRIOR_NANOS, 0.0, 1e10],
                wander: 0.0,
            },
            above_run: None,
            doubt: None,
            pairs: 1,
        }
    }

    /// Takes in one pair. Call [`settle`](Self::settle) after the pairs of a block.
    pub fn observe(&mut self, device_nanos: i64, received_nanos: i64) -> StampOutcome {
        let seconds = device_nanos.saturating_sub(self.origin) as f64 / 1e9;
        let delay_nanos = received_nanos
            .saturating_sub(device_nanos)
            .saturating_sub(self.base_nanos) as f64;
        let excess = delay_nanos - self.delay_on_line(device_nanos);
        let scatter = self.line.covariance[0].sqrt();
        let late = LATE_NANOS as f64;
        let far = if self.pairs > 8 {
            (20.0 * scatter + 2e7).min(late)
        } else {
            late
        };
        // Reception before the least delay ever seen, by more than the line can be wrong, is no network's doing.
        if excess < -far || excess > late {
            let run = *Run::follow(&mut self.doubt, device_nanos, received_nanos, excess > 0.0);
            if run.is_step() {
                *self = Self::start(device_nanos, received_nanos);
                return StampOutcome::Stepped;
            }
            return if run.is_backlog(excess as i64) {
                StampOutcome::Believed
            } else {
                StampOutcome::Doubted
            };
        }
        self.doubt = None;
        if excess > far {
            // What queued for so long says nothing of the least delay, unless the clock stepped back a little.
            let run = *Run::follow(&mut self.above_run, device_nanos, received_nanos, true);
            if run.count() >= ABOVE_TO_RESET && run.keeps_pace() {
                *self = Self::start(device_nanos, received_nanos);
                return StampOutcome::Stepped;
            }
            return StampOutcome::Believed;
        }
        self.above_run = None;
        self.pairs += 1;
        self.insert(seconds, delay_nanos);
        StampOutcome::Believed
    }

    fn insert(&mut self, seconds: f64, delay_nanos: f64) {
        let slot = (seconds / self.width_seconds).floor() as i64;
        let bucket = Bucket {
            slot,
            seconds,
            delay_nanos,
        };
        match self.buckets.binary_search_by_key(&slot, |bucket| bucket.slot) {
            Ok(at) if delay_nanos < self.buckets[at].delay_nanos => self.buckets[at] = bucket,
            Ok(_) => {}
            Err(at) => self.buckets.insert(at, bucket),
        }
        if self.buckets.len() > MAX_BUCKETS {
            if self.width_seconds < LAST_WIDTH_SECONDS {
                self.widen()
            } else {
                self.buckets.remove(0);
            }
        }
    }

    fn widen(&mut self) {
        self.width_seconds *= 2.0;
        let mut wider: Vec<Bucket> = Vec::with_capacity(self.buckets.len() / 2 + 1);
        for bucket in &self.buckets {
            let moved = Bucket {
                slot: bucket.slot.div_euclid(2),
                ..*bucket
            };
            match wider.last_mut() {
                Some(last) if last.slot == moved.slot => {
                    if moved.delay_nanos < last.delay_nanos {
                        *last = moved;
                    }
                }
                _ => wider.push(moved),
            }
        }
        self.buckets = wider;
    }

    /// Draws the line anew below the points of the window.
    pub fn settle(&mut self) {
        let hull = lower_hull(&self.buckets);
        let count = self.buckets.len() as f64;
        let first = self.buckets[0].seconds;
        let span = self.buckets[self.buckets.len() - 1].seconds - first;
        let centre = first + span / 2.0;
        let edge = hull.windows(2).find(|edge| edge[1].seconds >= centre);
        // Under ten seconds a slope is noise: the least delay alone is the better line.
        let (anchor, slope) = match edge {
            Some(edge) if span >= 10.0 => {
                let slope = (edge[1].delay_nanos - edge[0].delay_nanos) / (edge[1].seconds - edge[0].seconds);
                (edge[0], slope.clamp(-DRIFT_MOST_PPB, DRIFT_MOST_PPB))
            }
            _ => (lowest(&self.buckets), 0.0),
        };
        let at_anchor = |bucket: &Bucket| anchor.delay_nanos + slope * (bucket.seconds - anchor.seconds);
        let excess = self
            .buckets
            .iter()
            .map(|bucket| bucket.delay_nanos - at_anchor(bucket))
            .sum::<f64>()
            / count;

        let last = &self.buckets[self.buckets.len() - 1];
        let scatter = if count < 3.0 {
            SCATTER_PRIOR_NANOS / (count + 1.0)
        } else {
            excess.abs()
        };
        let drift_sd = if span >= 10.0 {
            2.0 * scatter / (count.sqrt() * span) + (WANDER * span).sqrt()
        } else {
            100_000.0
        };
        // The edge fits best at the window's centre, and since then the clock has wandered. How common the least delay is depends on
        // the network and cannot be told from few stamps, so the first term is an upper bound: where the least delay is
        // common, the edge is several times better.
        let half = span / 2.0;
        let wandered = (WANDER * half * half * half / 3.0).sqrt();
        let offset_sd = (1.6 * scatter / count.sqrt()).max(SCATTER_LEAST_NANOS)
            + wandered
            + if span >= 10.0 { 0.0 } else { 50_000.0 * span.min(10.0) };
        let offset = at_anchor(last);
        let whole = offset.round();
        self.line = Line {
            at: self.origin.saturating_add((last.seconds * 1e9) as i64),
            base_nanos: self.base_nanos.saturating_add(whole as i64),
            offset_nanos: offset - whole,
            drift_ppb: slope,
            covariance: [offset_sd * offset_sd, 0.0, drift_sd * drift_sd],
            wander: WANDER,
        };
    }

    fn delay_on_line(&self, device_nanos: i64) -> f64 {
        let seconds = device_nanos.saturating_sub(self.line.at) as f64 / 1e9;
        self.line.base_nanos.saturating_sub(self.base_nanos) as f64
            + self.line.offset_nanos
            + self.line.drift_ppb * seconds
    }

    /// The estimate as a line: host clock from device clock.
    pub fn line(&self) -> &Line {
        &self.line
    }
}

fn lowest(buckets: &[Bucket]) -> Bucket {
    let mut least = buckets[0];
    for bucket in buckets {
        if bucket.delay_nanos < least.delay_nanos {
            least = *bucket;
        }
    }
    least
}

/// Andrew's monotone chain, lower half; the buckets are in order of time.
fn lower_hull(buckets: &[Bucket]) -> Vec<Bucket> {
    let mut hull: Vec<Bucket> = Vec::new();
    for point in buckets {
        while let [.., a, b] = hull[..] {
            let cross = (b.seconds - a.seconds) * (point.delay_nanos - a.delay_nanos)
                - (b.delay_nanos - a.delay_nanos) * (point.seconds - a.seconds);
            if cross > 0.0 {
                break;
            }
            hull.pop();
        }
        if hull.last().is_none_or(|last| point.seconds > last.seconds) {
            hull.push(*point);
        }
    }
    hull
}
