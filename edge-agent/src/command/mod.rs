//! Commands to devices: who may, in which order, until when, and what became of them.
//!
//! [`Ledger`] decides and is pure; [`run`] is one device's loop: it writes its intent durably, acts, reads back, and acknowledges in the
//! device's own chain. If the loop dies the agent ends, and the next start recovers from the intent.

mod ledger;
mod source;

pub use ledger::{Action, ChannelRules, Decision, Ledger, Now};
pub use source::{BusCommands, CommandSource, GatewayCommands, Routed, route};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use orrery_protocol::{AckPayload, AckStatus, Clock, Command, DeviceId, EventPayload, MonoNanos, PayloadType};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::config::DeviceConfig;
use crate::connector::{Control, ControlError};
use crate::device::SealRequest;
use crate::error::Error;
use crate::files;
use crate::probe::ReferenceTime;
use crate::status::DeviceStatus;

/// The control of a device's present connector; another one after the connector was started anew.
pub type ControlSlot = Arc<Mutex<Option<Arc<dyn Control>>>>;

/// What one device's command loop needs.
pub struct CommandDeps {
    /// The agent's clocks.
    pub clock: Arc<dyn Clock>,
    /// Reference time, as far as it is known.
    pub time: Arc<ReferenceTime>,
    /// The device's counters.
    pub status: Arc<DeviceStatus>,
    /// The device's handle.
    pub control: ControlSlot,
    /// Into the device's chain.
    pub seal: mpsc::Sender<SealRequest>,
    /// Verified commands for this device.
    pub commands: mpsc::Receiver<Routed>,
}

/// The channels of a device that can be commanded.
pub fn rules(device: &DeviceConfig) -> BTreeMap<String, ChannelRules> {
    let channels = device.streams.iter().flat_map(|stream| &stream.channels);
    channels
        .filter_map(|channel| {
            let config = channel.command?;
            Some((
                channel.name.clone(),
                ChannelRules {
                    source: channel.source().to_owned(),
                    config,
                },
            ))
        })
        .collect()
}

/// Where a device's intents are kept.
pub fn ledger_file(folder: &Path, device: &DeviceId) -> PathBuf {
    folder.join("commands").join(format!("{device}.json"))
}

/// Runs one device's commands until `stop`.
///
/// # Errors
/// When the intents of the last run cannot be read: acting without them would be unsafe.
pub async fn run(
    folder: PathBuf,
    device: DeviceConfig,
    deps: CommandDeps,
    stop: CancellationToken,
) -> Result<(), Error> {
    let file = ledger_file(&folder, &device.id);
    files::make_folder(&folder.join("commands"))?;
    let remedy = "remove it after making sure that the device is in a safe state";
    let ledger: Ledger = files::read_json(&file, remedy)?.unwrap_or_default();
    let started = deps.clock.monotonic();
    let mut commander = Commander {
        rules: rules(&device),
        file,
        ledger,
        started,
        deps,
    };
    let mut tick = tokio::time::interval(commander.deps.clock.real(Duration::from_millis(200)));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            routed = commander.deps.commands.recv() => match routed {
                Some(routed) => commander.take(routed).await,
                None => return Ok(()),
            },
            _ = tick.tick() => commander.act_on_due().await,
        }
    }
}

struct Commander {
    rules: BTreeMap<String, ChannelRules>,
    file: PathBuf,
    ledger: Ledger,
    started: MonoNanos,
    deps: CommandDeps,
}

impl Commander {
    async fn take(&mut self, routed: Routed) {
        let Routed { command, taken } = routed;
        match self
            .ledger
            .decide(&command, self.rules.get(&command.channel), self.now())
        {
            Decision::Repeat => drop(taken.send(())),
            Decision::Refuse(reason) => self.refuse(&command, taken, reason),
            Decision::Apply => {
                let before = self.ledger.clone();
                self.ledger.intend(&command);
                // Durable before anything is done: after a crash the next start knows what may have been set.
                match files::write_json(&self.file, &self.ledger) {
                    Ok(()) => {
                        let _ = taken.send(());
                        self.apply(&command).await;
                    }
                    Err(error) => {
                        self.ledger = before;
                        self.refuse(&command, taken, error.to_string());
                    }
                }
            }
        }
    }

    fn refuse(&mut self, command: &Command, taken: oneshot::Sender<()>, reason: String) {
        self.ledger.remember(command);
        self.save();
        let _ = taken.send(());
        self.acknowledge(command, AckStatus::Refused, None, Some(reason));
    }

    /// Sets the value, again while the device is away and the command still in time.
    async fn apply(&mut self, command: &Command) {
        let Some(rule) = self.rules.get(&command.channel).cloned() else {
            return;
        };
        let outcome = loop {
            let outcome = self.set(&rule.source, command.value).await;
            let may_wait = matches!(outcome, Err(ControlError::NotConnected(_)))
                && matches!(self.now(), Now::Known(now) if now < command.apply_by);
            if !may_wait {
                break outcome;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        match outcome {
            Ok(value) => {
                // Also what it took instead is in effect, and ends with the command's hold.
                self.ledger.in_effect(&command.channel);
                self.save();
                if rule.config.accepts(command.value, value) {
                    return self.acknowledge(command, AckStatus::Applied, Some(value), None);
                }
                let reason = format!(
                    "the device has {value} instead of {}, which is more than `tolerance` = {} away",
                    command.value, rule.config.tolerance
                );
                self.acknowledge(command, AckStatus::Refused, Some(value), Some(reason));
            }
            Err(ControlError::Unknown(reason)) => {
                // What the device does is not known: the loop reads back, as it does after a crash.
                self.acknowledge(command, AckStatus::Unknown, None, Some(reason));
            }
            Err(error @ (ControlError::Refused(_) | ControlError::NotConnected(_))) => {
                self.ledger.settle(&command.channel);
                self.save();
                self.acknowledge(command, AckStatus::Refused, None, Some(error.to_string()));
            }
        }
    }

    async fn act_on_due(&mut self) {
        let is_grace_over = self.deps.clock.monotonic().since(self.started) > Duration::from_secs(10);
        for (channel, action) in self.ledger.due(self.now(), is_grace_over) {
            match action {
                Action::GoSafe(why) => self.go_safe(&channel, &why).await,
                Action::Recover(command) => self.recover(&channel, &command).await,
            }
        }
    }

    async fn go_safe(&mut self, channel: &str, why: &str) {
        let Some(rule) = self.rules.get(channel).cloned() else {
            self.ledger.settle(channel);
            return self.save();
        };
        if self.ledger.going_safe(channel) {
            self.save();
        }
        // A device that is away is tried again with every tick.
        if let Ok(value) = self.set(&rule.source, rule.config.safe).await {
            self.ledger.settle(channel);
            self.save();
            let safe = rule.config.safe;
            let outcome = if rule.config.accepts(safe, value) {
                format!("set to its safe value {value}")
            } else {
                format!("told to go to its safe value {safe}, but the device has {value}")
            };
            tracing::warn!(device = %self.file.display(), "{channel} {outcome}: {why}");
            let event = EventPayload {
                name: "safe_value".to_owned(),
                text: format!("{channel} {outcome}: {why}"),
                at: self.deps.clock.monotonic(),
                clock_id: self.deps.clock.clock_id().clone(),
            };
            self.seal(PayloadType::Event, event.encode());
        }
    }

    /// The device did not answer, or the agent ended before it did: what does the device do, and is that still wanted?
    async fn recover(&mut self, channel: &str, command: &Command) {
        let Some(rule) = self.rules.get(channel).cloned() else {
            self.ledger.settle(channel);
            return self.save();
        };
        let Ok(value) = self.read_back(&rule.source).await else {
            return;
        };
        let is_current = matches!(self.now(), Now::Known(now)
            if command.hold_until.is_none_or(|until| now < until));
        if rule.config.accepts(command.value, value) && is_current {
            self.ledger.in_effect(channel);
            self.save();
            self.acknowledge(
                command,
                AckStatus::Applied,
                Some(value),
                Some("found applied when it was read back".to_owned()),
            );
            return;
        }
        let is_in_time = matches!(self.now(), Now::Known(now) if now < command.apply_by);
        if is_current && is_in_time {
            return self.apply(command).await;
        }
        self.acknowledge(
            command,
            AckStatus::Refused,
            Some(value),
            Some("it was not applied when it was read back, and its time is over".to_owned()),
        );
        self.go_safe(channel, "a set-point was not applied within its time")
            .await
    }

    async fn set(&self, source: &str, value: f64) -> Result<f64, ControlError> {
        match self.control() {
            Some(control) => control.set(source, value).await,
            None => Err(ControlError::NotConnected("its connector takes no commands".to_owned())),
        }
    }

    async fn read_back(&self, source: &str) -> Result<f64, ControlError> {
        match self.control() {
            Some(control) => control.read_back(source).await,
            None => Err(ControlError::NotConnected("its connector takes no commands".to_owned())),
        }
    }

    fn control(&self) -> Option<Arc<dyn Control>> {
        self.deps.control.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn now(&self) -> Now {
        match self.deps.time.at(self.deps.clock.monotonic()) {
            Some((reference, uncertainty)) if uncertainty <= Duration::from_secs(1) => Now::Known(reference),
            Some((_, uncertainty)) => Now::Uncertain(uncertainty),
            None => Now::Unknown,
        }
    }

    fn acknowledge(&self, command: &Command, status: AckStatus, value: Option<f64>, reason: Option<String>) {
        match status {
            AckStatus::Applied => self.deps.status.commands_applied.increment(),
            AckStatus::Refused | AckStatus::Unknown => self.deps.status.commands_refused.increment(),
        }
        tracing::info!(
            device = %command.device, channel = command.channel, value = command.value, status = status.as_str(),
            reason = reason.as_deref().unwrap_or_default(), "command {}", command.id
        );
        let ack = AckPayload {
            command_id: command.id.clone(),
            channel: command.channel.clone(),
            status,
            value,
            reason,
            issuer_epoch: command.issuer_epoch,
            issuer_sequence: command.issuer_sequence,
            at: self.deps.clock.monotonic(),
            clock_id: self.deps.clock.clock_id().clone(),
        };
        self.seal(PayloadType::Ack, ack.encode());
    }

    /// Into the device's chain, without waiting for it: a full disk holds the chain up, and must not hold up a safe value.
    fn seal(&self, kind: PayloadType, payload: Vec<u8>) {
        if self.deps.seal.try_send(SealRequest { kind, payload }).is_err() {
            tracing::error!(kind = kind.as_str(), file = %self.file.display(),
                "left out of the device's chain, which takes nothing: free some space on the disk of the spool");
        }
    }

    /// Writes down what was done. Where that fails the deed stands, and the next start reads it back from the device.
    fn save(&self) {
        if let Err(error) = files::write_json(&self.file, &self.ledger) {
            tracing::error!("{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use orrery_protocol::{ManualClock, Probe, TaiNanos};

    /// A device that has what it has, and says what it says.
    struct Stubborn {
        set: Result<f64, ControlError>,
        has: f64,
    }

    #[async_trait]
    impl Control for Stubborn {
        async fn set(&self, _source: &str, _value: f64) -> Result<f64, ControlError> {
            self.set.clone()
        }
        async fn read_back(&self, _source: &str) -> Result<f64, ControlError> {
            Ok(self.has)
        }
    }

    /// Sends q1 = `value` to such a device and returns its acknowledgements, once nothing more is due.
    async fn acknowledgements(value: f64, device: Stubborn) -> Vec<AckPayload> {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(TaiNanos(0)));
        let time = Arc::new(ReferenceTime::default());
        let now = clock.monotonic().0;
        let (t0, t1, t2, t3) = (now, now, now, now);
        time.update(&[Probe { t0, t1, t2, t3 }]);
        let (seal, mut sealed) = mpsc::channel(8);
        let config = crate::config::CommandConfig {
            safe: 0.0,
            low: None,
            high: None,
            tolerance: 0.3,
        };
        let source = "Q1".to_owned();
        let mut commander = Commander {
            rules: BTreeMap::from([("q1".to_owned(), ChannelRules { source, config })]),
            file: folder.path().join("ledger.json"),
            ledger: Ledger::default(),
            started: clock.monotonic(),
            deps: CommandDeps {
                clock: clock.clone(),
                time,
                status: Arc::default(),
                control: Arc::new(Mutex::new(Some(Arc::new(device)))),
                seal,
                commands: mpsc::channel(1).1,
            },
        };
        let command = Command {
            id: "c1".to_owned(),
            device: DeviceId::new("d").unwrap(),
            channel: "q1".to_owned(),
            value,
            issuer: "operator".to_owned(),
            issuer_epoch: 1,
            issuer_sequence: 1,
            apply_by: TaiNanos(now + 5_000_000_000),
            hold_until: None,
        };
        let (taken, _) = oneshot::channel();
        commander.take(Routed { command, taken }).await;
        commander.act_on_due().await;
        commander.act_on_due().await;
        drop(commander);
        let mut acks = Vec::new();
        while let Some(request) = sealed.recv().await {
            acks.push(AckPayload::decode(&request.payload).unwrap());
        }
        acks
    }

    #[tokio::test]
    async fn only_what_the_device_took_is_applied() {
        for (took, status) in [(58.2, AckStatus::Applied), (40.0, AckStatus::Refused)] {
            let acks = acknowledgements(
                58.0,
                Stubborn {
                    set: Ok(took),
                    has: took,
                },
            )
            .await;
            assert_eq!(acks.len(), 1, "{acks:?}");
            assert_eq!((acks[0].status, acks[0].value), (status, Some(took)));
        }
        let acks = acknowledgements(
            58.0,
            Stubborn {
                set: Ok(40.0),
                has: 40.0,
            },
        )
        .await;
        let reason = acks[0].reason.as_deref().unwrap();
        assert!(reason.contains("40 instead of 58"), "{reason}");
    }

    #[tokio::test]
    async fn what_nobody_knew_is_read_back_without_a_tale_of_a_restart() {
        let silent = Stubborn {
            set: Err(ControlError::Unknown("no answer".to_owned())),
            has: 58.0,
        };
        let acks = acknowledgements(58.0, silent).await;
        let statuses: Vec<_> = acks.iter().map(|ack| ack.status).collect();
        assert_eq!(statuses, [AckStatus::Unknown, AckStatus::Applied]);
        assert_eq!(acks[1].reason.as_deref(), Some("found applied when it was read back"));
    }
}
