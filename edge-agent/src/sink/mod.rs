//! Where sealed envelopes go, and the task that sends them.

mod bus;
mod https;

pub use bus::BusSink;
pub use https::HttpsSink;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::connector::Backoff;
use crate::error::Error;
use crate::spool::Spool;
use crate::status::Status;

/// Takes sealed envelopes and answers when they are durable on the other side.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Sends envelopes in this order. Sending one twice is harmless.
    async fn send(&self, envelopes: &[Bytes]) -> Result<(), SinkError>;
}

/// Why envelopes were not taken. Either way they stay in the spool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// It may pass: nobody there, or busy.
    #[error("{0}")]
    Unreachable(String),
    /// It will not pass by itself: somebody must act.
    #[error("{0}")]
    Refused(String),
}

const MAX_BATCH_BYTES: usize = 1 << 20;
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// Sends what the spool has, in order, until `stop`; then, until `deadline` is cancelled, what is left.
///
/// If this task dies the agent ends: what was not sent is in the spool, and the next start sends it.
///
/// # Errors
/// When the spool cannot be read or its state not be written.
pub async fn forward(
    spool: Arc<Spool>,
    sink: Arc<dyn Sink>,
    status: Arc<Status>,
    stop: CancellationToken,
    deadline: CancellationToken,
) -> Result<(), Error> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    let mut told: Option<String> = None;
    let mut checkpoint_told = false;
    let mut checkpoint = tokio::time::interval(CHECKPOINT_EVERY);
    checkpoint.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        if deadline.is_cancelled() || (stop.is_cancelled() && spool.is_sent()) {
            break;
        }
        tokio::select! {
            biased;
            _ = checkpoint.tick() => {
                match spool.checkpoint().await {
                    Ok(()) => checkpoint_told = false,
                    // A full disk: nothing is freed, nothing is lost, the next checkpoint tries again.
                    Err(error) => {
                        if !std::mem::replace(&mut checkpoint_told, true) {
                            tracing::error!("{error}");
                        }
                    }
                }
                continue;
            }
            () = spool.wait() => {}
            () = stop.cancelled(), if !stop.is_cancelled() => continue,
            () = deadline.cancelled() => break,
        }
        let batch = match spool.unsent(MAX_BATCH_BYTES).await {
            Ok(batch) => batch,
            Err(error) => {
                tracing::error!("{error}");
                pause(Duration::from_secs(1), &deadline).await;
                continue;
            }
        };
        let envelopes: Vec<Bytes> = batch.entries.iter().map(|entry| entry.record.value.clone()).collect();
        if !envelopes.is_empty() {
            let sent = tokio::select! {
                sent = sink.send(&envelopes) => sent,
                () = deadline.cancelled() => break,
            };
            if let Err(error) = sent {
                status.send_failures.increment();
                let text = error.to_string();
                if told.as_ref() != Some(&text) {
                    tracing::warn!(waiting = status.spool_backlog(), "{text}; the spool keeps everything");
                    told = Some(text);
                }
                let wait = match error {
                    SinkError::Unreachable(_) => backoff.next_pause(),
                    // Knocking harder does not open this door.
                    SinkError::Refused(_) => backoff.next_pause().max(Duration::from_secs(5)),
                };
                pause(wait, &deadline).await;
                continue;
            }
            status.sent.add(envelopes.len() as u64);
            status
                .sent_bytes
                .add(envelopes.iter().map(|bytes| bytes.len() as u64).sum());
            backoff.reset();
            if told.take().is_some() {
                tracing::info!("sending again");
            }
        }
        spool.set_sent(&batch);
    }
    spool.checkpoint().await
}

async fn pause(span: Duration, deadline: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(span) => {}
        () = deadline.cancelled() => {}
    }
}
