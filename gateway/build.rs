//! The dashboard is compiled in from `dashboards/dist`. Without a build of it the folder is empty and the gateway
//! serves a page that says how to build it.

use std::path::Path;

fn main() {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards/dist");
    // Cargo takes a missing path for a changed one and would compile this crate at every call.
    if let Err(error) = std::fs::create_dir_all(&dist) {
        println!("cargo::warning=cannot make {}: {error}", dist.display());
    }
    println!("cargo::rerun-if-changed={}", dist.display());
}
