//! The examples that ship are what the programs take.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use orrery_tests::instance::binary;

fn checked(program: &str, arguments: &[&str]) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");
    let output = Command::new(binary(program))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_example_of_an_instance_is_valid_with_its_graph() {
    let said = checked("orrery", &["config", "check", "orrery.toml"]);
    assert_eq!(said, "orrery.toml is valid: 1 device(s), 1 graph(s)\n");
    // Its graph is named from its own folder, wherever the command runs.
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/orrery.toml")).unwrap();
    let wrong = folder.path().join("orrery.toml");
    for (good, bad, wanted) in [
        ("graphs/twin.toml", "graphs/twins.toml", "graphs/twins.toml"),
        (
            "127.0.0.1:7070",
            "localhost",
            "gateway.listen = `localhost` is no address",
        ),
        ("[runtime]", "[runtime]\ndata = \"x\"", "data"),
    ] {
        std::fs::write(&wrong, text.replace(good, bad)).unwrap();
        let output = Command::new(binary("orrery"))
            .args(["config", "check"])
            .arg(&wrong)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(wanted), "{said}");
    }
}

#[test]
fn the_example_of_an_agent_is_valid() {
    let said = checked("orrery-edge", &["check", "--config", "edge.toml"]);
    assert_eq!(said.lines().count(), 3, "{said}");
}
