//! Version 1 of the journal's bytes. Little-endian throughout; frozen by `tests/fixtures/journal-v1.hex`.
//!
//! A journal is a folder of segments named `<base offset, 20 digits>-<salt, 16 hex digits>.journal`. Base
//! offsets rise strictly; a segment's records have offsets from its base up to the next segment's base. The
//! salt is also in the name, so that a damaged segment header costs nothing.
//!
//! ```text
//! segment header, 32 bytes              frame header, 32 bytes
//!  0   8  magic "ORRYJNL" 0x01           0   4  marker F5 4A 52 4E
//!  8   8  base offset                    4   4  body length
//! 16   8  salt                           8   8  offset
//! 24   4  zero                          16   8  appended, TAI nanoseconds (i64)
//! 28   4  crc32c of bytes 0..28         24   4  crc32c of the body
//!                                       28   4  crc32c of salt ++ bytes 0..28
//! body
//!  4  key length, key
//!  2  number of headers, then for each:  2  name length, name (UTF-8)   4  value length, value (UTF-8)
//!  …  value: the rest
//! ```
//!
//! A frame follows the segment header and every frame follows the one before. The frame header has its own
//! checksum so that a flipped bit in a body costs that record alone, and one in a header only the search for
//! the next marker. The salt, random per segment, is in it so that bytes inside a *value* can never pass for a
//! frame in that search, not even a stored copy of another journal.

use bytes::Bytes;
use orrery_protocol::TaiNanos;

use super::{Entry, JournalError};
use crate::{MAX_RECORD_BYTES, Record};

pub const SEGMENT_HEADER: usize = 32;
pub const FRAME_HEADER: usize = 32;
pub const MARKER: [u8; 4] = [0xF5, 0x4A, 0x52, 0x4E];
const MAGIC: [u8; 8] = *b"ORRYJNL\x01";

/// The most a body can be: the limit of a record counts 8 bytes for each length, the body uses fewer.
const MAX_BODY: usize = MAX_RECORD_BYTES;

pub fn segment_name(base: u64, salt: u64) -> String {
    format!("{base:020}-{salt:016x}.journal")
}

/// Base offset and salt of a segment file, `None` for any other file.
pub fn parse_segment_name(name: &str) -> Option<(u64, u64)> {
    let (base, salt) = name.strip_suffix(".journal")?.split_once('-')?;
    let exact = base.len() == 20 && salt.len() == 16;
    if exact {
        Some((base.parse().ok()?, u64::from_str_radix(salt, 16).ok()?))
    } else {
        None
    }
}

pub fn segment_header(base: u64, salt: u64) -> [u8; SEGMENT_HEADER] {
    let mut header = [0; SEGMENT_HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..16].copy_from_slice(&base.to_le_bytes());
    header[16..24].copy_from_slice(&salt.to_le_bytes());
    let crc = crc32c::crc32c(&header[..28]);
    header[28..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// A record's body with its checksum, made by the appender so that the writer thread only copies.
pub struct EncodedBody {
    bytes: Vec<u8>,
    crc: u32,
}

impl EncodedBody {
    pub fn new(record: &Record) -> Result<Self, JournalError> {
        let size = record.size();
        let too_large = || JournalError::TooLarge { bytes: size };
        if size > MAX_RECORD_BYTES {
            return Err(too_large());
        }
        let mut bytes = Vec::with_capacity(size);
        push_u32(&mut bytes, record.key.len()).ok_or_else(too_large)?;
        bytes.extend_from_slice(&record.key);
        push_u16(&mut bytes, record.headers.len()).ok_or_else(too_large)?;
        for (name, value) in &record.headers {
            push_u16(&mut bytes, name.len()).ok_or_else(too_large)?;
            bytes.extend_from_slice(name.as_bytes());
            push_u32(&mut bytes, value.len()).ok_or_else(too_large)?;
            bytes.extend_from_slice(value.as_bytes());
        }
        bytes.extend_from_slice(&record.value);
        let crc = crc32c::crc32c(&bytes);
        Ok(Self { bytes, crc })
    }

    pub fn frame_len(&self) -> usize {
        FRAME_HEADER + self.bytes.len()
    }

    pub fn write_frame(&self, salt: u64, offset: u64, appended: TaiNanos, out: &mut Vec<u8>) {
        let mut header = [0; FRAME_HEADER];
        // A body is at most MAX_BODY long, which `new` checked.
        let len = self.bytes.len() as u32;
        header[..4].copy_from_slice(&MARKER);
        header[4..8].copy_from_slice(&len.to_le_bytes());
        header[8..16].copy_from_slice(&offset.to_le_bytes());
        header[16..24].copy_from_slice(&appended.0.to_le_bytes());
        header[24..28].copy_from_slice(&self.crc.to_le_bytes());
        let crc = salted_crc(salt, &header[..28]);
        header[28..].copy_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(&self.bytes);
    }
}

/// A frame header whose own checksum holds.
#[derive(Debug, Clone, Copy)]
pub struct FrameHeader {
    pub body_len: u32,
    pub offset: u64,
    appended: i64,
    body_crc: u32,
}

impl FrameHeader {
    pub fn parse(salt: u64, bytes: &[u8; FRAME_HEADER]) -> Option<Self> {
        let header = Self {
            body_len: u32::from_le_bytes(array(bytes, 4)),
            offset: u64::from_le_bytes(array(bytes, 8)),
            appended: i64::from_le_bytes(array(bytes, 16)),
            body_crc: u32::from_le_bytes(array(bytes, 24)),
        };
        let crc = u32::from_le_bytes(array(bytes, 28));
        let sound = bytes[..4] == MARKER && crc == salted_crc(salt, &bytes[..28]);
        (sound && header.body_len as usize <= MAX_BODY).then_some(header)
    }

    pub fn frame_len(&self) -> u64 {
        FRAME_HEADER as u64 + u64::from(self.body_len)
    }

    /// The record, unless its checksum or its inner lengths do not hold.
    pub fn decode(&self, body: &[u8]) -> Option<Entry> {
        if crc32c::crc32c(body) != self.body_crc {
            return None;
        }
        let mut rest = Bytes::copy_from_slice(body);
        let key_len = u32::from_le_bytes(take(&mut rest, 4)?.as_ref().try_into().ok()?);
        let key = take(&mut rest, key_len as usize)?;
        let count = u16::from_le_bytes(take(&mut rest, 2)?.as_ref().try_into().ok()?);
        let mut headers = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let name_len = u16::from_le_bytes(take(&mut rest, 2)?.as_ref().try_into().ok()?);
            let name = take(&mut rest, usize::from(name_len))?;
            let value_len = u32::from_le_bytes(take(&mut rest, 4)?.as_ref().try_into().ok()?);
            let value = take(&mut rest, value_len as usize)?;
            headers.push((
                String::from_utf8(name.to_vec()).ok()?,
                String::from_utf8(value.to_vec()).ok()?,
            ));
        }
        let record = Record {
            key,
            headers,
            value: rest,
        };
        Some(Entry {
            offset: self.offset,
            appended: TaiNanos(self.appended),
            record,
        })
    }
}

fn salted_crc(salt: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), bytes)
}

fn array<const N: usize>(bytes: &[u8; FRAME_HEADER], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

fn take(rest: &mut Bytes, len: usize) -> Option<Bytes> {
    (rest.len() >= len).then(|| rest.split_to(len))
}

fn push_u32(out: &mut Vec<u8>, len: usize) -> Option<()> {
    out.extend_from_slice(&u32::try_from(len).ok()?.to_le_bytes());
    Some(())
}

fn push_u16(out: &mut Vec<u8>, len: usize) -> Option<()> {
    out.extend_from_slice(&u16::try_from(len).ok()?.to_le_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn segment_names_round_trip_and_strangers_are_ignored() {
        assert_eq!(parse_segment_name(&segment_name(7, 0xABC)), Some((7, 0xABC)));
        for stranger in ["lock", "1-2.journal", "00000000000000000007.journal", "x.journal", ""] {
            assert_eq!(parse_segment_name(stranger), None, "{stranger}");
        }
    }

    proptest! {
        #[test]
        fn records_come_back_unaltered(
            key in prop::collection::vec(any::<u8>(), 0..20),
            headers in prop::collection::vec((".{0,8}", ".{0,20}"), 0..4),
            value in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let record = Record::new(key, value).with_headers(headers);
            let mut frame = Vec::new();
            EncodedBody::new(&record).unwrap().write_frame(9, 42, TaiNanos(-5), &mut frame);
            let header = FrameHeader::parse(9, frame[..FRAME_HEADER].try_into().unwrap()).unwrap();
            let entry = header.decode(&frame[FRAME_HEADER..]).unwrap();
            prop_assert_eq!(entry, Entry { offset: 42, appended: TaiNanos(-5), record });
            prop_assert!(FrameHeader::parse(8, frame[..FRAME_HEADER].try_into().unwrap()).is_none());
        }

        #[test]
        fn any_single_flip_is_seen(value in prop::collection::vec(any::<u8>(), 0..60), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut frame = Vec::new();
            EncodedBody::new(&Record::new("k", value)).unwrap().write_frame(9, 42, TaiNanos(1), &mut frame);
            let at = at.index(frame.len());
            frame[at] ^= 1 << bit;
            let header = FrameHeader::parse(9, frame[..FRAME_HEADER].try_into().unwrap());
            prop_assert!(header.is_none_or(|header| header.decode(&frame[FRAME_HEADER..]).is_none()));
        }
    }
}
