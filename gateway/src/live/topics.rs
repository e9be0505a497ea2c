//! What clients can have beside samples: read from the services' own routes while somebody wants it.

use std::sync::Arc;
use std::time::Duration;

use orrery_protocol::{Principal, Role};
use serde_json::{Map, Value};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::hub::{Hub, Topic};
use super::message::Outgoing;
use crate::inside::{Inside, InsideError};

const FORECAST_SECONDS: u32 = 90;
const PERIOD: Duration = Duration::from_secs(1);
/// Controls are looked at more often, and told only when they changed or a second has passed.
const CONTROL_PERIOD: Duration = Duration::from_millis(250);

/// Reads the topics until stopped.
pub async fn run(hub: Arc<Hub>, inside: Inside, stopping: CancellationToken) {
    let all = Topic::ALL.map(|topic| poll(topic, &hub, &inside));
    tokio::select! {
        () = stopping.cancelled() => {}
        _ = futures_util::future::join_all(all) => {}
    }
}

async fn poll(topic: Topic, hub: &Hub, inside: &Inside) {
    let period = if topic == Topic::Control {
        CONTROL_PERIOD
    } else {
        PERIOD
    };
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Told::default();
    loop {
        let joined = tokio::select! {
            _ = ticks.tick() => false,
            () = hub.someone_joined() => true,
        };
        if !hub.wants_topic(topic) {
            continue;
        }
        match read(topic, inside).await {
            Ok(messages) => {
                for message in messages {
                    if joined || topic != Topic::Control || told.is_news(&message) {
                        hub.publish_topic(topic, &Arc::new(Outgoing::plain(&Value::Object(message))));
                    }
                }
            }
            Err(InsideError::NoRoute(path)) => {
                tracing::trace!(path, "no service publishes this topic")
            }
            Err(error) => {
                tracing::debug!(topic = topic.as_str(), %error, "a topic could not be read")
            }
        }
    }
}

async fn read(topic: Topic, inside: &Inside) -> Result<Vec<Map<String, Value>>, InsideError> {
    let gateway = Principal {
        name: "gateway".to_owned(),
        role: Role::Operator,
    };
    let one = async |path: &str| Ok(vec![typed(topic, inside.get(&gateway, path).await?)]);
    match topic {
        Topic::Devices => one("/devices").await,
        Topic::Control => one("/control").await,
        Topic::Provenance => one("/provenance/status").await,
        Topic::Forecast => {
            let graphs = inside.get(&gateway, "/graphs").await?;
            let mut messages = Vec::new();
            for id in running(&graphs) {
                let path = format!("/graphs/{id}/forecast?horizon_s={FORECAST_SECONDS}");
                match inside.get(&gateway, &path).await {
                    Ok(mut forecast) => {
                        forecast.insert("graph".to_owned(), Value::from(id));
                        messages.push(typed(topic, forecast));
                    }
                    // One graph without a forecast must not hide the others'.
                    Err(error) => tracing::debug!(graph = id, %error, "no forecast"),
                }
            }
            Ok(messages)
        }
    }
}

fn typed(topic: Topic, mut message: Map<String, Value>) -> Map<String, Value> {
    message.insert("type".to_owned(), Value::from(topic.as_str()));
    message
}

/// The graphs that run; ids that are no plain names are left out of paths.
fn running(graphs: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let plain = |id: &&str| {
        id.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    let graphs = graphs.get("graphs").and_then(Value::as_array).into_iter().flatten();
    graphs
        .filter(|graph| graph.get("state").and_then(Value::as_str) == Some("running"))
        .filter_map(|graph| graph.get("id")?.as_str())
        .filter(plain)
}

/// What was told last, and how long ago.
#[derive(Default)]
struct Told {
    last: Option<Value>,
    silent: u32,
}

impl Told {
    fn is_news(&mut self, message: &Map<String, Value>) -> bool {
        let lasting = Some(without_ages(&Value::Object(message.clone())));
        self.silent += 1;
        if self.last == lasting && CONTROL_PERIOD * self.silent < PERIOD {
            return false;
        }
        *self = Self {
            last: lasting,
            silent: 0,
        };
        true
    }
}

/// Ages change by themselves: that is no news.
fn without_ages(value: &Value) -> Value {
    match value {
        Value::Object(entries) => {
            let lasting = entries.iter().filter(|(name, _)| *name != "age_s");
            Value::Object(
                lasting
                    .map(|(name, value)| (name.clone(), without_ages(value)))
                    .collect(),
            )
        }
        Value::Array(items) => items.iter().map(without_ages).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_change_is_news_an_age_is_not_and_silence_lasts_a_second() {
        let control = |value: f64, age: f64| object(json!({ "channels": [{ "value": value, "age_s": age }] }));
        let mut told = Told::default();
        assert!(told.is_news(&control(45.0, 0.1)));
        assert!(!told.is_news(&control(45.0, 0.3)));
        assert!(told.is_news(&control(58.0, 0.1)));
        let news: Vec<bool> = (0..4).map(|_| told.is_news(&control(58.0, 0.2))).collect();
        assert_eq!(news, [false, false, false, true]);
    }

    #[test]
    fn only_running_graphs_with_plain_names_are_asked() {
        let graphs = json!({ "graphs": [
            { "id": "twin", "state": "running" }, { "id": "other", "state": "failed" },
            { "id": "../control", "state": "running" }, { "state": "running" },
        ] });
        assert_eq!(running(&object(graphs)).collect::<Vec<_>>(), ["twin"]);
    }
}
