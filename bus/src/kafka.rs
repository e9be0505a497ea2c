//! The bus on Apache Kafka, through librdkafka.
//!
//! Publishing: idempotent, acks=all, `murmur2_random` as Java clients partition. Reading: partitions are
//! assigned by us at offsets we know, so no rebalance ever stops a reader; groups only keep offsets.

mod client;
mod reader;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use orrery_protocol::{Clock, topics};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::bus::{blocking, check_name, check_sizes, start_at};
use crate::{Bus, BusError, From, KafkaConfig, MAX_RECORD_BYTES, Position, Record, Subscription};
use client::{Failures, Settings, WatchedContext};

type Producer = FutureProducer<WatchedContext>;
type GroupConsumer = BaseConsumer<WatchedContext>;

/// How long `publish` waits before it tries a full queue again.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);

/// The largest number a topic's setting takes.
const NO_LIMIT: &str = "9223372036854775807";

/// A [`Bus`] on Apache Kafka.
pub struct KafkaBus {
    settings: Arc<Settings>,
    clock: Arc<dyn Clock>,
    failures: Arc<Failures>,
    /// Replaced after a fatal error, which librdkafka never recovers from.
    producer: Mutex<Producer>,
    admin: Arc<AdminClient<WatchedContext>>,
    /// One consumer per group, which only stores and looks up offsets.
    groups: Mutex<HashMap<String, Arc<GroupConsumer>>>,
    known_topics: Mutex<HashSet<String>>,
}

impl KafkaBus {
    /// Connects to the brokers and waits for an answer.
    ///
    /// # Errors
    /// [`BusError::Unreachable`] or [`BusError::Denied`] with the address, [`BusError::Kafka`] for a bad setting.
    pub async fn connect(brokers: &[String], config: KafkaConfig, clock: Arc<dyn Clock>) -> Result<Self, BusError> {
        let settings = Arc::new(Settings::new(brokers, config));
        let failures = Arc::new(Failures::default());
        let opened = Arc::clone(&settings);
        let seen = Arc::clone(&failures);
        let (producer, admin) = blocking(move || {
            let producer: Producer = opened.client("create a producer", &opened.producer(), &seen)?;
            let admin: AdminClient<WatchedContext> = opened.client("create an admin client", &opened.base(), &seen)?;
            // The producer has a thread that hears why a connection fails; the admin client has not.
            if let Err(error) = producer.client().fetch_metadata(None, opened.request_timeout()) {
                let explained = opened.explain("connect", &error, &seen);
                drop_elsewhere((producer, admin));
                return Err(explained);
            }
            Ok((producer, admin))
        })
        .await?;
        Ok(Self {
            settings,
            clock,
            failures,
            producer: Mutex::new(producer),
            admin: Arc::new(admin),
            groups: Mutex::default(),
            known_topics: Mutex::default(),
        })
    }

    /// Creates a topic with its fixed number of partitions unless it exists.
    async fn ensure_topic(&self, topic: &str) -> Result<(), BusError> {
        check_name("topic", topic)?;
        if lock(&self.known_topics).contains(topic) {
            return Ok(());
        }
        let what = format!("create topic {topic}");
        let config = self.settings.config();
        let replication = TopicReplication::Fixed(config.replication.map_or(-1, |copies| copies as i32));
        let max_bytes = (MAX_RECORD_BYTES + 64 * 1024).to_string();
        // Streams are announced again and again: the last word per stream is enough.
        let cleanup = if topic == topics::STREAMS { "compact" } else { "delete" };
        let new = NewTopic::new(topic, config.partitions.max(1) as i32, replication)
            .set("max.message.bytes", &max_bytes)
            .set("cleanup.policy", cleanup)
            // Timestamps are those of the injected clock, which a sped-up playback takes far ahead of the broker's.
            .set("message.timestamp.after.max.ms", NO_LIMIT);
        let options = AdminOptions::new()
            .request_timeout(Some(self.settings.request_timeout()))
            .operation_timeout(Some(self.settings.request_timeout()));
        let results = self
            .admin
            .create_topics([&new], &options)
            .await
            .map_err(|error| self.explain(&what, &error))?;
        for result in results {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(self.explain(&what, &KafkaError::AdminOp(code))),
            }
        }
        self.await_metadata(topic).await?;
        lock(&self.known_topics).insert(topic.to_owned());
        Ok(())
    }

    /// A topic that was just created is known to its controller first and to clients a moment later.
    async fn await_metadata(&self, topic: &str) -> Result<(), BusError> {
        let pause = Duration::from_millis(50);
        let mut waited = Duration::ZERO;
        loop {
            match self.partitions(topic).await {
                Ok(partitions) if !partitions.is_empty() => return Ok(()),
                Err(error) if waited >= self.settings.request_timeout() => return Err(error),
                _ if waited >= self.settings.request_timeout() => {
                    let (what, reason) = (format!("create topic {topic}"), "it has no partitions yet".to_owned());
                    return Err(self.settings.refused(what, reason));
                }
                _ => {}
            }
            tokio::time::sleep(pause).await;
            waited += pause;
        }
    }

    async fn partitions(&self, topic: &str) -> Result<Vec<i32>, BusError> {
        let (admin, settings, failures) = self.parts();
        let topic = topic.to_owned();
        blocking(move || {
            let what = format!("list the partitions of {topic}");
            let metadata = admin
                .inner()
                .fetch_metadata(Some(&topic), settings.request_timeout())
                .map_err(|error| settings.explain(&what, &error, &failures))?;
            let found = metadata.topics().iter().find(|found| found.name() == topic);
            if let Some(error) = found.and_then(|found| found.error()) {
                let error = KafkaError::MetadataFetch(error.into());
                return Err(settings.explain(&what, &error, &failures));
            }
            let mut partitions: Vec<i32> = found
                .map(|found| found.partitions().iter().map(|partition| partition.id()).collect())
                .unwrap_or_default();
            partitions.sort_unstable();
            Ok(partitions)
        })
        .await
    }

    /// (partition, oldest offset, next offset) of each partition.
    async fn watermarks(&self, topic: &str) -> Result<Vec<(u32, u64, u64)>, BusError> {
        let partitions = self.partitions(topic).await?;
        let (admin, settings, failures) = self.parts();
        let topic = topic.to_owned();
        blocking(move || {
            let what = format!("ask for the offsets of {topic}");
            let ask = |&partition: &i32| {
                let (low, high) = watermarks_of(&admin, &topic, partition, settings.request_timeout())
                    .map_err(|error| settings.explain(&what, &error, &failures))?;
                Ok((partition as u32, low.max(0) as u64, high.max(0) as u64))
            };
            partitions.iter().map(ask).collect()
        })
        .await
    }

    async fn group(&self, group: &str) -> Result<Arc<GroupConsumer>, BusError> {
        check_name("group", group)?;
        if let Some(consumer) = lock(&self.groups).get(group) {
            return Ok(Arc::clone(consumer));
        }
        let (settings, failures) = (Arc::clone(&self.settings), Arc::clone(&self.failures));
        let name = group.to_owned();
        let consumer: GroupConsumer =
            blocking(move || settings.client("create a consumer", &settings.group(&name), &failures)).await?;
        Ok(Arc::clone(
            lock(&self.groups)
                .entry(group.to_owned())
                .or_insert_with(|| Arc::new(consumer)),
        ))
    }

    /// Hands one record to the producer; a full queue makes the publisher wait.
    async fn enqueue(&self, topic: &str, record: &Record) -> Result<DeliveryFuture, BusError> {
        let timestamp = self.clock.wall().to_utc().0.div_euclid(1_000_000);
        let headers = (!record.headers.is_empty()).then(|| owned_headers(&record.headers));
        let mut message = FutureRecord::<[u8], [u8]>::to(topic)
            .payload(record.value.as_ref())
            .timestamp(timestamp.max(0));
        if !record.key.is_empty() {
            message = message.key(record.key.as_ref());
        }
        message.headers = headers;
        loop {
            let producer = lock(&self.producer).clone();
            match producer.send_result(message) {
                Ok(delivery) => return Ok(delivery),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), unsent)) => message = unsent,
                Err((error, _)) => {
                    self.replace_if_fatal(&producer);
                    return Err(self.explain(&format!("publish to {topic}"), &error));
                }
            }
            tokio::time::sleep(QUEUE_FULL_PAUSE).await;
        }
    }

    async fn delivered(&self, topic: &str, delivery: DeliveryFuture) -> Result<Position, BusError> {
        match delivery.await {
            Ok(Ok(delivery)) => Ok(Position {
                partition: delivery.partition as u32,
                offset: delivery.offset as u64,
            }),
            Ok(Err((error, _))) => {
                let producer = lock(&self.producer).clone();
                self.replace_if_fatal(&producer);
                Err(self.explain(&format!("publish to {topic}"), &error))
            }
            Err(_) => Err(self.explain(&format!("publish to {topic}"), &KafkaError::Canceled)),
        }
    }

    /// After a fatal error of the idempotent producer every further record would fail: start a new one.
    fn replace_if_fatal(&self, failed: &Producer) {
        let Some((code, reason)) = failed.client().fatal_error() else {
            return;
        };
        let mut current = lock(&self.producer);
        let still_the_same = std::ptr::eq(failed.client().native_ptr(), current.client().native_ptr());
        if !still_the_same {
            return;
        }
        match self
            .settings
            .client::<Producer>("create a producer", &self.settings.producer(), &self.failures)
        {
            Ok(fresh) => {
                tracing::warn!(%code, reason, "the Kafka producer failed for good and was replaced");
                let old = std::mem::replace(&mut *current, fresh);
                drop_elsewhere(old);
            }
            Err(error) => {
                tracing::error!(%error, "the Kafka producer failed for good and could not be replaced")
            }
        }
    }

    fn parts(&self) -> (Arc<AdminClient<WatchedContext>>, Arc<Settings>, Arc<Failures>) {
        (
            Arc::clone(&self.admin),
            Arc::clone(&self.settings),
            Arc::clone(&self.failures),
        )
    }

    fn explain(&self, what: &str, error: &KafkaError) -> BusError {
        self.settings.explain(what, error, &self.failures)
    }
}

#[async_trait]
impl Bus for KafkaBus {
    async fn publish(&self, topic: &str, records: Vec<Record>) -> Result<Vec<Position>, BusError> {
        check_sizes(topic, &records)?;
        self.ensure_topic(topic).await?;
        let mut deliveries = Vec::with_capacity(records.len());
        for record in &records {
            deliveries.push(self.enqueue(topic, record).await?);
        }
        try_join_all(deliveries.into_iter().map(|delivery| self.delivered(topic, delivery))).await
    }

    async fn subscribe(&self, topic: &str, from: From) -> Result<Box<dyn Subscription>, BusError> {
        self.ensure_topic(topic).await?;
        // Known offsets for every partition: "latest" means now, not when the first fetch gets there.
        let watermarks = self.watermarks(topic).await?;
        let wanted = match &from {
            From::Earliest | From::Latest => Vec::new(),
            From::Offsets(positions) => positions.clone(),
            From::Group(group) => self.committed(group, topic).await?,
        };
        let known = |partition| watermarks.iter().any(|&(known, ..)| known == partition);
        if let Some(stray) = wanted.iter().find(|position| !known(position.partition)) {
            return Err(BusError::NoPartition {
                topic: topic.to_owned(),
                partition: stray.partition,
            });
        }
        let start = |&(partition, low, high): &(u32, u64, u64)| {
            let asked = wanted.iter().find(|position| position.partition == partition);
            let latest = from == From::Latest;
            let offset = if latest {
                high
            } else {
                asked.map_or(low, |position| start_at(topic, *position, low, high))
            };
            Position { partition, offset }
        };
        let starts: Vec<Position> = watermarks.iter().map(start).collect();
        Ok(Box::new(
            reader::Reader::start(Arc::clone(&self.settings), topic, &starts).await?,
        ))
    }

    async fn commit(&self, group: &str, topic: &str, position: Position) -> Result<(), BusError> {
        check_name("topic", topic)?;
        let consumer = self.group(group).await?;
        let (_, settings, failures) = self.parts();
        let what = format!("commit the offset of group {group} on {topic}");
        let topic = topic.to_owned();
        blocking(move || {
            let mut list = TopicPartitionList::new();
            let offset = Offset::Offset(position.offset as i64);
            list.add_partition_offset(&topic, position.partition as i32, offset)
                .and_then(|()| consumer.commit(&list, CommitMode::Sync))
                .map_err(|error| settings.explain(&what, &error, &failures))
        })
        .await
    }

    async fn committed(&self, group: &str, topic: &str) -> Result<Vec<Position>, BusError> {
        self.ensure_topic(topic).await?;
        let consumer = self.group(group).await?;
        let partitions = self.partitions(topic).await?;
        let (_, settings, failures) = self.parts();
        let what = format!("ask for the offset of group {group} on {topic}");
        let topic = topic.to_owned();
        blocking(move || {
            let mut list = TopicPartitionList::new();
            partitions.iter().for_each(|&partition| {
                list.add_partition(&topic, partition);
            });
            let committed = consumer
                .committed_offsets(list, settings.request_timeout())
                .map_err(|error| settings.explain(&what, &error, &failures))?;
            let position = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element.offset()
            {
                Offset::Offset(offset) => Some(Position {
                    partition: element.partition() as u32,
                    offset: offset as u64,
                }),
                _ => None,
            };
            Ok(committed.elements().iter().filter_map(position).collect())
        })
        .await
    }

    async fn end(&self, topic: &str) -> Result<Vec<Position>, BusError> {
        self.ensure_topic(topic).await?;
        let watermarks = self.watermarks(topic).await?;
        Ok(watermarks
            .into_iter()
            .map(|(partition, _, high)| Position {
                partition,
                offset: high,
            })
            .collect())
    }
}

impl Drop for KafkaBus {
    fn drop(&mut self) {
        // Closing librdkafka clients can take long or hang (their issues 453 and 509): not on an async thread.
        let producer = lock(&self.producer).clone();
        let groups = std::mem::take(&mut *lock(&self.groups));
        drop_elsewhere((producer, groups, Arc::clone(&self.admin)));
    }
}

fn owned_headers(headers: &[(String, String)]) -> OwnedHeaders {
    let empty = OwnedHeaders::new_with_capacity(headers.len());
    headers.iter().fold(empty, |all, (key, value)| {
        all.insert(Header {
            key,
            value: Some(value.as_str()),
        })
    })
}

/// The oldest and the next offset of a partition. Its leader is elected a moment after the topic is created, and
/// again after a broker returns: that is waited for.
fn watermarks_of(
    admin: &AdminClient<WatchedContext>,
    topic: &str,
    partition: i32,
    patience: Duration,
) -> Result<(i64, i64), KafkaError> {
    let settling = [
        RDKafkaErrorCode::NotLeaderForPartition,
        RDKafkaErrorCode::LeaderNotAvailable,
        RDKafkaErrorCode::UnknownTopicOrPartition,
        RDKafkaErrorCode::UnknownPartition,
        RDKafkaErrorCode::UnknownTopic,
    ];
    let pause = Duration::from_millis(50);
    let mut waited = Duration::ZERO;
    loop {
        let answer = admin.inner().fetch_watermarks(topic, partition, patience);
        let code = answer.as_ref().err().and_then(KafkaError::rdkafka_error_code);
        if waited >= patience || !code.is_some_and(|code| settling.contains(&code)) {
            return answer;
        }
        std::thread::sleep(pause);
        waited += pause;
    }
}

/// Drops a client on a thread of its own, which nobody waits for.
fn drop_elsewhere<T: Send + 'static>(client: T) {
    let spawned = std::thread::Builder::new()
        .name("orrery-kafka-drop".to_owned())
        .spawn(move || drop(client));
    if let Err(error) = spawned {
        tracing::warn!(%error, "no thread to close a Kafka client on; it was closed in place");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
