//! What a spool holds after a start: the newest envelope of each device, and what damage took from between.

use std::collections::BTreeMap;

use orrery_bus::journal::{Journal, JournalError};
use orrery_protocol::{BootId, DeviceId, Digest, IntervalSet, LossPayload, Unverified};

use super::{Head, State};

/// The chains found in a journal.
#[derive(Default)]
pub struct Survey {
    chains: BTreeMap<(DeviceId, BootId), Chain>,
    /// Whether the journal begins with the first record it ever took.
    is_whole: bool,
}

#[derive(Default)]
struct Chain {
    present: IntervalSet,
    /// `previous` of the envelopes that do not follow one that is there.
    links: BTreeMap<u64, Digest>,
    last: Option<(u64, Digest)>,
}

impl Survey {
    /// Reads a journal from end to end.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn of(journal: &Journal) -> Result<Self, JournalError> {
        let mut from = journal.first_offset();
        let mut survey = Self {
            is_whole: from == 0,
            ..Self::default()
        };
        while from < journal.next_offset() {
            let batch = journal.read(from, 4 << 20)?;
            from = batch.next;
            for entry in batch.entries {
                if let Ok(envelope) = Unverified::parse(entry.record.value.to_vec()) {
                    survey.note(&envelope);
                }
            }
        }
        Ok(survey)
    }

    fn note(&mut self, envelope: &Unverified) {
        let claims = envelope.claims();
        let id = (claims.device_id.clone(), claims.boot_id);
        let chain = self.chains.entry(id).or_default();
        let sequence = claims.sequence;
        let follows = sequence
            .checked_sub(1)
            .is_some_and(|before| chain.present.contains(before));
        if let (false, Some(previous)) = (follows, claims.previous) {
            chain.links.insert(sequence, previous);
        }
        chain.present.insert(sequence);
        // What a full spool moved behind newer envelopes is older than they are.
        if chain.last.is_none_or(|(last, _)| last < sequence) {
            chain.last = Some((sequence, envelope.digest()));
        }
    }

    /// Replaces heads that the journal knows newer ones of.
    pub fn raise(&self, heads: &mut BTreeMap<DeviceId, Head>) {
        for ((device, boot_id), chain) in &self.chains {
            let Some((sequence, digest)) = chain.last else {
                continue;
            };
            let held = heads.get(device);
            if held.is_none_or(|held| (held.boot_id, held.sequence) < (*boot_id, sequence)) {
                let head = Head {
                    boot_id: *boot_id,
                    sequence,
                    digest,
                };
                heads.insert(device.clone(), head);
            }
        }
    }

    /// The ranges of each device that were never sent and are not there. Call it with the heads raised.
    ///
    /// The end of a boot before the last is not known, so envelopes missing there are not found: the receiver shows them as a
    /// gap that nobody explains.
    pub(super) fn lost(mut self, state: &State) -> BTreeMap<DeviceId, Vec<LossPayload>> {
        for (device, head) in &state.heads {
            self.chains.entry((device.clone(), head.boot_id)).or_default();
        }
        let mut lost: BTreeMap<DeviceId, Vec<LossPayload>> = BTreeMap::new();
        for ((device, boot), mut chain) in self.chains {
            let head = state.heads.get(&device).filter(|head| head.boot_id == boot);
            let known = [&state.losses, &state.declared].map(|known| known.get(&device));
            let known = known.into_iter().flatten().flatten();
            let known: Vec<&LossPayload> = known.filter(|loss| loss.boot_id == boot).collect();
            for loss in &known {
                chain.present.insert_range(loss.first, loss.last);
            }
            let first_present = chain.present.iter().next().map(|(first, _)| first);
            // Below `start` everything was sent. Without a note of that, only what lies between envelopes that are there counts.
            let start = match state.acknowledged.get(&device) {
                Some((sent, _)) if *sent > boot => continue,
                Some((sent, sequence)) if *sent == boot => sequence + 1,
                Some(_) => 0,
                None if self.is_whole => 0,
                None => first_present.unwrap_or(u64::MAX),
            };
            if start > 0 {
                chain.present.insert_range(0, start - 1);
            }
            let mut missing = chain.present.gaps();
            let next = chain.present.last().map_or(0, |last| last + 1);
            if let Some(head) = head.filter(|head| next <= head.sequence) {
                missing.push((next, head.sequence));
            }
            let losses = missing.into_iter().filter_map(|(first, last)| {
                let follower = chain.links.get(&(last + 1)).map(|previous| (last, *previous));
                let given_up = || known.iter().find(|loss| loss.first == last + 1);
                let (last, last_digest) = follower
                    .or_else(|| given_up().map(|loss| (loss.last, loss.last_digest)))
                    .or_else(|| head.map(|head| (last, head.digest)))?;
                Some(LossPayload {
                    boot_id: boot,
                    first,
                    last,
                    reason: "the spool was damaged".to_owned(),
                    last_digest,
                })
            });
            let losses: Vec<LossPayload> = losses.collect();
            if !losses.is_empty() {
                lost.entry(device).or_default().extend(losses);
            }
        }
        lost
    }
}
