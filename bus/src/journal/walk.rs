//! Walks the frames of one segment, over damage.

use std::io;
use std::ops::Range;

use super::Entry;
use super::format::{FRAME_HEADER, FrameHeader, MARKER, SEGMENT_HEADER};
use crate::fs::File;

/// How much is read from the file at once; a longer frame is read whole.
const WINDOW: u64 = 256 * 1024;

/// One step of a walk.
pub enum Step {
    /// A sound record.
    Record(Entry),
    /// A frame below the wanted offset whose body was not looked at.
    Skipped,
    /// Bytes that are no record.
    Damage(Range<u64>),
    /// Nothing more below the segment's end.
    End,
}

pub struct Walker<'f> {
    file: &'f dyn File,
    salt: u64,
    /// Where the next frame begins.
    position: u64,
    end: u64,
    /// The lowest offset that the next frame may have, and the offset that none may reach.
    offsets: Range<u64>,
    window: Vec<u8>,
    window_start: u64,
}

impl<'f> Walker<'f> {
    /// Walks from `position`, where offset `offsets.start` or a later one is expected, to `end`.
    pub fn new(file: &'f dyn File, salt: u64, position: u64, end: u64, offsets: Range<u64>) -> Self {
        let position = position.max(SEGMENT_HEADER as u64);
        Self {
            file,
            salt,
            position,
            end,
            offsets,
            window: Vec::new(),
            window_start: 0,
        }
    }

    /// Where the walk stands, in bytes.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The lowest offset that may still follow.
    pub fn next_offset(&self) -> u64 {
        self.offsets.start
    }

    /// The next record, damage or skip. Bodies of records below `from` are not read.
    pub fn step(&mut self, from: u64) -> io::Result<Step> {
        if self.position >= self.end {
            return Ok(Step::End);
        }
        let start = self.position;
        let Some(header) = self.header_at(start)? else {
            self.position = self.next_header_after(start)?;
            return Ok(Step::Damage(start..self.position));
        };
        let frame_end = start + header.frame_len();
        if frame_end > self.end {
            self.position = self.end;
            self.offsets.start = header.offset + 1;
            return Ok(Step::Damage(start..self.end));
        }
        self.position = frame_end;
        self.offsets.start = header.offset + 1;
        if header.offset < from {
            return Ok(Step::Skipped);
        }
        let body_start = start + FRAME_HEADER as u64;
        let body = self.bytes(body_start, header.body_len as usize)?;
        match body.and_then(|body| header.decode(body)) {
            Some(entry) => Ok(Step::Record(entry)),
            None => Ok(Step::Damage(start..frame_end)),
        }
    }

    /// A sound frame header at a position, with an offset that may stand there.
    fn header_at(&mut self, position: u64) -> io::Result<Option<FrameHeader>> {
        let (salt, offsets) = (self.salt, self.offsets.clone());
        let bytes = self.bytes(position, FRAME_HEADER)?;
        let header = bytes.and_then(|bytes| FrameHeader::parse(salt, bytes.try_into().ok()?));
        Ok(header.filter(|header| offsets.contains(&header.offset)))
    }

    /// The next position after `start` with a sound frame header, or the end.
    fn next_header_after(&mut self, start: u64) -> io::Result<u64> {
        let mut position = start + 1;
        while position + FRAME_HEADER as u64 <= self.end {
            let Some(bytes) = self.window_from(position)? else {
                break;
            };
            let found = bytes.windows(MARKER.len()).position(|window| window == MARKER);
            let searched = bytes.len() - (MARKER.len() - 1);
            match found {
                Some(distance) => {
                    let candidate = position + distance as u64;
                    if self.header_at(candidate)?.is_some() {
                        return Ok(candidate);
                    }
                    position = candidate + 1;
                }
                None => position += searched as u64,
            }
        }
        Ok(self.end)
    }

    /// Bytes of the segment, `None` where it ends before them.
    fn bytes(&mut self, position: u64, len: usize) -> io::Result<Option<&[u8]>> {
        if position + len as u64 > self.end {
            return Ok(None);
        }
        let window_end = self.window_start + self.window.len() as u64;
        if position < self.window_start || position + len as u64 > window_end {
            self.fill(position, len)?;
        }
        let start = (position - self.window_start) as usize;
        Ok(self.window.get(start..start + len))
    }

    /// The window's bytes from a position on, at least a frame header's worth.
    fn window_from(&mut self, position: u64) -> io::Result<Option<&[u8]>> {
        if self.bytes(position, FRAME_HEADER)?.is_none() {
            return Ok(None);
        }
        Ok(self.window.get((position - self.window_start) as usize..))
    }

    fn fill(&mut self, position: u64, len: usize) -> io::Result<()> {
        let wanted = (len as u64).max(WINDOW.min(self.end - position));
        self.window.resize(wanted as usize, 0);
        let got = self.file.read_at(position, &mut self.window)?;
        self.window.truncate(got);
        self.window_start = position;
        if (got as u64) < wanted {
            // The file is shorter than it was: what is missing cannot be walked.
            self.end = self.end.min(position + got as u64);
        }
        Ok(())
    }
}
