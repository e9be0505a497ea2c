//! The sender's side of the hash chain: sequence and `previous` of one device in one boot.

use crate::{BootId, Claims, DeviceId, Digest, EnvelopeError, PayloadType, SealKey, TaiNanos, seal};

/// Seals the envelopes of one device in order.
#[derive(Debug, Clone)]
pub struct Chain {
    device_id: DeviceId,
    boot_id: BootId,
    next_sequence: u64,
    previous: Option<Digest>,
    attested: bool,
}

/// A sealed envelope and where it stands in its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The claims that were signed.
    pub claims: Claims,
    /// The exact bytes.
    pub bytes: Vec<u8>,
    /// SHA-256 of the bytes: the next envelope's `previous`.
    pub digest: Digest,
}

impl Chain {
    /// A new boot; `previous` is the digest of the last envelope of the boot before, kept even when the spool is empty.
    pub fn start(device_id: DeviceId, boot_id: BootId, previous: Option<Digest>) -> Self {
        Self {
            device_id,
            boot_id,
            next_sequence: 0,
            previous,
            attested: false,
        }
    }

    /// Marks every envelope as sealed on behalf of a device that cannot sign.
    #[must_use]
    pub fn attested(mut self) -> Self {
        self.attested = true;
        self
    }

    /// Seals the next envelope. When it fails, the chain stands where it stood.
    ///
    /// # Errors
    /// [`EnvelopeError::TooLarge`] over the payload limit.
    pub fn seal(
        &mut self,
        key: &SealKey,
        timestamp: TaiNanos,
        payload_type: PayloadType,
        payload: &[u8],
    ) -> Result<Sealed, EnvelopeError> {
        let claims = Claims {
            device_id: self.device_id.clone(),
            boot_id: self.boot_id,
            sequence: self.next_sequence,
            timestamp,
            payload_type,
            previous: self.previous,
            attested: self.attested,
        };
        let bytes = seal(&claims, payload, key)?;
        let digest = Digest::of(&bytes);
        self.next_sequence += 1;
        self.previous = Some(digest);
        Ok(Sealed { claims, bytes, digest })
    }

    /// The device whose chain this is.
    pub fn device_id(&self) -> &DeviceId {
        &self.device_id
    }

    /// The boot whose chain this is.
    pub fn boot_id(&self) -> BootId {
        self.boot_id
    }

    /// The sequence the next envelope gets.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// The digest of the last envelope sealed, in this boot or the one before.
    pub fn previous(&self) -> Option<Digest> {
        self.previous
    }
}
