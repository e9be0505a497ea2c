//! `orrery provenance verify`: the whole log, offline.

use crate::cli::Provenance;
use crate::commands::say;
use crate::error::{Exit, Failure};
use crate::folder::{Folder, State};

/// Checks every record and the checkpoint. It reads files alone, so it works beside a running instance too.
pub fn provenance(arguments: &Provenance) -> Result<(), Failure> {
    let Provenance::Verify { data } = arguments;
    // A stopped folder is locked while it is read; a running one appends only after what is checked.
    let _lock = match Folder::find(&data.data) {
        Ok(State::Stopped(folder)) => Some(folder),
        Ok(State::Running(_)) => None,
        Err(failure) if failure.exit == Exit::NotFound => return Err(failure),
        Err(_) => None,
    };
    let report = orrery_provenance::verify_dir(&data.data.join("provenance"), None).map_err(Failure::from_error)?;
    if report.mismatches.is_empty() {
        return say(format_args!(
            "{} records, all as signed; root {}",
            report.size, report.root
        ));
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
