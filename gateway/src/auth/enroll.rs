//! Enrolment: an operator makes a one-time token; whoever holds it binds devices to keys and gets an agent's token.

use std::collections::HashSet;
use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::{Json, body::Bytes};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use orrery_protocol::{DeviceId, Principal, PublicKey, Role, TaiNanos};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::Shared;
use crate::problems::Refusal;

const MAX_DEVICES: usize = 256;
const MAX_NOTE: usize = 80;
const MAX_TOKEN_MINUTES: u32 = 30 * 24 * 60;

/// What an enrolment token is for.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TokenRequest {
    /// A few words for logs and provenance, such as `bench 3`.
    note: String,
    /// How long the token opens, in minutes.
    minutes: Option<u32>,
}

/// A one-time enrolment token. It is shown once and stored only as a fingerprint.
#[derive(Debug, Serialize, ToSchema)]
pub struct EnrolmentToken {
    /// The token, for `orrery-edge enroll`.
    token: String,
    /// Until when it opens, RFC 3339.
    expires: String,
}

/// Makes a one-time enrolment token.
#[utoipa::path(post, path = "/enrollment-tokens", tag = "gateway", request_body = TokenRequest,
    responses((status = 201, body = EnrolmentToken)))]
pub async fn make_token(State(app): State<Shared>, body: Bytes) -> Result<(StatusCode, Json<EnrolmentToken>), Refusal> {
    let request: TokenRequest = if body.is_empty() {
        TokenRequest::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| Refusal::bad_request(format!("the body: {error}")))?
    };
    if request.note.len() > MAX_NOTE || request.note.chars().any(char::is_control) {
        return Err(Refusal::bad_request(format!(
            "`note` takes at most {MAX_NOTE} printable bytes"
        )));
    }
    let minutes = request.minutes.unwrap_or(app.config.enrolment_token_minutes);
    if minutes == 0 || minutes > MAX_TOKEN_MINUTES {
        return Err(Refusal::bad_request(format!(
            "`minutes` must lie between 1 and {MAX_TOKEN_MINUTES}"
        )));
    }
    let (now, life) = (app.clock.wall(), Duration::from_secs(u64::from(minutes) * 60));
    let secret = app
        .trust
        .make_enrolment(request.note, now, life)
        .await
        .map_err(|error| Refusal::internal(&error))?;
    let expires = now.plus(life).to_rfc3339();
    Ok((
        StatusCode::CREATED,
        Json(EnrolmentToken {
            token: secret.expose().to_owned(),
            expires,
        }),
    ))
}

/// Devices to enrol. `keys[i]` is the Ed25519 public key of `device_ids[i]`, base64url; where it is `null` or missing,
/// the gateway signs for the device (the JSON form of `POST /envelopes`).
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentRequest {
    device_ids: Vec<String>,
    #[serde(default)]
    keys: Vec<Option<String>>,
    /// Names for people, in the order of `device_ids`.
    #[serde(default)]
    titles: Vec<Option<String>>,
    /// Protocols (`serial`, `opcua`, `mqtt` …), in the order of `device_ids`.
    #[serde(default)]
    protocols: Vec<Option<String>>,
}

/// What an agent needs from now on.
#[derive(Debug, Serialize, ToSchema)]
pub struct Enrolled {
    /// The agent's bearer token; shown once.
    token: String,
    /// The devices it opens for.
    device_ids: Vec<String>,
    /// Public keys (base64url) whose commands the agent may carry out.
    command_keys: Vec<String>,
}

/// Enrols devices with a one-time token and hands out the agent's own token.
#[utoipa::path(post, path = "/enrollments", tag = "gateway", request_body = EnrolmentRequest,
    responses((status = 201, body = Enrolled), (status = 409, description = "A device has another key")))]
pub async fn enroll(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    body: Result<Json<EnrolmentRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<Enrolled>), Refusal> {
    let Json(request) = body.map_err(|rejection| Refusal::bad_request(rejection.body_text()))?;
    let wanted = parse(&request)?;
    let now = app.clock.wall();
    let reservation = match principal.role {
        Role::Enroller => (app.trust.reserve(presented(&headers), now))
            .map_err(|refused| Refusal::unauthenticated(refused.to_string()))?,
        _ => operator_reservation(&app, now).await?,
    };
    let enroller = Principal {
        name: super::gate::enroller_name(reservation.note()),
        role: Role::Enroller,
    };
    for wish in &wanted {
        let key = match &wish.key {
            Some(key) => *key,
            None => app.attestor.public_key(),
        };
        app.inside
            .enrol(
                &enroller,
                &wish.device,
                &key,
                wish.title.as_deref(),
                wish.protocol.as_deref(),
            )
            .await?;
    }
    let devices: Vec<DeviceId> = wanted.into_iter().map(|wish| wish.device).collect();
    let device_ids = devices.iter().map(ToString::to_string).collect();
    let secret = reservation
        .spend(devices, now)
        .await
        .map_err(|error| Refusal::internal(&error))?;
    let mut command_keys = app.command_keys.clone();
    command_keys.extend(app.inside.command_keys().await);
    command_keys.dedup();
    let command_keys = command_keys
        .iter()
        .map(|key| URL_SAFE_NO_PAD.encode(key.as_bytes()))
        .collect();
    Ok((
        StatusCode::CREATED,
        Json(Enrolled {
            token: secret.expose().to_owned(),
            device_ids,
            command_keys,
        }),
    ))
}

/// An operator enrols without a token of his own making: one is made and spent in the same request.
async fn operator_reservation(app: &Shared, now: TaiNanos) -> Result<super::trust::Reservation, Refusal> {
    let life = Duration::from_secs(60);
    let secret = (app.trust.make_enrolment("operator".to_owned(), now, life).await)
        .map_err(|error| Refusal::internal(&error))?;
    app.trust
        .reserve(secret.expose(), now)
        .map_err(|refused| Refusal::internal(&refused))
}

fn presented(headers: &HeaderMap) -> &str {
    let value = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    value.split_once(' ').map_or("", |(_, token)| token.trim())
}

struct Wish {
    device: DeviceId,
    key: Option<PublicKey>,
    title: Option<String>,
    protocol: Option<String>,
}

fn parse(request: &EnrolmentRequest) -> Result<Vec<Wish>, Refusal> {
    let count = request.device_ids.len();
    if count == 0 || count > MAX_DEVICES {
        return Err(Refusal::bad_request(format!(
            "`device_ids` takes 1 to {MAX_DEVICES} names, found {count}"
        )));
    }
    for (name, length) in [
        ("keys", request.keys.len()),
        ("titles", request.titles.len()),
        ("protocols", request.protocols.len()),
    ] {
        if length > count {
            return Err(Refusal::bad_request(format!(
                "`{name}` has {length} entries for {count} device_ids"
            )));
        }
    }
    let mut seen = HashSet::new();
    let mut wishes = Vec::with_capacity(count);
    for (index, text) in request.device_ids.iter().enumerate() {
        let device =
            DeviceId::new(text).map_err(|error| Refusal::bad_request(format!("`device_ids[{index}]`: {error}")))?;
        if !seen.insert(device.clone()) {
            return Err(Refusal::bad_request(format!("`device_ids` names {device} twice")));
        }
        let key = match request.keys.get(index) {
            Some(Some(text)) => Some(
                parse_key(text)
                    .map_err(|reason| Refusal::bad_request(format!("`keys[{index}]` (of {device}): {reason}")))?,
            ),
            _ => None,
        };
        let title = request.titles.get(index).cloned().flatten();
        let protocol = request.protocols.get(index).cloned().flatten();
        wishes.push(Wish {
            device,
            key,
            title,
            protocol,
        });
    }
    Ok(wishes)
}

fn parse_key(text: &str) -> Result<PublicKey, String> {
    let bytes = URL_SAFE_NO_PAD
        .decode(text.trim_end_matches('='))
        .map_err(|_| "not base64url; give the 32 bytes of an Ed25519 public key".to_owned())?;
    PublicKey::from_bytes(&bytes).map_err(|error| error.to_string())
}
