//! The live stream over WebSocket.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{MissedTickBehavior, timeout};

use super::hub::{Client, Interest};
use super::message::{self, Outgoing};
use crate::app::Shared;
use crate::problems::Refusal;

const MAX_CLIENT_MESSAGE: usize = 256 * 1024;
const PING_EVERY: Duration = Duration::from_secs(10);
/// A client that takes nothing for so long is gone.
const WRITE_PATIENCE: Duration = Duration::from_secs(20);
/// So many pings without any sign of life.
const SILENT_PINGS: u32 = 3;
const CLOSE_PATIENCE: Duration = Duration::from_millis(500);

/// What a client may say.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Said {
    /// Replaces what the client wants.
    Subscribe {
        #[serde(default)]
        streams: Vec<String>,
        topics: Option<Vec<String>>,
        cursor: Option<String>,
    },
    /// Asks for our time.
    Ping { t0_ms: f64 },
}

/// The live stream over WebSocket. The client sends `{"type":"subscribe","streams":[…],"cursor":…}` and
/// `{"type":"ping","t0_ms":…}`.
#[utoipa::path(get, path = "/live", tag = "gateway", responses((status = 101, description = "A WebSocket")))]
pub async fn live(
    State(app): State<Shared>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let upgrade = upgrade.map_err(|rejection| {
        Refusal::bad_request(format!(
            "{}; /live speaks WebSocket, /live/events the same messages as server-sent events",
            rejection.body_text()
        ))
    })?;
    let room = app.live_room()?;
    let upgrade = upgrade
        .max_message_size(MAX_CLIENT_MESSAGE)
        .max_frame_size(MAX_CLIENT_MESSAGE);
    // The upgraded connection is no longer the server's; the tracker makes the stop wait for it.
    let tracked = app.tracker.token();
    Ok(upgrade.on_upgrade(move |socket| async move {
        serve(app, socket, room).await;
        drop(tracked);
    }))
}

async fn serve(app: Shared, mut socket: WebSocket, _room: OwnedSemaphorePermit) {
    let client = app.hub.join();
    client.push(message::hello(app.clock.wall(), &app.build));
    let mut pings = tokio::time::interval(PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silent = 0;
    loop {
        let step = tokio::select! {
            biased;
            () = app.stopping.cancelled() => return close(socket, close_code::AWAY, "the server stops").await,
            said = socket.next() => {
                silent = 0;
                match said {
                    Some(Ok(said)) => hear(&app, &client, &mut socket, said).await,
                    Some(Err(_)) | None => return,
                }
            }
            messages = client.take() => send(&mut socket, &messages).await,
            _ = pings.tick() => {
                silent += 1;
                if silent > SILENT_PINGS {
                    return close(socket, close_code::AWAY, "no sign of life").await;
                }
                write(socket.send(Message::Ping(Default::default()))).await
            }
        };
        if step.is_break() {
            return;
        }
    }
}

async fn hear(app: &Shared, client: &Client, socket: &mut WebSocket, said: Message) -> ControlFlow<()> {
    let text = match said {
        Message::Text(text) => text,
        Message::Close(_) => return ControlFlow::Break(()),
        Message::Binary(_) | Message::Ping(_) | Message::Pong(_) => {
            return ControlFlow::Continue(());
        }
    };
    match serde_json::from_str(&text) {
        Ok(Said::Ping { t0_ms }) => {
            // Past the queue: what waits there must not look like distance.
            let t1_ms = app.clock.wall().to_unix_millis();
            let pong = json!({ "type": "pong", "t0_ms": t0_ms, "t1_ms": t1_ms });
            return write(socket.send(Message::text(pong.to_string()))).await;
        }
        Ok(Said::Subscribe {
            streams,
            topics,
            cursor,
        }) => {
            let topics = topics.as_ref().map(|names| names.iter().map(String::as_str));
            let subscribed = Interest::parse(streams.iter().map(String::as_str), topics).and_then(|interest| {
                client
                    .subscribe(interest, cursor.as_deref())
                    .map_err(|error| error.to_string())
            });
            if let Err(reason) = subscribed {
                client.push(complaint(&reason));
            }
        }
        Err(error) => client.push(complaint(&error.to_string())),
    }
    ControlFlow::Continue(())
}

fn complaint(reason: &str) -> Outgoing {
    Outgoing::plain(&json!({ "type": "problem", "title": "Message not understood", "detail": reason }))
}

/// Everything that waits goes into one write: no message is held back, and a backlog costs one system call.
async fn send(socket: &mut WebSocket, messages: &[Arc<Outgoing>]) -> ControlFlow<()> {
    let all = async {
        for message in messages {
            socket.feed(Message::Text(message.text.clone())).await?;
        }
        socket.flush().await
    };
    write(all).await
}

async fn write(writing: impl Future<Output = Result<(), axum::Error>>) -> ControlFlow<()> {
    match timeout(WRITE_PATIENCE, writing).await {
        Ok(Ok(())) => ControlFlow::Continue(()),
        Ok(Err(_)) | Err(_) => ControlFlow::Break(()),
    }
}

/// Says why, and gives the client a moment to answer.
async fn close(mut socket: WebSocket, code: u16, reason: &'static str) {
    let goodbye = async {
        let frame = CloseFrame {
            code,
            reason: reason.into(),
        };
        if socket.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    let _ = timeout(CLOSE_PATIENCE, goodbye).await;
}
