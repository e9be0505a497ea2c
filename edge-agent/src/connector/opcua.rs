//! OPC UA: subscribes to variables of a server; the server's source stamps are the samples' device time.
//!
//! Each connection is a fresh session with a fresh subscription. The client library could carry subscriptions over, but a restarted server
//! has forgotten them: starting over is one path for both, and it is the one that is tested.

mod clock;
mod control;
pub mod nodes;
mod session;
mod values;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use opcua::client::{MonitoredItemMap, OnSubscriptionNotificationCore, Session, UARequest, services::Read};
use opcua::types::{
    DataChangeFilter, DataChangeNotification, DataChangeTrigger, DataValue, DateTime, ExtensionObject,
    MonitoredItemCreateRequest, MonitoringMode, MonitoringParameters, NodeId, NotificationMessage, ReadValueId,
    StatusCode, TimestampsToReturn, Variant,
};
use orrery_protocol::{ChannelType, ClockId, DeviceNanos, Value};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use self::session::Connection;

use self::clock::{ClockRead, probes};
use self::control::NodeControl;
use self::nodes::resolve;
use self::values::{convert, unix_nanos};
use super::{Backoff, Connector, Control, Emitted, Emitter, Reading, Stamp, Stopped, excerpt};
use crate::config::DeviceConfig;

/// An OPC UA server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpcUaConfig {
    /// `opc.tcp://host:4840/path`.
    pub url: String,
    /// The user name; anonymous when not given.
    #[serde(default)]
    pub username: Option<String>,
    /// The password.
    #[serde(default)]
    pub password: Option<String>,
    /// How often the server sends what changed, in milliseconds.
    #[serde(default = "default_publishing_ms")]
    pub publishing_ms: u64,
    /// How often the server looks at the variables, in milliseconds; 0 is as fast as it can.
    #[serde(default)]
    pub sampling_ms: u64,
}

fn default_publishing_ms() -> u64 {
    20
}

impl OpcUaConfig {
    /// A server without further settings.
    pub fn at(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            username: None,
            password: None,
            publishing_ms: default_publishing_ms(),
            sampling_ms: 0,
        }
    }

    /// Whether the address can be one.
    ///
    /// # Errors
    /// Says what an address looks like.
    pub fn check(&self) -> Result<(), String> {
        match self.url.strip_prefix("opc.tcp://") {
            Some(place) if !place.is_empty() => Ok(()),
            _ => Err(format!(
                "`{}` is not an OPC UA address; write opc.tcp://HOST:4840",
                self.url
            )),
        }
    }

    /// The command that lists the variables of this server.
    pub fn discover_command(&self) -> String {
        let user = self.username.as_ref();
        let user = user.map_or_else(String::new, |user| format!(" --username {user}"));
        format!("orrery-edge discover --opcua {}{user}", self.url)
    }
}

/// Without a word from us for so long, the server forgets the subscription.
const SUBSCRIPTION_LIFETIME: Duration = Duration::from_secs(60);
/// With nothing to notify for so long, the server says that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
const CURRENT_TIME: u32 = 2258;
const START_TIME: u32 = 2257;

struct Item {
    stream: usize,
    channel: usize,
    width: usize,
    kind: ChannelType,
    source: String,
}

/// The connector.
pub struct OpcUa {
    config: OpcUaConfig,
    device: String,
    items: Vec<Item>,
    control: Arc<NodeControl>,
    /// Notifications that the queue had no room for, not yet told.
    overrun: Arc<AtomicU64>,
}

impl OpcUa {
    /// Checks the address and the sources.
    ///
    /// # Errors
    /// Says what an address or a node id looks like.
    pub fn new(config: OpcUaConfig, device: &DeviceConfig) -> Result<Self, String> {
        config.check()?;
        let mut items = Vec::new();
        for (stream, settings) in device.streams.iter().enumerate() {
            for (channel, described) in settings.channels.iter().enumerate() {
                nodes::check(described.source()).map_err(|problem| format!("`{}` {problem}", described.source()))?;
                items.push(Item {
                    stream,
                    channel,
                    width: settings.channels.len(),
                    kind: described.kind,
                    source: described.source().to_owned(),
                });
            }
        }
        Ok(Self {
            config,
            device: device.id.to_string(),
            items,
            control: Arc::default(),
            overrun: Arc::default(),
        })
    }
}

#[async_trait]
impl Connector for OpcUa {
    async fn run(self: Box<Self>, emit: Emitter, stop: CancellationToken) {
        let mut backoff = Backoff::for_devices();
        while !stop.is_cancelled() {
            let outcome = tokio::select! {
                outcome = self.session(&emit, &mut backoff) => outcome,
                () = stop.cancelled() => break,
            };
            self.control.set(None);
            match outcome {
                Ok(Stopped) => return,
                Err(problem) => emit.disconnected(&problem),
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(backoff.next_pause()) => {}
            }
        }
        self.control.set(None);
    }

    fn control(&self) -> Option<Arc<dyn Control>> {
        Some(Arc::clone(&self.control) as Arc<dyn Control>)
    }
}

impl OpcUa {
    /// One connection, from login to loss.
    async fn session(&self, emit: &Emitter, backoff: &mut Backoff) -> Result<Stopped, String> {
        let mut connection = Connection::open(&self.config)
            .await
            .map_err(|error| error.to_string())?;
        let session = Arc::clone(&connection.session);
        let nodes = self.resolve_all(&session).await?;
        let clock_id = self.clock_id(&session, emit).await;
        if emit.device_clock(clock_id.clone()).await.is_err() {
            return Ok(Stopped);
        }
        if self.probe(&session, emit, &clock_id).await.is_err() {
            return Ok(Stopped);
        }
        let mut notifications = self.subscribe(&session, emit, &nodes).await?;
        self.control.set(Some((
            Arc::clone(&session),
            self.items.iter().map(|item| item.source.clone()).zip(nodes).collect(),
        )));
        emit.connected();
        backoff.reset();
        let mut last_stamps: HashMap<usize, DateTime> = HashMap::new();
        let started = emit.clock().monotonic();
        let mut next_probe = started.plus(Duration::from_secs(1));
        loop {
            let until_probe = emit.clock().real(next_probe.since(emit.clock().monotonic()));
            tokio::select! {
                status = connection.lost() => return Err(format!(
                    "the OPC UA server {} closed the connection ({status}); waiting for it to return", self.config.url)),
                batch = notifications.recv() => {
                    let Some(batch) = batch else { return Err("the subscription ended".to_owned()) };
                    if self.take(batch, emit, &mut last_stamps).await.is_err() {
                        return Ok(Stopped);
                    }
                }
                () = tokio::time::sleep(until_probe) => {
                    if self.probe(&session, emit, &clock_id).await.is_err() {
                        return Ok(Stopped);
                    }
                    let is_young = emit.clock().monotonic().since(started) < Duration::from_secs(10);
                    next_probe = emit.clock().monotonic().plus(Duration::from_secs(if is_young { 1 } else { 10 }));
                }
            }
        }
    }

    async fn resolve_all(&self, session: &Session) -> Result<Vec<NodeId>, String> {
        let mut nodes = Vec::with_capacity(self.items.len());
        for item in &self.items {
            let node = resolve(session, &item.source)
                .await
                .map_err(|problem| format!("{}: `{}`: {problem}", self.config.url, item.source))?;
            nodes.push(node);
        }
        Ok(nodes)
    }

    /// The server's run: its clock is continuous from its start time on.
    async fn clock_id(&self, session: &Session, emit: &Emitter) -> ClockId {
        let read = session
            .read(&[NodeId::new(0, START_TIME).into()], TimestampsToReturn::Neither, 0.0)
            .await;
        let start = read
            .ok()
            .and_then(|values| values.into_iter().next())
            .and_then(|value| match value.value {
                Some(Variant::DateTime(start)) => unix_nanos(&start),
                _ => None,
            });
        let run = start.map_or_else(
            || format!("session-{:x}", emit.clock().monotonic().0),
            |start| format!("{start:x}"),
        );
        ClockId::session(&self.device, &run)
    }

    /// One wave of reads of the server's clock.
    async fn probe(&self, session: &Session, emit: &Emitter, clock_id: &ClockId) -> Result<(), Stopped> {
        const WAVE: usize = 8;
        let mut wave = Vec::with_capacity(WAVE);
        for _ in 0..WAVE {
            let t0 = emit.clock().monotonic().0;
            let read = Read::new(session)
                .node(NodeId::new(0, CURRENT_TIME).into())
                .send(session.channel())
                .await;
            let t3 = emit.clock().monotonic().0;
            let Ok(answer) = read else { return Ok(()) };
            let current = answer
                .results
                .and_then(|results| results.into_iter().next())
                .and_then(|value| match value.value {
                    Some(Variant::DateTime(time)) => unix_nanos(&time),
                    _ => None,
                });
            wave.push(ClockRead {
                t0,
                t3,
                current,
                header: unix_nanos(&answer.response_header.timestamp),
            });
            // Apart by more than a clock tick of the server, so that a moving clock is seen to move.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let probes = probes(&wave);
        if probes.is_empty() {
            Ok(())
        } else {
            emit.probe(clock_id.clone(), probes).await
        }
    }

    async fn subscribe(
        &self,
        session: &Session,
        emit: &Emitter,
        nodes: &[NodeId],
    ) -> Result<mpsc::Receiver<Notification>, String> {
        let wrong = |what: String| format!("{}: cannot subscribe: {what}", self.config.url);
        let (sender, receiver) = mpsc::channel(1_024);
        let callback = Forward {
            sender,
            emit: emit.clone(),
            overrun: Arc::clone(&self.overrun),
        };
        let interval = Duration::from_millis(self.config.publishing_ms.max(1));
        let within = |span: Duration| span.div_duration_f64(interval).ceil() as u32;
        let keep_alive = within(KEEP_ALIVE);
        let lifetime = within(SUBSCRIPTION_LIFETIME).max(3 * keep_alive);
        let subscription = session
            .create_subscription(interval, lifetime, keep_alive, 0, 0, true, callback)
            .await
            .map_err(|error| wrong(error.to_string()))?;
        let request = |place: usize, filter: ExtensionObject| {
            let parameters = MonitoringParameters {
                client_handle: place as u32 + 1,
                sampling_interval: self.config.sampling_ms as f64,
                filter,
                queue_size: 1_000,
                discard_oldest: true,
            };
            MonitoredItemCreateRequest::new(ReadValueId::from(&nodes[place]), MonitoringMode::Reporting, parameters)
        };
        // A sample that repeats the value before it is a sample too: without this trigger the server would not send it.
        let every_sample = || {
            ExtensionObject::from_message(DataChangeFilter {
                trigger: DataChangeTrigger::StatusValueTimestamp,
                deadband_type: 0,
                deadband_value: 0.0,
            })
        };
        let all = (0..nodes.len()).map(|place| request(place, every_sample())).collect();
        let created = session
            .create_monitored_items(subscription, TimestampsToReturn::Both, all)
            .await
            .map_err(|error| wrong(error.to_string()))?;
        let mut statuses: Vec<StatusCode> = created.iter().map(|item| item.result.status_code).collect();
        let plain: Vec<usize> = (0..statuses.len())
            .filter(|place| refuses_filters(statuses[*place]))
            .collect();
        if !plain.is_empty() {
            let again = plain
                .iter()
                .map(|place| request(*place, ExtensionObject::null()))
                .collect();
            let created = session
                .create_monitored_items(subscription, TimestampsToReturn::Both, again)
                .await
                .map_err(|error| wrong(error.to_string()))?;
            for (place, item) in plain.into_iter().zip(created) {
                statuses[place] = item.result.status_code;
            }
        }
        for (item, status) in self.items.iter().zip(statuses) {
            if status.is_bad() {
                return Err(wrong(format!(
                    "`{}` ({status}); `{}` lists what there is",
                    item.source,
                    self.config.discover_command()
                )));
            }
        }
        Ok(receiver)
    }

    /// Makes rows: values of one stream with one source stamp belong together.
    async fn take(
        &self,
        notification: Notification,
        emit: &Emitter,
        last_stamps: &mut HashMap<usize, DateTime>,
    ) -> Result<(), Stopped> {
        let overrun = self.overrun.swap(0, Ordering::Relaxed);
        if overrun > 0 {
            let from = &self.config.url;
            emit.bad(format!(
                "{overrun} notifications of {from} were lost while the spool took nothing; free some space on its disk"
            ))
            .await?;
        }
        let mut rows: BTreeMap<(usize, Option<i64>), Vec<Value>> = BTreeMap::new();
        for (handle, data) in notification.values {
            let Some((place, item)) = (handle as usize)
                .checked_sub(1)
                .and_then(|at| Some((at, self.items.get(at)?)))
            else {
                continue;
            };
            let status = data.status.unwrap_or(StatusCode::Good);
            if status.is_bad() {
                emit.bad(format!("{} reports {status}", item.source)).await?;
                continue;
            }
            // A new subscription repeats the last value: it was taken before the reconnection.
            if let Some(stamp) = data.source_timestamp
                && last_stamps.insert(place, stamp) == Some(stamp)
            {
                continue;
            }
            match data.value.as_ref().and_then(|value| convert(value, item.kind)) {
                Some(value) => {
                    let stamp = data.source_timestamp.as_ref().and_then(unix_nanos);
                    let row = rows
                        .entry((item.stream, stamp))
                        .or_insert_with(|| vec![Value::Null; item.width]);
                    row[item.channel] = value;
                }
                None => {
                    let shown = data
                        .value
                        .as_ref()
                        .map_or_else(|| "no value".to_owned(), Variant::to_string);
                    emit.bad(format!(
                        "{} is not a {:?}: {}",
                        item.source,
                        item.kind,
                        excerpt(shown.as_bytes())
                    ))
                    .await?;
                }
            }
        }
        for ((stream, stamp), values) in rows {
            let received = notification.received.again();
            let reading = Reading {
                stream,
                device_time: stamp.map(DeviceNanos),
                received,
                values,
                durable: None,
            };
            emit.send(Emitted::Reading(reading)).await?;
        }
        Ok(())
    }
}

fn refuses_filters(status: StatusCode) -> bool {
    status == StatusCode::BadFilterNotAllowed
        || status == StatusCode::BadMonitoredItemFilterUnsupported
        || status == StatusCode::BadMonitoredItemFilterInvalid
}

struct Notification {
    received: Stamp,
    values: Vec<(u32, DataValue)>,
}

/// The library's callback: stamps and passes on, because it must not wait.
struct Forward {
    sender: mpsc::Sender<Notification>,
    emit: Emitter,
    overrun: Arc<AtomicU64>,
}

impl OnSubscriptionNotificationCore for Forward {
    fn on_subscription_notification(&mut self, notification: NotificationMessage, _items: MonitoredItemMap<'_>) {
        let received = self.emit.stamp();
        let mut values = Vec::new();
        for object in notification.notification_data.into_iter().flatten() {
            if let Some(change) = object.into_inner_as::<DataChangeNotification>() {
                values.extend(
                    change
                        .monitored_items
                        .into_iter()
                        .flatten()
                        .map(|item| (item.client_handle, item.value)),
                );
            }
        }
        if !values.is_empty() && self.sender.try_send(Notification { received, values }).is_err() {
            // More than a thousand wait already: the spool has taken nothing for minutes. The loop tells it when it goes on.
            self.overrun.fetch_add(1, Ordering::Relaxed);
        }
    }
}
