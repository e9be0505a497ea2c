//! The contracts build for `wasm32-unknown-unknown`: they do no I/O, and a browser may verify an envelope.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here, with the line")]

use std::process::Command;

#[test]
fn the_protocol_builds_for_wasm32() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args([
            "check",
            "--locked",
            "--quiet",
            "--package",
            "orrery-protocol",
            "--target",
            "wasm32-unknown-unknown",
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
