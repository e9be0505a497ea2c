//! What the whole-product tests share: running instances, real servers, free ports.
//!
//! Everything here starts on a free loopback port in a temporary folder and is stopped when its value is dropped.

#![allow(clippy::unwrap_used)]

pub mod instance;
pub mod kafka;
pub mod venv;
