//! Store and forward: sealed envelopes in a journal until the sink has them.
//!
//! Beside the journal lies `state.json`, replaced durably:
//! - `heads`: per device, boot, sequence and digest of its last envelope. Written before anything is truncated, so a device's next boot
//!   always finds its `previous`, in the journal or here.
//! - `sent`: the next offset to send. It may lag after a crash; what is sent twice is a harmless duplicate.
//! - `acknowledged`: per device, the boot and sequence up to which it was sent. What lies between there and the head and is not in
//!   the journal, damage took: it becomes a loss (`spool/survey.rs`).
//! - `losses`: ranges given up and not yet declared by a sealed `loss` record. Written before the ranges go.
//! - `declared`: those that were declared since, until what is sent has passed them: the same damage is not declared again.
//! - `descriptors`: the version counter of each stream's descriptor.

mod survey;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use orrery_bus::Record;
use orrery_bus::journal::{Batch, Journal, JournalError, JournalOptions};
use orrery_protocol::{BootId, Clock, DeviceId, Digest, LossPayload, PayloadType, Sealed, StreamId, Unverified};
use serde::{Deserialize, Serialize};

use self::survey::Survey;
use crate::error::Error;
use crate::files;
use crate::status::Status;

/// Marks a record that a full spool may give up.
const DROPPABLE: &str = "droppable";

/// The last envelope of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its boot.
    pub boot_id: BootId,
    /// Its sequence.
    pub sequence: u64,
    /// The digest of its bytes: the next envelope's `previous`.
    pub digest: Digest,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct State {
    sent: u64,
    acknowledged: BTreeMap<DeviceId, (BootId, u64)>,
    heads: BTreeMap<DeviceId, Head>,
    losses: BTreeMap<DeviceId, Vec<LossPayload>>,
    /// Ranges about to be given up: in the file they are losses already, and nobody declares them before they are gone.
    #[serde(skip)]
    giving_up: BTreeMap<DeviceId, Vec<LossPayload>>,
    /// Those that sealed records declare, until what was sent has passed them: damage that is found again is not news.
    declared: BTreeMap<DeviceId, Vec<LossPayload>>,
    descriptors: BTreeMap<StreamId, (u32, Digest)>,
}

/// The spool of one agent.
pub struct Spool {
    journal: Arc<Journal>,
    state: Mutex<State>,
    state_file: PathBuf,
    /// One writer of the state file at a time.
    saving: Mutex<()>,
    max_bytes: u64,
    segment_bytes: u64,
    sent: AtomicU64,
    making_room: tokio::sync::Mutex<()>,
    status: Arc<Status>,
}

impl Spool {
    /// Opens the spool, reading back what a crash left. Blocks.
    ///
    /// # Errors
    /// Names the folder or file that cannot be used. Damage inside the journal is quarantined, not an error.
    pub fn open(folder: &Path, max_bytes: u64, clock: Arc<dyn Clock>, status: Arc<Status>) -> Result<Self, Error> {
        files::make_folder(folder)?;
        let state_file = folder.join("state.json");
        let remedy =
            "restore it from a backup, or remove it: the devices' chains then start without a link to their last boot";
        let mut state: State = files::read_json(&state_file, remedy)?.unwrap_or_default();
        // Space is freed by whole segments: sixteen of them fill the spool.
        let segment_bytes = (max_bytes / 16).clamp(64 << 10, 64 << 20);
        let options = JournalOptions {
            segment_bytes,
            ..JournalOptions::default()
        };
        let journal = Journal::open(&folder.join("journal"), options, clock).map_err(|source| Error::Spool {
            path: folder.to_owned(),
            source: source.into(),
        })?;
        let survey = Survey::of(&journal).map_err(|source| Error::Spool {
            path: folder.to_owned(),
            source: source.into(),
        })?;
        survey.raise(&mut state.heads);
        if journal.stats().quarantined > 0 {
            for (device, lost) in survey.lost(&state) {
                let count = lost.iter().map(|loss| loss.last - loss.first + 1).sum();
                tracing::error!(
                    %device, envelopes = count, spool = %folder.display(),
                    "the spool is damaged: what it held is lost and declared in signed loss records; check the disk"
                );
                status.device(&device).dropped.add(count);
                state.losses.entry(device).or_default().extend(lost);
            }
        }
        let sent = state
            .sent
            .clamp(journal.first_offset().min(journal.next_offset()), journal.next_offset());
        status.spool_quarantined.add(journal.stats().quarantined);
        let spool = Self {
            journal: Arc::new(journal),
            state: Mutex::new(state),
            state_file,
            saving: Mutex::new(()),
            max_bytes,
            segment_bytes,
            sent: AtomicU64::new(sent),
            making_room: tokio::sync::Mutex::new(()),
            status,
        };
        spool.show();
        Ok(spool)
    }

    /// The last envelope of a device, in this boot or an earlier one.
    pub fn head(&self, device: &DeviceId) -> Option<Head> {
        self.state().heads.get(device).copied()
    }

    /// The version that a stream's descriptor has: it rises when the content differs from last time.
    ///
    /// # Errors
    /// When the state file cannot be written.
    pub fn descriptor_version(&self, stream: &StreamId, content: Digest) -> Result<u32, Error> {
        {
            let mut state = self.state();
            let (version, held) = state.descriptors.get(stream).copied().unwrap_or((0, content));
            if version > 0 && held == content {
                return Ok(version);
            }
            state.descriptors.insert(stream.clone(), (version + 1, content));
        }
        self.save()?;
        Ok(self.state().descriptors.get(stream).map_or(1, |(version, _)| *version))
    }

    /// Appends sealed envelopes of one device in their order; resolves when they are durable. Waits out a full disk and a
    /// spool full of what may not be dropped: the envelopes are part of a chain and must not vanish.
    pub async fn append(&self, envelopes: &[Sealed], is_droppable: bool) {
        let records: Vec<Record> = envelopes.iter().map(|sealed| record(sealed, is_droppable)).collect();
        let mut was_told = false;
        loop {
            let room = self.make_room().await;
            let has_room = matches!(room, Ok(true));
            // Only samples wait: heartbeats, clocks and losses are small, and what they say frees the spool.
            let may_wait = envelopes
                .iter()
                .all(|sealed| sealed.claims.payload_type == PayloadType::Samples);
            if has_room || !may_wait {
                match self.journal.append(records.clone()).await {
                    Ok(_) => break,
                    // The journal says so, once.
                    Err(error) => {
                        self.status.spool_failures.increment();
                        self.status.set_spool_problem(Some(error.to_string()));
                    }
                }
            } else if let Err(error) = room {
                self.status.spool_failures.increment();
                let problem = format!("cannot free the spool: {error}");
                if self.status.spool_problem().as_ref() != Some(&problem) {
                    tracing::error!("{problem}");
                }
                self.status.set_spool_problem(Some(problem));
            } else if !std::mem::replace(&mut was_told, true) {
                tracing::warn!(
                    max_bytes = self.max_bytes,
                    "the spool is full of samples that may not be dropped: devices wait until the sink takes some; \
                     check the connection to the gateway, or raise spool.max_bytes"
                );
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        if let Some(last) = envelopes.last() {
            let Sealed { claims, digest, .. } = last;
            let head = Head {
                boot_id: claims.boot_id,
                sequence: claims.sequence,
                digest: *digest,
            };
            self.state().heads.insert(claims.device_id.clone(), head);
        }
        if self.status.spool_problem().is_some() {
            self.status.set_spool_problem(None);
        }
        self.show();
    }

    /// Waits until there is something to send.
    pub async fn wait(&self) {
        self.journal.wait(self.sent.load(Ordering::Relaxed)).await;
    }

    /// Whether everything was sent.
    pub fn is_sent(&self) -> bool {
        self.sent.load(Ordering::Relaxed) >= self.journal.next_offset()
    }

    /// The oldest envelopes that were not sent, up to about `max_bytes`.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub async fn unsent(&self, max_bytes: usize) -> Result<Batch, JournalError> {
        let (journal, from) = (Arc::clone(&self.journal), self.sent.load(Ordering::Relaxed));
        blocking(move || journal.read(from, max_bytes)).await
    }

    /// Notes that what [`Spool::unsent`] gave was acknowledged.
    pub fn set_sent(&self, batch: &Batch) {
        {
            let mut state = self.state();
            // One look a device: a batch is in sequence order but for what a full spool moved behind, which stands for itself.
            let mut last = BTreeMap::new();
            for entry in &batch.entries {
                last.insert(&entry.record.key, &entry.record.value);
            }
            for envelope in last
                .into_values()
                .filter_map(|value| Unverified::parse(value.to_vec()).ok())
            {
                let claims = envelope.claims();
                let place = (claims.boot_id, claims.sequence);
                let held = state.acknowledged.entry(claims.device_id.clone()).or_insert(place);
                *held = place.max(*held);
            }
        }
        self.sent.fetch_max(batch.next, Ordering::Relaxed);
        self.show();
    }

    /// Writes the state durably and frees what was sent.
    ///
    /// # Errors
    /// When the state file cannot be written; nothing is freed then.
    pub async fn checkpoint(self: &Arc<Self>) -> Result<(), Error> {
        let this = Arc::clone(self);
        blocking(move || {
            let sent = this.sent.load(Ordering::Relaxed);
            // The heads first: an envelope may only go when the state names its successor's `previous`.
            this.save()?;
            if let Err(error) = this.journal.truncate_before(sent) {
                tracing::warn!("{error}");
            }
            this.show();
            Ok(())
        })
        .await
    }

    /// Ranges of a device that were given up and not yet declared.
    pub fn undeclared_losses(&self, device: &DeviceId) -> Vec<LossPayload> {
        self.state().losses.get(device).cloned().unwrap_or_default()
    }

    /// Takes note of losses that are declared by sealed, durable records.
    ///
    /// # Errors
    /// When the state file cannot be written: they will be declared again, which is harmless.
    pub fn declared(&self, device: &DeviceId, losses: &[LossPayload]) -> Result<(), Error> {
        {
            let mut state = self.state();
            if let Some(held) = state.losses.get_mut(device) {
                held.retain(|loss| !losses.contains(loss));
                if held.is_empty() {
                    state.losses.remove(device);
                }
            }
            let sent = state.acknowledged.get(device).copied();
            let declared = state.declared.entry(device.clone()).or_default();
            declared.retain(|loss| sent.is_none_or(|sent| (loss.boot_id, loss.last) > sent));
            declared.extend_from_slice(losses);
        }
        self.save()
    }

    /// Frees the oldest segments when the spool is over its limit. False when what is there may not be dropped.
    async fn make_room(&self) -> Result<bool, Error> {
        if self.journal.stats().bytes <= self.max_bytes {
            return Ok(true);
        }
        let _one_at_a_time = self.making_room.lock().await;
        while self.journal.stats().bytes > self.max_bytes {
            if !self.drop_oldest().await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Gives up the droppable envelopes of the oldest segment; the others move to the end.
    async fn drop_oldest(&self) -> Result<bool, Error> {
        let read_error = |source: JournalError| Error::Spool {
            path: self.state_file.clone(),
            source: source.into(),
        };
        let first = self.journal.first_offset();
        let journal = Arc::clone(&self.journal);
        let bytes = self.segment_bytes as usize;
        let batch = blocking(move || journal.read(first, bytes)).await.map_err(read_error)?;
        let sent = self.sent.load(Ordering::Relaxed);
        let before = self.journal.stats().bytes;
        let mut kept = Vec::new();
        let mut losses = Losses::default();
        for entry in batch.entries.into_iter().filter(|entry| entry.offset >= sent) {
            if entry.record.headers.iter().any(|(name, _)| name == DROPPABLE) {
                losses.add(&entry.record.value);
            } else {
                kept.push(entry.record);
            }
        }
        let kept_bytes: usize = kept.iter().map(Record::size).sum();
        if kept_bytes * 2 > bytes {
            return Ok(false);
        }
        let dropped = losses.count;
        self.state().giving_up = losses.ranges;
        // Durable before anything goes: first what was lost and the heads, then the copies, then the truncation.
        let mut is_kept = self.save();
        if is_kept.is_ok() && !kept.is_empty() {
            is_kept = self.journal.append(kept).await.map(drop).map_err(read_error);
        }
        let given_up = std::mem::take(&mut self.state().giving_up);
        // On an error nothing is given up: all of it will be sent.
        is_kept?;
        self.sent.fetch_max(batch.next, Ordering::Relaxed);
        for (device, ranges) in given_up {
            let count = ranges.iter().map(|range| range.last - range.first + 1).sum();
            self.status.device(&device).dropped.add(count);
            self.state().losses.entry(device).or_default().extend(ranges);
        }
        let (journal, next) = (Arc::clone(&self.journal), batch.next);
        blocking(move || journal.truncate_before(next))
            .await
            .map_err(read_error)?;
        if dropped > 0 {
            tracing::warn!(
                envelopes = dropped,
                "the spool is full: the oldest samples were given up, with a signed loss record"
            );
        }
        Ok(self.journal.stats().bytes < before)
    }

    fn save(&self) -> Result<(), Error> {
        let _one_at_a_time = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let state = {
            let mut state = self.state();
            state.sent = self.sent.load(Ordering::Relaxed);
            let mut state = state.clone();
            for (device, ranges) in std::mem::take(&mut state.giving_up) {
                state.losses.entry(device).or_default().extend(ranges);
            }
            state
        };
        files::write_json(&self.state_file, &state)
    }

    fn show(&self) {
        let backlog = self
            .journal
            .next_offset()
            .saturating_sub(self.sent.load(Ordering::Relaxed));
        self.status.set_spool(self.journal.stats().bytes, backlog);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn record(sealed: &Sealed, is_droppable: bool) -> Record {
    let key = Bytes::copy_from_slice(sealed.claims.device_id.as_str().as_bytes());
    let record = Record::new(key, sealed.bytes.clone());
    if is_droppable {
        record.with_headers(vec![(DROPPABLE.to_owned(), String::new())])
    } else {
        record
    }
}

/// Envelopes given up, as ranges of sequences.
#[derive(Default)]
struct Losses {
    ranges: BTreeMap<DeviceId, Vec<LossPayload>>,
    count: u64,
}

impl Losses {
    fn add(&mut self, bytes: &Bytes) {
        // What cannot be read cannot be declared; the receiver sees it as a pending hole.
        let Ok(envelope) = Unverified::parse(bytes.to_vec()) else {
            return;
        };
        let claims = envelope.claims();
        let sequence = claims.sequence;
        self.count += 1;
        let ranges = self.ranges.entry(claims.device_id.clone()).or_default();
        if let Some(last) = ranges.last_mut()
            && last.boot_id == claims.boot_id
            && last.last + 1 == sequence
        {
            last.last = sequence;
            last.last_digest = envelope.digest();
            return;
        }
        ranges.push(LossPayload {
            boot_id: claims.boot_id,
            first: sequence,
            last: sequence,
            reason: "the spool was full".to_owned(),
            last_digest: envelope.digest(),
        });
    }
}

/// Runs blocking disk work off the runtime's threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}
