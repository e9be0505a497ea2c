//! The context's words: snapshots, states and parameters.

use std::ops::Range;

use super::{AbiError, persistent};
use crate::meta::Meta;

/// The context's persistent bytes: with the module's digest, all that is needed to go on elsewhere.
pub fn snapshot(mem: &[u8], ctx: u32, meta: &Meta) -> Vec<u8> {
    let mut bytes = bytes_of(mem, ctx, &meta.persistent);
    let values = bytes.get_mut((persistent::STATES - persistent::START) as usize..);
    for word in values.unwrap_or_default().chunks_exact_mut(8) {
        let value = read_f64(word, 0, 0);
        word.copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// Puts a snapshot back; the context then goes on bit-identically.
pub fn restore(mem: &mut [u8], ctx: u32, meta: &Meta, snapshot: &[u8]) -> Result<(), AbiError> {
    put(mem, ctx, &meta.persistent, snapshot)
}

/// Sets parameter `index` of a running context (a parameter change of the ordered log).
pub fn set_parameter(mem: &mut [u8], ctx: u32, meta: &Meta, index: usize, value: f64) {
    if let Some(var) = meta.parameters.get(index) {
        Context { mem, ctx }.f64(var.offset, value);
    }
}

/// Sets state `index` of a running context (a state correction of the ordered log).
pub fn set_state(mem: &mut [u8], ctx: u32, meta: &Meta, index: usize, value: f64) {
    if let Some(var) = meta.states.get(index) {
        Context { mem, ctx }.f64(var.offset, value);
    }
}

/// The states of a context, in the order of [`Meta::states`].
pub fn read_states(mem: &[u8], ctx: u32, meta: &Meta) -> Vec<f64> {
    meta.states.iter().map(|var| read_f64(mem, ctx, var.offset)).collect()
}

/// The parameters of a context, in the order of [`Meta::parameters`].
pub fn read_parameters(mem: &[u8], ctx: u32, meta: &Meta) -> Vec<f64> {
    meta.parameters
        .iter()
        .map(|var| read_f64(mem, ctx, var.offset))
        .collect()
}

pub(super) fn bytes_of(mem: &[u8], ctx: u32, range: &Range<u32>) -> Vec<u8> {
    let start = ctx as usize + range.start as usize;
    let end = ctx as usize + range.end as usize;
    mem.get(start..end).unwrap_or(&[]).to_vec()
}

pub(super) fn put(mem: &mut [u8], ctx: u32, range: &Range<u32>, bytes: &[u8]) -> Result<(), AbiError> {
    let expected = range.end.saturating_sub(range.start) as usize;
    if bytes.len() != expected {
        return Err(AbiError::Snapshot {
            given: bytes.len(),
            expected,
        });
    }
    let start = ctx as usize + range.start as usize;
    let available = mem.len() as u64;
    let place = mem.get_mut(start..start + expected);
    place
        .ok_or(AbiError::Memory {
            needed: (start + expected) as u64,
            available,
        })?
        .copy_from_slice(bytes);
    Ok(())
}

pub(super) struct Context<'a> {
    pub(super) mem: &'a mut [u8],
    pub(super) ctx: u32,
}

impl Context<'_> {
    pub(super) fn bytes<const N: usize>(&mut self, at: u32, bytes: [u8; N]) {
        let start = self.ctx as usize + at as usize;
        if let Some(place) = self.mem.get_mut(start..start + N) {
            place.copy_from_slice(&bytes);
        }
    }

    pub(super) fn u32(&mut self, at: u32, value: u32) {
        self.bytes(at, value.to_le_bytes());
    }

    pub(super) fn i64(&mut self, at: u32, value: i64) {
        self.bytes(at, value.to_le_bytes());
    }

    pub(super) fn f64(&mut self, at: u32, value: f64) {
        self.bytes(at, value.to_le_bytes());
    }
}

fn read<const N: usize>(mem: &[u8], ctx: u32, at: u32) -> [u8; N] {
    let start = ctx as usize + at as usize;
    mem.get(start..start + N)
        .and_then(|bytes| bytes.try_into().ok())
        .unwrap_or([0; N])
}

pub(super) fn read_u32(mem: &[u8], ctx: u32, at: u32) -> u32 {
    u32::from_le_bytes(read(mem, ctx, at))
}

pub(super) fn read_u64(mem: &[u8], ctx: u32, at: u32) -> u64 {
    u64::from_le_bytes(read(mem, ctx, at))
}

/// A NaN reads as the canonical one, as its bits differ between hosts.
pub(super) fn read_f64(mem: &[u8], ctx: u32, at: u32) -> f64 {
    let value = f64::from_le_bytes(read(mem, ctx, at));
    if value.is_nan() { f64::NAN } else { value }
}
