//! The names of the bus topics. One device is one key, so its order holds on each of them.

/// Sealed envelopes as agents sent them; key: device id.
pub const RAW: &str = "orrery.raw";
/// [`AlignedBlock`](crate::AlignedBlock)s of every stream, each in stream order; key: stream id.
pub const ALIGNED: &str = "orrery.aligned";
/// [`ClockModel`](crate::ClockModel)s; key: clock id.
pub const CLOCK: &str = "orrery.clock";
/// [`Descriptor`](crate::Descriptor)s; key: stream id; compacted where the bus can.
pub const STREAMS: &str = "orrery.streams";
/// [`AlignedBlock`](crate::AlignedBlock)s that graphs computed; key: stream id.
pub const TRACES: &str = "orrery.traces";
/// Sealed [`Command`](crate::Command)s; key: device id.
pub const CONTROL: &str = "orrery.control";
/// [`Record`](crate::Record)s for the Merkle log; key: record kind.
pub const PROVENANCE: &str = "orrery.provenance";
/// What the aligner's door refused, with the reason in the headers; key: device id where known.
pub const DEADLETTER: &str = "orrery.deadletter";
