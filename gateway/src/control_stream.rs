//! Commands for agents that reach the bus only through us: the same sealed bytes, as a resumable event stream.
//!
//! Every event has an id. Sent back as `Last-Event-ID`, or as `from`, it resumes after, or at, that event. On a bus with
//! one partition the id is the offset; with several it is `partition:offset` for each, separated by commas.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream;
use orrery_bus::{BusError, From, Message, Position, Subscription};
use orrery_protocol::{DeviceId, Principal, topics};
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::IntoParams;

use crate::app::Shared;
use crate::problems::Refusal;

const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// What the agent wants.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Device ids, separated by commas.
    devices: String,
    /// `earliest` (the default), `latest`, an offset, or an id of an earlier event.
    from: Option<String>,
}

/// Sealed commands as server-sent events: `event: command`, `data:` the COSE bytes in base64.
#[utoipa::path(get, path = "/control/stream", tag = "gateway", params(Wanted),
    responses((status = 200, content_type = "text/event-stream", body = String)))]
pub async fn commands(
    State(app): State<Shared>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(wanted) = query.map_err(|rejection| Refusal::bad_request(rejection.body_text()))?;
    let devices = parse_devices(&wanted.devices, &principal)?;
    let resumed = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok())
        .filter(|id| !id.is_empty());
    let from = match (resumed, wanted.from.as_deref()) {
        (Some(id), _) => Start::after(id)?,
        (None, Some(text)) => Start::at(text)?,
        (None, None) => Start {
            from: From::Earliest,
            seen: BTreeMap::new(),
        },
    };
    let room = (app.control_room.clone().try_acquire_owned())
        .map_err(|_| Refusal::unavailable("too many control streams are open already", 5))?;
    let from = from.pinned(&app).await;
    let subscription = app.bus.subscribe(topics::CONTROL, from.from).await;
    let subscription = subscription.map_err(|error| match error {
        // An id of another bus: waiting would not help.
        BusError::NoPartition { .. } => Refusal::new(
            StatusCode::GONE,
            "unknown-cursor",
            "No such place in the stream",
            format!("{error}: start again with `from=latest`"),
        ),
        error => {
            tracing::error!(%error, "a control stream could not be opened");
            Refusal::unavailable("the bus cannot be read now", 2)
        }
    })?;
    let reading = Reading {
        app,
        subscription,
        devices,
        seen: from.seen,
        waiting: VecDeque::new(),
        _room: room,
    };
    let events = stream::unfold(reading, Reading::next);
    let mut response = Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response();
    response
        .headers_mut()
        .insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

fn parse_devices(list: &str, principal: &Principal) -> Result<BTreeSet<DeviceId>, Refusal> {
    let mut devices = BTreeSet::new();
    for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let device = DeviceId::new(name).map_err(|error| Refusal::bad_request(format!("`devices`: {error}")))?;
        if !principal.may_send_for(&device) {
            return Err(Refusal::forbidden(format!(
                "{device} is not one of {}'s devices: enrol it with a one-time token",
                principal.name
            )));
        }
        devices.insert(device);
    }
    if devices.is_empty() {
        return Err(Refusal::bad_request("`devices` names no device"));
    }
    Ok(devices)
}

/// Where a stream starts, and what its ids go on from: the last offset seen in each partition.
#[derive(Debug, PartialEq, Eq)]
struct Start {
    from: From,
    seen: BTreeMap<u32, u64>,
}

impl Start {
    /// After the event with this id.
    fn after(id: &str) -> Result<Self, Refusal> {
        let seen = parse_id(id).ok_or_else(|| bad_position(id))?;
        let positions = seen.iter().map(|(&partition, &offset)| Position {
            partition,
            offset: offset.saturating_add(1),
        });
        Ok(Self {
            from: From::Offsets(positions.collect()),
            seen,
        })
    }

    /// Ids of a stream that starts at the latest command name every partition, so that resuming does not go back to
    /// the oldest of those that were silent.
    async fn pinned(mut self, app: &Shared) -> Self {
        if self.from == From::Latest {
            // A topic that does not exist yet has no end, and nothing that could come twice.
            let ends = app.bus.end(topics::CONTROL).await.unwrap_or_default();
            self.seen = ends
                .iter()
                .filter_map(|end| Some((end.partition, end.offset.checked_sub(1)?)))
                .collect();
        }
        self
    }

    /// At this place.
    fn at(text: &str) -> Result<Self, Refusal> {
        let fresh = |from| {
            Ok(Self {
                from,
                seen: BTreeMap::new(),
            })
        };
        match text {
            "earliest" => fresh(From::Earliest),
            "latest" => fresh(From::Latest),
            _ => {
                let places = parse_id(text).ok_or_else(|| bad_position(text))?;
                let positions = places
                    .iter()
                    .map(|(&partition, &offset)| Position { partition, offset });
                let from = From::Offsets(positions.collect());
                let before = places
                    .iter()
                    .filter_map(|(&partition, offset)| Some((partition, offset.checked_sub(1)?)));
                Ok(Self {
                    from,
                    seen: before.collect(),
                })
            }
        }
    }
}

fn bad_position(text: &str) -> Refusal {
    Refusal::bad_request(format!(
        "`{text}` is no place in the stream: use an event's id, an offset, earliest or latest"
    ))
}

fn parse_id(text: &str) -> Option<BTreeMap<u32, u64>> {
    if let Ok(offset) = text.parse() {
        return Some(BTreeMap::from([(0, offset)]));
    }
    let pairs = text.split(',').map(|pair| {
        let (partition, offset) = pair.split_once(':')?;
        Some((partition.parse().ok()?, offset.parse().ok()?))
    });
    pairs.collect()
}

fn render_id(seen: &BTreeMap<u32, u64>) -> String {
    if let (1, Some(offset)) = (seen.len(), seen.get(&0)) {
        return offset.to_string();
    }
    let pairs: Vec<String> = seen
        .iter()
        .map(|(partition, offset)| format!("{partition}:{offset}"))
        .collect();
    pairs.join(",")
}

struct Reading {
    app: Shared,
    subscription: Box<dyn Subscription>,
    devices: BTreeSet<DeviceId>,
    seen: BTreeMap<u32, u64>,
    waiting: VecDeque<Message>,
    _room: OwnedSemaphorePermit,
}

impl Reading {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        loop {
            while let Some(message) = self.waiting.pop_front() {
                self.seen.insert(message.partition, message.offset);
                if self.is_ours(&message) {
                    let event = Event::default()
                        .event("command")
                        .id(render_id(&self.seen))
                        .data(STANDARD.encode(&message.value));
                    return Some((Ok(event), self));
                }
            }
            let batch = tokio::select! {
                biased;
                () = self.app.stopping.cancelled() => return None,
                batch = self.subscription.next() => batch,
            };
            match batch {
                Ok(batch) => self.waiting.extend(batch),
                Err(error) => {
                    // The agent connects again and resumes; nothing is lost by ending here.
                    tracing::warn!(%error, "a control stream ended");
                    return None;
                }
            }
        }
    }

    fn is_ours(&self, message: &Message) -> bool {
        let device = std::str::from_utf8(&message.key)
            .ok()
            .and_then(|key| DeviceId::new(key).ok());
        device.is_some_and(|device| self.devices.contains(&device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(pairs: &[(u32, u64)]) -> From {
        From::Offsets(
            pairs
                .iter()
                .map(|&(partition, offset)| Position { partition, offset })
                .collect(),
        )
    }

    #[test]
    fn an_id_resumes_after_its_event_and_an_offset_at_it() {
        assert_eq!(Start::after("41").unwrap().from, offsets(&[(0, 42)]));
        assert_eq!(Start::at("41").unwrap().from, offsets(&[(0, 41)]));
        assert_eq!(Start::after("0:7,3:9").unwrap().from, offsets(&[(0, 8), (3, 10)]));
        assert_eq!(
            Start::at("0").unwrap(),
            Start {
                from: offsets(&[(0, 0)]),
                seen: BTreeMap::new()
            }
        );
        assert_eq!(Start::at("latest").unwrap().from, From::Latest);
        assert!(Start::at("yesterday").is_err() && Start::after("1:").is_err() && Start::after("-1").is_err());
    }

    #[test]
    fn ids_read_back() {
        for seen in [
            BTreeMap::from([(0, 5)]),
            BTreeMap::from([(2, 5)]),
            BTreeMap::from([(0, 1), (1, 2)]),
        ] {
            assert_eq!(parse_id(&render_id(&seen)), Some(seen));
        }
    }
}
