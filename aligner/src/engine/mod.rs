//! The pure core: messages in; rows to keep, records to publish and state to remember out. No I/O, no clock.
//!
//! Everything about a device follows from its own chain in order, so that what other devices do, and when their
//! messages arrive, never shows in its rows.

mod payloads;
mod streams;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use orrery_bus::{Message, Record};
use orrery_protocol::{
    BootId, Claims, ClockId, Descriptor, DeviceId, Digest, Envelope, KeyId, PublicKey, RecordKind, StreamId, Subject,
    TaiNanos, Verified, topics,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::archive::{ArchivedEnvelope, raw_batch};
use crate::clocks::{DeviceClocks, Place};
use crate::columns;
use crate::door::{Admission, Device, Door, Enrolment, Refusal, Verdict};
use crate::store::{Commit, RAW_TABLE, Recovered, View};
use crate::{Config, Error};

pub use streams::StreamState;

/// Records to publish, in order.
pub type Outbox = Vec<(&'static str, Record)>;

/// An envelope whose sequence was accepted before the door's memory begins.
#[derive(Debug)]
pub struct Question {
    envelope: Verified<Envelope>,
    received: TaiNanos,
}

impl Question {
    /// What the envelope claims.
    pub fn claims(&self) -> &Claims {
        self.envelope.claims()
    }
}

/// What is known of a device beside its chain and clocks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Activity {
    /// What happened how often: verdicts, rows, late rows …
    pub counters: BTreeMap<String, u64>,
    /// What the agent counts, from its last heartbeat.
    pub agent: BTreeMap<String, u64>,
    /// When the bus took the last accepted envelope.
    pub last_heard: Option<TaiNanos>,
    /// The last sample's aligned time.
    pub last_sample: Option<TaiNanos>,
    /// The clocks the last block was stamped with: the host's, and the device's own.
    pub stamped_by: Option<(ClockId, Option<ClockId>)>,
    /// The last reading of the host's clock.
    pub last_mono: i64,
    /// The boot heard last.
    pub boot: Option<BootId>,
}

/// The aligner's state machine.
pub struct Engine {
    config: Config,
    pub(crate) door: Door,
    pub(crate) clocks: BTreeMap<DeviceId, DeviceClocks>,
    pub(crate) activity: BTreeMap<DeviceId, Activity>,
    pub(crate) streams: BTreeMap<StreamId, StreamState>,
    /// What cannot be laid at a device's door.
    pub(crate) strangers: BTreeMap<String, u64>,
    /// When something was last said in the log about a device.
    told: BTreeMap<(Option<DeviceId>, &'static str), TaiNanos>,
    /// Next input offsets, committed or not.
    pub(crate) consumed: BTreeMap<(String, u32), u64>,
    revision: u64,
    pending: Pending,
    outbox: Outbox,
}

/// What waits for the next commit.
#[derive(Default)]
struct Pending {
    archive: Vec<ArchivedEnvelope>,
    rows: BTreeMap<String, Vec<RecordBatch>>,
    descriptors: Vec<Arc<Descriptor>>,
    offsets: BTreeMap<(String, u32), u64>,
    devices: BTreeSet<DeviceId>,
    chains: BTreeSet<(DeviceId, BootId)>,
    clocks: BTreeSet<DeviceId>,
    streams: BTreeSet<StreamId>,
    active: BTreeSet<DeviceId>,
    strangers: bool,
    bytes: u64,
}

impl Engine {
    /// Goes on from what the catalog holds.
    ///
    /// # Errors
    /// [`Error::Stored`] when state in the catalog does not decode.
    pub fn recover(config: Config, recovered: &Recovered, view: &View) -> Result<Self, Error> {
        let mut engine = Self {
            config,
            door: Door::new(),
            clocks: BTreeMap::new(),
            activity: BTreeMap::new(),
            streams: BTreeMap::new(),
            strangers: BTreeMap::new(),
            told: BTreeMap::new(),
            consumed: BTreeMap::new(),
            revision: recovered.revision + 1,
            pending: Pending::default(),
            outbox: Vec::new(),
        };
        for (topic, positions) in &recovered.offsets {
            for (partition, next) in positions {
                engine.consumed.insert(((*topic).to_owned(), *partition), *next);
            }
        }
        for (kind, entries) in &recovered.state {
            for (name, value) in entries {
                engine.restore(kind, name, value)?;
            }
        }
        for (stream, table) in view.streams() {
            let state = engine.streams.entry(stream).or_default();
            for (_, descriptor) in &table.descriptors {
                state.add(Arc::clone(descriptor)).map_err(|why| Error::Stored {
                    what: "a descriptor",
                    why,
                })?;
            }
        }
        if let Some(raw) = view.tables.get(RAW_TABLE) {
            for part in &raw.tail {
                engine.restore_digests(&part.batch);
            }
        }
        Ok(engine)
    }

    fn restore(&mut self, kind: &str, name: &str, value: &[u8]) -> Result<(), Error> {
        let device = |name: &str| {
            DeviceId::new(name).map_err(|e| Error::Stored {
                what: "a device id",
                why: e.to_string(),
            })
        };
        match kind {
            "device" => self.door.restore_device(device(name)?, decode("a device", value)?),
            "chain" => {
                let (owner, boot) = name.split_once('/').unwrap_or((name, ""));
                let boot = boot.parse().map_err(|e| Error::Stored {
                    what: "a boot id",
                    why: format!("{e}"),
                })?;
                self.door.restore_chain(device(owner)?, boot, decode("a chain", value)?);
            }
            "clock bank" => drop(self.clocks.insert(device(name)?, decode("clock state", value)?)),
            "stream" => {
                let stream = StreamId::new(name).map_err(|e| Error::Stored {
                    what: "a stream id",
                    why: e.to_string(),
                })?;
                self.streams.entry(stream).or_default().persistent = decode("a stream's state", value)?;
            }
            "counters" if name == "strangers" => self.strangers = decode("counters", value)?,
            "counters" => drop(self.activity.insert(device(name)?, decode("counters", value)?)),
            _ => {}
        }
        Ok(())
    }

    fn restore_digests(&mut self, batch: &RecordBatch) {
        use arrow::array::AsArray;
        let text = |name: &str| {
            batch
                .column_by_name(name)
                .and_then(|column| column.as_string_opt::<i32>().cloned())
        };
        let sequences = batch
            .column_by_name("sequence")
            .map(|c| c.as_primitive::<arrow::datatypes::UInt64Type>().clone());
        let (Some(devices), Some(boots), Some(digests), Some(verdicts), Some(sequences)) = (
            text("device_id"),
            text("boot_id"),
            text("digest"),
            text("verdict"),
            sequences,
        ) else {
            return;
        };
        for row in (0..batch.num_rows()).filter(|row| verdicts.value(*row) == Verdict::Accepted.as_str()) {
            let parsed = (
                DeviceId::new(devices.value(row)),
                boots.value(row).parse(),
                digests.value(row).parse(),
            );
            if let (Ok(device), Ok(boot), Ok(digest)) = parsed {
                self.door.remember(&device, boot, sequences.value(row), digest);
            }
        }
    }

    /// Takes a message of `orrery.raw`.
    pub fn on_raw(&mut self, message: &Message) -> Option<Question> {
        self.note_offset(message);
        let admission = self.door.admit(message.value.to_vec());
        self.on_admission(admission, message.appended, &message.value)
    }

    /// Goes on with a question once the archive has answered.
    pub fn answer(&mut self, question: Question, archived: Option<Digest>) {
        let bytes = Bytes::copy_from_slice(question.envelope.bytes());
        let admission = self.door.decide(question.envelope, archived);
        self.on_admission(admission, question.received, &bytes);
    }

    fn on_admission(&mut self, admission: Admission, received: TaiNanos, bytes: &Bytes) -> Option<Question> {
        match admission {
            Admission::Accepted { envelope, late } => self.on_accepted(&envelope, late, received),
            Admission::Refused(refusal) => self.on_refused(*refusal, received, bytes),
            Admission::Ask(envelope) => {
                return Some(Question {
                    envelope: *envelope,
                    received,
                });
            }
        }
        None
    }

    fn on_accepted(&mut self, envelope: &Verified<Envelope>, late: bool, received: TaiNanos) {
        let claims = envelope.claims();
        let device = claims.device_id.clone();
        self.count(Some(&device), Verdict::Accepted.as_str(), 1);
        if late {
            self.count(Some(&device), "late", 1);
        }
        self.pending.chains.insert((device.clone(), claims.boot_id));
        let activity = self.activity.entry(device).or_default();
        activity.last_heard = Some(received);
        activity.boot = activity.boot.max(Some(claims.boot_id));
        self.archive(envelope, Verdict::Accepted, received);
        let place = Place {
            boot: claims.boot_id,
            sequence: claims.sequence,
        };
        if let Err(reason) = self.on_payload(envelope, place) {
            let count = self.count(Some(&claims.device_id), "bad_payloads", 1);
            let reason = format!("{} payload: {reason}", claims.payload_type.as_str());
            if self.may_tell(Some(&claims.device_id), "bad_payloads", received) {
                tracing::warn!(
                    device = %claims.device_id, sequence = claims.sequence, count, reason,
                    "a signed payload was not understood; its agent may be of another version"
                );
            }
            self.dead_letter(
                "bad_payload",
                &reason,
                Some(claims),
                Bytes::copy_from_slice(envelope.bytes()),
            );
        }
        self.release_watermarks(&claims.device_id);
    }

    fn on_refused(&mut self, refusal: Refusal, received: TaiNanos, bytes: &Bytes) {
        let owner = refusal.claims.as_ref().map(|claims| claims.device_id.clone());
        let known = owner.filter(|device| self.door.devices().contains_key(device));
        let count = self.count(known.as_ref(), refusal.verdict.as_str(), 1);
        if refusal.verdict != Verdict::Duplicate && self.may_tell(known.as_ref(), refusal.verdict.as_str(), received) {
            let claims = refusal.claims.as_ref();
            tracing::warn!(
                device = claims.map_or("unknown", |claims| claims.device_id.as_str()),
                sequence = claims.map(|claims| claims.sequence),
                verdict = refusal.verdict.as_str(),
                count,
                reason = %refusal.reason,
                "an envelope was kept out; it lies in orrery.deadletter"
            );
        }
        if let Some(envelope) = &refusal.verified {
            self.archive(envelope, refusal.verdict, received);
        }
        self.dead_letter(
            refusal.verdict.as_str(),
            &refusal.reason,
            refusal.claims.as_ref(),
            bytes.clone(),
        );
    }

    fn archive(&mut self, envelope: &Verified<Envelope>, verdict: Verdict, received: TaiNanos) {
        self.pending.bytes += envelope.bytes().len() as u64;
        self.pending.archive.push(ArchivedEnvelope {
            claims: envelope.claims().clone(),
            digest: envelope.digest(),
            received,
            verdict: verdict.as_str(),
            bytes: envelope.bytes().to_vec(),
        });
    }

    /// Whether to say this in the log: whoever floods the door must not flood that too.
    fn may_tell(&mut self, device: Option<&DeviceId>, what: &'static str, now: TaiNanos) -> bool {
        const PAUSE: i64 = 10_000_000_000;
        let told = self.told.entry((device.cloned(), what));
        let last = told.or_insert(TaiNanos(i64::MIN));
        let may = now.0.saturating_sub(last.0) >= PAUSE;
        if may {
            *last = now;
        }
        may
    }

    fn dead_letter(&mut self, verdict: &str, reason: &str, claims: Option<&Claims>, bytes: Bytes) {
        let header = |name: &str, value: String| (name.to_owned(), value);
        let mut headers = vec![
            header("orrery-verdict", verdict.to_owned()),
            header("orrery-reason", reason.to_owned()),
        ];
        if let Some(claims) = claims {
            headers.push(header("orrery-device", claims.device_id.to_string()));
            headers.push(header("orrery-boot", claims.boot_id.to_string()));
            headers.push(header("orrery-sequence", claims.sequence.to_string()));
        }
        let key = claims.map_or_else(Bytes::new, |claims| {
            Bytes::copy_from_slice(claims.device_id.as_str().as_bytes())
        });
        self.outbox
            .push((topics::DEADLETTER, Record::new(key, bytes).with_headers(headers)));
    }

    pub(crate) fn count(&mut self, device: Option<&DeviceId>, what: &str, more: u64) -> u64 {
        let counters = match device {
            Some(device) => {
                self.pending.active.insert(device.clone());
                &mut self.activity.entry(device.clone()).or_default().counters
            }
            None => {
                self.pending.strangers = true;
                &mut self.strangers
            }
        };
        match counters.get_mut(what) {
            Some(count) => {
                *count += more;
                *count
            }
            None => {
                counters.insert(what.to_owned(), more);
                more
            }
        }
    }

    fn note_offset(&mut self, message: &Message) {
        let position = message.next_position();
        let input = (message.topic.clone(), position.partition);
        self.consumed.insert(input.clone(), position.offset);
        self.pending.offsets.insert(input, position.offset);
    }

    fn keep_rows(&mut self, table: &str, batch: RecordBatch) {
        self.pending.bytes += batch.get_array_memory_size() as u64;
        match self.pending.rows.get_mut(table) {
            Some(batches) => batches.push(batch),
            None => drop(self.pending.rows.insert(table.to_owned(), vec![batch])),
        }
    }

    /// Enrols a device's key and records it in the provenance log.
    ///
    /// # Errors
    /// [`Error::KeyConflict`] when another valid key is there, [`Error::KeyRevoked`] when this one was revoked.
    pub fn enrol(
        &mut self,
        id: &DeviceId,
        public: PublicKey,
        title: Option<String>,
        protocol: Option<String>,
        now: TaiNanos,
    ) -> Result<bool, Error> {
        let enrolment = match self.door.devices().get(id) {
            Some(known) => known.clone().enrol(public, now),
            None => Enrolment::Created,
        };
        match enrolment {
            Enrolment::Created | Enrolment::Unchanged => {}
            Enrolment::Conflict(known) => {
                return Err(Error::KeyConflict {
                    device: id.to_string(),
                    known: known.to_string(),
                });
            }
            Enrolment::Revoked => {
                return Err(Error::KeyRevoked {
                    device: id.to_string(),
                    key: public.key_id().to_string(),
                });
            }
        }
        let device = self.door.device_mut(id);
        device.enrol(public, now);
        device.title = title.or(device.title.take());
        device.protocol = protocol.or(device.protocol.take());
        self.pending.devices.insert(id.clone());
        if enrolment == Enrolment::Created {
            self.record_key(id, &public, "enrolled", now);
        }
        Ok(enrolment == Enrolment::Created)
    }

    /// Revokes a key: of what it signed, only what belongs to the boots known now, up to where they stand, is still let
    /// in, so that a backlog may arrive. False when it was revoked before.
    ///
    /// # Errors
    /// [`Error::UnknownKey`] when the device or its key is not enrolled.
    pub fn revoke(&mut self, id: &DeviceId, key_id: &KeyId, now: TaiNanos) -> Result<bool, Error> {
        let places = self.door.places(id);
        let unknown = || Error::UnknownKey {
            device: id.to_string(),
            key: key_id.to_string(),
        };
        if !self.door.devices().contains_key(id) {
            return Err(unknown());
        }
        let keys = &mut self.door.device_mut(id).keys;
        let key = keys.iter_mut().find(|key| key.public.key_id() == *key_id);
        let key = key.ok_or_else(unknown)?;
        if key.revoked.is_some() {
            return Ok(false);
        }
        key.revoked = Some(places);
        let public = key.public;
        self.pending.devices.insert(id.clone());
        self.record_key(id, &public, "revoked", now);
        Ok(true)
    }

    fn record_key(&mut self, id: &DeviceId, public: &PublicKey, what: &str, now: TaiNanos) {
        let record = orrery_protocol::Record {
            kind: RecordKind::Key,
            subject: vec![Subject {
                name: format!("devices/{id}"),
                sha256: Digest::of(public.as_bytes()),
            }],
            predicate: serde_json::json!({
                "device_id": id.as_str(), "kid": public.key_id().to_string(),
                "public_key": hex::encode(public.as_bytes()), "state": what,
            }),
            at: now,
        };
        self.publish_record(id.as_str(), &record);
    }

    /// Queues a provenance record.
    pub fn publish_record(&mut self, key: &str, record: &orrery_protocol::Record) {
        self.outbox.push((
            topics::PROVENANCE,
            Record::new(key.as_bytes().to_vec(), record.encode()),
        ));
    }

    pub(crate) fn one_way_bound_nanos(&self) -> i64 {
        i64::try_from(self.config.one_way_bound_ms.saturating_mul(1_000_000)).unwrap_or(i64::MAX)
    }

    /// Whether anything waits to be published.
    pub fn has_outbox(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// What is to be published, in order.
    pub fn take_outbox(&mut self) -> Outbox {
        std::mem::take(&mut self.outbox)
    }

    /// The revision that rows taken in now will have.
    pub fn open_revision(&self) -> u64 {
        self.revision
    }

    /// Bytes that wait for the next commit.
    pub fn pending_bytes(&self) -> u64 {
        self.pending.bytes
    }

    /// Whether a commit would hold anything.
    pub fn has_pending(&self) -> bool {
        let pending = &self.pending;
        !(pending.offsets.is_empty()
            && pending.devices.is_empty()
            && pending.descriptors.is_empty()
            && pending.rows.is_empty())
    }

    /// Closes the open revision: what it holds, to be committed.
    ///
    /// # Errors
    /// [`Error::Arrow`] when rows do not fit their table, which rows from here do.
    pub fn seal(&mut self, stamp: TaiNanos) -> Result<Commit, Error> {
        let revision = self.revision;
        let pending = std::mem::take(&mut self.pending);
        let mut commit = Commit {
            revision,
            stamp,
            descriptors: pending.descriptors,
            offsets: pending.offsets,
            ..Commit::default()
        };
        if !pending.archive.is_empty() {
            let batch = raw_batch(&pending.archive, revision).map_err(Error::arrow(RAW_TABLE))?;
            commit.rows.insert(RAW_TABLE.to_owned(), vec![batch]);
        }
        for (table, batches) in pending.rows {
            let stored: Result<Vec<_>, _> = batches
                .iter()
                .map(|batch| columns::stored_from_aligned(batch, revision))
                .collect();
            let stored = stored.map_err(Error::arrow(&table))?;
            commit.rows.insert(table, stored);
        }
        for id in pending.devices {
            let device: Option<&Device> = self.door.devices().get(&id);
            commit.state.insert(("device", id.to_string()), encode(&device));
        }
        for (id, boot) in pending.chains {
            let chain = self.door.chain(&id, boot);
            commit.state.insert(("chain", format!("{id}/{boot}")), encode(&chain));
        }
        for id in pending.clocks {
            commit
                .state
                .insert(("clock bank", id.to_string()), encode(&self.clocks.get(&id)));
        }
        for id in pending.streams {
            let state = self.streams.get(&id).map(|state| &state.persistent);
            commit.state.insert(("stream", id.to_string()), encode(&state));
        }
        for id in pending.active {
            commit
                .state
                .insert(("counters", id.to_string()), encode(&self.activity.get(&id)));
        }
        if pending.strangers {
            commit
                .state
                .insert(("counters", "strangers".to_owned()), encode(&self.strangers));
        }
        self.revision += 1;
        Ok(commit)
    }
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("writing plain structs to memory cannot fail");
    bytes
}

fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, Error> {
    ciborium::from_reader(bytes).map_err(|error| Error::Stored {
        what,
        why: error.to_string(),
    })
}
