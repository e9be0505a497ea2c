//! Commands: absolute set-points, sealed by their issuer.
//!
//! A command travels as COSE_Sign1 (RFC 9052 §4.2) with content type `application/vnd.orrery.command+cbor`; the same
//! bytes go over the bus and over the gateway's stream. Its order per (device, channel) is `(issuer_epoch, issuer_sequence)`.

use coset::HeaderBuilder;
use serde::{Deserialize, Serialize};

use crate::envelope::{Verified, parse_sign1, sign, signature_fits};
use crate::payload::{cbor_payload, decode};
use crate::{DeviceId, EnvelopeError, KeyId, MAX_PAYLOAD, PayloadError, PublicKey, SealKey, TaiNanos, cbor};

const CONTENT_TYPE: &str = "application/vnd.orrery.command+cbor";

/// Set one channel of one device to an absolute value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Names the command in acknowledgements.
    pub id: String,
    /// Who must act.
    pub device: DeviceId,
    /// Which channel.
    pub channel: String,
    /// The set-point, in the channel's unit.
    pub value: f64,
    /// On whose behalf.
    pub issuer: String,
    /// Rises with each start of the issuing service.
    pub issuer_epoch: u64,
    /// Rises with each command of the epoch.
    pub issuer_sequence: u64,
    /// Not acted upon after this instant.
    pub apply_by: TaiNanos,
    /// After this instant the configured safe value applies; none: it holds until the next command.
    pub hold_until: Option<TaiNanos>,
}

cbor_payload! { Command => "command" }

impl Command {
    /// The command's place in the order of its channel.
    pub fn order(&self) -> (u64, u64) {
        (self.issuer_epoch, self.issuer_sequence)
    }
}

/// Why bytes are not a command to act upon.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The sealed structure is wrong.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The content is wrong.
    #[error(transparent)]
    Payload(#[from] PayloadError),
}

/// Signs a command.
pub fn seal_command(command: &Command, key: &SealKey) -> Vec<u8> {
    let header = HeaderBuilder::new()
        .algorithm(coset::iana::Algorithm::EdDSA)
        .content_type(CONTENT_TYPE.to_owned())
        .key_id(key.key_id().0)
        .build();
    sign(header, &command.encode(), key)
}

/// Reads and checks a sealed command.
///
/// # Errors
/// [`CommandError`] says whether form, key or signature is wrong.
pub fn verify_command(bytes: &[u8], key: &PublicKey) -> Result<Verified<Command>, CommandError> {
    if bytes.len() > MAX_PAYLOAD {
        return Err(EnvelopeError::TooLarge { length: bytes.len() }.into());
    }
    let cose = parse_sign1(bytes)?;
    let offered = key.key_id();
    if cose.protected.header.key_id != offered.0 {
        let cited = KeyId(cose.protected.header.key_id.clone());
        return Err(EnvelopeError::WrongKey { cited, offered }.into());
    }
    let content_type = coset::RegisteredLabel::Text(CONTENT_TYPE.to_owned());
    if cose.protected.header.content_type != Some(content_type) {
        return Err(EnvelopeError::Claim("content type").into());
    }
    if !signature_fits(&cose, key) {
        return Err(EnvelopeError::Signature { key_id: offered }.into());
    }
    Ok(Verified::new(Command::decode(
        cose.payload.as_deref().unwrap_or_default(),
    )?))
}
