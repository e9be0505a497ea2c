//! What waits for one client: bounded, and honest about what it lost.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orrery_protocol::StreamId;
use serde_json::json;
use tokio::sync::Notify;

use super::message::Outgoing;

/// A client's queue. Putting in never waits; when it is full the oldest messages go.
#[derive(Debug)]
pub struct Queue {
    limit: usize,
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Arc<Outgoing>>,
    size: usize,
    lost: Lost,
}

#[derive(Debug, Default)]
struct Lost {
    messages: u64,
    spans: BTreeMap<StreamId, (f64, f64)>,
}

impl Queue {
    /// A queue that holds about `limit` bytes, and always at least one message.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            state: Mutex::default(),
            filled: Notify::new(),
        }
    }

    /// Puts a message in; returns how many old ones it pushed out.
    pub fn push(&self, message: Arc<Outgoing>) -> u64 {
        let mut state = self.lock();
        let mut dropped = 0;
        while state.size + message.size() > self.limit {
            let Some(oldest) = state.waiting.pop_front() else {
                break;
            };
            state.size -= oldest.size();
            state.lost.note(&oldest);
            dropped += 1;
        }
        state.size += message.size();
        state.waiting.push_back(message);
        drop(state);
        self.filled.notify_one();
        dropped
    }

    /// Waits for messages and takes all of them, with the account of lost ones first. Dropping the future loses
    /// nothing.
    pub async fn take(&self) -> Vec<Arc<Outgoing>> {
        loop {
            if let Some(messages) = self.try_take() {
                return messages;
            }
            self.filled.notified().await;
        }
    }

    fn try_take(&self) -> Option<Vec<Arc<Outgoing>>> {
        let mut state = self.lock();
        if state.waiting.is_empty() {
            return None;
        }
        let mut messages = Vec::with_capacity(state.waiting.len() + 1);
        messages.extend(state.lost.account());
        messages.extend(state.waiting.drain(..));
        state.size = 0;
        Some(messages)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lost {
    fn note(&mut self, message: &Outgoing) {
        self.messages += 1;
        if let Some(rows) = &message.rows {
            let span = self
                .spans
                .entry(rows.stream.clone())
                .or_insert((rows.from_ms, rows.to_ms));
            *span = (span.0.min(rows.from_ms), span.1.max(rows.to_ms));
        }
    }

    /// The gap message, and a clean slate.
    fn account(&mut self) -> Option<Arc<Outgoing>> {
        if self.messages == 0 {
            return None;
        }
        let lost = std::mem::take(self);
        let streams: serde_json::Map<_, _> = (lost.spans.into_iter())
            .map(|(stream, (from, to))| (stream.to_string(), json!({ "from_ms": from, "to_ms": to })))
            .collect();
        let gap = json!({
            "type": "gap",
            "reason": "slow client",
            "messages": lost.messages,
            "streams": streams,
        });
        Some(Arc::new(Outgoing::plain(&gap)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::message::Rows;
    use super::*;

    fn message(at: f64) -> Arc<Outgoing> {
        let rows = Rows {
            stream: StreamId::new("a/b").unwrap(),
            from_ms: at,
            to_ms: at + 0.5,
        };
        Arc::new(Outgoing {
            text: format!("{at}").into(),
            cursor: None,
            rows: Some(rows),
        })
    }

    #[tokio::test]
    async fn messages_come_out_in_order() {
        let queue = Queue::new(1 << 20);
        for at in 0..3 {
            assert_eq!(queue.push(message(f64::from(at))), 0);
        }
        let texts: Vec<String> = queue.take().await.iter().map(|m| m.text.to_string()).collect();
        assert_eq!(texts, ["0", "1", "2"]);
    }

    #[tokio::test]
    async fn a_full_queue_loses_the_oldest_and_says_what() {
        let one = message(0.0).size();
        let queue = Queue::new(3 * one);
        let dropped: u64 = (0..10).map(|at| queue.push(message(f64::from(at)))).sum();
        assert_eq!(dropped, 7);
        let taken = queue.take().await;
        let gap: Value = serde_json::from_str(&taken[0].text).unwrap();
        assert_eq!(gap["type"], "gap");
        assert_eq!(gap["messages"], 7);
        assert_eq!(gap["streams"]["a/b"], json!({ "from_ms": 0.0, "to_ms": 6.5 }));
        let kept: Vec<String> = taken[1..].iter().map(|m| m.text.to_string()).collect();
        assert_eq!(kept, ["7", "8", "9"]);
        queue.push(message(10.0));
        assert_eq!(queue.take().await.len(), 1, "a gap is told once");
    }

    #[tokio::test]
    async fn a_message_larger_than_the_queue_still_gets_through() {
        let queue = Queue::new(1);
        queue.push(message(1.0));
        assert_eq!(queue.take().await.len(), 1);
    }
}
