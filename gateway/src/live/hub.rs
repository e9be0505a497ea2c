//! Who listens to what, and where the streams stand.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orrery_protocol::StreamId;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use super::cursor::{Frontier, NoCursor, Seen};
use super::message::Outgoing;
use super::queue::Queue;
use crate::metrics::Counter;

/// What clients can have beside samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// `GET /devices`.
    Devices,
    /// The forecast of every graph that runs.
    Forecast,
    /// `GET /control`.
    Control,
    /// `GET /provenance/status`.
    Provenance,
}

impl Topic {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Devices, Self::Forecast, Self::Control, Self::Provenance];

    /// Its name in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Devices => "devices",
            Self::Forecast => "forecast",
            Self::Control => "control",
            Self::Provenance => "provenance",
        }
    }
}

/// What one client wants.
#[derive(Debug, Clone, Default)]
pub struct Interest {
    /// Streams by name.
    pub streams: BTreeSet<StreamId>,
    /// Every stream there is (`"*"`).
    pub every_stream: bool,
    /// Beside samples.
    pub topics: BTreeSet<Topic>,
}

impl Interest {
    /// Reads the names a client sent; an unknown topic or a bad stream name is told by its text.
    pub fn parse<'a>(
        streams: impl IntoIterator<Item = &'a str>,
        topics: Option<impl IntoIterator<Item = &'a str>>,
    ) -> Result<Self, String> {
        let mut interest = Self::default();
        for name in streams {
            if name == "*" {
                interest.every_stream = true;
            } else {
                interest
                    .streams
                    .insert(StreamId::new(name).map_err(|error| error.to_string())?);
            }
        }
        match topics {
            None => interest.topics.extend(Topic::ALL),
            Some(names) => {
                for name in names {
                    let topic = Topic::ALL.into_iter().find(|topic| topic.as_str() == name);
                    interest.topics.insert(topic.ok_or_else(|| {
                        format!("`{name}` is no topic; there are devices, forecast, control and provenance")
                    })?);
                }
            }
        }
        Ok(interest)
    }

    fn wants(&self, stream: &StreamId) -> bool {
        self.every_stream || self.streams.contains(stream)
    }
}

/// The meeting point of the feed and the clients.
#[derive(Debug)]
pub struct Hub {
    queue_bytes: usize,
    state: Mutex<State>,
    joined: Notify,
    reading: AtomicBool,
    /// Messages handed to clients' queues.
    pub messages: Counter,
    /// Messages that slow clients lost.
    pub dropped: Counter,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    clients: HashMap<u64, (Interest, Arc<Queue>)>,
    frontier: Frontier,
}

impl Hub {
    /// A hub whose clients may each fall behind by so many bytes.
    pub fn new(queue_bytes: usize) -> Self {
        Self {
            queue_bytes,
            state: Mutex::default(),
            joined: Notify::new(),
            reading: AtomicBool::new(false),
            messages: Counter::default(),
            dropped: Counter::default(),
        }
    }

    /// Takes a client in; it leaves when the handle is dropped. Until it says what it wants it gets every topic: that
    /// is how the page of an empty instance hears of its first device.
    pub fn join(self: &Arc<Self>) -> Client {
        let queue = Arc::new(Queue::new(self.queue_bytes));
        let mut state = self.lock();
        state.next_id += 1;
        let id = state.next_id;
        let interest = Interest {
            topics: Topic::ALL.into(),
            ..Interest::default()
        };
        state.clients.insert(id, (interest, Arc::clone(&queue)));
        drop(state);
        self.joined.notify_waiters();
        Client {
            hub: Arc::clone(self),
            id,
            queue,
        }
    }

    /// How many clients there are.
    pub fn clients(&self) -> usize {
        self.lock().clients.len()
    }

    /// Whether the bus is being read.
    pub fn is_reading(&self) -> bool {
        self.reading.load(Ordering::Relaxed)
    }

    pub(super) fn set_reading(&self, reading: bool) {
        self.reading.store(reading, Ordering::Relaxed);
    }

    pub(super) fn wants_stream(&self, stream: &StreamId) -> bool {
        self.lock().clients.values().any(|(interest, _)| interest.wants(stream))
    }

    pub(super) fn wants_topic(&self, topic: Topic) -> bool {
        self.lock()
            .clients
            .values()
            .any(|(interest, _)| interest.topics.contains(&topic))
    }

    /// Resolves when a client has subscribed.
    pub(super) async fn someone_joined(&self) {
        self.joined.notified().await;
    }

    /// Moves the stream on and gives the message to who wants the stream, in one step: a client that subscribes sees
    /// either the frontier before and the message, or the frontier after.
    pub(super) fn publish(&self, stream: &StreamId, seen: Option<Seen>, message: Option<&Arc<Outgoing>>) {
        let mut state = self.lock();
        if let Some(seen) = seen {
            state.frontier.advance(stream, seen);
        }
        if let Some(message) = message {
            let wanting = state.clients.values().filter(|(interest, _)| interest.wants(stream));
            self.hand_out(wanting, message);
        }
    }

    pub(super) fn publish_topic(&self, topic: Topic, message: &Arc<Outgoing>) {
        let state = self.lock();
        let wanting = state
            .clients
            .values()
            .filter(|(interest, _)| interest.topics.contains(&topic));
        self.hand_out(wanting, message);
    }

    fn hand_out<'a>(&self, to: impl Iterator<Item = &'a (Interest, Arc<Queue>)>, message: &Arc<Outgoing>) {
        for (_, queue) in to {
            self.dropped.add(queue.push(Arc::clone(message)));
            self.messages.add(1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connected client.
#[derive(Debug)]
pub struct Client {
    hub: Arc<Hub>,
    id: u64,
    queue: Arc<Queue>,
}

impl Client {
    /// Replaces what the client wants. The answer says, per stream, the last instant the client has according to its
    /// cursor, and the last that has passed here: what lies between is to be loaded from the window route, what comes
    /// after follows by itself.
    pub fn subscribe(&self, interest: Interest, cursor: Option<&str>) -> Result<(), NoCursor> {
        let seen = cursor.map(Frontier::decode).transpose()?.unwrap_or_default();
        let mut state = self.hub.lock();
        let mut streams = interest.streams.clone();
        if interest.every_stream {
            streams.extend(seen.streams().chain(state.frontier.streams()).cloned());
        }
        let millis = |frontier: &Frontier| -> Map<String, Value> {
            (streams.iter())
                .map(|stream| {
                    let at = frontier.get(stream).map(|seen| seen.time.to_unix_millis());
                    (stream.to_string(), Value::from(at))
                })
                .collect()
        };
        let resume = json!({
            "type": "resume",
            "streams": millis(&seen),
            "head": millis(&state.frontier),
        });
        self.queue.push(Arc::new(Outgoing::plain(&resume)));
        if let Some(client) = state.clients.get_mut(&self.id) {
            client.0 = interest;
        }
        drop(state);
        self.hub.joined.notify_waiters();
        Ok(())
    }

    /// Puts a message for this client alone into its queue.
    pub fn push(&self, message: Outgoing) {
        self.queue.push(Arc::new(message));
    }

    /// Waits for messages and takes all of them.
    pub async fn take(&self) -> Vec<Arc<Outgoing>> {
        self.queue.take().await
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.hub.lock().clients.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use orrery_protocol::TaiNanos;

    use super::*;

    fn interest(streams: &[&str]) -> Interest {
        Interest::parse(streams.iter().copied(), Some(["devices"])).unwrap()
    }

    fn text(text: &str) -> Arc<Outgoing> {
        Arc::new(Outgoing {
            text: text.into(),
            cursor: None,
            rows: None,
        })
    }

    async fn texts(client: &Client) -> Vec<String> {
        client
            .take()
            .await
            .iter()
            .map(|message| message.text.to_string())
            .collect()
    }

    #[tokio::test]
    async fn clients_get_what_they_asked_for() {
        let hub = Arc::new(Hub::new(1 << 20));
        let (one, all) = (hub.join(), hub.join());
        one.subscribe(interest(&["a/b"]), None).unwrap();
        all.subscribe(Interest::parse(["*"], None::<[&str; 0]>).unwrap(), None)
            .unwrap();
        let (ab, cd) = (StreamId::new("a/b").unwrap(), StreamId::new("c/d").unwrap());
        hub.publish(&ab, None, Some(&text("ab")));
        hub.publish(&cd, None, Some(&text("cd")));
        hub.publish_topic(Topic::Devices, &text("devices"));
        hub.publish_topic(Topic::Control, &text("control"));
        assert_eq!(texts(&one).await[1..], ["ab", "devices"]);
        assert_eq!(texts(&all).await[1..], ["ab", "cd", "devices", "control"]);
        assert!(hub.wants_stream(&cd) && hub.wants_topic(Topic::Forecast));
        drop(all);
        assert!(!hub.wants_stream(&cd) && !hub.wants_topic(Topic::Forecast));
        assert_eq!(hub.clients(), 1);
    }

    #[tokio::test]
    async fn a_cursor_resumes_and_a_foreign_one_is_refused() {
        let hub = Arc::new(Hub::new(1 << 20));
        let stream = StreamId::new("a/b").unwrap();
        let seen = |nanos| Seen {
            time: TaiNanos(nanos),
            revision: 1,
        };
        hub.publish(&stream, Some(seen(1_700_000_000_000_000_000)), None);
        let mut known = Frontier::default();
        known.advance(&stream, seen(1_600_000_000_000_000_000));
        let client = hub.join();
        client
            .subscribe(interest(&["a/b", "x/y"]), Some(&known.encode()))
            .unwrap();
        let resume: Value = serde_json::from_str(&texts(&client).await[0]).unwrap();
        assert_eq!(resume["type"], "resume");
        assert_eq!(
            resume["streams"]["a/b"],
            TaiNanos(1_600_000_000_000_000_000).to_unix_millis()
        );
        assert_eq!(
            resume["head"]["a/b"],
            TaiNanos(1_700_000_000_000_000_000).to_unix_millis()
        );
        assert_eq!(resume["streams"]["x/y"], Value::Null);
        assert_eq!(client.subscribe(interest(&[]), Some("rubbish")), Err(NoCursor));
    }

    #[test]
    fn unknown_names_are_told() {
        let error = Interest::parse(["no stream"], None::<[&str; 0]>).unwrap_err();
        assert!(error.contains("no stream"), "{error}");
        assert!(
            Interest::parse([], Some(["weather"]))
                .unwrap_err()
                .contains("`weather` is no topic")
        );
    }
}
