//! Ed25519 keys (RFC 8032) and their COSE form (RFC 9052 §7, RFC 9053 §7.2).

use std::fmt;

use coset::{CborSerializable, CoseKeyBuilder, iana};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::EnvelopeError;

/// The first 16 bytes of the SHA-256 of a public key: what an envelope's `kid` holds.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub Vec<u8>);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A verifying key of a device, an issuer or a log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Takes the 32 bytes of an Ed25519 public key.
    ///
    /// # Errors
    /// [`EnvelopeError::PublicKey`] when they are not a point of the curve, or a weak one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let bytes: [u8; 32] = bytes
            .try_into()
            .map_err(|_| EnvelopeError::PublicKey { length: bytes.len() })?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| EnvelopeError::PublicKey { length: 32 })?;
        if key.is_weak() {
            Err(EnvelopeError::PublicKey { length: 32 })
        } else {
            Ok(Self(key))
        }
    }

    /// The 32 bytes of the key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The name under which envelopes cite this key.
    pub fn key_id(&self) -> KeyId {
        KeyId(Sha256::digest(self.0.as_bytes())[..16].to_vec())
    }

    /// The key as a COSE_Key, for verifiers that are not Orrery.
    pub fn to_cose_key(&self) -> Vec<u8> {
        CoseKeyBuilder::new_okp_key()
            .algorithm(iana::Algorithm::EdDSA)
            .key_id(self.key_id().0)
            .param(
                iana::OkpKeyParameter::Crv as i64,
                (iana::EllipticCurve::Ed25519 as i64).into(),
            )
            .param(iana::OkpKeyParameter::X as i64, self.0.as_bytes().to_vec().into())
            .build()
            .to_vec()
            .expect("a COSE_Key of four fixed parameters always encodes")
    }

    /// Checks a signature as RFC 8032 demands and refuses malleable ones.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        ed25519_dalek::Signature::from_slice(signature)
            .is_ok_and(|signature| self.0.verify_strict(message, &signature).is_ok())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", hex::encode(self.0.as_bytes()))
    }
}

impl Serialize for PublicKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0.as_bytes()))
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = hex::decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)?;
        Self::from_bytes(&bytes).map_err(serde::de::Error::custom)
    }
}

/// A signing key. It never prints itself and is wiped when dropped.
#[derive(Clone)]
pub struct SealKey(SigningKey);

impl SealKey {
    /// The key of a 32-byte seed (RFC 8032 §5.1.5); the seed comes from the operating system's randomness.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The seed, for whoever stores the key.
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The key that others verify with.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// The name under which envelopes cite this key.
    pub fn key_id(&self) -> KeyId {
        self.public().key_id()
    }

    /// A 64-byte Ed25519 signature.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKey(kid {})", self.key_id())
    }
}
