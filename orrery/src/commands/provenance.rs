//! `orrery provenance verify`: the whole log, offline.

use std::fs;

use orrery_provenance::note::VerifierKey;
use orrery_provenance::{LogError, Mismatch, verify_dir};

use crate::cli::Provenance;
use crate::commands::say;
use crate::error::{Exit, Failure};
use crate::folder::{Folder, State};

/// Checks every record and the checkpoint. It reads files alone, so it works beside a running instance too.
pub fn provenance(arguments: &Provenance) -> Result<(), Failure> {
    let Provenance::Verify { data, key, checkpoint } = arguments;
    let key = key.as_deref().map(str::parse::<VerifierKey>).transpose();
    let key = key.map_err(|error| Failure::new(Exit::Usage, format!("--key: {error}")))?;
    let kept = checkpoint.as_ref().map(|file| {
        fs::read_to_string(file)
            .map_err(|error| Failure::new(Exit::Usage, format!("cannot read {}: {error}", file.display())))
    });
    let kept = kept.transpose()?;
    // A stopped folder is locked while it is read; a running one appends only after what is checked.
    let _lock = match Folder::find(&data.data) {
        Ok(State::Stopped(folder)) => Some(folder),
        Ok(State::Running(_)) => None,
        Err(failure) if failure.exit == Exit::NotFound => return Err(failure),
        Err(_) => None,
    };
    let folder = data.data.join("provenance");
    let report = verify_dir(&folder, key.as_ref().map(|key| &key.key), kept.as_deref());
    let mut report = report.map_err(|error| match error {
        LogError::NoCheckpoint(_) => Failure::new(Exit::ProofFailed, error.to_string()),
        error => Failure::from_error(error),
    })?;
    if let Some(key) = key.filter(|key| key.name != report.origin) {
        let why = format!(
            "the checkpoint is of the log `{}`, not of `{}`",
            report.origin, key.name
        );
        report.mismatches.push(Mismatch { record: None, why });
    }
    if report.mismatches.is_empty() {
        let (size, root) = (report.size, &report.root);
        let records = if size == 1 { "record" } else { "records" };
        say(format_args!("{size} {records}, all as signed; root {root}"))?;
        say(format_args!("key {}", report.key))?;
        if !report.key_was_given {
            orrery_edge_agent::tell!(
                "the key was found beside the log, where a forger could have put it: give the one you know with --key"
            );
        }
        return Ok(());
    }
    for mismatch in &report.mismatches {
        match mismatch.record {
            Some(record) => say(format_args!("record {record}: {}", mismatch.why))?,
            None => say(&mismatch.why)?,
        }
    }
    let message = format!(
        "{} of {} records do not match the log",
        report.mismatches.len(),
        report.size
    );
    Err(Failure::new(Exit::ProofFailed, message))
}
