//! The gateway over real HTTP on loopback, with the embedded journal as its bus.

mod access;
mod control;
mod harness;
mod intake;
mod live;
mod outside;
mod stopping;
