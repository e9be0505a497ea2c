//! A subscription on Kafka: one thread polls librdkafka and hands batches over a short queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use orrery_protocol::{TaiNanos, UtcNanos};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::client::{Failures, Settings, WatchedContext};
use crate::{BusError, Message, Position, Subscription};

/// A batch is handed over at this size, or as soon as nothing more is waiting.
const BATCH_BYTES: usize = 1024 * 1024;
const BATCH_MESSAGES: usize = 10_000;
/// Batches waiting for a slow subscriber; librdkafka's own queue bounds what lies behind them.
const QUEUED_BATCHES: usize = 2;
/// How often the thread looks whether its subscription is gone.
const POLL: Duration = Duration::from_millis(100);

type Batch = Result<Vec<Message>, BusError>;

pub struct Reader {
    batches: mpsc::Receiver<Batch>,
    stop: Arc<AtomicBool>,
    settings: Arc<Settings>,
    topic: String,
}

impl Reader {
    pub async fn start(settings: Arc<Settings>, topic: &str, starts: &[Position]) -> Result<Self, BusError> {
        let failures = Arc::new(Failures::default());
        let consumer: BaseConsumer<WatchedContext> =
            settings.client("create a consumer", &settings.reader(), &failures)?;
        let mut list = TopicPartitionList::new();
        let what = format!("read {topic}");
        let explain = |error: KafkaError| settings.explain(&what, &error, &failures);
        for start in starts {
            let offset = Offset::Offset(start.offset as i64);
            list.add_partition_offset(topic, start.partition as i32, offset)
                .map_err(explain)?;
        }
        let explain = |error: KafkaError| settings.explain(&what, &error, &failures);
        consumer.assign(&list).map_err(explain)?;
        let (sender, batches) = mpsc::channel(QUEUED_BATCHES);
        let stop = Arc::new(AtomicBool::new(false));
        let poller = Poller {
            consumer,
            topic: topic.to_owned(),
            settings: Arc::clone(&settings),
            failures: Arc::clone(&failures),
            stop: Arc::clone(&stop),
            sender,
            is_interrupted: false,
        };
        // The thread owns the consumer, so closing it, which can take long or hang, happens there and nobody waits.
        std::thread::Builder::new()
            .name("orrery-kafka-read".to_owned())
            .spawn(move || poller.run())
            .map_err(|error| settings.refused(what.clone(), format!("no thread to read on: {error}")))?;
        Ok(Self {
            batches,
            stop,
            settings,
            topic: topic.to_owned(),
        })
    }
}

#[async_trait]
impl Subscription for Reader {
    async fn next(&mut self) -> Result<Vec<Message>, BusError> {
        let gone = || {
            Err(self
                .settings
                .refused(format!("read {}", self.topic), "its reader has stopped".to_owned()))
        };
        self.batches.recv().await.unwrap_or_else(gone)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Poller {
    consumer: BaseConsumer<WatchedContext>,
    topic: String,
    settings: Arc<Settings>,
    failures: Arc<Failures>,
    stop: Arc<AtomicBool>,
    sender: mpsc::Sender<Batch>,
    /// Whether an interruption was said that has not ended.
    is_interrupted: bool,
}

impl Poller {
    /// Runs until the subscription is dropped or the topic can no longer be read.
    fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            let batch = match self.batch() {
                Ok(messages) if messages.is_empty() => continue,
                other => other,
            };
            let ends = batch.is_err();
            // Partitions are assigned, not subscribed: waiting here loses no group membership.
            if self.sender.blocking_send(batch).is_err() || ends {
                return;
            }
        }
    }

    /// Waits for a first message and takes what is there with it.
    fn batch(&mut self) -> Batch {
        let mut messages = Vec::new();
        let mut bytes = 0;
        let mut wait = POLL;
        while bytes < BATCH_BYTES && messages.len() < BATCH_MESSAGES {
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    let message = self.message(&message);
                    bytes += message.key.len() + message.value.len();
                    messages.push(message);
                    wait = Duration::ZERO;
                    if std::mem::take(&mut self.is_interrupted) {
                        tracing::info!(topic = self.topic, "reading from Kafka goes on");
                    }
                }
                Some(Err(error)) if is_passing(&error) => {
                    if !std::mem::replace(&mut self.is_interrupted, true) {
                        tracing::warn!(
                            topic = self.topic,
                            brokers = self.settings.address(),
                            %error,
                            "reading from Kafka is interrupted; it goes on by itself when a broker answers"
                        );
                    }
                    break;
                }
                // What was read before the error is handed over first; the error comes again.
                Some(Err(_)) if !messages.is_empty() => break,
                Some(Err(error)) => {
                    return Err(self
                        .settings
                        .explain(&format!("read {}", self.topic), &error, &self.failures));
                }
            }
        }
        Ok(messages)
    }

    fn message(&self, message: &BorrowedMessage<'_>) -> Message {
        let headers = message.headers().map(|headers| {
            let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
            headers
                .iter()
                .map(|header| (header.key.to_owned(), text(header.value)))
                .collect()
        });
        let millis = message.timestamp().to_millis().unwrap_or(0);
        Message {
            topic: self.topic.clone(),
            partition: message.partition() as u32,
            offset: message.offset() as u64,
            key: bytes(message.key()),
            headers: headers.unwrap_or_default(),
            value: bytes(message.payload()),
            appended: TaiNanos::from_utc(UtcNanos(millis.saturating_mul(1_000_000))),
        }
    }
}

fn bytes(slice: Option<&[u8]>) -> Bytes {
    slice.map(Bytes::copy_from_slice).unwrap_or_default()
}

/// librdkafka reconnects and fetches again by itself after these.
fn is_passing(error: &KafkaError) -> bool {
    let passing = [
        RDKafkaErrorCode::AllBrokersDown,
        RDKafkaErrorCode::BrokerTransportFailure,
        RDKafkaErrorCode::Resolve,
        RDKafkaErrorCode::OperationTimedOut,
        RDKafkaErrorCode::RequestTimedOut,
        RDKafkaErrorCode::NotLeaderForPartition,
        RDKafkaErrorCode::LeaderNotAvailable,
        RDKafkaErrorCode::UnknownPartition,
        RDKafkaErrorCode::CoordinatorNotAvailable,
        RDKafkaErrorCode::NotCoordinator,
        RDKafkaErrorCode::CoordinatorLoadInProgress,
        RDKafkaErrorCode::PartitionEOF,
    ];
    error.rdkafka_error_code().is_some_and(|code| passing.contains(&code))
}
