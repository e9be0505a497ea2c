//! Holds the arrows between the rooms, over what cargo itself says about the workspace.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here, with the line")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Which rooms a room may depend on. A new arrow needs a decision record before it needs a line here.
const ARROWS: &[(&str, &[&str])] = &[
    ("orrery-protocol", &[]),
    ("orrery-bus", &["orrery-protocol"]),
    ("orrery-provenance", &["orrery-bus", "orrery-protocol"]),
    ("orrery-rig", &["orrery-protocol"]),
    ("orrery-edge-agent", &["orrery-bus", "orrery-protocol", "orrery-rig"]),
    ("orrery-aligner", &["orrery-bus", "orrery-protocol"]),
    ("orrery-lang", &[]),
    ("orrery-runtime", &["orrery-bus", "orrery-lang", "orrery-protocol"]),
    ("orrery-gateway", &["orrery-bus", "orrery-protocol"]),
];

/// The binary and the tests may use anything; nothing may use them.
const ABOVE_ALL: &[&str] = &["orrery", "orrery-tests"];

/// Libraries that belong to one room, with what keeps the others away from them.
const OWNED: &[(&str, &str, &str)] = &[
    ("wasmtime", "orrery-runtime", "a guest's failure must stay a value"),
    ("datafusion", "orrery-aligner", "SQL is asked over HTTP"),
    ("sqlx", "orrery-aligner", "the catalog has one writer"),
    ("rdkafka", "orrery-bus", "topics are reached through the Bus trait"),
    ("rumqttd", "orrery-rig", "the broker belongs to the demo"),
    ("rust-embed", "orrery-gateway", "the page is served at the front door"),
];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .no_deps()
        .exec()
        .unwrap()
}

/// The direct dependencies of every member, without those of its tests.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let of = |package: &cargo_metadata::Package| {
        let dependencies = package.dependencies.iter();
        dependencies
            .filter(|dependency| dependency.kind != DependencyKind::Development)
            .map(|dependency| dependency.name.to_string())
            .collect()
    };
    metadata()
        .workspace_packages()
        .into_iter()
        .map(|package| (package.name.to_string(), of(package)))
        .collect()
}

/// Everything that `arguments` select would build, tests aside.
fn tree(arguments: &[&str]) -> BTreeSet<String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args([
            "tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}",
        ])
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn rooms_depend_only_along_the_arrows() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> = ARROWS
        .iter()
        .map(|(from, to)| (*from, to.iter().copied().collect()))
        .collect();
    let dependencies = dependencies();
    let rooms: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    let mut wrong = Vec::new();
    for (room, uses) in &dependencies {
        let uses = uses.iter().map(String::as_str).filter(|name| rooms.contains(name));
        if ABOVE_ALL.contains(&room.as_str()) {
            wrong.extend(
                uses.filter(|name| ABOVE_ALL.contains(name))
                    .map(|name| format!("{room} → {name}")),
            );
            continue;
        }
        match allowed.get(room.as_str()) {
            Some(to) => wrong.extend(
                uses.filter(|name| !to.contains(name))
                    .map(|name| format!("{room} → {name}")),
            ),
            None => wrong.push(format!("{room} has no line in ARROWS")),
        }
    }
    assert!(
        wrong.is_empty(),
        "arrows that should not be (DESIGN: services meet over the bus or HTTP): {wrong:?}"
    );
    let missing: Vec<_> = allowed.keys().filter(|room| !rooms.contains(*room)).collect();
    assert!(missing.is_empty(), "ARROWS names rooms that are gone: {missing:?}");
}

#[test]
fn tests_reach_no_further_than_the_arrows_either() {
    let services = [
        "orrery-provenance",
        "orrery-edge-agent",
        "orrery-aligner",
        "orrery-runtime",
        "orrery-gateway",
    ];
    for package in metadata().workspace_packages() {
        if ABOVE_ALL.contains(&package.name.as_str()) {
            continue;
        }
        for dependency in &package.dependencies {
            assert!(
                dependency.name == *package.name.as_str() || !services.contains(&dependency.name.as_str()),
                "{} → {}: services meet in `tests` only",
                package.name,
                dependency.name
            );
        }
    }
}

#[test]
fn each_engine_has_one_owner() {
    for (room, uses) in dependencies() {
        for (library, owner, why) in OWNED {
            assert!(
                room == *owner || !uses.contains(*library),
                "{room} depends on {library}, which belongs to {owner}: {why}"
            );
        }
    }
}

#[test]
fn the_protocol_does_no_io_and_runs_nothing() {
    let tree = tree(&["--package", "orrery-protocol"]);
    assert!(
        tree.contains("orrery-protocol") && tree.contains("coset"),
        "cargo tree lists {tree:?}"
    );
    for library in [
        "tokio",
        "mio",
        "async-std",
        "futures-executor",
        "reqwest",
        "rustix",
        "socket2",
        "axum",
    ] {
        assert!(!tree.contains(library), "orrery-protocol reaches {library}");
    }
}

#[test]
fn the_edge_agent_carries_no_engine() {
    let tree = tree(&["--package", "orrery-edge-agent"]);
    for library in ["wasmtime", "datafusion", "parquet", "sqlx", "rust-embed"] {
        assert!(
            !tree.contains(library),
            "orrery-edge-agent reaches {library}: it runs beside instruments, on little machines"
        );
    }
}
