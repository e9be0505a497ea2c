//! MQTT 3.1.1: subscribes to topics of a broker and reads JSON or plain numbers out of the messages.
//!
//! A message is acknowledged to the broker only when its reading is fsynced, so a QoS 1 message is never lost between the two.
//! What the client library does not do is done here: subscribing again on every connection, and forgetting
//! acknowledgements of a connection that is gone. Retained messages are old news whose age nobody knows: they are ignored.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use orrery_protocol::ClockId;
use rumqttc::{AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, MqttOptions, Packet, Publish, QoS};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval};
use tokio_util::sync::CancellationToken;

use super::json::Extractor;
use super::{Backoff, CREDENTIALS, ConnectError, Connector, Emitter, Stopped};
use crate::config::DeviceConfig;

/// An MQTT broker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MqttConfig {
    /// `mqtt://host:1883` or `mqtts://host:8883`; user name and password may stand before the host.
    pub url: String,
    /// The user name.
    #[serde(default)]
    pub username: Option<String>,
    /// The password.
    #[serde(default)]
    pub password: Option<String>,
    /// The client id; `orrery-<device>` when not given. Two clients with one id push each other out.
    #[serde(default)]
    pub client_id: Option<String>,
    /// A PEM file with the certificate authority of an `mqtts` broker; the system's when not given.
    #[serde(default)]
    pub ca_file: Option<std::path::PathBuf>,
}

/// Where a broker is and how to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// User name and password.
    pub login: Option<(String, String)>,
}

impl Broker {
    /// Reads `mqtt://[user:password@]host[:port]`.
    ///
    /// # Errors
    /// Shows the form an address has.
    pub fn parse(url: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{}` is not an MQTT address; write mqtt://HOST:1883 or mqtts://HOST:8883",
                without_password(url)
            )
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        let tls = match scheme {
            "mqtt" | "tcp" => false,
            "mqtts" | "ssl" => true,
            _ => return Err(wrong()),
        };
        let rest = rest.trim_end_matches('/');
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => {
                let (user, password) = login.split_once(':').unwrap_or((login, ""));
                (Some((user.to_owned(), password.to_owned())), place)
            }
            None => (None, rest),
        };
        let (host, port) = match place.rsplit_once(':') {
            // An IPv6 address without a port ends in a bracket.
            Some((host, port)) if !place.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
            _ => (place, if tls { 8883 } else { 1883 }),
        };
        if host.is_empty() || host.contains('/') {
            return Err(wrong());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            tls,
            login,
        })
    }
}

/// A broker's address as it may be shown.
pub fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, place))) => format!("{scheme}://{place}"),
        _ => url.to_owned(),
    }
}

impl MqttConfig {
    /// A broker without further settings.
    pub fn at(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            username: None,
            password: None,
            client_id: None,
            ca_file: None,
        }
    }

    /// The command that lists what this broker has to say.
    pub fn discover_command(&self) -> String {
        let in_url = || Broker::parse(&self.url).ok()?.login.map(|(user, _)| user);
        let user = self.username.clone().or_else(in_url);
        let user = user.map_or_else(String::new, |user| format!(" --username {user}"));
        format!("orrery-edge discover --mqtt {}{user}", without_password(&self.url))
    }

    pub(crate) fn options(&self, client_id: &str) -> Result<MqttOptions, String> {
        let broker = Broker::parse(&self.url)?;
        let mut options = MqttOptions::new(client_id, broker.host, broker.port);
        options
            .set_keep_alive(Duration::from_secs(15))
            .set_max_packet_size(1 << 20, 1 << 20);
        if broker.tls {
            options.set_transport(match &self.ca_file {
                None => rumqttc::Transport::tls_with_default_config(),
                Some(path) => {
                    let ca = std::fs::read(path)
                        .map_err(|error| format!("cannot read ca_file {}: {error}", path.display()))?;
                    rumqttc::Transport::tls(ca, None, None)
                }
            });
        }
        let login = match &self.username {
            Some(user) => Some((user.clone(), self.password.clone().unwrap_or_default())),
            None => broker
                .login
                .map(|(user, password)| (user, self.password.clone().unwrap_or(password))),
        };
        if let Some((user, password)) = login {
            options.set_credentials(user, password);
        }
        Ok(options)
    }
}

struct Route {
    filter: String,
    stream: usize,
    extractor: Extractor,
    has_time: bool,
    /// How long it may stay silent after the subscription.
    silence: Duration,
    is_heard: bool,
}

/// How long a topic may stay silent whose stream does not say.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);
/// The least real time of that for a sped-up clock: subscribing takes no less.
const LEAST_SILENCE: Duration = Duration::from_secs(2);

/// The connector.
pub struct Mqtt {
    options: MqttOptions,
    url: String,
    discover_command: String,
    routes: Vec<Route>,
    clock_id: Option<ClockId>,
}

impl Mqtt {
    /// Checks address and topics.
    ///
    /// # Errors
    /// Names the stream without a topic, or what is wrong with the address.
    pub fn new(config: MqttConfig, device: &DeviceConfig) -> Result<Self, String> {
        let client_id = config
            .client_id
            .clone()
            .unwrap_or_else(|| format!("orrery-{}", device.id));
        let mut options = config.options(&client_id)?;
        // The session stays with the broker while we are away, and acknowledging is our business.
        options.set_clean_session(false).set_manual_acks(true).set_inflight(100);
        let routes = device
            .streams
            .iter()
            .enumerate()
            .map(|(place, stream)| {
                let filter = stream.topic.clone().ok_or_else(|| {
                    format!(
                        "stream `{}` has no topic; add topic = \"lab/x\" (a filter with + and # is fine)",
                        stream.name
                    )
                })?;
                if !rumqttc::valid_filter(&filter) {
                    return Err(format!("stream `{}`: `{filter}` is not a topic filter", stream.name));
                }
                let has_time = stream.time.is_some();
                Ok(Route {
                    filter,
                    stream: place,
                    extractor: Extractor::new(stream),
                    has_time,
                    silence: stream.max_silence_ms.map_or(LONGEST_SILENCE, Duration::from_millis),
                    is_heard: false,
                })
            })
            .collect::<Result<Vec<_>, String>>()?;
        // The source's session is not visible through a broker: its clock is one clock, and a reset of it shows in its stamps.
        let clock_id = routes
            .iter()
            .any(|route| route.has_time)
            .then(|| ClockId::session(device.id.as_str(), "source"));
        Ok(Self {
            options,
            url: without_password(&config.url),
            discover_command: config.discover_command(),
            routes,
            clock_id,
        })
    }
}

/// An acknowledgement that waits for the spool.
struct Pending {
    publish: Publish,
    connection: u64,
    durable: Vec<oneshot::Receiver<()>>,
}

#[async_trait]
impl Connector for Mqtt {
    async fn run(self: Box<Self>, emit: Emitter, stop: CancellationToken) {
        if let Some(clock_id) = &self.clock_id
            && emit.device_clock(clock_id.clone()).await.is_err()
        {
            return;
        }
        let (client, events) = AsyncClient::new(self.options.clone(), 256);
        let connection = Arc::new(AtomicU64::new(0));
        let (pending_sender, pending) = mpsc::channel(1_024);
        let mut tasks = JoinSet::new();
        tasks.spawn(acknowledge(client.clone(), pending, Arc::clone(&connection)));
        tasks.spawn(async move {
            let mut reader = Reader {
                mqtt: *self,
                emit,
                client,
                connection,
                pending: pending_sender,
                recent: Recent::default(),
                subscribed: None,
                is_silence_told: false,
                look: tokio::time::interval(Duration::from_millis(500)),
            };
            let _ = reader.poll(events).await;
        });
        tokio::select! {
            () = stop.cancelled() => {}
            _ = tasks.join_next() => {}
        }
        tasks.shutdown().await;
    }
}

struct Reader {
    mqtt: Mqtt,
    emit: Emitter,
    client: AsyncClient,
    connection: Arc<AtomicU64>,
    pending: mpsc::Sender<Pending>,
    recent: Recent,
    /// Since when the broker would send what it has.
    subscribed: Option<Instant>,
    is_silence_told: bool,
    look: Interval,
}

impl Reader {
    /// Drives the client. Nothing here waits for the client itself: that would deadlock on a full queue.
    async fn poll(&mut self, mut events: EventLoop) -> Result<(), Stopped> {
        let mut backoff = Backoff::for_devices();
        loop {
            match self.next(&mut events).await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    self.connection.fetch_add(1, Ordering::Relaxed);
                    backoff.reset();
                    self.subscribe();
                }
                Ok(Event::Incoming(Packet::SubAck(answer))) => {
                    let refused = answer
                        .return_codes
                        .iter()
                        .any(|code| matches!(code, rumqttc::SubscribeReasonCode::Failure));
                    if refused {
                        self.emit.disconnected(&format!(
                            "the MQTT broker {} refuses the subscription; let this user read the topic",
                            self.mqtt.url
                        ));
                    } else {
                        self.emit.connected();
                        self.subscribed.get_or_insert_with(Instant::now);
                    }
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => self.take(publish).await?,
                Ok(_) => {}
                Err(error) => {
                    self.subscribed = None;
                    self.is_silence_told = false;
                    self.emit.disconnected(&explain(&self.mqtt.url, &error).to_string());
                    self.emit.sleep(backoff.next_pause()).await;
                }
            }
        }
    }

    /// The client's next event; topics that stay silent are told of meanwhile.
    async fn next(&mut self, events: &mut EventLoop) -> Result<Event, ConnectionError> {
        // One future to the end: dropped, it would give up the connection that it is making.
        let mut next = std::pin::pin!(events.poll());
        loop {
            tokio::select! {
                event = &mut next => return event,
                _ = self.look.tick() => self.tell_of_silence(),
            }
        }
    }

    /// A mistyped topic is no error to a broker: nothing ever comes.
    fn tell_of_silence(&mut self) {
        let Some(subscribed) = self.subscribed else {
            return;
        };
        let real = |silence: Duration| self.emit.clock().real(silence).max(silence.min(LEAST_SILENCE));
        let is_silent = |route: &&Route| !route.is_heard && subscribed.elapsed() >= real(route.silence);
        let silent: Vec<&Route> = self.mqtt.routes.iter().filter(is_silent).collect();
        let Some(longest) = silent.iter().map(|route| route.silence).max() else {
            if std::mem::take(&mut self.is_silence_told) {
                self.emit.connected();
            }
            return;
        };
        let topics: Vec<_> = silent.iter().map(|route| format!("`{}`", route.filter)).collect();
        self.emit.troubled(&format!(
            "nothing on {} at {} for {} s; `{}` lists topics",
            topics.join(", "),
            self.mqtt.url,
            longest.as_secs_f64(),
            self.mqtt.discover_command
        ));
        self.is_silence_told = true;
    }

    fn hear(&mut self, topic: &str) {
        let mut is_first = false;
        for route in &mut self.mqtt.routes {
            if rumqttc::matches(topic, &route.filter) {
                is_first |= !std::mem::replace(&mut route.is_heard, true);
            }
        }
        if is_first && self.is_silence_told {
            self.tell_of_silence();
        }
    }

    fn subscribe(&self) {
        for route in &self.mqtt.routes {
            if self.client.try_subscribe(&route.filter, QoS::AtLeastOnce).is_err() {
                // The queue of 256 is full of what the next polls will send; the keep-alive ends a connection
                // without subscriptions only if the broker does, so say it.
                self.emit.disconnected(&format!(
                    "could not subscribe to {} at {}; retrying",
                    route.filter, self.mqtt.url
                ));
            }
        }
    }

    async fn take(&mut self, publish: Publish) -> Result<(), Stopped> {
        let received = self.emit.stamp();
        let mut durable = Vec::new();
        let is_repeat = publish.dup && self.recent.holds(&publish);
        if !publish.retain {
            self.hear(&publish.topic);
        }
        if !publish.retain && !is_repeat {
            for route in &self.mqtt.routes {
                if !rumqttc::matches(&publish.topic, &route.filter) {
                    continue;
                }
                match route.extractor.row(&publish.payload) {
                    Ok((device_time, values)) => {
                        let again = received.again();
                        durable.push(
                            self.emit
                                .reading_acked(route.stream, device_time, again, values)
                                .await?,
                        );
                        if route.has_time {
                            self.recent.remember(&publish);
                        }
                    }
                    Err(problem) => {
                        self.emit
                            .bad(format!("{} at {}: {problem}", publish.topic, self.mqtt.url))
                            .await?
                    }
                }
            }
        }
        if publish.qos != QoS::AtMostOnce {
            let connection = self.connection.load(Ordering::Relaxed);
            self.pending
                .send(Pending {
                    publish,
                    connection,
                    durable,
                })
                .await
                .map_err(|_| Stopped)?;
        }
        Ok(())
    }
}

/// What a lost or refused connection means and what to do.
pub(crate) fn explain(url: &str, error: &ConnectionError) -> ConnectError {
    ConnectError::Unreachable(match error {
        ConnectionError::ConnectionRefused(
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized,
        ) => {
            let refused = format!("the MQTT broker {url} refuses the credentials; {CREDENTIALS}");
            return ConnectError::Denied(refused);
        }
        ConnectionError::ConnectionRefused(ConnectReturnCode::BadClientId) => {
            format!("the MQTT broker {url} refuses the client id; set client_id")
        }
        ConnectionError::ConnectionRefused(code) => {
            format!("the MQTT broker {url} refuses the connection ({code:?})")
        }
        ConnectionError::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            format!("nobody listens at {url}; check the address and that the broker runs")
        }
        ConnectionError::NetworkTimeout => {
            format!("{url} does not answer; check the address and the firewall")
        }
        ConnectionError::Tls(error) => {
            format!("no TLS with {url} ({error}); check ca_file and the broker's certificate")
        }
        ConnectionError::Io(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {
            format!("the MQTT broker {url} closed the connection; does another client use the same client_id?")
        }
        other => format!("no connection to the MQTT broker {url} ({other}); check the address and the network"),
    })
}

/// Acknowledges in the order of arrival, each when its readings are durable.
async fn acknowledge(client: AsyncClient, mut pending: mpsc::Receiver<Pending>, connection: Arc<AtomicU64>) {
    let mut waiting = FuturesOrdered::new();
    loop {
        tokio::select! {
            next = pending.recv() => match next {
                Some(Pending { publish, connection, durable }) => waiting.push_back(async move {
                    let results = futures_util::future::join_all(durable).await;
                    (publish, connection, results.iter().all(Result::is_ok))
                }),
                None => return,
            },
            Some((publish, of_connection, is_durable)) = waiting.next() => {
                // An acknowledgement on another connection would name another message: the broker sends this one again.
                let is_current = of_connection == connection.load(Ordering::Relaxed);
                if is_durable && is_current && client.ack(&publish).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Messages taken lately, to know a redelivered one. Only those with a stamp of their own: two equal readings without one may be two readings.
#[derive(Default)]
struct Recent(VecDeque<u64>);

impl Recent {
    fn key(publish: &Publish) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&publish.topic, &publish.payload[..]).hash(&mut hasher);
        hasher.finish()
    }

    fn holds(&self, publish: &Publish) -> bool {
        self.0.contains(&Self::key(publish))
    }

    fn remember(&mut self, publish: &Publish) {
        if self.0.len() >= 1_024 {
            self.0.pop_front();
        }
        self.0.push_back(Self::key(publish));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_read_and_passwords_are_not_shown() {
        let broker = Broker::parse("mqtt://lab:s3c:ret@broker.lab:1884/").unwrap();
        assert_eq!(
            (broker.host.as_str(), broker.port, broker.tls),
            ("broker.lab", 1884, false)
        );
        assert_eq!(broker.login, Some(("lab".to_owned(), "s3c:ret".to_owned())));
        assert_eq!(Broker::parse("mqtts://broker").unwrap().port, 8883);
        assert_eq!(Broker::parse("mqtt://[::1]").unwrap().host, "[::1]");
        assert_eq!(without_password("mqtt://lab:secret@broker:1"), "mqtt://broker:1");
        let command = MqttConfig::at("mqtt://lab:secret@broker:1").discover_command();
        assert_eq!(command, "orrery-edge discover --mqtt mqtt://broker:1 --username lab");
        let error = Broker::parse("http://u:secret@x").unwrap_err();
        assert!(
            error.contains("mqtt://HOST:1883") && !error.contains("secret"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_refused(text in ".*") {
            let _ = (Broker::parse(&text), Broker::parse(&format!("mqtt://{text}")), without_password(&text));
        }
    }
}
