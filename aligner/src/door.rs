//! The door: from foreign bytes to a verdict. Pure: no clock, no I/O; whoever holds it acts on what it says.
//!
//! Per (device, boot) it keeps the *set of intervals* of accepted sequences, never a high-water mark, because a backlog
//! may arrive after live data. A hole is pending until it is filled or a signed `loss` record covers it. Each envelope
//! names the digest of the one before it, across boots and across losses; what does not link is counted as a break or
//! shown as a hole, never taken as complete.

use std::collections::{BTreeMap, HashMap};

use orrery_protocol::{
    BootId, Claims, DeviceId, Digest, Envelope, IntervalSet, KeyId, LossPayload, PublicKey, TaiNanos, Unverified,
    Verified,
};
use serde::{Deserialize, Serialize};

/// Digests kept at hand per chain, and chains per device; older ones are asked from the archive.
const RECENT: usize = 4096;
const RECENT_BOOTS: usize = 4;
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
    /// Once revoked: the boots that were known then, each with the first sequence that is no longer accepted.
    #[serde(default)]
    pub revoked: Option<BTreeMap<BootId, u64>>,
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
    /// Digest of the envelope before, which the first missing one names.
    #[serde(default)]
    pub before: Option<Digest>,
    /// Digest of the last missing one, as the envelope after it or the loss record names it.
    #[serde(default)]
    pub after: Option<Digest>,
}

/// The end of a boot that did not come: the next boot names another envelope as the last before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenEnd {
    /// First missing sequence; how many follow is not known.
    pub first: u64,
    /// When the envelope before was sealed.
    pub from: Option<TaiNanos>,
    /// When the first envelope of the next boot was sealed.
    pub to: TaiNanos,
}

/// The first envelope of a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// What it names as the last envelope of the boot before.
    pub previous: Option<Digest>,
    /// When it was sealed.
    pub at: TaiNanos,
}

/// One start of one agent, as far as it came in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChainState {
    /// Accepted sequences.
    pub accepted: IntervalSet,
    /// Holes, pending or lost, in order; the last may stand behind all that came.
    pub gaps: Vec<Gap>,
    /// Digest and seal time of the highest sequence.
    pub head: Option<(Digest, TaiNanos)>,
    /// Sequence 0, once it came.
    #[serde(default)]
    pub start: Option<Start>,
    /// Places where `previous` or a loss record did not name the envelope before.
    pub breaks: u64,
}

impl ChainState {
    /// Holes that nothing explains yet.
    pub fn pending(&self) -> impl Iterator<Item = &Gap> {
        self.gaps.iter().filter(|gap| gap.lost.is_none())
    }

    /// The sequence after all that came or is known to be missing.
    pub fn next(&self) -> u64 {
        let came = self.accepted.last().map_or(0, |last| last.saturating_add(1));
        self.tail().map_or(came, |gap| gap.last.saturating_add(1))
    }

    /// The digest of the envelope before [`next`](Self::next), where something names it.
    fn end(&self) -> Option<Digest> {
        match self.tail() {
            Some(gap) => gap.after,
            None => self.head.map(|(digest, _)| digest),
        }
    }

    /// The hole behind all that came.
    fn tail(&self) -> Option<&Gap> {
        let last = self.accepted.last();
        self.gaps.last().filter(|gap| last.is_none_or(|last| gap.last > last))
    }

    /// Notes an accepted sequence; says whether it was late.
    fn accept(&mut self, claims: &Claims, digest: Digest) -> bool {
        let sequence = claims.sequence;
        let last = self.accepted.last();
        let late = last.is_some_and(|last| sequence < last);
        let hole = self
            .gaps
            .iter()
            .position(|gap| (gap.first..=gap.last).contains(&sequence));
        match hole {
            Some(at) => self.fill(at, claims, digest),
            // A hole beyond those that are listed.
            None if late => {}
            None => self.append(claims),
        }
        if sequence == 0 {
            self.start = Some(Start {
                previous: claims.previous,
                at: claims.timestamp,
            });
        }
        self.accepted.insert(sequence);
        if !late {
            self.head = Some((digest, claims.timestamp));
        }
        late
    }

    /// Links an envelope behind all that is known, or notes the hole before it.
    fn append(&mut self, claims: &Claims) {
        let (next, end) = (self.next(), self.end());
        if claims.sequence == next {
            self.breaks += u64::from(end.is_some() && claims.previous != end);
        } else if claims.sequence > next && self.gaps.len() < MAX_GAPS {
            self.gaps.push(Gap {
                first: next,
                last: claims.sequence - 1,
                from: self.head.map(|(_, at)| at),
                to: claims.timestamp,
                lost: None,
                before: end,
                after: claims.previous,
            });
        }
    }

    fn fill(&mut self, at: usize, claims: &Claims, digest: Digest) {
        let sequence = claims.sequence;
        let gap = self.gaps.remove(at);
        if sequence < gap.last {
            let rest = Gap {
                first: sequence + 1,
                before: Some(digest),
                ..gap.clone()
            };
            self.gaps.insert(at, rest);
        } else {
            self.breaks += u64::from(gap.after.is_some_and(|after| after != digest));
        }
        if sequence > gap.first {
            let rest = Gap {
                last: sequence - 1,
                after: claims.previous,
                ..gap
            };
            self.gaps.insert(at, rest);
        } else {
            self.breaks += u64::from(gap.before.is_some() && claims.previous != gap.before);
        }
    }

    /// Marks a range as lost, as its device says. A record that names another last envelope than the one that the next
    /// envelope follows explains nothing: the hole stays pending.
    pub fn lose(&mut self, loss: &LossPayload, at: TaiNanos) {
        let mut gaps = Vec::with_capacity(self.gaps.len() + 2);
        for gap in self.gaps.drain(..) {
            let (first, last) = (gap.first.max(loss.first), gap.last.min(loss.last));
            if first > last || gap.lost.is_some() {
                gaps.push(gap);
                continue;
            }
            let named = (last == loss.last).then_some(loss.last_digest);
            if last == gap.last && named.zip(gap.after).is_some_and(|(named, after)| named != after) {
                self.breaks += 1;
                gaps.push(gap);
                continue;
            }
            if gap.first < first {
                gaps.push(Gap {
                    last: first - 1,
                    after: None,
                    ..gap.clone()
                });
            }
            gaps.push(Gap {
                first,
                last,
                lost: Some(loss.reason.clone()),
                before: gap.before.filter(|_| first == gap.first),
                after: named.or(gap.after.filter(|_| last == gap.last)),
                ..gap.clone()
            });
            if last < gap.last {
                gaps.push(Gap {
                    first: last + 1,
                    before: named,
                    ..gap
                });
            }
        }
        self.gaps = gaps;
        self.lose_tail(loss, at);
    }

    /// What was dropped at the end of a boot never became a hole between two envelopes.
    fn lose_tail(&mut self, loss: &LossPayload, at: TaiNanos) {
        let (next, end) = (self.next(), self.end());
        let is_known = self.accepted.contains(loss.last) || self.gaps.iter().any(|gap| gap.last >= loss.last);
        if loss.last < next || is_known || self.gaps.len() + 2 > MAX_GAPS {
            return;
        }
        let tail = Gap {
            first: next.max(loss.first),
            last: loss.last,
            from: self.head.map(|(_, at)| at),
            to: at,
            lost: Some(loss.reason.clone()),
            before: end.filter(|_| loss.first <= next),
            after: Some(loss.last_digest),
        };
        if loss.first > next {
            self.gaps.push(Gap {
                first: next,
                last: loss.first - 1,
                lost: None,
                before: end,
                after: None,
                ..tail.clone()
            });
        }
        self.gaps.push(tail);
    }
}

/// Digests by sequence.
type Digests = BTreeMap<u64, Digest>;

/// Who may come in, and who did.
#[derive(Debug, Default)]
pub struct Door {
    devices: BTreeMap<DeviceId, Device>,
    chains: BTreeMap<(DeviceId, BootId), ChainState>,
    /// Per device the chains heard last, the newest at the end.
    recent: HashMap<DeviceId, Vec<(BootId, Digests)>>,
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

    /// Keeps the digest of an accepted envelope at hand.
    pub fn remember(&mut self, device: &DeviceId, boot: BootId, sequence: u64, digest: Digest) {
        let boots = self.recent.entry(device.clone()).or_default();
        let known = boots.iter().position(|(known, _)| *known == boot);
        let (_, mut digests) = known.map_or_else(|| (boot, Digests::new()), |at| boots.remove(at));
        digests.insert(sequence, digest);
        if digests.len() > RECENT {
            digests.pop_first();
        }
        boots.push((boot, digests));
        if boots.len() > RECENT_BOOTS {
            boots.remove(0);
        }
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

    /// The boots of a device whose end did not come, as the boots after them say. Boots may come in any order, so this is
    /// looked up, never remembered; a boot without a named boot before it says nothing.
    pub fn open_ends(&self, device: &DeviceId) -> Vec<(BootId, OpenEnd)> {
        let mut ends: HashMap<Digest, BootId> = self
            .chains_of(device)
            .filter_map(|(boot, chain)| Some((chain.end()?, boot)))
            .collect();
        let mut open = Vec::new();
        let mut before: Option<(BootId, &ChainState)> = None;
        for (boot, chain) in self.chains_of(device) {
            let named = chain.start.and_then(|start| Some((start.previous?, start.at)));
            // The last envelope of a boot has one successor: who names it second stands beside a boot that is hidden.
            let follows = named.is_none_or(|(previous, _)| ends.remove(&previous).is_some());
            if let (false, Some((_, at)), Some((last, known))) = (follows, named, before)
                && known.end().is_some()
            {
                let end = OpenEnd {
                    first: known.next(),
                    from: known.head.map(|(_, at)| at),
                    to: at,
                };
                open.push((last, end));
            }
            before = Some((boot, chain));
        }
        open
    }

    /// Where each boot of a device stands: the next sequence after what was accepted of it.
    pub fn places(&self, device: &DeviceId) -> BTreeMap<BootId, u64> {
        self.chains_of(device)
            .filter_map(|(boot, chain)| Some((boot, chain.accepted.last()?.saturating_add(1))))
            .collect()
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
        let is_revoked = key.revoked.as_ref().is_some_and(|ends| {
            let end = ends.get(&claims.boot_id);
            end.is_none_or(|end| claims.sequence >= *end)
        });
        let envelope = match unverified.verify(&key.public) {
            Ok(envelope) => envelope,
            Err(error) => {
                return refused(Verdict::Forged, error.0.to_string(), Some(claims), digest);
            }
        };
        if is_revoked {
            let reason = format!(
                "signed with a revoked key of `{}`: of that key only what belongs before the revocation is let in",
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
            let boots = self.recent.get(&claims.device_id).into_iter().flatten();
            let mut known = boots.filter(|(boot, _)| *boot == claims.boot_id);
            return match known.find_map(|(_, digests)| digests.get(&claims.sequence)) {
                Some(known) => compare(envelope, Some(*known)),
                None => Admission::Ask(Box::new(envelope)),
            };
        }
        self.remember(&claims.device_id, claims.boot_id, claims.sequence, digest);
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

/// What enrolling a key did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enrolment {
    /// The device is new, or it had no valid key.
    Created,
    /// The same key was there already.
    Unchanged,
    /// Another valid key is there.
    Conflict(KeyId),
    /// This key was revoked, and stays so.
    Revoked,
}

impl Device {
    /// Enrols a key; one valid key at a time.
    pub fn enrol(&mut self, public: PublicKey, now: TaiNanos) -> Enrolment {
        if self
            .keys
            .iter()
            .any(|key| key.public == public && key.revoked.is_some())
        {
            return Enrolment::Revoked;
        }
        match self.keys.iter().find(|key| key.revoked.is_none()) {
            Some(known) if known.public == public => Enrolment::Unchanged,
            Some(known) => Enrolment::Conflict(known.public.key_id()),
            None => {
                self.keys.push(EnrolledKey {
                    public,
                    enrolled_at: now,
                    revoked: None,
                });
                Enrolment::Created
            }
        }
    }
}
