//! Intake: sealed envelopes of agents as they are, and readings of plain HTTP devices, sealed here.
//!
//! Both answer 202 only when the bus has them durably. Signatures are not checked at this door: the aligner does, and
//! keeps what fails as dead letters. Here a caller may only name devices that its token opens for.

mod attested;
mod frames;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use orrery_protocol::{Principal, Unverified, topics};
use serde::Serialize;
use utoipa::ToSchema;

pub use attested::Attestor;
pub use frames::frames;

use crate::app::Shared;
use crate::problems::Refusal;

/// The media type of framed envelopes.
pub const ENVELOPES: &str = "application/vnd.orrery.envelopes";
/// The largest body that `POST /envelopes` takes, in bytes.
pub const MAX_BODY: usize = 8 * 1024 * 1024;
const MAX_FRAMES: usize = 4_096;

/// What was taken.
#[derive(Debug, Serialize, ToSchema)]
pub struct Taken {
    /// How many envelopes are durable on the bus now.
    accepted: usize,
}

/// Takes envelopes. `application/vnd.orrery.envelopes` is a row of (u32 big-endian length, COSE_Sign1 bytes);
/// `application/json` is one reading `{device_id, timestamp, payload_type, payload}` that the gateway seals.
#[utoipa::path(post, path = "/envelopes", tag = "gateway",
    request_body(content((Vec<u8> = "application/vnd.orrery.envelopes"), (attested::Reading = "application/json"))),
    responses((status = 202, body = Taken, description = "Durable on the bus"),
        (status = 400, description = "A frame is no envelope; nothing was taken"),
        (status = 403, description = "A device is not the caller's; nothing was taken"),
        (status = 503, description = "Try again after `Retry-After`")))]
pub async fn take(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Taken>), Refusal> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Refusal::too_large(format!("a request takes at most {MAX_BODY} bytes: split it"))
        }
        _ => Refusal::bad_request(rejection.body_text()),
    })?;
    // Held until the bus has answered: what is in memory at once stays bounded however slow the disk is.
    let kib = u32::try_from(body.len().div_ceil(1024)).unwrap_or(u32::MAX);
    let _room = app.ingest_room.clone().try_acquire_many_owned(kib).map_err(|_| {
        app.metrics.ingest.turned_away.add(1);
        Refusal::unavailable(
            "too many envelopes are on their way to the bus already: send again shortly",
            1,
        )
    })?;
    let media_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    let taken = if media_type.eq_ignore_ascii_case(ENVELOPES) {
        take_framed(&app, &principal, body).await
    } else if media_type.eq_ignore_ascii_case("application/json") {
        attested::take(&app, &principal, &body).await
    } else {
        Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "Media type not taken",
            format!("`{media_type}` is not taken here: send {ENVELOPES} or application/json"),
        ))
    };
    match &taken {
        Ok(count) => app.metrics.ingest.accepted.add(*count as u64),
        Err(_) => app.metrics.ingest.refused.add(1),
    }
    taken.map(|accepted| (StatusCode::ACCEPTED, Json(Taken { accepted })))
}

async fn take_framed(app: &Shared, principal: &Principal, body: Bytes) -> Result<usize, Refusal> {
    let mut records = Vec::new();
    for (index, frame) in frames(body).enumerate() {
        if index == MAX_FRAMES {
            return Err(Refusal::too_large(format!(
                "more than {MAX_FRAMES} envelopes in one request: split it"
            )));
        }
        let frame =
            frame.map_err(|error| Refusal::bad_request(format!("frame {index}: {error}; nothing was taken")))?;
        let envelope = Unverified::parse(frame.to_vec())
            .map_err(|error| Refusal::bad_request(format!("frame {index}: {error}; nothing was taken")))?;
        let device = &envelope.claims().device_id;
        if !principal.may_send_for(device) {
            return Err(Refusal::forbidden(format!(
                "frame {index} is of device {device}, which is not one of {}'s: enrol it with a one-time token",
                principal.name
            )));
        }
        let key = Bytes::copy_from_slice(device.as_str().as_bytes());
        let headers = orrery_bus::cloudevents(envelope.claims());
        records.push(orrery_bus::Record {
            key,
            headers,
            value: frame,
        });
    }
    if records.is_empty() {
        return Err(Refusal::bad_request("the body holds no envelope"));
    }
    let count = records.len();
    publish(app, records).await?;
    Ok(count)
}

async fn publish(app: &Shared, records: Vec<orrery_bus::Record>) -> Result<(), Refusal> {
    match app.bus.publish(topics::RAW, records).await {
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::error!(%error, "the bus did not take envelopes; their senders will send them again");
            Err(Refusal::unavailable(
                "the bus does not take envelopes now; keep them and send again",
                2,
            ))
        }
    }
}
