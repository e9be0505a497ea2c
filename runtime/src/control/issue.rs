//! Sealing, recording and publishing commands, and what became of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use orrery_bus::Record as BusRecord;
use orrery_protocol::{AlignedBlock, Command, Digest, Record, RecordKind, Subject, TaiNanos, seal_command, topics};

use super::{Change, CommandStatus, Control};
use crate::handle::lock;
use crate::interlocks::Report;
use crate::refusal::Refusal;

/// After `apply_by`, how long an acknowledgement may still be on its way.
const ACK_GRACE: Duration = Duration::from_secs(5);
const MOST_COMMANDS: usize = 1000;

impl Control {
    /// A command's state.
    pub fn command(&self, id: &str) -> Option<CommandStatus> {
        let now = self.clock.wall();
        let mut inner = lock(&self.inner);
        let command = inner.commands.get_mut(id)?;
        if matches!(command.status, "sending" | "accepted") && now > command.gives_up {
            command.status = "expired";
            command.reason = Some("The device did not answer in time. Check its agent, then send again.".to_owned());
        }
        Some(command.clone())
    }

    pub(super) async fn check_and_issue(
        self: &Arc<Self>,
        changes: Vec<Change>,
        who: &str,
        review: Option<&str>,
    ) -> Result<Vec<CommandStatus>, Refusal> {
        self.reviewed(&changes)?;
        // Interlocks run models.
        let control = Arc::clone(self);
        let judged = tokio::task::spawn_blocking(move || (control.judge(&changes), changes)).await;
        let (reports, changes) = judged.map_err(|error| Refusal::Ended(error.to_string()))?;
        if let Some(failed) = reports.iter().find(|report| !report.ok) {
            return Err(Refusal::Interlock(Box::new(failed.clone())));
        }
        self.issue(changes, who, review, &reports).await
    }

    /// Seals, records and publishes commands, in order.
    pub(super) async fn issue(
        &self,
        changes: Vec<Change>,
        who: &str,
        review: Option<&str>,
        reports: &[Report],
    ) -> Result<Vec<CommandStatus>, Refusal> {
        let mut next = self.sequence.lock().await;
        let now = self.clock.wall();
        let mut sealed = Vec::with_capacity(changes.len());
        let mut records = Vec::with_capacity(changes.len());
        let mut ids = Vec::with_capacity(changes.len());
        for change in changes {
            let command = Command {
                id: self.new_id()?,
                device: change.device,
                channel: change.channel,
                value: change.value,
                issuer: self.issuer.clone(),
                issuer_epoch: self.epoch,
                issuer_sequence: *next,
                apply_by: now.plus(self.apply_within),
                hold_until: change.hold_s.map(|hold_s| now.plus(Duration::from_secs_f64(hold_s))),
            };
            *next += 1;
            let bytes = seal_command(&command, &self.key);
            records.push(provenance(&command, &bytes, who, review, reports, now));
            sealed.push(BusRecord::new(command.device.as_str().to_owned(), bytes));
            ids.push(command.id.clone());
            self.remember(command);
        }
        // The command goes first: a heater that must go off does not wait for the log.
        if let Err(error) = self.bus.publish(topics::CONTROL, sealed).await {
            self.mark(&ids, "unknown", Some("The bus did not confirm the command."));
            return Err(Refusal::Bus(error.to_string()));
        }
        self.mark(&ids, "accepted", None);
        if let Err(error) = self.bus.publish(topics::PROVENANCE, records).await {
            tracing::error!(%error, "commands went out, but their provenance records did not");
        }
        drop(next);
        Ok(ids.iter().filter_map(|id| self.command(id)).collect())
    }

    fn remember(&self, command: Command) {
        let status = CommandStatus {
            id: command.id.clone(),
            device: command.device,
            channel: command.channel,
            status: "sending",
            value: Some(command.value),
            reason: None,
            hold_until: command.hold_until.map(TaiNanos::to_rfc3339),
            gives_up: command.apply_by.plus(ACK_GRACE),
        };
        let mut inner = lock(&self.inner);
        inner.order.push_back(command.id.clone());
        inner.commands.insert(command.id, status);
        while inner.order.len() > MOST_COMMANDS {
            if let Some(oldest) = inner.order.pop_front() {
                inner.commands.remove(&oldest);
            }
        }
    }

    /// Moves commands on, unless an acknowledgement was faster.
    fn mark(&self, ids: &[String], status: &'static str, reason: Option<&str>) {
        let mut inner = lock(&self.inner);
        for id in ids {
            if let Some(command) = inner.commands.get_mut(id).filter(|command| command.status == "sending") {
                command.status = status;
                command.reason = reason.map(str::to_owned);
            }
        }
    }
}

pub(super) fn acknowledge(commands: &mut BTreeMap<String, CommandStatus>, block: &AlignedBlock, row: usize) {
    let text = |name: &str| {
        let column = block.channel(name)?.as_string_opt::<i32>()?;
        (!arrow_array::Array::is_null(column, row)).then(|| column.value(row).to_owned())
    };
    let (Some(id), Some(status)) = (text("command_id"), text("status")) else {
        return;
    };
    let Some(command) = commands
        .get_mut(&id)
        .filter(|command| command.device == block.stream.device())
    else {
        return;
    };
    command.status = match status.as_str() {
        "applied" => "applied",
        "refused" => "refused",
        _ => "unknown",
    };
    command.value = block.value("value", row);
    command.reason = text("reason").filter(|reason| !reason.is_empty());
}

fn provenance(
    command: &Command,
    sealed: &[u8],
    who: &str,
    review: Option<&str>,
    reports: &[Report],
    at: TaiNanos,
) -> BusRecord {
    let record = Record {
        kind: RecordKind::Command,
        subject: vec![Subject {
            name: format!("command/{}", command.id),
            sha256: Digest::of(sealed),
        }],
        predicate: serde_json::json!({
            "device": command.device,
            "channel": command.channel,
            "value": command.value,
            "principal": who,
            "issuer": command.issuer,
            "issuer_epoch": command.issuer_epoch.to_string(),
            "issuer_sequence": command.issuer_sequence.to_string(),
            "apply_by": command.apply_by.to_rfc3339(),
            "hold_until": command.hold_until.map(TaiNanos::to_rfc3339),
            "review_id": review,
            "interlocks": reports,
        }),
        at,
    };
    BusRecord::new(RecordKind::Command.as_str(), record.encode())
}
