//! Readings of devices that cannot sign: the gateway seals them with its own key, in a chain of its own, marked
//! `attested`.
//!
//! The sealed bytes of the last reading of each device are kept in `attested/<device>.last` *before* they go to the
//! bus. After a crash the next reading finds them there, publishes them again (the same bytes are a harmless
//! duplicate) and names them as its `previous`: the chain has neither a hole nor a fork.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Bytes;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use orrery_protocol::{
    BootId, Chain, Clock, DeviceId, MAX_PAYLOAD, PayloadType, Principal, PublicKey, Role, SealKey, TaiNanos, Unverified,
};
use serde::Deserialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use super::publish;
use crate::app::Shared;
use crate::auth::random;
use crate::error::KeysError;
use crate::files;
use crate::problems::Refusal;

const KEY_FILE: &str = "gateway.key";

/// One reading of a device that cannot sign.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// Whose reading.
    device_id: String,
    /// The device's own time stamp, RFC 3339.
    timestamp: String,
    /// `samples`, `event`, `log` …
    payload_type: String,
    /// The payload, base64; at most 512 KiB of bytes.
    payload: String,
}

/// The gateway's own key and the chains it keeps for devices that cannot sign.
pub struct Attestor {
    key: SealKey,
    boot: BootId,
    folder: PathBuf,
    /// One lock per device: its envelopes are sealed, stored and published one after the other.
    chains: Mutex<HashMap<DeviceId, Arc<Mutex<Option<Chain>>>>>,
}

impl std::fmt::Debug for Attestor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attestor")
            .field("kid", &self.key.key_id())
            .finish_non_exhaustive()
    }
}

impl Attestor {
    /// Reads the gateway's key from the folder, or makes it at the first start.
    pub fn open(folder: PathBuf, clock: &dyn Clock) -> Result<Self, KeysError> {
        let path = folder.join(KEY_FILE);
        let seed: [u8; 32] = match files::read(&path)? {
            Some(bytes) => parse_seed(&bytes).ok_or_else(|| KeysError::Damaged {
                path: path.clone(),
                reason: "it holds no 32-byte seed in hex".to_owned(),
                loss: "devices that the gateway signs for must enrol again under another name",
            })?,
            None => {
                let seed = random()?;
                files::replace(&path, hex::encode(seed).as_bytes())?;
                seed
            }
        };
        let boot = BootId::new(clock.wall(), random()?);
        Ok(Self {
            key: SealKey::from_seed(&seed),
            boot,
            folder,
            chains: Mutex::default(),
        })
    }

    /// The key that attested envelopes verify with.
    pub fn public_key(&self) -> PublicKey {
        self.key.public()
    }

    async fn chain(&self, device: &DeviceId) -> Arc<Mutex<Option<Chain>>> {
        Arc::clone(self.chains.lock().await.entry(device.clone()).or_default())
    }

    fn last_path(&self, device: &DeviceId) -> PathBuf {
        self.folder.join("attested").join(format!("{device}.last"))
    }
}

fn parse_seed(bytes: &[u8]) -> Option<[u8; 32]> {
    let text = std::str::from_utf8(bytes).ok()?;
    hex::decode(text.trim()).ok()?.try_into().ok()
}

/// Seals one reading and publishes it.
pub async fn take(app: &Shared, principal: &Principal, body: &Bytes) -> Result<usize, Refusal> {
    let reading = parse(body)?;
    let device = &reading.device;
    if !principal.may_send_for(device) {
        return Err(Refusal::forbidden(format!(
            "{device} is not one of {}'s devices: enrol it with a one-time token",
            principal.name
        )));
    }
    let attestor = &app.attestor;
    let slot = attestor.chain(device).await;
    let mut slot = slot.lock().await;
    // The chain goes back into its slot only when its envelope is on the bus. On an error, or when the caller hangs up
    // halfway, the next reading starts from what is stored.
    let mut chain = match slot.take() {
        Some(chain) => chain,
        None => first_use(app, device).await?,
    };
    let sealed = chain
        .seal(&attestor.key, reading.timestamp, reading.kind, &reading.payload)
        .map_err(|error| Refusal::bad_request(error.to_string()))?;
    files::replace_in_background(attestor.last_path(device), sealed.bytes.clone())
        .await
        .map_err(|error| Refusal::internal(&error))?;
    let record = orrery_bus::Record {
        key: Bytes::copy_from_slice(device.as_str().as_bytes()),
        headers: orrery_bus::cloudevents(&sealed.claims),
        value: sealed.bytes.into(),
    };
    publish(app, vec![record]).await?;
    *slot = Some(chain);
    Ok(1)
}

/// Enrols the gateway's key for the device and goes on from the last envelope stored for it.
async fn first_use(app: &Shared, device: &DeviceId) -> Result<Chain, Refusal> {
    let attestor = &app.attestor;
    let gateway = Principal {
        name: "gateway".to_owned(),
        role: Role::Operator,
    };
    app.inside
        .enrol(&gateway, device, &attestor.public_key(), None, Some("http"))
        .await?;
    let path = attestor.last_path(device);
    let last = files::read(&path).map_err(|error| Refusal::internal(&error))?;
    let (boot, previous) = match last {
        None => (attestor.boot, None),
        Some(bytes) => {
            let last = Unverified::parse(bytes).map_err(|error| {
                Refusal::internal(&KeysError::Damaged {
                    path,
                    reason: error.to_string(),
                    loss: "the device's chain shows a break",
                })
            })?;
            let record = orrery_bus::Record {
                key: Bytes::copy_from_slice(device.as_str().as_bytes()),
                headers: orrery_bus::cloudevents(last.claims()),
                value: Bytes::copy_from_slice(last.bytes()),
            };
            let digest = last.digest();
            // A chain that broke within this run of the gateway needs a boot of its own: sequences start at 0 again.
            let boot = if last.claims().boot_id < attestor.boot {
                attestor.boot
            } else {
                new_boot(app)?
            };
            publish(app, vec![record]).await?;
            (boot, Some(digest))
        }
    };
    Ok(Chain::start(device.clone(), boot, previous).attested())
}

fn new_boot(app: &Shared) -> Result<BootId, Refusal> {
    let random = random().map_err(|error| Refusal::internal(&error))?;
    Ok(BootId::new(app.clock.wall(), random))
}

struct Parsed {
    device: DeviceId,
    timestamp: TaiNanos,
    kind: PayloadType,
    payload: Vec<u8>,
}

fn parse(body: &[u8]) -> Result<Parsed, Refusal> {
    let reading: Reading = serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("the body is no reading: {error}")))?;
    let device =
        DeviceId::new(&reading.device_id).map_err(|error| Refusal::bad_request(format!("`device_id`: {error}")))?;
    let timestamp = TaiNanos::parse_rfc3339(&reading.timestamp)
        .map_err(|error| Refusal::bad_request(format!("`timestamp`: {error}")))?;
    let kind = PayloadType::parse(&reading.payload_type).ok_or_else(|| {
        let known: Vec<&str> = PayloadType::ALL.into_iter().map(PayloadType::as_str).collect();
        Refusal::bad_request(format!(
            "`payload_type` is `{}`; it is one of {}",
            reading.payload_type,
            known.join(", ")
        ))
    })?;
    let payload = STANDARD
        .decode(&reading.payload)
        .map_err(|error| Refusal::bad_request(format!("`payload` is not base64: {error}")))?;
    if payload.len() > MAX_PAYLOAD {
        return Err(Refusal::too_large(format!(
            "`payload` has {} bytes; at most {MAX_PAYLOAD} fit one envelope: split it",
            payload.len()
        )));
    }
    Ok(Parsed {
        device,
        timestamp,
        kind,
        payload,
    })
}
