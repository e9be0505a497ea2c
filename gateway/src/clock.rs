//! The clock probe: an agent learns the offset of its clock to ours from four time stamps (RFC 5905 §8).

use std::convert::Infallible;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use orrery_protocol::TaiNanos;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::{Arrived, Shared};
use crate::problems::Refusal;

/// A probe as it comes in.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ProbeRequest {
    /// The prober's own stamp; it comes back unchanged.
    t0: String,
}

/// A probe as it goes out. TAI nanoseconds as strings.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProbeReply {
    /// The prober's own stamp.
    t0: String,
    /// When the request arrived here.
    t1: String,
    /// When the reply left.
    t2: String,
}

/// Answers a clock probe.
#[utoipa::path(post, path = "/clock/probe", tag = "gateway", request_body = ProbeRequest,
    responses((status = 200, body = ProbeReply)))]
pub async fn probe(
    State(app): State<Shared>,
    Extension(Arrived(t1)): Extension<Arrived>,
    body: Result<Json<ProbeRequest>, JsonRejection>,
) -> Result<Response, Refusal> {
    let Json(ProbeRequest { t0 }) = body.map_err(|rejection| Refusal::bad_request(rejection.body_text()))?;
    if t0.len() > 20 || t0.parse::<i64>().is_err() {
        return Err(Refusal::bad_request(
            "`t0` must be a 64-bit integer of nanoseconds in a string",
        ));
    }
    // The connection asks for this chunk when it writes the reply: after every layer, just before the socket.
    let chunk = stream::once(async move {
        let TaiNanos(t2) = app.clock.wall();
        Ok::<_, Infallible>(Bytes::from(format!(r#"{{"t0":"{t0}","t1":"{}","t2":"{t2}"}}"#, t1.0)))
    });
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::from_stream(chunk)).into_response())
}
