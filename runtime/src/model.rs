//! Model files: read, compiled, or refused with the compiler's diagnostics.

use std::path::Path;

use orrery_lang::{Compiled, Diagnostic, Options};

use crate::error::GraphError;

/// Compiles a Modelica file.
///
/// # Errors
/// [`GraphError`] with every diagnostic of the compiler.
pub fn compile_file(path: &Path) -> Result<Compiled, GraphError> {
    model_check(path)?.map_err(|diagnostics| GraphError::Model(diagnostics.iter().map(Diagnostic::render).collect()))
}

/// Compiles a Modelica file and hands the compiler's diagnostics on: what `orrery model check` prints.
///
/// # Errors
/// [`GraphError::Read`] when the file cannot be read; what is wrong *in* it is the inner error.
pub fn model_check(path: &Path) -> Result<Result<Compiled, Vec<Diagnostic>>, GraphError> {
    let source = std::fs::read_to_string(path).map_err(|source| GraphError::Read {
        path: path.to_owned(),
        source,
    })?;
    // The module carries the name for its messages: without the folder, so that one model is one digest everywhere.
    let name = path
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let compiled = orrery_lang::compile(&source, &name, &Options::default());
    Ok(compiled.map_err(|mut diagnostics| {
        for diagnostic in &mut diagnostics {
            diagnostic.file = path.display().to_string();
        }
        diagnostics
    }))
}
