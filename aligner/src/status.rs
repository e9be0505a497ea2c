//! What people see of devices and streams, as JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use orrery_protocol::{ClockKind, Descriptor, DeviceId, MonoNanos, StreamId, TaiNanos};
use serde::Serialize;
use serde_json::{Value, json};

use crate::clocks::{Place, Stamps};
use crate::engine::{Engine, StreamState};
use crate::store::View;

/// A stream with what the store holds of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StreamInfo {
    /// Its name.
    pub stream: String,
    /// Its latest descriptor; none for a trace nobody described.
    #[serde(flatten)]
    pub descriptor: Option<Described>,
    /// Rows stored; 64-bit integers are strings.
    pub rows: String,
    /// First row's time.
    pub from: Option<String>,
    /// Last row's time.
    pub to: Option<String>,
}

/// A descriptor without the name, which stands beside it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Described {
    /// Digest of the descriptor.
    pub descriptor: String,
    /// Its version.
    pub version: u32,
    /// A title for people.
    pub title: String,
    /// How it is read.
    pub protocol: String,
    /// The channels.
    pub channels: Vec<orrery_protocol::Channel>,
    /// Samples a second.
    pub nominal_rate_hz: Option<f64>,
    /// How long it may say nothing.
    pub max_silence_ms: Option<u64>,
    /// The calibration the values went through.
    pub calibration: Option<String>,
}

impl Described {
    fn of(descriptor: &Arc<Descriptor>) -> Self {
        Self {
            descriptor: descriptor.digest().to_string(),
            version: descriptor.version,
            title: descriptor.title.clone(),
            protocol: descriptor.protocol.clone(),
            channels: descriptor.channels.clone(),
            nominal_rate_hz: descriptor.nominal_rate_hz,
            max_silence_ms: descriptor.max_silence_ms,
            calibration: descriptor.calibration.clone(),
        }
    }
}

impl View {
    /// The streams of this commit.
    pub fn stream_infos(&self) -> Vec<StreamInfo> {
        self.streams()
            .map(|(stream, table)| {
                let span = table.span();
                StreamInfo {
                    stream: stream.to_string(),
                    descriptor: table.descriptor().map(Described::of),
                    rows: table.rows().to_string(),
                    from: span.map(|(from, _)| from.to_rfc3339()),
                    to: span.map(|(_, to)| to.to_rfc3339()),
                }
            })
            .collect()
    }
}

impl Engine {
    /// The body of `GET /devices`.
    pub fn devices_json(&self, now: TaiNanos) -> Value {
        let devices: Vec<Value> = self
            .door
            .devices()
            .keys()
            .map(|device| self.device_json(device, now))
            .collect();
        json!({ "devices": devices })
    }

    fn device_json(&self, id: &DeviceId, now: TaiNanos) -> Value {
        let device = self.door.devices().get(id).cloned().unwrap_or_default();
        let activity = self.activity.get(id).cloned().unwrap_or_default();
        let streams: Vec<(&StreamId, &StreamState)> = self
            .streams
            .iter()
            .filter(|(stream, _)| stream.device() == *id)
            .collect();
        let measured = streams
            .iter()
            .filter(|(stream, _)| !matches!(stream.name(), "acks" | "log" | "events"));
        let main = measured
            .clone()
            .find_map(|(_, state)| Some((state.latest.clone()?, *state)));
        let descriptor = main.as_ref().map(|(descriptor, _)| descriptor);
        let mut counters: BTreeMap<&str, String> = [
            "accepted",
            "duplicates",
            "forged",
            "equivocations",
            "revoked",
            "late_rows",
        ]
        .into_iter()
        .map(|name| (name, "0".to_owned()))
        .collect();
        counters.extend(
            activity
                .counters
                .iter()
                .map(|(name, count)| (name.as_str(), count.to_string())),
        );
        let breaks: u64 = self.door.chains_of(id).map(|(_, chain)| chain.breaks).sum();
        counters.insert("chain_breaks", breaks.to_string());
        let agent: BTreeMap<&str, String> = activity
            .agent
            .iter()
            .map(|(name, n)| (name.as_str(), n.to_string()))
            .collect();
        json!({
            "device_id": id.as_str(),
            "title": device.title.or_else(|| descriptor.map(|d| d.title.clone())).unwrap_or_else(|| id.to_string()),
            "protocol": device.protocol.or_else(|| descriptor.map(|d| d.protocol.clone())),
            "state": self.state_of(measured.map(|(_, state)| *state), &activity, now),
            "last_sample": activity.last_sample.map(TaiNanos::to_rfc3339),
            "streams": streams.iter().map(|(stream, _)| stream.as_str()).collect::<Vec<_>>(),
            "rate": {
                "observed_hz": main.as_ref().and_then(|(_, state)| state.observed_hz()),
                "nominal_hz": descriptor.and_then(|d| d.nominal_rate_hz),
            },
            "clock": self.clock_json(id),
            "gaps": self.gaps_json(id),
            "counters": counters,
            "agent_counters": agent,
            "keys": device.keys.iter().map(|key| json!({
                "kid": key.public.key_id().to_string(),
                "cose_key": base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(key.public.to_cose_key()),
                "enrolled_at": key.enrolled_at.to_rfc3339(),
                "state": if key.revoked.is_some() { "revoked" } else { "valid" },
            })).collect::<Vec<_>>(),
        })
    }

    /// `live`: samples as fresh as promised. `silent`: no samples, but the agent speaks. `stale`: nothing at all.
    fn state_of<'a>(
        &self,
        streams: impl Iterator<Item = &'a StreamState>,
        activity: &crate::engine::Activity,
        now: TaiNanos,
    ) -> &'static str {
        let live = streams
            .filter_map(|state| Some((state.latest.as_ref()?, state.persistent.watermark.latest()?)))
            .any(|(descriptor, latest)| {
                let by_rate = descriptor.nominal_rate_hz.map(|hz| (3.0e9 / hz.max(1e-6)) as i64);
                let promised = descriptor
                    .max_silence_ms
                    .map(|ms| i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000_000));
                let allowed = promised.or(by_rate).unwrap_or(5_000_000_000).max(2_000_000_000);
                now.nanos_since(latest) <= allowed
            });
        let heard = activity
            .last_heard
            .is_some_and(|at| now.nanos_since(at) <= 15_000_000_000);
        match (live, heard) {
            (true, _) => "live",
            (false, true) => "silent",
            (false, false) => "stale",
        }
    }

    /// The clock that stamps a device's samples: how far ahead of UTC it is, and how fast it drifts.
    fn clock_json(&self, id: &DeviceId) -> Value {
        let (Some(clocks), Some(activity)) = (self.clocks.get(id), self.activity.get(id)) else {
            return Value::Null;
        };
        let Some((host, device)) = &activity.stamped_by else {
            return Value::Null;
        };
        let place = Place {
            boot: orrery_protocol::BootId([0xff; 16]),
            sequence: u64::MAX,
        };
        let stamps = Stamps {
            host,
            device: device.as_ref(),
            place,
        };
        let Some(model) = clocks.model(id, stamps, MonoNanos(activity.last_mono), self.one_way_bound_nanos()) else {
            return Value::Null;
        };
        let ahead_nanos = match model.kind {
            ClockKind::Host => clocks.wall_ahead_nanos(host).unwrap_or(0),
            // Device stamps are UTC: what they are ahead of it by is the clock's error.
            ClockKind::RoundTrip | ClockKind::OneWay => {
                let reference = TaiNanos(model.anchor.saturating_add(model.reference_minus_clock_nanos));
                model.anchor.saturating_sub(reference.to_utc().0)
            }
        };
        json!({
            "clock_id": model.clock_id.as_str(),
            "kind": model.kind,
            "offset_ms": ahead_nanos as f64 / 1e6,
            "offset_uncertainty_ms": model.offset_uncertainty_nanos / 1e6,
            // The model says how much faster reference runs; people ask how much faster the clock does.
            "drift_ppm": -model.drift_ppb / 1e3,
            "drift_uncertainty_ppm": model.drift_uncertainty_ppb / 1e3,
            "asymmetry_ms": model.asymmetry_nanos as f64 / 1e6,
        })
    }

    /// The holes in a device's chains; one that ends where nobody knows has no `last` and no `count`.
    pub fn gaps_json(&self, id: &DeviceId) -> Vec<Value> {
        let holes = self
            .door
            .chains_of(id)
            .flat_map(|(boot, chain)| chain.gaps.iter().map(move |gap| (boot, gap)))
            .map(|(boot, gap)| {
                json!({
                    "boot_id": boot.to_string(),
                    "first": gap.first.to_string(),
                    "last": gap.last.to_string(),
                    "count": (gap.last - gap.first).saturating_add(1).to_string(),
                    "from": gap.from.map(TaiNanos::to_rfc3339),
                    "to": gap.to.to_rfc3339(),
                    "state": if gap.lost.is_some() { "lost" } else { "pending" },
                    "reason": gap.lost,
                })
            });
        let ends = self.door.open_ends(id).into_iter().map(|(boot, end)| {
            json!({
                "boot_id": boot.to_string(),
                "first": end.first.to_string(),
                "last": null,
                "count": null,
                "from": end.from.map(TaiNanos::to_rfc3339),
                "to": end.to.to_rfc3339(),
                "state": "pending",
                "reason": null,
            })
        });
        holes.chain(ends).collect()
    }

    /// The holes of a stream's device that touch a window, in the chart's units.
    pub fn window_gaps_json(&self, id: &DeviceId, from: TaiNanos, to: TaiNanos) -> Vec<Value> {
        self.door
            .chains_of(id)
            .flat_map(|(_, chain)| chain.gaps.iter())
            .filter_map(|gap| Some((gap, gap.from?)))
            .filter(|(gap, start)| *start < to && gap.to > from)
            .map(|(gap, start)| {
                json!({
                    "from_ms": start.to_unix_millis(), "to_ms": gap.to.to_unix_millis(),
                    "first": gap.first.to_string(), "last": gap.last.to_string(),
                    "state": if gap.lost.is_some() { "lost" } else { "pending" },
                })
            })
            .collect()
    }

    /// Counters of the whole service.
    pub fn status_json(&self, view: &View) -> Value {
        let mut totals: BTreeMap<String, u64> = self.strangers.clone();
        for activity in self.activity.values() {
            for (name, count) in &activity.counters {
                *totals.entry(name.clone()).or_default() += count;
            }
        }
        let totals: BTreeMap<String, String> = totals.into_iter().map(|(name, n)| (name, n.to_string())).collect();
        let watermarks: BTreeMap<String, Option<String>> = self
            .streams
            .iter()
            .map(|(stream, state)| {
                let watermark = state.watermark();
                (
                    stream.to_string(),
                    (watermark.0 != i64::MIN).then(|| watermark.to_rfc3339()),
                )
            })
            .collect();
        let segments: usize = view.tables.values().map(|table| table.segments.len()).sum();
        let tail: u64 = view.tables.values().map(|table| table.tail_bytes()).sum();
        json!({
            "revision": view.revision.to_string(),
            "committed_at": view.stamp.to_rfc3339(),
            "counters": totals,
            "watermarks": watermarks,
            "segments": segments,
            "tail_bytes": tail.to_string(),
            "pending_bytes": self.pending_bytes().to_string(),
        })
    }
}
