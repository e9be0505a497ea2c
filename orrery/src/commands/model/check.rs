//! `orrery model check`.

use std::path::Path;

use super::refused;
use crate::commands::say;
use crate::error::{Exit, Failure};

/// Checks a Modelica file: its diagnostics go to standard error, one after the other, or as JSON to standard output.
pub fn check(file: &Path, json: bool) -> Result<(), Failure> {
    let checked = orrery_runtime::model_check(file).map_err(|error| Failure::new(Exit::NotFound, error.to_string()))?;
    let diagnostics = checked.as_ref().err().map_or(&[][..], Vec::as_slice);
    if json {
        let text = serde_json::to_string_pretty(diagnostics).map_err(Failure::from_error)?;
        say(text)?;
    }
    match checked {
        Ok(_) if json => Ok(()),
        Ok(compiled) => {
            let meta = &compiled.meta;
            say(format_args!(
                "{}: {} states, {} inputs, {} outputs, {} parameters; {} bytes of Wasm",
                meta.model,
                meta.states.len(),
                meta.inputs.len(),
                meta.outputs.len(),
                meta.parameters.len(),
                compiled.wasm.len()
            ))?;
            Ok(())
        }
        // The diagnostics are on standard output already.
        Err(diagnostics) if json => {
            let message = format!("{}: {} in the JSON", file.display(), diagnostics.len());
            Err(Failure::new(Exit::Failure, message))
        }
        Err(diagnostics) => Err(refused(file, &diagnostics)),
    }
}
