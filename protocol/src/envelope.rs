//! The envelope: a COSE_Sign1 structure (RFC 9052 §4.2) signed with Ed25519.
//!
//! ```text
//! COSE_Sign1 (tag 18, always present) = [
//!   protected: bstr .cbor {
//!      1 (alg): -8 (EdDSA), 3 (content type): tstr, 4 (kid): bstr .size 16,
//!      -70001 device_id: tstr, -70002 boot_id: bstr .size 16, -70003 sequence: uint,
//!      -70004 timestamp: int (TAI nanoseconds), -70005 payload_type: tstr,
//!      ? -70006 previous: bstr .size 32, ? -70007 attested: true },
//!   unprotected: {},                  ; always empty
//!   payload: bstr,                    ; at most 512 KiB
//!   signature: bstr .size 64 ]        ; over Sig_structure "Signature1", empty external_aad
//! ```
//! The claims use labels of the private range (RFC 9052 §3.1). The byte form is frozen in
//! `tests/fixtures/envelope-v1.cbor`.

use std::ops::Deref;

use ciborium::value::Value;
use coset::{CoseSign1, CoseSign1Builder, Header, HeaderBuilder, Label, TaggedCborSerializable, iana};
use serde::{Deserialize, Serialize};

use crate::{BootId, DeviceId, Digest, KeyId, PublicKey, SealKey, TaiNanos};

/// The largest payload on every path, in bytes.
pub const MAX_PAYLOAD: usize = 512 * 1024;
/// The largest envelope: the payload, and room for the header and the signature.
pub const MAX_ENVELOPE: usize = MAX_PAYLOAD + 4 * 1024;

const DEVICE_ID: i64 = -70001;
const BOOT_ID: i64 = -70002;
const SEQUENCE: i64 = -70003;
const TIMESTAMP: i64 = -70004;
const PAYLOAD_TYPE: i64 = -70005;
const PREVIOUS: i64 = -70006;
const ATTESTED: i64 = -70007;

/// What a payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PayloadType {
    /// An Arrow IPC record batch: [`SampleBlock`](crate::SampleBlock).
    Samples,
    /// A stream announces itself: [`Descriptor`](crate::Descriptor).
    Descriptor,
    /// Probe results and clock pairs: [`ClockPayload`](crate::ClockPayload).
    Clock,
    /// Nothing undelivered before a time: [`HeartbeatPayload`](crate::HeartbeatPayload).
    Heartbeat,
    /// A range of sequences that will never come: [`LossPayload`](crate::LossPayload).
    Loss,
    /// Something happened: [`EventPayload`](crate::EventPayload).
    Event,
    /// A reference to video or an image.
    Frame,
    /// A key is announced or revoked.
    Key,
    /// What became of a command: [`AckPayload`](crate::AckPayload).
    Ack,
    /// The agent or the device says something: [`LogPayload`](crate::LogPayload).
    Log,
}

impl PayloadType {
    /// Every payload type.
    pub const ALL: [Self; 10] = [
        Self::Samples,
        Self::Descriptor,
        Self::Clock,
        Self::Heartbeat,
        Self::Loss,
        Self::Event,
        Self::Frame,
        Self::Key,
        Self::Ack,
        Self::Log,
    ];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Samples => "samples",
            Self::Descriptor => "descriptor",
            Self::Clock => "clock",
            Self::Heartbeat => "heartbeat",
            Self::Loss => "loss",
            Self::Event => "event",
            Self::Frame => "frame",
            Self::Key => "key",
            Self::Ack => "ack",
            Self::Log => "log",
        }
    }

    /// The media type of the payload's bytes.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Samples => "application/vnd.apache.arrow.stream",
            _ => "application/cbor",
        }
    }

    /// Reads the name on the wire.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// What an envelope's signed header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Who speaks.
    pub device_id: DeviceId,
    /// Which start of its agent.
    pub boot_id: BootId,
    /// 0, 1, 2 … within the boot.
    pub sequence: u64,
    /// The agent's estimate of reference time when it sealed.
    pub timestamp: TaiNanos,
    /// What the payload is.
    pub payload_type: PayloadType,
    /// SHA-256 of the exact bytes of the device's preceding envelope; none only for the very first.
    pub previous: Option<Digest>,
    /// Sealed by the gateway for a device that cannot sign.
    pub attested: bool,
}

/// Why bytes are not an envelope, or not one to trust.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Over the limit of [`MAX_PAYLOAD`].
    #[error("the payload has {length} bytes; an envelope carries at most {MAX_PAYLOAD}: split it")]
    TooLarge {
        /// Bytes found.
        length: usize,
    },
    /// Not a COSE_Sign1 structure.
    #[error("not a COSE_Sign1 structure: {0}")]
    NotCose(String),
    /// The protected header lacks a claim or has it in another type.
    #[error("the signed header has no valid `{0}`")]
    Claim(&'static str),
    /// Something stands where the design keeps the structure empty.
    #[error("the unprotected header holds something; nothing unsigned is accepted")]
    Unprotected,
    /// The signature does not fit the key and the bytes.
    #[error("the signature does not fit key {key_id}: the envelope was altered or forged")]
    Signature {
        /// The key tried.
        key_id: KeyId,
    },
    /// The envelope cites another key than the one offered.
    #[error("signed with key {cited}, not with {offered}")]
    WrongKey {
        /// The key the envelope names.
        cited: KeyId,
        /// The key it was checked with.
        offered: KeyId,
    },
    /// Bytes that are no usable Ed25519 public key.
    #[error("{length} bytes that are no usable Ed25519 public key: 32 bytes of a strong curve point are needed")]
    PublicKey {
        /// Bytes found.
        length: usize,
    },
}

/// Signs a payload; the result is the envelope's exact bytes.
///
/// # Errors
/// [`EnvelopeError::TooLarge`] over [`MAX_PAYLOAD`].
pub fn seal(claims: &Claims, payload: &[u8], key: &SealKey) -> Result<Vec<u8>, EnvelopeError> {
    if payload.len() > MAX_PAYLOAD {
        return Err(EnvelopeError::TooLarge { length: payload.len() });
    }
    let mut header = HeaderBuilder::new()
        .algorithm(iana::Algorithm::EdDSA)
        .content_type(claims.payload_type.content_type().to_owned())
        .key_id(key.key_id().0)
        .value(DEVICE_ID, Value::from(claims.device_id.as_str()))
        .value(BOOT_ID, Value::from(claims.boot_id.0.to_vec()))
        .value(SEQUENCE, Value::from(claims.sequence))
        .value(TIMESTAMP, Value::from(claims.timestamp.0))
        .value(PAYLOAD_TYPE, Value::from(claims.payload_type.as_str()));
    if let Some(previous) = claims.previous {
        header = header.value(PREVIOUS, Value::from(previous.0.to_vec()));
    }
    if claims.attested {
        header = header.value(ATTESTED, Value::from(true));
    }
    Ok(sign(header.build(), payload, key))
}

pub(crate) fn sign(protected: Header, payload: &[u8], key: &SealKey) -> Vec<u8> {
    CoseSign1Builder::new()
        .protected(protected)
        .payload(payload.to_vec())
        .create_signature(&[], |message| key.sign(message).to_vec())
        .build()
        .to_tagged_vec()
        .expect("a structure we built always encodes")
}

/// Well-formed bytes that claim to be an envelope. Nobody has checked the signature.
#[derive(Debug, Clone)]
pub struct Unverified {
    claims: Claims,
    key_id: KeyId,
    digest: Digest,
    bytes: Vec<u8>,
    cose: CoseSign1,
}

impl Unverified {
    /// Reads the structure and its claims.
    ///
    /// # Errors
    /// [`EnvelopeError`] says which part is missing or wrong.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, EnvelopeError> {
        if bytes.len() > MAX_ENVELOPE {
            return Err(EnvelopeError::TooLarge { length: bytes.len() });
        }
        let cose = parse_sign1(&bytes)?;
        if !cose.unprotected.is_empty() {
            return Err(EnvelopeError::Unprotected);
        }
        let length = cose.payload.as_ref().map_or(0, Vec::len);
        if length > MAX_PAYLOAD {
            return Err(EnvelopeError::TooLarge { length });
        }
        if cose.payload.is_none() {
            return Err(EnvelopeError::NotCose("the payload is detached".to_owned()));
        }
        let claims = read_claims(&cose.protected.header)?;
        let key_id = KeyId(cose.protected.header.key_id.clone());
        Ok(Self {
            claims,
            key_id,
            digest: Digest::of(&bytes),
            bytes,
            cose,
        })
    }

    /// What the header claims.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The key the envelope says it was signed with.
    pub fn key_id(&self) -> &KeyId {
        &self.key_id
    }

    /// SHA-256 of the exact bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The exact bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Checks the signature; the only way to a [`Verified`] envelope.
    ///
    /// # Errors
    /// [`EnvelopeError::WrongKey`] or [`EnvelopeError::Signature`], with the envelope given back for the dead letters.
    pub fn verify(self, key: &PublicKey) -> Result<Verified<Envelope>, Box<(EnvelopeError, Self)>> {
        let offered = key.key_id();
        if self.key_id != offered {
            let error = EnvelopeError::WrongKey {
                cited: self.key_id.clone(),
                offered,
            };
            return Err(Box::new((error, self)));
        }
        if !signature_fits(&self.cose, key) {
            return Err(Box::new((EnvelopeError::Signature { key_id: offered }, self)));
        }
        let payload = self.cose.payload.unwrap_or_default();
        Ok(Verified(Envelope {
            claims: self.claims,
            payload,
            digest: self.digest,
            bytes: self.bytes,
        }))
    }
}

pub(crate) fn parse_sign1(bytes: &[u8]) -> Result<CoseSign1, EnvelopeError> {
    let cose = CoseSign1::from_tagged_slice(bytes).map_err(|error| EnvelopeError::NotCose(error.to_string()))?;
    let eddsa = coset::RegisteredLabelWithPrivate::Assigned(iana::Algorithm::EdDSA);
    if cose.protected.header.alg == Some(eddsa) {
        Ok(cose)
    } else {
        Err(EnvelopeError::Claim("alg (EdDSA)"))
    }
}

pub(crate) fn signature_fits(cose: &CoseSign1, key: &PublicKey) -> bool {
    cose.verify_signature(&[], |signature, message| {
        if key.verify(message, signature) {
            Ok(())
        } else {
            Err(())
        }
    })
    .is_ok()
}

fn read_claims(header: &Header) -> Result<Claims, EnvelopeError> {
    let claim = |label: i64| {
        header
            .rest
            .iter()
            .find(|(found, _)| *found == Label::Int(label))
            .map(|(_, value)| value)
    };
    let text = |label, name| claim(label).and_then(Value::as_text).ok_or(EnvelopeError::Claim(name));
    let device_id = DeviceId::new(text(DEVICE_ID, "device_id")?).map_err(|_| EnvelopeError::Claim("device_id"))?;
    let boot_id = claim(BOOT_ID)
        .and_then(Value::as_bytes)
        .and_then(|bytes| BootId::from_slice(bytes))
        .ok_or(EnvelopeError::Claim("boot_id"))?;
    let integer = |label, name| {
        claim(label)
            .and_then(Value::as_integer)
            .ok_or(EnvelopeError::Claim(name))
    };
    let sequence = integer(SEQUENCE, "sequence")?
        .try_into()
        .map_err(|_| EnvelopeError::Claim("sequence"))?;
    let timestamp = integer(TIMESTAMP, "timestamp")?
        .try_into()
        .map_err(|_| EnvelopeError::Claim("timestamp"))?;
    let payload_type =
        PayloadType::parse(text(PAYLOAD_TYPE, "payload_type")?).ok_or(EnvelopeError::Claim("payload_type"))?;
    let previous = match claim(PREVIOUS) {
        None => None,
        Some(value) => {
            let bytes = value.as_bytes().and_then(|bytes| Digest::from_slice(bytes));
            Some(bytes.ok_or(EnvelopeError::Claim("previous"))?)
        }
    };
    let attested = match claim(ATTESTED) {
        None => false,
        Some(value) => value.as_bool().ok_or(EnvelopeError::Claim("attested"))?,
    };
    Ok(Claims {
        device_id,
        boot_id,
        sequence,
        timestamp: TaiNanos(timestamp),
        payload_type,
        previous,
        attested,
    })
}

/// Something whose signature was checked. Only this module makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self(inner)
    }

    /// Gives up the proof.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A checked envelope: claims, payload, and the exact bytes that were signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    claims: Claims,
    payload: Vec<u8>,
    digest: Digest,
    bytes: Vec<u8>,
}

impl Envelope {
    /// What the header claims.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The payload's bytes.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// SHA-256 of the exact bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The exact bytes, for the archive.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
