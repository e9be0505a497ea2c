//! The one trait, and what travels through it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use orrery_protocol::TaiNanos;

use crate::BusError;

/// The largest record, key and headers included, that every bus takes.
///
/// An envelope is at most 512 KiB; blocks that services publish may be larger, within reason.
pub const MAX_RECORD_BYTES: usize = 8 * 1024 * 1024;

/// What a publisher hands over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Records of one key keep their order; an empty key goes to any partition.
    pub key: Bytes,
    /// Names and values, kept in order.
    pub headers: Vec<(String, String)>,
    /// The payload, which the bus never looks into.
    pub value: Bytes,
}

impl Record {
    /// A record without headers.
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self {
            key: key.into(),
            headers: Vec::new(),
            value: value.into(),
        }
    }

    /// The same record with these headers.
    #[must_use]
    pub fn with_headers(mut self, headers: Vec<(String, String)>) -> Self {
        self.headers = headers;
        self
    }

    /// Bytes that count against [`MAX_RECORD_BYTES`] and against queues.
    pub fn size(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len() + 8)
            .sum();
        self.key.len() + headers + self.value.len() + 8
    }
}

/// What a subscriber gets: a record and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The topic it was read from.
    pub topic: String,
    /// The partition within the topic; the journal has only partition 0.
    pub partition: u32,
    /// The offset within the partition. Offsets rise strictly but may skip.
    pub offset: u64,
    /// The record's key.
    pub key: Bytes,
    /// The record's headers, in order.
    pub headers: Vec<(String, String)>,
    /// The record's payload.
    pub value: Bytes,
    /// The publisher's wall clock when the bus took the record (milliseconds on Kafka).
    pub appended: TaiNanos,
}

impl Message {
    /// The position to resume from once this message is dealt with.
    pub fn next_position(&self) -> Position {
        Position {
            partition: self.partition,
            offset: self.offset + 1,
        }
    }

    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(header, _)| header == name)
            .map(|(_, value)| value.as_str())
    }
}

/// A place in a topic. As a resume point it is the *next* offset to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Position {
    /// The partition.
    pub partition: u32,
    /// The offset within it.
    pub offset: u64,
}

/// Where a subscription starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// The oldest record still kept.
    Earliest,
    /// Records published after `subscribe` returned.
    Latest,
    /// These next offsets; a partition that is not named starts at its oldest record. An offset that
    /// retention has removed means the oldest record still kept, and so does one beyond the end, which a
    /// topic has that lost records: waiting there would pass over whatever is published next.
    Offsets(Vec<Position>),
    /// What this group committed; a partition without a commit starts at its oldest record.
    ///
    /// A group is a name for a resume point, not a work-sharing scheme: two subscribers of one group each
    /// get everything.
    Group(String),
}

/// Ordered durable topics. Every method names the topic in its errors.
#[async_trait]
pub trait Bus: Send + Sync {
    /// Publishes records in this order; resolves when all of them are durable, with a position each.
    ///
    /// A batch is not a transaction: after an error, or if the future is dropped, any number of its
    /// records may have been published.
    ///
    /// # Errors
    /// [`BusError`] when the records are not known to be durable. Publishing them again is right.
    async fn publish(&self, topic: &str, records: Vec<Record>) -> Result<Vec<Position>, BusError>;

    /// Starts reading a topic, which is created if it does not exist.
    ///
    /// # Errors
    /// [`BusError`] when the bus cannot be reached or the topic cannot be read.
    async fn subscribe(&self, topic: &str, from: From) -> Result<Box<dyn Subscription>, BusError>;

    /// Stores durably where a group goes on: `position.offset` is the next offset it wants.
    ///
    /// # Errors
    /// [`BusError`] when the commit is not known to be durable.
    async fn commit(&self, group: &str, topic: &str, position: Position) -> Result<(), BusError>;

    /// What a group committed, for each partition that has a commit.
    ///
    /// # Errors
    /// [`BusError`] when the bus cannot be asked.
    async fn committed(&self, group: &str, topic: &str) -> Result<Vec<Position>, BusError>;

    /// The next offset of each partition: what is below has been published.
    ///
    /// # Errors
    /// [`BusError`] when the bus cannot be asked.
    async fn end(&self, topic: &str) -> Result<Vec<Position>, BusError>;
}

/// A reader of one topic.
#[async_trait]
pub trait Subscription: Send {
    /// Waits for records and returns a batch bounded in bytes, never an empty one. Dropping the future
    /// loses nothing.
    ///
    /// # Errors
    /// [`BusError`] when the topic can no longer be read; passing outages of a broker are waited out.
    async fn next(&mut self) -> Result<Vec<Message>, BusError>;
}

/// A bus that services share.
pub type SharedBus = Arc<dyn Bus>;

/// Where a reader that wants this offset begins in a partition that keeps `oldest..end`.
pub(crate) fn start_at(topic: &str, wanted: Position, oldest: u64, end: u64) -> u64 {
    if wanted.offset <= end {
        return wanted.offset.max(oldest);
    }
    tracing::warn!(
        topic,
        partition = wanted.partition,
        wanted = wanted.offset,
        end,
        "the topic ends before the place where its reader stopped, so it lost records: files were removed or damaged, or \
         it was made anew; it is read again from its oldest record, and copies are dropped"
    );
    oldest
}

/// Topic and group names become folder names and Kafka topic names: one alphabet for both.
pub(crate) fn check_name(kind: &'static str, name: &str) -> Result<(), BusError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let good = (1..=200).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('.');
    if good {
        Ok(())
    } else {
        Err(BusError::BadName {
            kind,
            name: name.to_owned(),
        })
    }
}

/// Refuses what no bus takes, before any record of the batch is sent.
pub(crate) fn check_sizes(topic: &str, records: &[Record]) -> Result<(), BusError> {
    match records.iter().map(Record::size).find(|&size| size > MAX_RECORD_BYTES) {
        Some(bytes) => Err(BusError::TooLarge {
            topic: topic.to_owned(),
            bytes,
            limit: MAX_RECORD_BYTES,
        }),
        None => Ok(()),
    }
}

/// Runs work that waits for a disk or a broker off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BusError> + Send + 'static,
) -> Result<T, BusError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is shutting down; nobody will read the answer.
        Err(_) => std::future::pending().await,
    }
}
