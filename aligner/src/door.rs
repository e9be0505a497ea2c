//! The door: from foreign bytes to a verdict. Pure: no clock, no I/O; whoever holds it acts on what it says.
//!
//! Per (device, boot) it keeps the *set of intervals* of accepted sequences, never a high-water mark, because a backlog
//! may arrive after live data. A hole is pending until it is filled or a signed `loss` record covers it.

use std::collections::{BTreeMap, HashMap};

use orrery_protocol::{
    BootId, Claims, DeviceId, Digest, Envelope, IntervalSet, KeyId, LossPayload, PublicKey, TaiNanos, Unverified,
    Verified,
};
use serde::{Deserialize, Serialize};

use crate::clocks::Place;

/// Digests kept at hand per chain; older ones are asked from the archive.
const RECENT: usize = 4096;
/// Gaps listed per chain; more of them are still in the interval set.
const MAX_GAPS: usize = 1024;

/// What became of an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// New, signed by an enrolled key.
    Accepted,
    /// The same bytes came before: harmless.
    Duplicate,
    /// Another envelope with this device, boot and sequence came before: an alarm.
    Equivocation,
    /// The signature does not hold, or the key is not the device's.
    Forged,
    /// Nobody enrolled this device.
    UnknownDevice,
    /// Signed by a revoked key, after its revocation.
    Revoked,
    /// Not an envelope: truncated, altered or something else.
    Garbage,
}

impl Verdict {
    /// The name in the archive, the dead letters and the counters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicates",
            Self::Equivocation => "equivocations",
            Self::Forged => "forged",
            Self::UnknownDevice => "unknown_device",
            Self::Revoked => "revoked",
            Self::Garbage => "garbage",
        }
    }
}

/// The door's answer for one message.
#[derive(Debug)]
pub enum Admission {
    /// Let in.
    Accepted {
        /// The envelope.
        envelope: Box<Verified<Envelope>>,
        /// Whether it filled a hole behind later envelopes.
        late: bool,
    },
    /// Kept out.
    Refused(Box<Refusal>),
    /// Its sequence was accepted long ago: answer with the archived digest through [`Door::decide`].
    Ask(Box<Verified<Envelope>>),
}

/// Why something was kept out.
#[derive(Debug)]
pub struct Refusal {
    /// The verdict.
    pub verdict: Verdict,
    /// In words.
    pub reason: String,
    /// What it claims, when it could be read.
    pub claims: Option<Claims>,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// The envelope, when its signature held: such a one is archived.
    pub verified: Option<Verified<Envelope>>,
}

/// An enrolled key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolledKey {
    /// The key.
    pub public: PublicKey,
    /// When it was enrolled.
    pub enrolled_at: TaiNanos,
    /// From where in the chain it is no longer valid.
    pub revoked_from: Option<Place>,
}

/// An enrolled device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Device {
    /// A title for people.
    pub title: Option<String>,
    /// How it is read.
    pub protocol: Option<String>,
    /// Its keys, oldest first.
    pub keys: Vec<EnrolledKey>,
}

/// A range of sequences that did not come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// First missing sequence.
    pub first: u64,
    /// Last missing sequence.
    pub last: u64,
    /// When the envelope before was sealed.
    pub from: Option<TaiNanos>,
    /// When the envelope after was sealed; also when the hole was found, in the device's own time.
    pub to: TaiNanos,
    /// Set once a signed record says that it is lost.
    pub lost: Option<String>,
}

/// One start of one agent, as far as it came in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChainState {
    /// Accepted sequences.
    pub accepted: IntervalSet,
    /// Holes, pending or lost.
    pub gaps: Vec<Gap>,
    /// Digest and seal time of the highest sequence.
    pub head: Option<(Digest, TaiNanos)>,
    /// Envelopes whose `previous` did not name the one before.
    pub breaks: u64,
}

impl ChainState {
    /// Holes that nothing explains yet.
    pub fn pending(&self) -> impl Iterator<Item = &Gap> {
        self.gaps.iter().filter(|gap| gap.lost.is_none())
    }

    /// Notes an accepted sequence; says whether it was late.
    fn accept(&mut self, claims: &Claims, digest: Digest) -> bool {
        let sequence = claims.sequence;
        let next = self.accepted.last().map_or(0, |last| last + 1);
        self.accepted.insert(sequence);
        if sequence < next {
            self.fill(sequence);
            return true;
        }
        let before = self.head;
        if sequence > next && self.gaps.len() < MAX_GAPS {
            let from = before.map(|(_, at)| at);
            self.gaps.push(Gap {
                first: next,
                last: sequence - 1,
                from,
                to: claims.timestamp,
                lost: None,
            });
        }
        if sequence == next && before.is_some_and(|(head, _)| claims.previous != Some(head)) {
            self.breaks += 1;
        }
        self.head = Some((digest, claims.timestamp));
        false
    }

    fn fill(&mut self, sequence: u64) {
        let Some(at) = self
            .gaps
            .iter()
            .position(|gap| (gap.first..=gap.last).contains(&sequence))
        else {
            return;
        };
        let gap = self.gaps.remove(at);
        if sequence < gap.last {
            self.gaps.insert(
                at,
                Gap {
                    first: sequence + 1,
                    ..gap.clone()
                },
            );
        }
        if sequence > gap.first {
            self.gaps.insert(
                at,
                Gap {
                    last: sequence - 1,
                    ..gap
                },
            );
        }
    }

    /// Marks a range as lost, as its device says.
    pub fn lose(&mut self, loss: &LossPayload, at: TaiNanos) {
        let mut gaps = Vec::with_capacity(self.gaps.len() + 2);
        for gap in self.gaps.drain(..) {
            let (first, last) = (gap.first.max(loss.first), gap.last.min(loss.last));
            if first > last || gap.lost.is_some() {
                gaps.push(gap);
                continue;
            }
            if gap.first < first {
                gaps.push(Gap {
                    last: first - 1,
                    ..gap.clone()
                });
            }
            gaps.push(Gap {
                first,
                last,
                lost: Some(loss.reason.clone()),
                ..gap.clone()
            });
            if last < gap.last {
                gaps.push(Gap { first: last + 1, ..gap });
            }
        }
        // What was dropped at the end of a boot never became a hole between two envelopes.
        let beyond = self.accepted.last().map_or(0, |last| last + 1).max(loss.first);
        let known = gaps.iter().any(|gap| gap.first <= beyond && beyond <= gap.last);
        if beyond <= loss.last && !known && gaps.len() < MAX_GAPS {
            let from = self.head.map(|(_, at)| at);
            gaps.push(Gap {
                first: beyond,
                last: loss.last,
                from,
                to: at,
                lost: Some(loss.reason.clone()),
            });
        }
        self.gaps = gaps;
    }
}

/// Who may come in, and who did.
#[derive(Debug, Default)]
pub struct Door {
    devices: BTreeMap<DeviceId, Device>,
    chains: BTreeMap<(DeviceId, BootId), ChainState>,
    recent: HashMap<(DeviceId, BootId), BTreeMap<u64, Digest>>,
}

impl Door {
    /// A door that nobody has come through.
    pub fn new() -> Self {
        Self::default()
    }

    /// Restores an enrolled device.
    pub fn restore_device(&mut self, id: DeviceId, device: Device) {
        self.devices.insert(id, device);
    }

    /// Restores what is known of a chain.
    pub fn restore_chain(&mut self, device: DeviceId, boot: BootId, chain: ChainState) {
        self.chains.insert((device, boot), chain);
    }

    /// Restores the digest of an accepted envelope.
    pub fn restore_digest(&mut self, device: &DeviceId, boot: BootId, sequence: u64, digest: Digest) {
        remember(self.recent.entry((device.clone(), boot)).or_default(), sequence, digest);
    }

    /// The enrolled devices.
    pub fn devices(&self) -> &BTreeMap<DeviceId, Device> {
        &self.devices
    }

    /// The enrolled device of this name.
    pub fn device_mut(&mut self, id: &DeviceId) -> &mut Device {
        self.devices.entry(id.clone()).or_default()
    }

    /// A chain.
    pub fn chain(&self, device: &DeviceId, boot: BootId) -> Option<&ChainState> {
        self.chains.get(&(device.clone(), boot))
    }

    /// A chain, to note losses in.
    pub fn chain_mut(&mut self, device: &DeviceId, boot: BootId) -> &mut ChainState {
        self.chains.entry((device.clone(), boot)).or_default()
    }

    /// The chains of a device, oldest boot first.
    pub fn chains_of<'a>(&'a self, device: &DeviceId) -> impl Iterator<Item = (BootId, &'a ChainState)> {
        let first = (device.clone(), BootId([0; 16]));
        let last = (device.clone(), BootId([0xff; 16]));
        self.chains.range(first..=last).map(|((_, boot), chain)| (*boot, chain))
    }

    /// Decides about foreign bytes; never panics on any of them.
    pub fn admit(&mut self, bytes: Vec<u8>) -> Admission {
        let digest = Digest::of(&bytes);
        let unverified = match Unverified::parse(bytes) {
            Ok(unverified) => unverified,
            Err(error) => return refused(Verdict::Garbage, error.to_string(), None, digest),
        };
        let claims = unverified.claims().clone();
        let Some(device) = self.devices.get(&claims.device_id) else {
            let reason = format!(
                "device `{}` is not enrolled: enrol it with a one-time token",
                claims.device_id
            );
            return refused(Verdict::UnknownDevice, reason, Some(claims), digest);
        };
        let Some(key) = device
            .keys
            .iter()
            .find(|key| key.public.key_id() == *unverified.key_id())
        else {
            let reason = format!(
                "key {} is not one of device `{}`",
                unverified.key_id(),
                claims.device_id
            );
            return refused(Verdict::Forged, reason, Some(claims), digest);
        };
        let revoked_from = key.revoked_from;
        let envelope = match unverified.verify(&key.public) {
            Ok(envelope) => envelope,
            Err(error) => {
                return refused(Verdict::Forged, error.0.to_string(), Some(claims), digest);
            }
        };
        let place = Place {
            boot: claims.boot_id,
            sequence: claims.sequence,
        };
        if revoked_from.is_some_and(|from| place >= from) {
            let reason = format!(
                "signed with a key of `{}` that is revoked from this place on",
                claims.device_id
            );
            return refusal(Verdict::Revoked, reason, envelope);
        }
        let id = (claims.device_id.clone(), claims.boot_id);
        if self
            .chains
            .get(&id)
            .is_some_and(|chain| chain.accepted.contains(claims.sequence))
        {
            return match self
                .recent
                .get(&id)
                .and_then(|recent| recent.get(&claims.sequence))
                .copied()
            {
                Some(known) => compare(envelope, Some(known)),
                None => Admission::Ask(Box::new(envelope)),
            };
        }
        remember(self.recent.entry(id.clone()).or_default(), claims.sequence, digest);
        let late = self.chains.entry(id).or_default().accept(&claims, digest);
        Admission::Accepted {
            envelope: Box::new(envelope),
            late,
        }
    }

    /// Decides about an envelope whose sequence was accepted before, given the archived digest.
    pub fn decide(&self, envelope: Verified<Envelope>, archived: Option<Digest>) -> Admission {
        compare(envelope, archived)
    }
}

fn compare(envelope: Verified<Envelope>, known: Option<Digest>) -> Admission {
    let claims = envelope.claims();
    match known {
        Some(known) if known != envelope.digest() => {
            let reason = format!(
                "device `{}` signed two envelopes with boot {} and sequence {}: {known} came first. Its key may be in two hands",
                claims.device_id, claims.boot_id, claims.sequence
            );
            refusal(Verdict::Equivocation, reason, envelope)
        }
        _ => refused(
            Verdict::Duplicate,
            "it came before".to_owned(),
            Some(claims.clone()),
            envelope.digest(),
        ),
    }
}

fn refused(verdict: Verdict, reason: String, claims: Option<Claims>, digest: Digest) -> Admission {
    Admission::Refused(Box::new(Refusal {
        verdict,
        reason,
        claims,
        digest,
        verified: None,
    }))
}

fn refusal(verdict: Verdict, reason: String, envelope: Verified<Envelope>) -> Admission {
    let (claims, digest) = (Some(envelope.claims().clone()), envelope.digest());
    Admission::Refused(Box::new(Refusal {
        verdict,
        reason,
        claims,
        digest,
        verified: Some(envelope),
    }))
}

fn remember(recent: &mut BTreeMap<u64, Digest>, sequence: u64, digest: Digest) {
    recent.insert(sequence, digest);
    if recent.len() > RECENT {
        recent.pop_first();
    }
}

/// What enrolling a key did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enrolment {
    /// The device is new, or it had no valid key.
    Created,
    /// The same key was there already.
    Unchanged,
    /// Another valid key is there.
    Conflict(KeyId),
}

impl Device {
    /// Enrols a key; one valid key at a time.
    pub fn enrol(&mut self, public: PublicKey, now: TaiNanos) -> Enrolment {
        match self.keys.iter().find(|key| key.revoked_from.is_none()) {
            Some(known) if known.public == public => Enrolment::Unchanged,
            Some(known) => Enrolment::Conflict(known.public.key_id()),
            None => {
                self.keys.push(EnrolledKey {
                    public,
                    enrolled_at: now,
                    revoked_from: None,
                });
                Enrolment::Created
            }
        }
    }
}
