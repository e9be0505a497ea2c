//! The live stream as server-sent events: the same messages, for clients that cannot have a WebSocket.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::IntoParams;

use super::hub::{Client, Interest};
use super::message::{self, Outgoing};
use crate::app::Shared;
use crate::problems::Refusal;

const KEEP_ALIVE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(500);

/// What the client wants.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Stream names, separated by commas; `*` is all of them.
    #[serde(default)]
    streams: String,
    /// `devices`, `forecast`, `control`, `provenance`, separated by commas; all of them when absent.
    topics: Option<String>,
    /// The cursor of the last message; `Last-Event-ID` goes before it.
    cursor: Option<String>,
}

/// The live stream as server-sent events.
#[utoipa::path(get, path = "/live/events", tag = "gateway", params(Wanted),
    responses((status = 200, content_type = "text/event-stream", body = String)))]
pub async fn events(
    State(app): State<Shared>,
    headers: HeaderMap,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(wanted) = query.map_err(|rejection| Refusal::bad_request(rejection.body_text()))?;
    let interest =
        Interest::parse(names(&wanted.streams), wanted.topics.as_deref().map(names)).map_err(Refusal::bad_request)?;
    let resumed = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let cursor = resumed.or(wanted.cursor.as_deref()).filter(|text| !text.is_empty());
    let room = app.live_room()?;
    let client = app.hub.join();
    client.push(message::hello(app.clock.wall(), &app.build));
    client
        .subscribe(interest, cursor)
        .map_err(|error| Refusal::bad_request(error.to_string()))?;
    let reading = Reading {
        app,
        client,
        waiting: VecDeque::new(),
        started: false,
        _room: room,
    };
    let events = stream::unfold(reading, Reading::next);
    let mut response = Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response();
    // A proxy that buffers would turn a live stream into a late one.
    response
        .headers_mut()
        .insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    Ok(response)
}

fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty())
}

struct Reading {
    app: Shared,
    client: Client,
    waiting: VecDeque<Arc<Outgoing>>,
    started: bool,
    _room: OwnedSemaphorePermit,
}

impl Reading {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        while self.waiting.is_empty() {
            let messages = tokio::select! {
                biased;
                () = self.app.stopping.cancelled() => return None,
                messages = self.client.take() => messages,
            };
            self.waiting.extend(messages);
        }
        let message = self.waiting.pop_front()?;
        let mut event = Event::default().data(message.text.as_str());
        if let Some(cursor) = &message.cursor {
            event = event.id(cursor.as_str());
        }
        if !std::mem::replace(&mut self.started, true) {
            event = event.retry(RETRY);
        }
        Some((Ok(event), self))
    }
}
