//! `orrery control`: set a channel of a device and wait for what the device read back.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::Control;
use crate::client::{Client, Source};
use crate::commands::say;
use crate::error::{Exit, Failure};

/// How often and how long to ask what became of a command: longer than any command may take to be applied.
const ASK_EVERY: Duration = Duration::from_millis(100);
const ASK_TIMES: u32 = 150;

/// Sends the set-points together: either all of them may be sent, or none is.
pub async fn control(arguments: &Control) -> Result<(), Failure> {
    let client = Source::running(&arguments.target)?;
    let off = match (arguments.device.as_str(), arguments.settings.as_slice()) {
        ("off", []) => Some(json!({})),
        (device, [setting]) if setting == "off" => Some(json!({ "device": device })),
        _ => None,
    };
    if let Some(which) = off {
        let answer = client.post("/control/off", &which).await?;
        return follow(&client, &answer).await;
    }
    if arguments.settings.is_empty() {
        let what = "say what to set, such as `orrery control tclab-01 q1=58`, `orrery control tclab-01 off`, or \
                    `orrery control off` for every channel of every device";
        return Err(Failure::new(Exit::Usage, what));
    }
    let mut changes = Vec::new();
    for setting in &arguments.settings {
        let parsed = setting
            .split_once('=')
            .and_then(|(channel, value)| Some((channel, value.parse::<f64>().ok()?)));
        let (channel, value) = parsed.filter(|(_, value)| value.is_finite()).ok_or_else(|| {
            Failure::new(
                Exit::Usage,
                format!("`{setting}` is not CHANNEL=VALUE, such as q1=58, nor `off`"),
            )
        })?;
        let mut change = json!({"device": arguments.device, "channel": channel, "value": value});
        if let Some(hold_s) = arguments.hold_s {
            change["hold_s"] = json!(hold_s);
        }
        changes.push(change);
    }
    let answer = client.post("/control/set", &json!({ "changes": changes })).await?;
    follow(&client, &answer).await
}

/// Waits for what became of each command and says it; the first that was not applied is the failure.
async fn follow(client: &Client, answer: &Value) -> Result<(), Failure> {
    let mut outcome = Ok(());
    let commands = answer["commands"].as_array().cloned().unwrap_or_default();
    for command in commands {
        let id = command["id"].as_str().unwrap_or_default();
        let mut state = command.clone();
        for _ in 0..ASK_TIMES {
            state = client.get(&format!("/control/commands/{id}"), &[]).await?;
            if !matches!(state["status"].as_str(), Some("sending" | "accepted")) {
                break;
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        let reported = report(&state);
        outcome = match (outcome, reported) {
            (Err(first), Err(another)) => {
                orrery_edge_agent::tell!("orrery: {another}");
                Err(first)
            }
            (outcome, reported) => outcome.and(reported),
        };
    }
    outcome
}

fn report(state: &Value) -> Result<(), Failure> {
    let name = format!(
        "{}/{}",
        state["device"].as_str().unwrap_or("?"),
        state["channel"].as_str().unwrap_or("?")
    );
    let reason = state["reason"].as_str().unwrap_or("the device gave no reason");
    match state["status"].as_str() {
        Some("applied") => say(format_args!("{name} applied, reads back {}", state["value"])),
        Some("refused") => Err(Failure::new(Exit::Conflict, format!("{name} refused: {reason}"))),
        Some("expired") => Err(Failure::new(
            Exit::Failure,
            format!("{name} expired before the device acted"),
        )),
        other => Err(Failure::new(
            Exit::Failure,
            format!("{name}: {}: {reason}", other.unwrap_or("unknown")),
        )),
    }
}
