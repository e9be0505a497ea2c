//! `orrery replay` and `orrery seek`.

use super::{local, say, time};
use crate::cli::{Format, Replay, Seek};
use crate::client::Source;
use crate::error::{Exit, Failure};

/// Prints a window, or its digest.
pub async fn replay(arguments: &Replay) -> Result<(), Failure> {
    let (from, to) = (time("--from", &arguments.from)?, time("--to", &arguments.to)?);
    if matches!(arguments.output, Format::Table | Format::Json) {
        return Err(Failure::new(Exit::Usage, "replay prints ndjson, csv or arrow"));
    }
    match Source::find(&arguments.target)? {
        Source::Stopped(_) if arguments.record => {
            let message = "--record needs a running instance: its log is what keeps the digest";
            Err(Failure::new(Exit::Usage, message))
        }
        Source::Stopped(folder) => {
            let streams = local::streams(&arguments.streams)?;
            let request = orrery_aligner::ReplayRequest {
                from,
                to,
                streams,
                revision: arguments.revision,
            };
            local::replay(&folder, &request, arguments.output, arguments.digest).await
        }
        Source::Running(client) => {
            let format = if arguments.digest {
                "digest"
            } else {
                arguments.output.as_str()
            };
            let mut parameters = vec![
                ("from", from.to_rfc3339()),
                ("to", to.to_rfc3339()),
                ("format", format.to_owned()),
            ];
            if !arguments.streams.is_empty() {
                parameters.push(("streams", arguments.streams.join(",")));
            }
            if let Some(revision) = arguments.revision {
                parameters.push(("revision", revision.to_string()));
            }
            if arguments.record {
                parameters.push(("record", "true".to_owned()));
            }
            if !arguments.digest {
                return client.print_get("/replay", &parameters).await;
            }
            let answer = client.get("/replay", &parameters).await?;
            if answer["rows"] == "0" {
                super::say_empty();
            }
            say(answer["digest"].as_str().unwrap_or_default())
        }
    }
}

/// Prints the last sample of each stream.
pub async fn seek(arguments: &Seek) -> Result<(), Failure> {
    let at = time("TIME", &arguments.time)?;
    let answer = match Source::find(&arguments.target)? {
        Source::Stopped(folder) => local::seek(&folder, at, &local::streams(&arguments.streams)?).await?,
        Source::Running(client) => {
            let mut parameters = vec![("time", at.to_rfc3339())];
            if !arguments.streams.is_empty() {
                parameters.push(("streams", arguments.streams.join(",")));
            }
            client.get("/seek", &parameters).await?
        }
    };
    say(serde_json::to_string_pretty(&answer).map_err(Failure::from_error)?)
}
