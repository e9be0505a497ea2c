//! `orrery model fmt`.

use std::path::PathBuf;

use super::{read, refused};
use crate::commands::say;
use crate::error::{Exit, Failure};

/// Writes each file anew where its form differs; with `check` only names those.
pub fn format(files: &[PathBuf], check: bool) -> Result<(), Failure> {
    let mut differ = 0;
    for file in files {
        let text = read(file)?;
        let formatted = orrery_runtime::solver::format(&text, &file.display().to_string())
            .map_err(|diagnostic| refused(file, &[diagnostic]))?;
        if formatted == text {
            continue;
        }
        differ += 1;
        say(file.display())?;
        if !check {
            std::fs::write(file, formatted).map_err(|error| {
                let message = format!("{}: {error}; make the file writable", file.display());
                Failure::new(Exit::Failure, message)
            })?;
        }
    }
    if check && differ > 0 {
        let message = format!("{differ} of {} files differ: run orrery model fmt on them", files.len());
        return Err(Failure::new(Exit::Failure, message));
    }
    Ok(())
}
