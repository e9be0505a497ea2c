//! `orrery model check`.

use crate::cli::Model;
use crate::error::{Exit, Failure};

/// Checks a Modelica file: its diagnostics go to standard error, one after the other, or as JSON to standard output.
pub fn model(arguments: &Model) -> Result<(), Failure> {
    let Model::Check { file, json } = arguments;
    let checked = orrery_runtime::model_check(file).map_err(|error| Failure::new(Exit::NotFound, error.to_string()))?;
    let diagnostics = checked.as_ref().err().map_or(&[][..], Vec::as_slice);
    if *json {
        println!(
            "{}",
            serde_json::to_string_pretty(diagnostics).map_err(Failure::from_error)?
        );
    } else {
        for diagnostic in diagnostics {
            eprintln!("{}", diagnostic.render());
        }
    }
    match checked {
        Ok(compiled) if !json => {
            let meta = &compiled.meta;
            println!(
                "{}: {} states, {} inputs, {} outputs, {} parameters; {} bytes of Wasm",
                meta.model,
                meta.states.len(),
                meta.inputs.len(),
                meta.outputs.len(),
                meta.parameters.len(),
                compiled.wasm.len()
            );
            Ok(())
        }
        Ok(_) => Ok(()),
        Err(diagnostics) => {
            let errors = if diagnostics.len() == 1 { "error" } else { "errors" };
            Err(Failure::new(
                Exit::Failure,
                format!("{}: {} {errors}", file.display(), diagnostics.len()),
            ))
        }
    }
}
