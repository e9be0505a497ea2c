//! `orrery stream list`.

use serde_json::{Value, json};

use super::{local, print, say};
use crate::cli::Stream;
use crate::client::Source;
use crate::error::Failure;

/// Lists the streams.
pub async fn stream(arguments: &Stream) -> Result<(), Failure> {
    let Stream::List { target, json } = arguments;
    let answer = match Source::find(target)? {
        Source::Running(client) => client.get("/streams", &[]).await?,
        Source::Stopped(folder) => json!({ "streams": local::store(&folder).await?.view().stream_infos() }),
    };
    if *json {
        return say(serde_json::to_string_pretty(&answer).map_err(Failure::from_error)?);
    }
    let mut table = format!("{:<28} {:>10}  {:<31} channels\n", "stream", "rows", "last sample");
    for stream in answer["streams"].as_array().into_iter().flatten() {
        let text = |key: &str| match &stream[key] {
            Value::String(text) => text.clone(),
            Value::Null => "–".to_owned(),
            other => other.to_string(),
        };
        let channels = stream["channels"].as_array().into_iter().flatten().map(|channel| {
            format!(
                "{} [{}]",
                channel["name"].as_str().unwrap_or("?"),
                channel["unit"].as_str().unwrap_or("1")
            )
        });
        let channels: Vec<String> = channels.collect();
        let (stream, rows, to, channels) = (text("stream"), text("rows"), text("to"), channels.join(", "));
        table.push_str(&format!("{stream:<28} {rows:>10}  {to:<31} {channels}\n"));
    }
    print(table.as_bytes()).map(drop)
}
