use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use orrery_protocol::{Command, TaiNanos};
use serde::{Deserialize, Serialize};

use crate::config::CommandConfig;

/// What the agent knows about the present, for decisions that depend on it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Now {
    /// Reference time, known within a second.
    Known(TaiNanos),
    /// Known, but worse than within a second.
    Uncertain(Duration),
    /// No clock probe was answered yet.
    Unknown,
}

/// How a channel is commanded.
#[derive(Debug, Clone)]
pub struct ChannelRules {
    /// What the connector calls it.
    pub source: String,
    /// Its bounds and safe value.
    pub config: CommandConfig,
}

/// What to do with a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Write the intent, then act.
    Apply,
    /// Acknowledge as refused, for this reason.
    Refuse(String),
    /// It was dealt with before: do nothing.
    Repeat,
}

/// What has become due on a channel.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Set the safe value, for this reason.
    GoSafe(String),
    /// An intent without an outcome: read back.
    Recover(Box<Command>),
}

/// The intents of one device, durable before they are acted upon.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    channels: BTreeMap<String, Entry>,
    recent: VecDeque<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    command: Command,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    /// Written; acting, or nobody knows what came of it.
    Intended,
    /// In effect, with a hold that ends.
    Holding,
    /// The safe value is to be set.
    GoingSafe,
    /// Nothing to do.
    Settled,
}

/// Ids of commands dealt with, to know a repeated one: more than any redelivery window.
const RECENT: usize = 256;

impl Ledger {
    /// Decides about a verified command.
    pub fn decide(&self, command: &Command, rules: Option<&ChannelRules>, now: Now) -> Decision {
        if self.recent.contains(&command.id) {
            return Decision::Repeat;
        }
        let refuse = |reason: String| Decision::Refuse(reason);
        let Some(rules) = rules else {
            return refuse(format!(
                "`{}` is no channel that can be commanded; add `command` to it in the agent's configuration",
                command.channel
            ));
        };
        if let Some(last) = self.channels.get(&command.channel)
            && command.order() <= last.command.order()
        {
            let (epoch, sequence) = last.command.order();
            return refuse(format!(
                "it is older than the last one ({epoch}, {sequence}) of this channel"
            ));
        }
        if !command.value.is_finite() {
            return refuse(format!("{} is not a set-point", command.value));
        }
        let CommandConfig { low, high, .. } = rules.config;
        if low.is_some_and(|low| command.value < low) || high.is_some_and(|high| command.value > high) {
            let bound = |bound: Option<f64>| bound.map_or_else(|| "…".to_owned(), |bound| bound.to_string());
            return refuse(format!(
                "{} lies outside {} to {}",
                command.value,
                bound(low),
                bound(high)
            ));
        }
        match now {
            Now::Unknown => refuse("the agent's clock has not been compared with the gateway's yet".to_owned()),
            Now::Uncertain(by) => refuse(format!("the agent's clock is uncertain by {:.1} s", by.as_secs_f64())),
            Now::Known(now) if now >= command.apply_by => {
                let late = Duration::from_nanos(u64::try_from(now.nanos_since(command.apply_by)).unwrap_or(0));
                refuse(format!("it came {:.1} s too late", late.as_secs_f64()))
            }
            Now::Known(now) if command.hold_until.is_some_and(|until| until <= now) => {
                refuse("its hold is already over".to_owned())
            }
            Now::Known(_) => Decision::Apply,
        }
    }

    /// Records what is about to be done.
    pub fn intend(&mut self, command: &Command) {
        self.remember(command);
        self.channels.insert(
            command.channel.clone(),
            Entry {
                command: command.clone(),
                phase: Phase::Intended,
            },
        );
    }

    /// Records that a command was dealt with.
    pub fn remember(&mut self, command: &Command) {
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(command.id.clone());
    }

    /// The device took the command's value, or one of its own instead: nothing more is due before the hold ends.
    pub fn in_effect(&mut self, channel: &str) {
        if let Some(entry) = self.channels.get_mut(channel) {
            entry.phase = if entry.command.hold_until.is_some() {
                Phase::Holding
            } else {
                Phase::Settled
            };
        }
    }

    /// Nothing more is due on the channel.
    pub fn settle(&mut self, channel: &str) {
        if let Some(entry) = self.channels.get_mut(channel) {
            entry.phase = Phase::Settled;
        }
    }

    /// The safe value is about to be set; true when that is new and must be written down.
    pub fn going_safe(&mut self, channel: &str) -> bool {
        match self.channels.get_mut(channel) {
            Some(entry) if entry.phase != Phase::GoingSafe => {
                entry.phase = Phase::GoingSafe;
                true
            }
            _ => false,
        }
    }

    /// What is due now. Just after a start the time may be unknown for a moment: until the grace is over, that alone is no reason
    /// to go safe.
    pub fn due(&self, now: Now, is_grace_over: bool) -> Vec<(String, Action)> {
        let due = |entry: &Entry| match (entry.phase, now) {
            (Phase::Settled, _) => None,
            (Phase::GoingSafe, _) => Some(Action::GoSafe("its time is over".to_owned())),
            (Phase::Intended, Now::Known(_)) => Some(Action::Recover(Box::new(entry.command.clone()))),
            (Phase::Holding, Now::Known(now)) => entry
                .command
                .hold_until
                .filter(|until| now >= *until)
                .map(|_| Action::GoSafe("its hold is over".to_owned())),
            (Phase::Intended | Phase::Holding, Now::Uncertain(by)) => Some(Action::GoSafe(format!(
                "the agent's clock is uncertain by {:.1} s",
                by.as_secs_f64()
            ))),
            (Phase::Intended | Phase::Holding, Now::Unknown) => is_grace_over
                .then(|| Action::GoSafe("the agent's clock cannot be compared with the gateway's".to_owned())),
        };
        self.channels
            .iter()
            .filter_map(|(channel, entry)| Some((channel.clone(), due(entry)?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use orrery_protocol::DeviceId;
    use proptest::prelude::*;

    fn command(order: (u64, u64), value: f64, apply_by: i64, hold_until: Option<i64>) -> Command {
        Command {
            id: format!("c{}-{}", order.0, order.1),
            device: DeviceId::new("d").unwrap(),
            channel: "q1".to_owned(),
            value,
            issuer: "operator".to_owned(),
            issuer_epoch: order.0,
            issuer_sequence: order.1,
            apply_by: TaiNanos(apply_by),
            hold_until: hold_until.map(TaiNanos),
        }
    }

    fn rules() -> ChannelRules {
        let config = CommandConfig {
            safe: 0.0,
            low: Some(0.0),
            high: Some(80.0),
            tolerance: 1e-6,
        };
        ChannelRules {
            source: "Q1".to_owned(),
            config,
        }
    }

    fn refusal(ledger: &Ledger, command: &Command, now: Now) -> String {
        match ledger.decide(command, Some(&rules()), now) {
            Decision::Refuse(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_late_old_out_of_bounds_or_unknowable_is_refused() {
        let mut ledger = Ledger::default();
        let now = Now::Known(TaiNanos(100));
        assert!(refusal(&ledger, &command((1, 1), 10.0, 100, None), now).contains("too late"));
        assert!(refusal(&ledger, &command((1, 1), 81.0, 200, None), now).contains("outside 0 to 80"));
        assert!(refusal(&ledger, &command((1, 1), f64::NAN, 200, None), now).contains("not a set-point"));
        assert!(refusal(&ledger, &command((1, 1), 1.0, 200, None), Now::Unknown).contains("not been compared"));
        assert!(
            refusal(
                &ledger,
                &command((1, 1), 1.0, 200, None),
                Now::Uncertain(Duration::from_secs(2))
            )
            .contains("2.0 s")
        );
        assert!(refusal(&ledger, &command((1, 1), 1.0, 200, Some(90)), now).contains("hold is already over"));
        assert!(matches!(
            ledger.decide(&command((1, 1), 1.0, 200, None), None, now),
            Decision::Refuse(_)
        ));
        ledger.intend(&command((2, 5), 10.0, 200, None));
        assert!(refusal(&ledger, &command((2, 4), 1.0, 200, None), now).contains("older"));
        assert_eq!(
            ledger.decide(&command((2, 5), 10.0, 200, None), Some(&rules()), now),
            Decision::Repeat
        );
        assert_eq!(
            ledger.decide(&command((3, 0), 1.0, 200, None), Some(&rules()), now),
            Decision::Apply
        );
    }

    #[test]
    fn a_hold_ends_in_the_safe_value_and_a_crash_is_recovered() {
        let mut ledger = Ledger::default();
        ledger.intend(&command((1, 1), 10.0, 200, Some(300)));
        let restarted: Ledger = serde_json::from_str(&serde_json::to_string(&ledger).unwrap()).unwrap();
        assert_eq!(restarted, ledger);
        assert!(matches!(
            restarted.due(Now::Known(TaiNanos(250)), false)[..],
            [(_, Action::Recover(_))]
        ));
        assert!(restarted.due(Now::Unknown, false).is_empty());
        assert!(matches!(
            restarted.due(Now::Unknown, true)[..],
            [(_, Action::GoSafe(_))]
        ));
        ledger.in_effect("q1");
        assert!(ledger.due(Now::Known(TaiNanos(299)), true).is_empty());
        assert!(matches!(
            ledger.due(Now::Known(TaiNanos(300)), true)[..],
            [(_, Action::GoSafe(_))]
        ));
        assert!(matches!(
            ledger.due(Now::Uncertain(Duration::from_secs(2)), true)[..],
            [(_, Action::GoSafe(_))]
        ));
        assert!(ledger.going_safe("q1") && !ledger.going_safe("q1"));
        ledger.settle("q1");
        assert!(ledger.due(Now::Known(TaiNanos(i64::MAX)), true).is_empty());
    }

    proptest! {
        /// Whatever order commands arrive in, what is applied only ever moves forward, and the newest one wins.
        #[test]
        fn the_newest_wins(orders in proptest::collection::vec((0u64..3, 0u64..20), 1..40)) {
            let mut ledger = Ledger::default();
            let mut applied: Vec<(u64, u64)> = Vec::new();
            for order in &orders {
                let command = command(*order, 1.0, 200, None);
                if ledger.decide(&command, Some(&rules()), Now::Known(TaiNanos(1))) == Decision::Apply {
                    ledger.intend(&command);
                    ledger.in_effect("q1");
                    applied.push(*order);
                }
            }
            prop_assert!(applied.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert_eq!(applied.last(), orders.iter().max());
        }
    }
}
