//! The gateway over real HTTP on loopback, with the embedded journal as its bus.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod access;
mod control;
mod harness;
mod intake;
mod live;
mod outside;
mod stopping;
