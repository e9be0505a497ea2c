//! Commands to devices: lease, review, send, and what became of them.
//!
//! Nothing here trusts the page: interlocks are checked on review and again on send, limits always, and a command
//! counts as applied only when the device's own read-back comes in on `<device>/acks`.

mod issue;
mod views;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orrery_bus::SharedBus;
use orrery_protocol::{AlignedBlock, BootId, Clock, DeviceId, MonoNanos, PublicKey, SealKey};

use crate::graph::{ChannelRef, Condition, ControlChannel};
use crate::handle::{GraphHandle, lock};
use crate::interlocks::{self, Evidence, Report};
use crate::readings::Readings;
use crate::refusal::Refusal;
use crate::units;

pub use views::{Change, ChannelView, CommandStatus, ControlView, LeaseView, Review, ReviewedChange};

const LEASE: Duration = Duration::from_secs(30 * 60);
const REVIEW: Duration = Duration::from_secs(30);
const PREDICT_S: u32 = 90;
const MOST_REVIEWS: usize = 64;
/// A week.
const MOST_HOLD_S: f64 = 604_800.0;
/// The stream name on which agents acknowledge.
const ACKS: &str = "acks";

/// Who may change things, until when.
#[derive(Debug, Clone, PartialEq)]
struct Lease {
    holder: String,
    until: MonoNanos,
}

struct StoredReview {
    review: Review,
    changes: Vec<Change>,
    until: MonoNanos,
    by: String,
}

#[derive(Default)]
struct Inner {
    lease: Option<Lease>,
    reviews: VecDeque<StoredReview>,
    commands: BTreeMap<String, CommandStatus>,
    order: VecDeque<String>,
    readings: Readings,
}

/// Issues commands for the graphs that declare controls.
pub struct Control {
    graphs: Vec<Arc<GraphHandle>>,
    inner: Mutex<Inner>,
    /// The next sequence; held while publishing, so that commands go out in their order.
    sequence: tokio::sync::Mutex<u64>,
    epoch: u64,
    issuer: String,
    apply_within: Duration,
    key: SealKey,
    bus: SharedBus,
    clock: Arc<dyn Clock>,
}

/// What [`Control`] is made of.
pub struct ControlParts {
    /// The loaded graphs.
    pub graphs: Vec<Arc<GraphHandle>>,
    /// Rises with each start.
    pub epoch: u64,
    /// The name commands carry.
    pub issuer: String,
    /// How long delivery may take.
    pub apply_within: Duration,
    /// Signs commands.
    pub key: SealKey,
    /// Carries them.
    pub bus: SharedBus,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Control {
    /// Control over the graphs' channels.
    pub fn new(parts: ControlParts) -> Self {
        let ControlParts {
            graphs,
            epoch,
            issuer,
            apply_within,
            key,
            bus,
            clock,
        } = parts;
        Self {
            graphs,
            inner: Mutex::default(),
            sequence: tokio::sync::Mutex::new(0),
            epoch,
            issuer,
            apply_within,
            key,
            bus,
            clock,
        }
    }

    /// What commands verify with.
    pub fn public_key(&self) -> PublicKey {
        self.key.public()
    }

    /// Takes up a block of measurements or acknowledgements.
    pub fn observe(&self, block: &AlignedBlock) {
        let mut inner = lock(&self.inner);
        inner.readings.update(block, self.watched());
        if block.stream.name() == ACKS {
            for row in 0..block.len() {
                issue::acknowledge(&mut inner.commands, block, row);
            }
        }
    }

    /// Whether blocks of this stream matter here.
    pub fn watches(&self, stream: &str) -> bool {
        stream.split_once('/').is_some_and(|(device, name)| {
            name == ACKS && self.channels().any(|(_, control)| control.device.as_str() == device)
        }) || self
            .graphs
            .iter()
            .any(|graph| graph.file.graph.streams.keys().any(|id| id.as_str() == stream))
    }

    /// Channels, interlocks and lease as they stand.
    pub fn view(&self) -> ControlView {
        let now = self.clock.wall();
        let readings = lock(&self.inner).readings.clone();
        let view = |graph: &GraphHandle, control: &ControlChannel| {
            let reading = readings.get(&control.readback);
            ChannelView {
                graph: graph.id().to_owned(),
                input: control.input.clone(),
                device: control.device.clone(),
                channel: control.channel.clone(),
                title: control.title.clone(),
                unit: control.unit.clone(),
                value: reading.map(|reading| reading.value),
                low: control.low,
                high: control.high,
                age_s: reading.map(|reading| interlocks::age(reading.at, now)),
            }
        };
        ControlView {
            channels: self.channels().map(|(graph, control)| view(graph, control)).collect(),
            interlocks: self.judge(&[]),
            lease: self.lease(),
        }
    }

    /// Takes or renews the lease.
    ///
    /// # Errors
    /// [`Refusal::LeaseHeld`] while another holds it.
    pub fn take_lease(&self, who: &str) -> Result<LeaseView, Refusal> {
        let now = self.clock.monotonic();
        {
            let mut inner = lock(&self.inner);
            if let Some(lease) = inner
                .lease
                .as_ref()
                .filter(|lease| lease.until > now && lease.holder != who)
            {
                return Err(Refusal::LeaseHeld {
                    holder: lease.holder.clone(),
                });
            }
            inner.lease = Some(Lease {
                holder: who.to_owned(),
                until: now.plus(LEASE),
            });
        }
        self.lease().ok_or(Refusal::NoLease)
    }

    /// Gives the lease back; nothing happens to another's.
    pub fn release_lease(&self, who: &str) {
        let mut inner = lock(&self.inner);
        inner.lease.take_if(|lease| lease.holder == who);
    }

    /// Says what a change would do, and keeps it for sending.
    ///
    /// # Errors
    /// [`Refusal`] when a change names no channel or the lease is another's.
    pub fn review(&self, changes: Vec<Change>, who: &str) -> Result<Review, Refusal> {
        self.need_lease(who)?;
        let reviewed = self.reviewed(&changes)?;
        let interlocks = self.judge(&changes);
        let review = Review {
            review_id: self.new_id()?,
            expires_ms: self.clock.wall().plus(REVIEW).to_unix_millis(),
            changes: reviewed,
            prediction: self.prediction(&changes),
            allowed: interlocks.iter().all(|report| report.ok),
            interlocks,
        };
        let mut inner = lock(&self.inner);
        if inner.reviews.len() >= MOST_REVIEWS {
            inner.reviews.pop_front();
        }
        let until = self.clock.monotonic().plus(REVIEW);
        inner.reviews.push_back(StoredReview {
            review: review.clone(),
            changes,
            until,
            by: who.to_owned(),
        });
        Ok(review)
    }

    /// Sends a reviewed change, once, after checking everything again.
    ///
    /// # Errors
    /// [`Refusal`] when the review is unknown, too old or another's, or an interlock no longer holds.
    pub async fn send(self: &Arc<Self>, review_id: &str, who: &str) -> Result<Vec<CommandStatus>, Refusal> {
        self.need_lease(who)?;
        let now = self.clock.monotonic();
        let stored = {
            let mut inner = lock(&self.inner);
            let at = inner
                .reviews
                .iter()
                .position(|stored| stored.review.review_id == review_id && stored.by == who);
            at.and_then(|at| inner.reviews.remove(at))
                .ok_or_else(|| Refusal::UnknownReview(review_id.to_owned()))?
        };
        if stored.until <= now {
            return Err(Refusal::ReviewExpired);
        }
        self.check_and_issue(stored.changes, who, Some(review_id)).await
    }

    /// Reviews and sends in one, all of the changes or none: for the command line. Takes no lease, but respects another's.
    ///
    /// # Errors
    /// [`Refusal`] as for review and send.
    pub async fn set(self: &Arc<Self>, changes: Vec<Change>, who: &str) -> Result<Vec<CommandStatus>, Refusal> {
        if let Some(lease) = self.lease().filter(|lease| lease.holder != who) {
            return Err(Refusal::LeaseHeld { holder: lease.holder });
        }
        self.check_and_issue(changes, who, None).await
    }

    /// Sends every channel, or those of one device, its off value: no review, no lease, no interlock stands in the way.
    ///
    /// # Errors
    /// [`Refusal::UnknownChannel`] when there is none, [`Refusal::Bus`] when the command cannot be made durable.
    pub async fn off(&self, device: Option<&DeviceId>, who: &str) -> Result<Vec<CommandStatus>, Refusal> {
        let changes: Vec<Change> = self
            .channels()
            .filter(|(_, control)| device.is_none_or(|device| device == &control.device))
            .map(|(_, control)| Change {
                device: control.device.clone(),
                channel: control.channel.clone(),
                value: control.off,
                hold_s: None,
            })
            .collect();
        if changes.is_empty() {
            return Err(self.unknown(device.map_or("off", DeviceId::as_str)));
        }
        self.issue(changes, who, None, &[]).await
    }

    fn reviewed(&self, changes: &[Change]) -> Result<Vec<ReviewedChange>, Refusal> {
        if changes.is_empty() {
            return Err(Refusal::NoChange);
        }
        let readings = lock(&self.inner).readings.clone();
        let mut seen = BTreeSet::new();
        let reviewed = |change: &Change| {
            let (_, control) = self
                .channel(change)
                .ok_or_else(|| self.unknown(&format!("{}/{}", change.device, change.channel)))?;
            if let Some(hold_s) = change
                .hold_s
                .filter(|hold_s| !(*hold_s > 0.0 && *hold_s <= MOST_HOLD_S))
            {
                return Err(Refusal::Range(format!(
                    "hold_s of {}/{} is {hold_s}; choose more than 0, up to {MOST_HOLD_S}, or leave it out to hold the \
                     value until it is changed.",
                    change.device, change.channel
                )));
            }
            if !seen.insert((change.device.clone(), change.channel.clone())) {
                return Err(Refusal::Twice(format!("{}/{}", change.device, change.channel)));
            }
            Ok(ReviewedChange {
                device: change.device.clone(),
                channel: change.channel.clone(),
                from: readings.get(&control.readback).map(|reading| reading.value),
                to: change.value,
                hold_s: change.hold_s,
            })
        };
        changes.iter().map(reviewed).collect()
    }

    /// Every interlock of every graph that the changes concern (all of them when there is no change).
    fn judge(&self, changes: &[Change]) -> Vec<Report> {
        let mut reports: Vec<Report> = changes
            .iter()
            .filter_map(|change| {
                self.channel(change)
                    .map(|(_, control)| interlocks::range(control, change.value))
            })
            .collect();
        if reports.iter().any(|report| !report.ok) {
            return reports; // A value outside its limits is not worth a prediction.
        }
        let (readings, now) = (lock(&self.inner).readings.clone(), self.clock.wall());
        for graph in &self.graphs {
            let set = inputs_of(graph, changes);
            if !changes.is_empty() && set.is_empty() {
                continue;
            }
            let ahead = |horizon_s| {
                graph
                    .look(&set, horizon_s, self.clock.as_ref())
                    .map_err(|error| error.to_string())
            };
            reports.extend(interlocks::check(
                &graph.file.graph,
                &Evidence {
                    readings: &readings,
                    now,
                    ahead: &ahead,
                },
            ));
        }
        reports
    }

    /// The model's answer in words: the output that the change moves most.
    fn prediction(&self, changes: &[Change]) -> String {
        for graph in &self.graphs {
            let set = inputs_of(graph, changes);
            if set.is_empty() {
                continue;
            }
            let looks = (
                graph.look(&[], PREDICT_S, self.clock.as_ref()),
                graph.look(&set, PREDICT_S, self.clock.as_ref()),
            );
            let (Ok(held), Ok(changed)) = looks else {
                return "No prediction: the twin is not running.".to_owned();
            };
            let moved = |output: &str| {
                (changed.summary[output].at_end - held.summary.get(output).map_or(0.0, |summary| summary.at_end)).abs()
            };
            let most = changed.summary.keys().max_by(|a, b| moved(a).total_cmp(&moved(b)));
            if let Some(output) = most {
                let unit = graph
                    .file
                    .graph
                    .outputs
                    .get(output)
                    .map_or("", |binding| units::display(&binding.unit));
                let title = interlocks::title(&graph.file.graph, output);
                let at_end = changed.summary[output].at_end;
                return format!(
                    "{title} reaches {at_end:.1} {unit} in {}",
                    interlocks::horizon(PREDICT_S)
                );
            }
        }
        "No prediction: no twin takes this channel.".to_owned()
    }

    fn unknown(&self, asked: &str) -> Refusal {
        let known = |(_, known): (_, &ControlChannel)| format!("{}/{}", known.device, known.channel);
        Refusal::UnknownChannel {
            asked: asked.to_owned(),
            known: self.channels().map(known).collect(),
        }
    }

    fn channels(&self) -> impl Iterator<Item = (&Arc<GraphHandle>, &ControlChannel)> {
        self.graphs
            .iter()
            .flat_map(|graph| graph.file.graph.controls.iter().map(move |control| (graph, control)))
    }

    fn channel(&self, change: &Change) -> Option<(&Arc<GraphHandle>, &ControlChannel)> {
        self.channels()
            .find(|(_, control)| control.device == change.device && control.channel == change.channel)
    }

    fn watched(&self) -> impl Iterator<Item = ChannelRef> {
        self.graphs.iter().flat_map(|graph| {
            let below = graph
                .file
                .graph
                .interlocks
                .iter()
                .filter_map(|interlock| match &interlock.condition {
                    Condition::Below { channels, .. } => Some(channels.clone()),
                    _ => None,
                });
            let readback = graph.file.graph.controls.iter().map(|control| control.readback.clone());
            below.flatten().chain(readback)
        })
    }

    fn lease(&self) -> Option<LeaseView> {
        let now = self.clock.monotonic();
        let inner = lock(&self.inner);
        let lease = inner.lease.as_ref().filter(|lease| lease.until > now)?;
        let expires = self.clock.wall().plus(lease.until.since(now));
        Some(LeaseView {
            holder: lease.holder.clone(),
            expires_ms: expires.to_unix_millis(),
        })
    }

    fn need_lease(&self, who: &str) -> Result<(), Refusal> {
        match self.lease() {
            Some(lease) if lease.holder == who => Ok(()),
            Some(lease) => Err(Refusal::LeaseHeld { holder: lease.holder }),
            None => Err(Refusal::NoLease),
        }
    }

    fn new_id(&self) -> Result<String, Refusal> {
        let mut random = [0u8; 10];
        getrandom::fill(&mut random).map_err(|error| Refusal::Randomness(error.to_string()))?;
        Ok(BootId::new(self.clock.wall(), random).to_string())
    }
}

/// (model input, value) for the changes that this graph's model sees.
fn inputs_of(graph: &GraphHandle, changes: &[Change]) -> Vec<(String, f64)> {
    let controls = &graph.file.graph.controls;
    let input = |change: &Change| {
        let control = controls
            .iter()
            .find(|control| control.device == change.device && control.channel == change.channel)?;
        Some((control.input.clone(), change.value))
    };
    changes.iter().filter_map(input).collect()
}
