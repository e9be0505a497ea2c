//! The Python environment of the foreign test programs, as `tests/servers/venv.sh` makes it.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The interpreter of the environment; makes the environment on first use.
pub fn python() -> &'static PathBuf {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/servers/venv.sh");
        let output = Command::new("bash").arg(script).output().expect("bash runs");
        assert!(
            output.status.success(),
            "{script} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let printed = String::from_utf8_lossy(&output.stdout);
        let python = PathBuf::from(printed.trim().lines().last().unwrap_or_default());
        assert!(
            python.is_file(),
            "{script} printed no interpreter but `{}`",
            printed.trim()
        );
        python
    })
}

/// Runs a script of `tests/servers` and gives what it printed.
///
/// # Panics
/// When it fails, with what it wrote to standard error.
pub fn run_script(name: &str, arguments: &[&str]) -> String {
    let script = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/servers")).join(name);
    let output = Command::new(python())
        .arg(&script)
        .args(arguments)
        .output()
        .expect("the interpreter runs");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{} failed: {out}\n{err}", script.display());
    out.into_owned()
}
