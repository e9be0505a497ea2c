//! How librdkafka clients are set up, and what their errors mean to a user.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::{BusError, KafkaConfig, MAX_RECORD_BYTES};

/// Where the brokers are and how to talk to them.
pub struct Settings {
    address: String,
    config: KafkaConfig,
}

impl Settings {
    pub fn new(brokers: &[String], config: KafkaConfig) -> Self {
        Self {
            address: brokers.join(","),
            config,
        }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn config(&self) -> &KafkaConfig {
        &self.config
    }

    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.config.request_timeout_ms)
    }

    /// What every client needs.
    pub fn base(&self) -> ClientConfig {
        let config = &self.config;
        let protocol = match (config.tls, &config.sasl) {
            (false, None) => "plaintext",
            (true, None) => "ssl",
            (false, Some(_)) => "sasl_plaintext",
            (true, Some(_)) => "sasl_ssl",
        };
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &self.address)
            .set("client.id", "orrery")
            .set("security.protocol", protocol)
            .set("message.max.bytes", (MAX_RECORD_BYTES + 64 * 1024).to_string())
            .set("reconnect.backoff.max.ms", "2000");
        if let Some(ca_file) = &config.ca_file {
            client.set("ssl.ca.location", path_text(ca_file));
        }
        if let Some(sasl) = &config.sasl {
            client
                .set("sasl.mechanisms", &sasl.mechanism)
                .set("sasl.username", &sasl.username)
                .set("sasl.password", &sasl.password);
        }
        for (name, value) in &config.properties {
            client.set(name, value);
        }
        client
    }

    pub fn producer(&self) -> ClientConfig {
        let mut client = self.base();
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "1")
            .set("message.timeout.ms", self.config.publish_timeout_ms.max(1).to_string())
            .set("queue.buffering.max.kbytes", "65536");
        client
    }

    /// A consumer of its own assignment; the group name is needed by librdkafka and never joined.
    pub fn reader(&self) -> ClientConfig {
        let mut client = self.group("orrery-reader");
        client
            .set("auto.offset.reset", "earliest")
            .set("fetch.error.backoff.ms", "50")
            .set("fetch.queue.backoff.ms", "50")
            .set("queued.max.messages.kbytes", "16384")
            .set("fetch.message.max.bytes", "1048576");
        client
    }

    pub fn group(&self, group: &str) -> ClientConfig {
        let mut client = self.base();
        client
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false");
        client
    }

    /// Makes a client of any kind.
    pub fn client<T: FromClientConfigAndContext<WatchedContext>>(
        &self,
        what: &str,
        config: &ClientConfig,
        failures: &Arc<Failures>,
    ) -> Result<T, BusError> {
        let context = WatchedContext {
            failures: Arc::clone(failures),
        };
        config
            .create_with_context(context)
            .map_err(|error| self.explain(what, &error, failures))
    }

    /// Turns a library error into what a user can act on. Connection errors arrive as timeouts; what really
    /// happened was told to the context before.
    pub fn explain(&self, what: &str, error: &KafkaError, failures: &Failures) -> BusError {
        let code = error.rdkafka_error_code();
        let denied = [
            RDKafkaErrorCode::Authentication,
            RDKafkaErrorCode::SaslAuthenticationFailed,
            RDKafkaErrorCode::UnsupportedSASLMechanism,
        ];
        let lost = [
            RDKafkaErrorCode::AllBrokersDown,
            RDKafkaErrorCode::BrokerTransportFailure,
            RDKafkaErrorCode::Resolve,
            RDKafkaErrorCode::OperationTimedOut,
            RDKafkaErrorCode::MessageTimedOut,
            RDKafkaErrorCode::RequestTimedOut,
            RDKafkaErrorCode::TimedOutQueue,
        ];
        let address = self.address.clone();
        let is = |codes: &[RDKafkaErrorCode], code: Option<RDKafkaErrorCode>| code.is_some_and(|c| codes.contains(&c));
        let timed_out = is(&lost, code);
        let refusal = failures.last(|code| is(&denied, Some(code)));
        if is(&denied, code) || (timed_out && refusal.is_some()) {
            return BusError::Denied {
                address,
                reason: refusal.unwrap_or_else(|| error.to_string()),
            };
        }
        if timed_out && let Some(reason) = failures.last(|code| is(&lost, Some(code))) {
            return BusError::Unreachable { address, reason };
        }
        if is(
            &[
                RDKafkaErrorCode::BrokerTransportFailure,
                RDKafkaErrorCode::AllBrokersDown,
            ],
            code,
        ) {
            return BusError::Unreachable {
                address,
                reason: error.to_string(),
            };
        }
        self.refused(
            what.to_owned(),
            code.map_or_else(|| error.to_string(), |code| code.to_string()),
        )
    }

    pub fn refused(&self, what: String, reason: String) -> BusError {
        BusError::Kafka {
            what,
            address: self.address.clone(),
            reason,
        }
    }
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The last connection errors that librdkafka reported on the side, newest last.
#[derive(Default)]
pub struct Failures {
    seen: Mutex<VecDeque<(RDKafkaErrorCode, String)>>,
}

impl Failures {
    const KEPT: usize = 8;

    fn add(&self, code: RDKafkaErrorCode, reason: &str) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() == Self::KEPT {
            seen.pop_front();
        }
        seen.push_back((code, reason.to_owned()));
    }

    /// The newest reason whose code is wanted; one that names a cause rather than "all brokers are down".
    fn last(&self, wanted: impl Fn(RDKafkaErrorCode) -> bool) -> Option<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut matching = seen.iter().rev().filter(|(code, _)| wanted(*code));
        let specific = matching
            .clone()
            .find(|(code, _)| *code != RDKafkaErrorCode::AllBrokersDown);
        specific.or_else(|| matching.next()).map(|(_, reason)| reason.clone())
    }
}

/// Keeps what librdkafka says on the side, and passes its log on quietly.
#[derive(Clone)]
pub struct WatchedContext {
    failures: Arc<Failures>,
}

impl ClientContext for WatchedContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "orrery_bus::librdkafka", ?level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "orrery_bus::librdkafka", %error, reason);
        if let Some(code) = error.rdkafka_error_code() {
            self.failures.add(code, reason);
        }
    }
}

impl ConsumerContext for WatchedContext {}
