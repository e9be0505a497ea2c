//! `orrery device list|revoke`.

use orrery_protocol::DeviceId;
use serde_json::{Value, json};

use super::{print, say};
use crate::cli::Device;
use crate::client::Source;
use crate::error::{Exit, Failure};

/// Lists devices with their keys, or revokes a key.
pub async fn device(arguments: &Device) -> Result<(), Failure> {
    match arguments {
        Device::List { target, json } => {
            let answer = Source::running(target)?.get("/devices", &[]).await?;
            if *json {
                return say(serde_json::to_string_pretty(&answer).map_err(Failure::from_error)?);
            }
            let mut table = format!("{:<24} {:<12} keys\n", "device", "state");
            for device in answer["devices"].as_array().into_iter().flatten() {
                let (id, state) = (text(device, "device_id"), text(device, "state"));
                table.push_str(&format!("{id:<24} {state:<12} {}\n", keys(device)));
            }
            print(table.as_bytes()).map(drop)
        }
        Device::Revoke { target, device, key } => {
            let usage = |message: String| Failure::new(Exit::Usage, message);
            let device = DeviceId::new(device).map_err(|error| usage(error.to_string()))?;
            if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(usage(format!("`{key}` is no key id: `orrery device list` prints them")));
            }
            let path = format!("/devices/{device}/keys/{key}/revoke");
            let answer = Source::running(target)?.post(&path, &json!({})).await?;
            say(format_args!("{device}: {}", keys(&answer)))
        }
    }
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or("–")
}

fn keys(device: &Value) -> String {
    let keys = device["keys"].as_array().into_iter().flatten();
    let shown: Vec<String> = keys
        .map(|key| match text(key, "state") {
            "valid" => text(key, "kid").to_owned(),
            state => format!("{} ({state})", text(key, "kid")),
        })
        .collect();
    shown.join(", ")
}
