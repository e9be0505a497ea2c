//! `orrery model build`.

use std::path::Path;

use orrery_runtime::EngineKind;
use orrery_runtime::solver::{Problem, ProblemOptions};

use super::{engine, failure, read, values};
use crate::commands::say;
use crate::error::{Exit, Failure};

/// Writes the module, and says what is in it.
pub fn build(file: &Path, output: &Path, model: Option<&str>, set: &[String]) -> Result<(), Failure> {
    let options = ProblemOptions {
        model: model.map(str::to_owned),
        set: values(set)?,
        ..ProblemOptions::default()
    };
    let name = file.display().to_string();
    let compiled = Problem::build(&read(file)?, &name, &options).map_err(|error| failure(file, error))?;
    // What is written is what this engine accepts.
    Problem::load(&engine(EngineKind::Cranelift)?, compiled.clone(), options.limits)
        .map_err(|error| failure(file, error))?;
    std::fs::write(output, &compiled.wasm).map_err(|error| {
        let message = format!("{}: {error}; name a file in an existing folder", output.display());
        Failure::new(Exit::Failure, message)
    })?;
    say(format_args!(
        "{}: model {}, {} bytes, sha256 {}",
        output.display(),
        compiled.meta.model,
        compiled.wasm.len(),
        hex::encode(compiled.digest)
    ))?;
    Ok(())
}
