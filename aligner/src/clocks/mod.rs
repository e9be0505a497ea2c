//! Clocks: from evidence in a device's own chain to reference time with an uncertainty.
//!
//! Composition: device → host → reference. Evidence belongs to a `clock_id`, so probes made after a restart still
//! serve samples spooled before it. A late envelope (a filled hole) is aligned with the model that stood at *its*
//! place in the chain, so when it arrives does not show.

mod bank;
mod doubt;
mod filter;
mod line;
mod one_way;

use std::collections::{BTreeMap, VecDeque};

use orrery_protocol::{
    BootId, ClockId, ClockKind, ClockModel, ClockPayload, DeviceId, DeviceNanos, MonoNanos, TaiNanos,
};
use serde::{Deserialize, Serialize};

use doubt::{BACKLOG_NANOS, LATE_NANOS, Run};
pub use filter::{ClockFilter, WaveOutcome};
pub use line::{Estimate, Line};
pub use one_way::{OneWay, StampOutcome};

/// Models of the past kept for late envelopes, per clock.
const HISTORY: usize = 64;
/// Clocks kept per device; the one longest without evidence goes first.
const MAX_CLOCKS: usize = 16;
/// What an agent's wall clock is trusted to when nothing better is known: one second.
const WALL_SD_NANOS: f64 = 1e9;
/// A stamp of a probed clock may lie after its reception by this much more than is known to be uncertain (10 ms): devices
/// round.
const ROUNDING_NANOS: i64 = 10_000_000;
/// One-way models are announced when they moved by a quarter of their uncertainty, or this long after the last.
const ANNOUNCE_EVERY_NANOS: i64 = 10_000_000_000;

/// Reference time with its standard uncertainty, and the asymmetry bound beside it, never mixed in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Aligned {
    /// Reference time.
    pub time: TaiNanos,
    /// Standard uncertainty, in nanoseconds.
    pub uncertainty_nanos: i64,
    /// What path asymmetry can hide, in nanoseconds.
    pub asymmetry_nanos: i64,
}

/// A place in a device's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The start of the agent.
    pub boot: BootId,
    /// The sequence within it.
    pub sequence: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Tracked {
    filter: ClockFilter,
    host: ClockId,
    last: Place,
    /// (place of the evidence, the model after it, asymmetry).
    history: VecDeque<(Place, Line, i64)>,
    /// Stamps held in doubt.
    #[serde(default)]
    doubt: Option<Run>,
}

impl Tracked {
    fn line_at(&self, place: Place) -> (&Line, i64) {
        if place >= self.last {
            return (self.filter.line(), self.filter.asymmetry_nanos());
        }
        let after = self.history.partition_point(|(known, _, _)| *known <= place);
        match self.history.get(after.saturating_sub(1)) {
            Some((_, line, asymmetry)) => (line, *asymmetry),
            None => (self.filter.line(), self.filter.asymmetry_nanos()),
        }
    }

    /// Whether a stamp is believed, beside its reception on the host clock.
    fn believes(&mut self, place: Place, stamp_nanos: i64, received_nanos: i64) -> bool {
        let (line, asymmetry_nanos) = self.line_at(place);
        let made = line.inverse(stamp_nanos);
        let slack = ((3.0 * made.sd_nanos) as i64)
            .saturating_add(asymmetry_nanos)
            .saturating_add(ROUNDING_NANOS);
        let delay = received_nanos.saturating_sub(made.nanos);
        if (slack.saturating_neg()..=LATE_NANOS.saturating_add(slack)).contains(&delay) {
            self.doubt = None;
            return true;
        }
        Run::follow(&mut self.doubt, stamp_nanos, received_nanos, delay > 0).is_backlog(delay)
    }
}

/// A fallback for a host clock nobody probed: one pair of readings, believed to a second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Wall {
    line: Line,
    last: Place,
    latest: (MonoNanos, TaiNanos),
}

/// All that is known of the clocks one device's chain speaks of.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DeviceClocks {
    probed: BTreeMap<ClockId, Tracked>,
    walls: BTreeMap<ClockId, Wall>,
    one_way: BTreeMap<ClockId, (OneWay, Place)>,
    announced: BTreeMap<ClockId, ClockModel>,
    /// Clock payloads that came too late to enter a filter; they wait for re-alignment.
    late_evidence: u64,
}

/// Which clocks a block of samples is stamped with.
#[derive(Debug, Clone, Copy)]
pub struct Stamps<'a> {
    /// The host clock of `received`.
    pub host: &'a ClockId,
    /// The device's own clock, when it stamps.
    pub device: Option<&'a ClockId>,
    /// Where the block stands in the chain.
    pub place: Place,
}

/// The maps from a block's stamps to reference time, looked up once per block.
#[derive(Debug, Clone, Copy)]
pub struct Maps<'a> {
    host: (&'a Line, i64),
    /// (line, whether it runs from host to device, asymmetry).
    device: Option<(&'a Line, bool, i64)>,
}

impl Maps<'_> {
    /// Reference time of an instant on the host clock.
    pub fn reference_from_mono(&self, at: MonoNanos) -> Aligned {
        aligned(self.host.0.forward(at.0), 0.0, self.host.1)
    }

    /// Reference time of a device's own stamp; none when nothing is known of the device's clock.
    pub fn reference_from_device(&self, at: DeviceNanos) -> Option<Aligned> {
        let (line, from_host, asymmetry) = self.device?;
        let on_host = if from_host {
            line.inverse(at.0)
        } else {
            line.forward(at.0)
        };
        let host = self.host.0.forward(on_host.nanos);
        Some(aligned(host, on_host.sd_nanos, self.host.1.saturating_add(asymmetry)))
    }
}

impl Aligned {
    /// The place of a sample by its reception, where `stamped`, the place by its stamp, is not believed. A late stamp may
    /// be right after all; nothing was received before it was made, nor kept for months.
    pub fn instead_of(self, stamped: Self) -> Self {
        let apart = self.time.nanos_since(stamped.time);
        let beside = if (0..=BACKLOG_NANOS).contains(&apart) {
            apart as f64
        } else {
            (apart.saturating_abs() as f64).min(WALL_SD_NANOS)
        };
        let sd = self.uncertainty_nanos as f64;
        Self {
            uncertainty_nanos: (sd * sd + beside * beside).sqrt().ceil() as i64,
            ..self
        }
    }
}

impl DeviceClocks {
    /// Takes in a clock payload.
    pub fn observe(&mut self, place: Place, payload: &ClockPayload) -> WaveOutcome {
        if let Some(pair) = payload.pairs.last() {
            self.observe_wall(place, &payload.host, pair.monotonic, pair.wall);
        }
        if payload.probes.is_empty() {
            return WaveOutcome::Unusable;
        }
        if let Some(tracked) = self.probed.get_mut(&payload.clock_id) {
            if place < tracked.last {
                self.late_evidence += 1;
                return WaveOutcome::Unusable;
            }
            // A host that restarted has a new clock: the device's must be learnt anew against it.
            if tracked.host == payload.host {
                let outcome = tracked.filter.observe(&payload.probes);
                tracked.last = place;
                remember(tracked, place);
                return outcome;
            }
        }
        let Some(filter) = ClockFilter::start(&payload.probes) else {
            return WaveOutcome::Unusable;
        };
        let mut tracked = Tracked {
            filter,
            host: payload.host.clone(),
            last: place,
            history: VecDeque::new(),
            doubt: None,
        };
        remember(&mut tracked, place);
        self.probed.insert(payload.clock_id.clone(), tracked);
        self.bound();
        WaveOutcome::Reset
    }

    /// Takes a reading of the agent's wall clock beside its monotonic one: the fallback before any probe.
    pub fn observe_wall(&mut self, place: Place, host: &ClockId, monotonic: MonoNanos, wall: TaiNanos) {
        if let Some(known) = self.walls.get_mut(host) {
            (known.last, known.latest) = (known.last.max(place), (monotonic, wall));
            return;
        }
        let line = Line::constant(monotonic.0, wall.0, WALL_SD_NANOS);
        self.walls.insert(
            host.clone(),
            Wall {
                line,
                last: place,
                latest: (monotonic, wall),
            },
        );
        self.bound();
    }

    /// Takes in the stamps of a block and says which of them are believed. Without probes of the device's clock they are all
    /// that is known of it.
    pub fn observe_stamps(
        &mut self,
        stamps: Stamps<'_>,
        pairs: impl Iterator<Item = (DeviceNanos, MonoNanos)>,
    ) -> Vec<bool> {
        let Some(device) = stamps.device else {
            return Vec::new();
        };
        if let Some(tracked) = self.probed.get_mut(device).filter(|known| known.host == *stamps.host) {
            return pairs
                .map(|(stamp, received)| tracked.believes(stamps.place, stamp.0, received.0))
                .collect();
        }
        let mut pairs = pairs.peekable();
        let Some(&(first_stamp, first_received)) = pairs.peek() else {
            return Vec::new();
        };
        let (model, last) = self
            .one_way
            .entry(one_way_key(device, stamps.host))
            .or_insert_with(|| (OneWay::start(first_stamp.0, first_received.0), stamps.place));
        let mut believed: Vec<bool> = Vec::new();
        for (stamp, received) in pairs {
            let outcome = model.observe(stamp.0, received.0);
            if outcome == StampOutcome::Stepped {
                // The line that the stamps before the step lie on is gone.
                believed.fill(false);
            }
            believed.push(outcome != StampOutcome::Doubted);
        }
        model.settle();
        *last = (*last).max(stamps.place);
        self.bound();
        believed
    }

    /// The maps that hold at a place in the chain; none when the chain has said nothing about the host clock.
    pub fn maps<'a>(&'a self, stamps: Stamps<'_>, one_way_bound_nanos: i64) -> Option<Maps<'a>> {
        let host = match self
            .probed
            .get(stamps.host)
            .filter(|tracked| tracked.host == *stamps.host)
        {
            Some(tracked) => tracked.line_at(stamps.place),
            None => (&self.walls.get(stamps.host)?.line, 0),
        };
        let device = stamps.device.and_then(|device| {
            if let Some(tracked) = self.probed.get(device).filter(|tracked| tracked.host == *stamps.host) {
                let (line, asymmetry) = tracked.line_at(stamps.place);
                return Some((line, true, asymmetry));
            }
            let (model, _) = self.one_way.get(&one_way_key(device, stamps.host))?;
            Some((model.line(), false, one_way_bound_nanos))
        });
        Some(Maps { host, device })
    }

    /// Reference time of an instant on a host clock; none when the chain has said nothing about that clock.
    pub fn reference_from_mono(&self, host: &ClockId, place: Place, at: MonoNanos) -> Option<Aligned> {
        Some(
            self.maps(
                Stamps {
                    host,
                    device: None,
                    place,
                },
                0,
            )?
            .reference_from_mono(at),
        )
    }

    /// Reference time of a device's own stamp: device → host → reference.
    pub fn reference_from_device(
        &self,
        stamps: Stamps<'_>,
        at: DeviceNanos,
        one_way_bound_nanos: i64,
    ) -> Option<Aligned> {
        self.maps(stamps, one_way_bound_nanos)?.reference_from_device(at)
    }

    /// The model of the clock that stamps a device's samples, as people see it.
    pub fn model(
        &self,
        device_id: &DeviceId,
        stamps: Stamps<'_>,
        at: MonoNanos,
        one_way_bound_nanos: i64,
    ) -> Option<ClockModel> {
        let host_now = self.reference_from_mono(stamps.host, stamps.place, at)?;
        let host_drift = self
            .probed
            .get(stamps.host)
            .map_or((0.0, 100_000.0), |tracked| tracked.filter.line().drift_ppb());
        let build = |clock_id: &ClockId, kind, anchor: i64, seen: Aligned, drift: (f64, f64)| ClockModel {
            clock_id: clock_id.clone(),
            device_id: device_id.clone(),
            kind,
            anchor,
            reference_minus_clock_nanos: seen.time.0.saturating_sub(anchor),
            drift_ppb: drift.0,
            offset_uncertainty_nanos: seen.uncertainty_nanos as f64,
            drift_uncertainty_ppb: drift.1,
            asymmetry_nanos: seen.asymmetry_nanos,
            at: host_now.time,
        };
        let Some(device) = stamps.device else {
            return Some(build(stamps.host, ClockKind::Host, at.0, host_now, host_drift));
        };
        let (kind, anchor, drift) = match self.probed.get(device).filter(|tracked| tracked.host == *stamps.host) {
            Some(tracked) => {
                let (drift, sd) = tracked.filter.line().drift_ppb();
                (
                    ClockKind::RoundTrip,
                    tracked.filter.other_from_host(at.0).nanos,
                    (-drift, sd),
                )
            }
            None => {
                let (model, _) = self.one_way.get(&one_way_key(device, stamps.host))?;
                (
                    ClockKind::OneWay,
                    model.line().inverse(at.0).nanos,
                    model.line().drift_ppb(),
                )
            }
        };
        let seen = self.reference_from_device(stamps, DeviceNanos(anchor), one_way_bound_nanos)?;
        let variance = drift.1 * drift.1 + host_drift.1 * host_drift.1;
        Some(build(
            device,
            kind,
            anchor,
            seen,
            (drift.0 + host_drift.0, variance.sqrt()),
        ))
    }

    /// The model when it is news: the first, one that moved, or one after a while.
    pub fn news(&mut self, model: Option<ClockModel>) -> Option<ClockModel> {
        let model = model?;
        if let Some(known) = self.announced.get(&model.clock_id) {
            let elapsed = model.at.nanos_since(known.at);
            let seconds = model.anchor.saturating_sub(known.anchor) as f64 / 1e9;
            let moved = model
                .reference_minus_clock_nanos
                .saturating_sub(known.reference_minus_clock_nanos) as f64
                - known.drift_ppb * seconds;
            let still = moved.abs() < 0.25 * known.offset_uncertainty_nanos;
            if still && elapsed < ANNOUNCE_EVERY_NANOS {
                return None;
            }
        }
        self.announced.insert(model.clock_id.clone(), model.clone());
        Some(model)
    }

    /// How far the host's wall clock is ahead of reference time, in nanoseconds, where its agent said.
    pub fn wall_ahead_nanos(&self, host: &ClockId) -> Option<i64> {
        let wall = self.walls.get(host)?;
        let reference = self.reference_from_mono(host, wall.last, wall.latest.0)?;
        Some(wall.latest.1.nanos_since(reference.time))
    }

    /// Whether anything is known of a host clock.
    pub fn knows_host(&self, host: &ClockId) -> bool {
        self.probed.contains_key(host) || self.walls.contains_key(host)
    }

    /// Clock payloads that arrived behind later evidence and were only archived.
    pub fn late_evidence(&self) -> u64 {
        self.late_evidence
    }

    fn bound(&mut self) {
        while self.probed.len() > MAX_CLOCKS {
            let Some(oldest) = self
                .probed
                .iter()
                .min_by_key(|(_, tracked)| tracked.last)
                .map(|(id, _)| id.clone())
            else {
                break;
            };
            self.probed.remove(&oldest);
        }
        while self.walls.len() > MAX_CLOCKS {
            let oldest = self
                .walls
                .iter()
                .min_by_key(|(_, wall)| wall.last)
                .map(|(id, _)| id.clone());
            let Some(oldest) = oldest else { break };
            self.walls.remove(&oldest);
        }
        while self.one_way.len() > MAX_CLOCKS {
            let oldest = self
                .one_way
                .iter()
                .min_by_key(|(_, (_, last))| *last)
                .map(|(id, _)| id.clone());
            let Some(oldest) = oldest else { break };
            self.one_way.remove(&oldest);
        }
        while self.announced.len() > 4 * MAX_CLOCKS {
            let oldest = self
                .announced
                .iter()
                .min_by_key(|(_, model)| model.at)
                .map(|(id, _)| id.clone());
            let Some(oldest) = oldest else { break };
            self.announced.remove(&oldest);
        }
    }
}

fn remember(tracked: &mut Tracked, place: Place) {
    if tracked.history.len() == HISTORY {
        tracked.history.pop_front();
    }
    let entry = (place, tracked.filter.line().clone(), tracked.filter.asymmetry_nanos());
    tracked.history.push_back(entry);
}

/// A one-way model holds between one device clock and one host clock.
fn one_way_key(device: &ClockId, host: &ClockId) -> ClockId {
    ClockId::session(device.as_str(), host.as_str())
}

fn aligned(estimate: Estimate, more_sd_nanos: f64, asymmetry_nanos: i64) -> Aligned {
    let sd = (estimate.sd_nanos * estimate.sd_nanos + more_sd_nanos * more_sd_nanos).sqrt();
    Aligned {
        time: TaiNanos(estimate.nanos),
        uncertainty_nanos: sd.ceil() as i64,
        asymmetry_nanos,
    }
}
