//! Which bus, and how it is set up.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::BusError;

/// `journal`, or `kafka://HOST:PORT[,HOST:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum BusUrl {
    /// The embedded journal, for one process.
    #[default]
    Journal,
    /// Apache Kafka: the brokers to ask first, each HOST:PORT.
    Kafka(Vec<String>),
}

impl FromStr for BusUrl {
    type Err = BusError;

    fn from_str(text: &str) -> Result<Self, BusError> {
        let bad = || BusError::BadUrl(text.to_owned());
        if text == "journal" {
            return Ok(Self::Journal);
        }
        let brokers = text.strip_prefix("kafka://").ok_or_else(bad)?;
        let brokers: Vec<String> = brokers.trim_end_matches('/').split(',').map(str::to_owned).collect();
        let is_address = |broker: &String| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_[]:".contains(c);
            broker.chars().all(allowed)
                && broker
                    .rsplit_once(':')
                    .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
        };
        if brokers.iter().all(is_address) {
            Ok(Self::Kafka(brokers))
        } else {
            Err(bad())
        }
    }
}

impl TryFrom<String> for BusUrl {
    type Error = BusError;

    fn try_from(text: String) -> Result<Self, BusError> {
        text.parse()
    }
}

impl std::convert::From<BusUrl> for String {
    fn from(url: BusUrl) -> Self {
        url.to_string()
    }
}

impl fmt::Display for BusUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Journal => f.write_str("journal"),
            Self::Kafka(brokers) => write!(f, "kafka://{}", brokers.join(",")),
        }
    }
}

/// How to talk to Kafka.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaConfig {
    /// Partitions of a topic this process creates. Fixed for the topic's life: a key must keep its partition.
    pub partitions: u32,
    /// Copies of each record; absent: the broker's default.
    pub replication: Option<u32>,
    /// How long a record may wait for the brokers before `publish` fails.
    pub publish_timeout_ms: u64,
    /// How long to wait for an answer when connecting, committing or asking.
    pub request_timeout_ms: u64,
    /// Encrypt the connection.
    pub tls: bool,
    /// Trust this PEM file instead of the system's certificates.
    pub ca_file: Option<PathBuf>,
    /// Log in; absent: no authentication.
    pub sasl: Option<SaslConfig>,
    /// Further librdkafka properties by their own names, applied last.
    pub properties: BTreeMap<String, String>,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            partitions: 4,
            replication: None,
            publish_timeout_ms: 30_000,
            request_timeout_ms: 10_000,
            tls: false,
            ca_file: None,
            sasl: None,
            properties: BTreeMap::new(),
        }
    }
}

/// A user name and a password for Kafka.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaslConfig {
    /// PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
    pub mechanism: String,
    /// The user.
    pub username: String,
    /// The user's password; never printed.
    pub password: String,
}

impl fmt::Debug for SaslConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SaslConfig {{ mechanism: {:?}, username: {:?}, .. }}",
            self.mechanism, self.username
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_read_what_they_write_and_nothing_else() {
        for text in [
            "journal",
            "kafka://localhost:9092",
            "kafka://a.example:9092,b.example:9093",
            "kafka://[::1]:9092",
        ] {
            assert_eq!(text.parse::<BusUrl>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "kafka",
            "kafka://",
            "kafka://host",
            "kafka://host:0",
            "kafka://:9092",
            "nats://host:1",
            "kafka://a:1 b:2",
        ] {
            let error = text.parse::<BusUrl>().unwrap_err();
            assert!(error.to_string().contains("kafka://HOST:PORT"), "{error}");
        }
    }

    #[test]
    fn a_password_is_never_printed() {
        let sasl = SaslConfig {
            mechanism: "PLAIN".into(),
            username: "u".into(),
            password: "secret".into(),
        };
        assert!(!format!("{sasl:?}").contains("secret"));
    }
}
