use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use orrery_bus::{From, Position, SharedBus, Subscription};
use orrery_protocol::{Command, DeviceId, PublicKey, topics, verify_command};
use reqwest::StatusCode;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::connector::Backoff;
use crate::files;
use crate::gateway::GatewayClient;

/// Where sealed commands come from.
#[async_trait]
pub trait CommandSource: Send {
    /// Waits for sealed commands. Dropping the future loses nothing.
    ///
    /// # Errors
    /// A sentence that says what cannot be read; the caller asks again after a pause.
    async fn next(&mut self) -> Result<Vec<Bytes>, String>;
    /// The commands returned so far need not come again.
    async fn taken(&mut self);
}

/// A verified command on its way to its device's loop.
#[derive(Debug)]
pub struct Routed {
    /// The command.
    pub command: Command,
    /// Resolved when it is refused, or its intent is durable.
    pub taken: oneshot::Sender<()>,
}

/// Verifies commands and hands them to their devices until `stop`.
///
/// If this task dies the agent ends: a command that nobody reads would never be answered.
pub async fn route(
    mut source: Box<dyn CommandSource>,
    issuers: Vec<PublicKey>,
    devices: BTreeMap<DeviceId, mpsc::Sender<Routed>>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));
    let mut told = None;
    loop {
        let sealed = tokio::select! {
            sealed = source.next() => sealed,
            () = stop.cancelled() => return,
        };
        let sealed = match sealed {
            Ok(sealed) => sealed,
            Err(problem) => {
                if told.as_ref() != Some(&problem) {
                    tracing::warn!("no commands: {problem}");
                    told = Some(problem);
                }
                tokio::select! {
                    () = tokio::time::sleep(backoff.next_pause()) => {}
                    () = stop.cancelled() => return,
                }
                continue;
            }
        };
        backoff.reset();
        told = None;
        let mut waiting = Vec::new();
        for bytes in sealed {
            let Some(command) = verify(&bytes, &issuers) else {
                continue;
            };
            let Some(device) = devices.get(&command.device) else {
                continue;
            };
            let (taken, receiver) = oneshot::channel();
            if device.send(Routed { command, taken }).await.is_err() {
                return;
            }
            waiting.push(receiver);
        }
        // A device that is away may hold its command until the command's time is over; then it is simply delivered once more.
        let all = futures_util::future::join_all(waiting);
        if tokio::time::timeout(Duration::from_secs(1), all).await.is_ok() {
            source.taken().await;
        }
    }
}

fn verify(bytes: &Bytes, issuers: &[PublicKey]) -> Option<Command> {
    let mut reason = "no issuer key is configured; enrol the agent, or set commands.issuer_keys".to_owned();
    for issuer in issuers {
        match verify_command(bytes, issuer) {
            Ok(command) => return Some((*command).clone()),
            Err(error) => reason = error.to_string(),
        }
    }
    tracing::warn!("a command was not accepted: {reason}");
    None
}

/// Commands from `orrery.control` of the bus of this process.
pub struct BusCommands {
    bus: SharedBus,
    group: String,
    devices: Vec<DeviceId>,
    subscription: Option<Box<dyn Subscription>>,
    next: HashMap<u32, u64>,
}

impl BusCommands {
    /// Commands for these devices; `group` names where this agent goes on after a restart.
    pub fn new(bus: SharedBus, group: &str, devices: Vec<DeviceId>) -> Self {
        Self {
            bus,
            group: group.to_owned(),
            devices,
            subscription: None,
            next: HashMap::new(),
        }
    }

    async fn open(&mut self) -> Result<(), String> {
        let explain = |error: orrery_bus::BusError| error.to_string();
        let committed = self
            .bus
            .committed(&self.group, topics::CONTROL)
            .await
            .map_err(explain)?;
        let from = if committed.is_empty() {
            // A new agent does not answer for commands from before its time.
            for position in self.bus.end(topics::CONTROL).await.map_err(explain)? {
                self.bus
                    .commit(&self.group, topics::CONTROL, position)
                    .await
                    .map_err(explain)?;
            }
            From::Group(self.group.clone())
        } else {
            From::Offsets(committed)
        };
        self.subscription = Some(self.bus.subscribe(topics::CONTROL, from).await.map_err(explain)?);
        Ok(())
    }
}

#[async_trait]
impl CommandSource for BusCommands {
    async fn next(&mut self) -> Result<Vec<Bytes>, String> {
        if self.subscription.is_none() {
            self.open().await?;
        }
        let Some(subscription) = &mut self.subscription else {
            return Ok(Vec::new());
        };
        let messages = match subscription.next().await {
            Ok(messages) => messages,
            Err(error) => {
                self.subscription = None;
                return Err(error.to_string());
            }
        };
        let mut sealed = Vec::new();
        for message in messages {
            let Position { partition, offset } = message.next_position();
            self.next.insert(partition, offset);
            if self
                .devices
                .iter()
                .any(|device| device.as_str().as_bytes() == &message.key[..])
            {
                sealed.push(message.value);
            }
        }
        Ok(sealed)
    }

    async fn taken(&mut self) {
        for (partition, offset) in self.next.drain() {
            let position = Position { partition, offset };
            if let Err(error) = self.bus.commit(&self.group, topics::CONTROL, position).await {
                tracing::debug!("the place in the commands was not kept, they may come once more: {error}");
            }
        }
    }
}

/// Commands over a gateway's resumable event stream.
pub struct GatewayCommands {
    gateway: GatewayClient,
    devices: String,
    cursor_file: PathBuf,
    cursor: Option<String>,
    stream: Option<BoxStream<'static, reqwest::Result<Bytes>>>,
    parser: EventParser,
}

/// The gateway sends a comment every five seconds: silence of four times that is a dead connection.
const SILENCE: Duration = Duration::from_secs(20);

impl GatewayCommands {
    /// Commands for these devices; the place in the stream is kept in `folder`.
    pub fn new(gateway: GatewayClient, devices: &[DeviceId], folder: &std::path::Path) -> Self {
        let cursor_file = folder.join("commands").join("cursor");
        let cursor = std::fs::read_to_string(&cursor_file)
            .ok()
            .map(|text| text.trim().to_owned());
        let devices = devices.iter().map(DeviceId::as_str).collect::<Vec<_>>().join(",");
        Self {
            gateway,
            devices,
            cursor_file,
            cursor,
            stream: None,
            parser: EventParser::default(),
        }
    }

    async fn open(&mut self) -> Result<(), String> {
        let mut response = self.ask().await?;
        if self.cursor.is_some() && matches!(response.status(), StatusCode::GONE | StatusCode::BAD_REQUEST) {
            // The bus is another one, or no longer goes back so far: the place means nothing there, and never will.
            tracing::warn!(
                "the gateway {} does not know the place in the commands that was kept in {}: going on with the newest",
                self.gateway.url(),
                self.cursor_file.display()
            );
            self.cursor = None;
            files::remove(&self.cursor_file).map_err(|error| error.to_string())?;
            response = self.ask().await?;
        }
        let status = response.status();
        if !status.is_success() {
            let remedy = match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "enrol again with `orrery-edge enroll`",
                _ => "asking again; its log says why",
            };
            let url = self.gateway.url();
            return Err(format!(
                "the gateway {url} does not give the commands ({status}); {remedy}"
            ));
        }
        self.parser = EventParser::default();
        self.stream = Some(response.bytes_stream().boxed());
        Ok(())
    }

    /// Asks for the stream, from the place that is kept, else for what comes from now on.
    async fn ask(&mut self) -> Result<reqwest::Response, String> {
        // Device ids hold no character that a URL would need escaped.
        let devices = &self.devices;
        let request = match &self.cursor {
            Some(cursor) => self
                .gateway
                .get(&format!("control/stream?devices={devices}"))
                .header("last-event-id", cursor),
            None => self
                .gateway
                .get(&format!("control/stream?devices={devices}&from=latest")),
        };
        let opening = tokio::time::timeout(Duration::from_secs(10), request.send());
        opening
            .await
            .map_err(|_| format!("the gateway {} does not answer", self.gateway.url()))?
            .map_err(|error| self.gateway.explain(&error))
    }
}

#[async_trait]
impl CommandSource for GatewayCommands {
    async fn next(&mut self) -> Result<Vec<Bytes>, String> {
        if self.stream.is_none() {
            self.open().await?;
        }
        loop {
            let Some(stream) = &mut self.stream else {
                return Ok(Vec::new());
            };
            let chunk = match tokio::time::timeout(SILENCE, stream.next()).await {
                Ok(Some(Ok(chunk))) => chunk,
                Ok(Some(Err(error))) => {
                    self.stream = None;
                    return Err(self.gateway.explain(&error));
                }
                Ok(None) | Err(_) => {
                    self.stream = None;
                    return Err(format!(
                        "the gateway {} closed the stream of commands",
                        self.gateway.url()
                    ));
                }
            };
            let mut sealed = Vec::new();
            for event in self.parser.push(&chunk) {
                if let Some(id) = event.id {
                    self.cursor = Some(id);
                }
                match STANDARD.decode(event.data.trim()) {
                    Ok(bytes) if !bytes.is_empty() => sealed.push(Bytes::from(bytes)),
                    Ok(_) => {}
                    Err(_) => tracing::warn!("the gateway sent a command that is not base64"),
                }
            }
            if !sealed.is_empty() {
                return Ok(sealed);
            }
        }
    }

    async fn taken(&mut self) {
        if let Some(cursor) = &self.cursor
            && let Err(error) = files::write(&self.cursor_file, cursor.as_bytes())
        {
            tracing::debug!("the place in the commands was not kept, they may come once more: {error}");
        }
    }
}

/// One server-sent event.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SentEvent {
    id: Option<String>,
    data: String,
}

/// Reads server-sent events (HTML living standard, section 9.2.6) out of chunks cut anywhere.
#[derive(Debug, Default)]
struct EventParser {
    buffer: Vec<u8>,
    id: Option<String>,
    data: Vec<String>,
}

/// A line longer than any sealed command.
const LONGEST_LINE: usize = 2 << 20;

impl EventParser {
    fn push(&mut self, chunk: &[u8]) -> Vec<SentEvent> {
        self.buffer.extend_from_slice(chunk);
        let mut events = Vec::new();
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            self.line(line.trim_end_matches(['\n', '\r']), &mut events);
        }
        if self.buffer.len() > LONGEST_LINE {
            self.buffer.clear();
        }
        events
    }

    fn line(&mut self, line: &str, events: &mut Vec<SentEvent>) {
        if line.is_empty() {
            if !self.data.is_empty() {
                events.push(SentEvent {
                    id: self.id.take(),
                    data: std::mem::take(&mut self.data).join("\n"),
                });
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => self.data.push(value.to_owned()),
            "id" => self.id = Some(value.to_owned()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::task::JoinSet;

    const TEXT: &str = ": hello\n\nevent: command\nid: 41\ndata: aGk=\n\nid:42\r\ndata:b\r\ndata: c\r\n\r\n";

    #[test]
    fn events_have_ids_and_data() {
        let events = EventParser::default().push(TEXT.as_bytes());
        let event = |id: &str, data: &str| SentEvent {
            id: Some(id.to_owned()),
            data: data.to_owned(),
        };
        assert_eq!(events, [event("41", "aGk="), event("42", "b\nc")]);
    }

    /// A gateway that answers `refusal` to a place in the stream; tells of each request whether it named one.
    async fn gateway(refusal: &'static str) -> (String, mpsc::Receiver<bool>, JoinSet<()>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asked, asks) = mpsc::channel(8);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 8_192];
                let length = socket.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..length]).to_lowercase();
                let has_place = request.contains("last-event-id: elsewhere");
                assert_ne!(has_place, request.contains("from=latest"));
                let status = if has_place { refusal } else { "200 OK" };
                let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\nid: 1\ndata: aGk=\n\n");
                socket.write_all(answer.as_bytes()).await.unwrap();
                asked.send(has_place).await.unwrap();
            }
        });
        (url, asks, tasks)
    }

    #[tokio::test]
    async fn a_place_in_another_bus_is_given_up_and_any_other_refusal_is_not() {
        for (refusal, is_given_up) in [
            ("410 Gone", true),
            ("400 Bad Request", true),
            ("503 Unavailable", false),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let cursor = folder.path().join("commands").join("cursor");
            files::make_folder(cursor.parent().unwrap()).unwrap();
            files::write(&cursor, b"elsewhere").unwrap();
            let (url, mut asks, _tasks) = gateway(refusal).await;
            let client = GatewayClient::new(&url, "token").unwrap();
            let mut source = GatewayCommands::new(client, &[DeviceId::new("d").unwrap()], folder.path());
            assert_eq!(source.next().await.is_ok(), is_given_up, "{refusal}");
            assert_eq!(cursor.exists(), !is_given_up, "{refusal}");
            assert_eq!(asks.recv().await, Some(true));
            assert_eq!(asks.try_recv().ok(), is_given_up.then_some(false));
        }
    }

    proptest! {
        #[test]
        fn chunks_may_be_cut_anywhere(cuts in proptest::collection::vec(0..TEXT.len(), 0..10)) {
            let mut cuts = cuts;
            cuts.extend([0, TEXT.len()]);
            cuts.sort_unstable();
            let mut parser = EventParser::default();
            let events: Vec<_> =
                cuts.windows(2).flat_map(|cut| parser.push(&TEXT.as_bytes()[cut[0]..cut[1]])).collect();
            prop_assert_eq!(events, EventParser::default().push(TEXT.as_bytes()));
        }
    }
}
