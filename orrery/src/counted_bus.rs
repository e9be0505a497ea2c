//! The bus with its traffic counted: the same for the journal and for Kafka.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use orrery_bus::{
    Bus, BusError, BusUrl, From, JournalBus, KafkaBus, Message, Position, Record, SharedBus, Subscription,
};
use orrery_gateway::Metric;
use orrery_gateway::MetricKind::{Counter, Gauge};
use orrery_protocol::{Clock, MonoNanos};

use crate::config::BusSection;

/// A bus that counts what passes through it.
pub struct CountedBus {
    inner: SharedBus,
    /// The journal's own counters, where it is one.
    journal: Option<Arc<JournalBus>>,
    topics: Mutex<BTreeMap<String, Arc<Traffic>>>,
    /// Why the last publication failed, until one succeeds.
    failure: Mutex<Option<String>>,
    /// When the publications began that are not durable yet.
    waiting: Mutex<BTreeMap<u64, MonoNanos>>,
    next: AtomicU64,
    clock: Arc<dyn Clock>,
}

/// How long a publication may wait to become durable before the bus counts as out of order. A broker that is gone fails
/// publications much later than that.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Traffic {
    published: AtomicU64,
    published_bytes: AtomicU64,
    failures: AtomicU64,
    read: AtomicU64,
}

impl CountedBus {
    /// Opens the bus that is configured. The journal lives in `folder`, one folder per topic; Kafka ignores it.
    ///
    /// # Errors
    /// [`BusError`] names the broker or the folder that could not be used, and what to do.
    pub async fn open(config: &BusSection, folder: &Path, clock: Arc<dyn Clock>) -> Result<Arc<Self>, BusError> {
        let (inner, journal): (SharedBus, _) = match &config.url {
            BusUrl::Journal => {
                let journal = Arc::new(JournalBus::open(folder, config.journal.clone(), Arc::clone(&clock)).await?);
                (Arc::clone(&journal) as SharedBus, Some(journal))
            }
            BusUrl::Kafka(brokers) => {
                let kafka = KafkaBus::connect(brokers, config.kafka.clone(), Arc::clone(&clock)).await?;
                (Arc::new(kafka), None)
            }
        };
        Ok(Arc::new(Self {
            inner,
            journal,
            topics: Mutex::default(),
            failure: Mutex::default(),
            waiting: Mutex::default(),
            next: AtomicU64::default(),
            clock,
        }))
    }

    /// Why the last publication failed, until one succeeds; or that one is overdue.
    pub fn failure(&self) -> Option<String> {
        let failure = lock(&self.failure).clone();
        failure.or_else(|| {
            let began = *lock(&self.waiting).values().next()?;
            let waited = self.clock.monotonic().since(began);
            (waited > PATIENCE).then(|| {
                format!(
                    "the bus has not made durable what was published {:.0} s ago; it is waited for",
                    waited.as_secs_f64()
                )
            })
        })
    }

    /// The counters by topic. Topics are a small fixed set.
    pub async fn metrics(&self) -> Vec<Metric> {
        let topics = lock(&self.topics).clone();
        let mut metrics = Vec::new();
        for (topic, traffic) in &topics {
            let counter = |name: &str, help: &str, count: &AtomicU64| {
                Metric::new(Counter, name, help, count.load(Ordering::Relaxed) as f64).with("topic", topic)
            };
            metrics.extend([
                counter("bus_published_total", "Records made durable.", &traffic.published),
                counter(
                    "bus_published_bytes_total",
                    "Bytes of these records.",
                    &traffic.published_bytes,
                ),
                counter(
                    "bus_publish_failures_total",
                    "Publications that are not known to be durable.",
                    &traffic.failures,
                ),
                counter(
                    "bus_read_total",
                    "Records handed to readers, each reader counted.",
                    &traffic.read,
                ),
            ]);
        }
        let Some(journal) = &self.journal else {
            return metrics;
        };
        for (topic, stats) in journal.stats().await {
            let metric = |kind, name: &str, help: &str, value: u64| {
                Metric::new(kind, name, help, value as f64).with("topic", &topic)
            };
            metrics.extend([
                metric(
                    Counter,
                    "journal_groups_total",
                    "Groups of records written, one fsync each.",
                    stats.groups,
                ),
                metric(Gauge, "journal_bytes", "Bytes on disk.", stats.bytes),
                metric(Gauge, "journal_segments", "Segment files.", stats.segments),
                metric(
                    Counter,
                    "journal_quarantined_total",
                    "Damaged regions found and skipped.",
                    stats.quarantined,
                ),
                metric(
                    Counter,
                    "journal_quarantined_bytes_total",
                    "Bytes of these regions.",
                    stats.quarantined_bytes,
                ),
            ]);
        }
        metrics
    }

    fn traffic(&self, topic: &str) -> Arc<Traffic> {
        let mut topics = lock(&self.topics);
        match topics.get(topic) {
            Some(traffic) => Arc::clone(traffic),
            None => Arc::clone(topics.entry(topic.to_owned()).or_default()),
        }
    }

    fn set_failure(&self, failure: Option<String>) {
        *lock(&self.failure) = failure;
    }

    /// Notes a publication for as long as it is waited for, also when its future is dropped.
    fn wait(&self) -> Waiting<'_> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.waiting).insert(id, self.clock.monotonic());
        Waiting { bus: self, id }
    }
}

struct Waiting<'a> {
    bus: &'a CountedBus,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.bus.waiting).remove(&self.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Bus for CountedBus {
    async fn publish(&self, topic: &str, records: Vec<Record>) -> Result<Vec<Position>, BusError> {
        let traffic = self.traffic(topic);
        let bytes: usize = records.iter().map(Record::size).sum();
        let waiting = self.wait();
        let published = self.inner.publish(topic, records).await;
        drop(waiting);
        match &published {
            Ok(positions) => {
                traffic.published.fetch_add(positions.len() as u64, Ordering::Relaxed);
                traffic.published_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                self.set_failure(None);
            }
            Err(error) => {
                traffic.failures.fetch_add(1, Ordering::Relaxed);
                self.set_failure(Some(error.to_string()));
            }
        }
        published
    }

    async fn subscribe(&self, topic: &str, from: From) -> Result<Box<dyn Subscription>, BusError> {
        let inner = self.inner.subscribe(topic, from).await?;
        let traffic = self.traffic(topic);
        Ok(Box::new(CountedSubscription { inner, traffic }))
    }

    async fn commit(&self, group: &str, topic: &str, position: Position) -> Result<(), BusError> {
        self.inner.commit(group, topic, position).await
    }

    async fn committed(&self, group: &str, topic: &str) -> Result<Vec<Position>, BusError> {
        self.inner.committed(group, topic).await
    }

    async fn end(&self, topic: &str) -> Result<Vec<Position>, BusError> {
        self.inner.end(topic).await
    }
}

struct CountedSubscription {
    inner: Box<dyn Subscription>,
    traffic: Arc<Traffic>,
}

#[async_trait]
impl Subscription for CountedSubscription {
    async fn next(&mut self) -> Result<Vec<Message>, BusError> {
        let messages = self.inner.next().await?;
        self.traffic.read.fetch_add(messages.len() as u64, Ordering::Relaxed);
        Ok(messages)
    }
}

#[cfg(test)]
mod tests {
    use orrery_protocol::{ManualClock, TaiNanos};

    use super::*;

    /// A broker that is gone: publications neither fail nor succeed.
    struct Gone;

    #[async_trait]
    impl Bus for Gone {
        async fn publish(&self, _: &str, _: Vec<Record>) -> Result<Vec<Position>, BusError> {
            std::future::pending().await
        }

        async fn subscribe(&self, _: &str, _: From) -> Result<Box<dyn Subscription>, BusError> {
            std::future::pending().await
        }

        async fn commit(&self, _: &str, _: &str, _: Position) -> Result<(), BusError> {
            Ok(())
        }

        async fn committed(&self, _: &str, _: &str) -> Result<Vec<Position>, BusError> {
            Ok(Vec::new())
        }

        async fn end(&self, _: &str) -> Result<Vec<Position>, BusError> {
            Ok(Vec::new())
        }
    }

    #[tokio::test]
    async fn a_publication_that_hangs_is_seen_before_it_fails() {
        let clock = Arc::new(ManualClock::new(TaiNanos(0)));
        let bus = CountedBus {
            inner: Arc::new(Gone),
            journal: None,
            topics: Mutex::default(),
            failure: Mutex::default(),
            waiting: Mutex::default(),
            next: AtomicU64::default(),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
        };
        let mut publishing = bus.publish("orrery.raw", Vec::new());
        assert!(tokio::time::timeout(Duration::ZERO, &mut publishing).await.is_err());
        clock.advance(PATIENCE);
        assert_eq!(bus.failure(), None);
        clock.advance(PATIENCE / 4);
        assert!(
            bus.failure().is_some_and(|failure| failure.contains("1 s ago")),
            "{:?}",
            bus.failure()
        );
        drop(publishing);
        assert_eq!(bus.failure(), None, "a publication that was given up is not waited for");
    }
}
