use crate::journal::JournalError;

/// Why the bus could not do what it was asked. Every text names the thing, the place and the remedy.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// The embedded journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// No broker answers.
    #[error(
        "no Kafka broker answers at {address} ({reason}): start the broker, or give another address as kafka://HOST:PORT"
    )]
    Unreachable {
        /// HOST:PORT, comma-separated when there are several.
        address: String,
        /// What the client library saw last.
        reason: String,
    },
    /// The broker answered and refused who we are.
    #[error(
        "the Kafka broker at {address} refused the credentials ({reason}): correct user name and password in [bus.kafka.sasl]"
    )]
    Denied {
        /// HOST:PORT, comma-separated when there are several.
        address: String,
        /// What the client library saw last.
        reason: String,
    },
    /// Kafka refused one operation.
    #[error("Kafka at {address} could not {what}: {reason}")]
    Kafka {
        /// The operation, as in "publish to orrery.raw".
        what: String,
        /// HOST:PORT, comma-separated when there are several.
        address: String,
        /// The broker's or the client library's reason.
        reason: String,
    },
    /// A record above the limit.
    #[error("a record of {bytes} bytes for topic {topic} is above the limit of {limit} bytes: split it")]
    TooLarge {
        /// Where it was bound for.
        topic: String,
        /// Its size with key and headers.
        bytes: usize,
        /// [`crate::MAX_RECORD_BYTES`].
        limit: usize,
    },
    /// A topic or group name that cannot be a folder or a Kafka topic.
    #[error("`{name}` is not a {kind} name: use 1 to 200 letters, digits, '.', '_' or '-', not starting with '.'")]
    BadName {
        /// "topic" or "group".
        kind: &'static str,
        /// The name as given.
        name: String,
    },
    /// A partition the topic does not have.
    #[error("topic {topic} has no partition {partition}")]
    NoPartition {
        /// The topic.
        topic: String,
        /// The partition that was named.
        partition: u32,
    },
    /// A bus address that is not one.
    #[error("`{0}` is not a bus: write `journal` or kafka://HOST:PORT[,HOST:PORT]")]
    BadUrl(String),
}
