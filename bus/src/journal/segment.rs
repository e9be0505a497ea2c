//! The segments of a journal: which offsets lie in which file, where, and what of it is damaged.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use super::format::{self, FRAME_HEADER, SEGMENT_HEADER};
use super::walk::{Step, Walker};
use super::{JournalError, unpoison};
use crate::fs::{File, FileSystem};

/// An index point at least every so many bytes.
const INDEX_STRIDE: u64 = 64 * 1024;

/// All segments of a journal, oldest first. The writer adds, retention and truncation remove, readers read.
pub struct Segments {
    pub fs: Arc<dyn FileSystem>,
    pub folder: PathBuf,
    list: RwLock<Vec<Arc<Segment>>>,
    /// Damaged regions by (base offset, position), so that each is counted once.
    damage: Mutex<BTreeMap<(u64, u64), u64>>,
    pub counters: Counters,
}

#[derive(Default)]
pub struct Counters {
    pub appended: AtomicU64,
    pub groups: AtomicU64,
}

/// One file.
pub struct Segment {
    pub base: u64,
    pub salt: u64,
    path: PathBuf,
    /// Bytes that are durable and may be read.
    end: AtomicU64,
    /// The base of the segment after, once there is one: no record here reaches it.
    limit: AtomicU64,
    /// (offset, position) of some frames, rising; `None` until a sealed segment is first read.
    index: Mutex<Option<Vec<(u64, u64)>>>,
}

/// What opening a folder found.
pub struct Opened {
    pub segments: Segments,
    pub next_offset: u64,
    /// The segment to go on writing in, unless there is none or its tail is damaged.
    pub active: Option<(Arc<Segment>, Arc<dyn File>)>,
}

impl Segments {
    /// Lists the segments and walks the last one, which alone can have a torn tail of our making.
    pub fn open(fs: Arc<dyn FileSystem>, folder: &Path) -> Result<Opened, JournalError> {
        let names = fs.list(folder).map_err(|e| JournalError::io("list", folder, e))?;
        let mut found: Vec<(u64, u64)> = names
            .iter()
            .filter_map(|name| format::parse_segment_name(name))
            .collect();
        found.sort_unstable();
        let segments = Self {
            fs,
            folder: folder.to_owned(),
            list: RwLock::default(),
            damage: Mutex::default(),
            counters: Counters::default(),
        };
        for &(base, salt) in &found {
            let segment = segments.describe(base, salt)?;
            segments.push(segment);
        }
        let Some(last) = unpoison(segments.list.read()).last().cloned() else {
            return Ok(Opened {
                segments,
                next_offset: 0,
                active: None,
            });
        };
        let (next_offset, active) = segments.recover_last(&last)?;
        Ok(Opened {
            segments,
            next_offset,
            active: active.map(|file| (last, file)),
        })
    }

    fn describe(&self, base: u64, salt: u64) -> Result<Segment, JournalError> {
        let path = self.folder.join(format::segment_name(base, salt));
        let file = self.fs.open(&path).map_err(|e| JournalError::io("open", &path, e))?;
        let end = file.len().map_err(|e| JournalError::io("measure", &path, e))?;
        Ok(Segment::new(base, salt, path, end, None))
    }

    /// Walks the last segment. Sound to its end, it goes on growing; otherwise it is sealed as it is and the
    /// next offset skips whatever the damaged tail can have held, so that no offset is ever given out twice.
    fn recover_last(&self, last: &Arc<Segment>) -> Result<(u64, Option<Arc<dyn File>>), JournalError> {
        let io = |what| move |e| JournalError::io(what, last.path(), e);
        let file = self.fs.open(last.path()).map_err(io("open"))?;
        // A killed process leaves bytes that were never synced. They are about to be read, so they must be
        // as durable as everything else that is read.
        file.sync().map_err(io("sync"))?;
        self.fs.sync_dir(&self.folder).map_err(io("sync the folder of"))?;
        let mut header = [0; SEGMENT_HEADER];
        let got = file.read_at(0, &mut header).map_err(io("read"))?;
        let header_sound = header == format::segment_header(last.base, last.salt);
        if !header_sound {
            self.note_damage(last, 0..got as u64);
        }
        let scan = self.scan(last, file.as_ref())?;
        let torn = scan.tail_damage.div_ceil(FRAME_HEADER as u64);
        let usable = torn == 0 && header_sound;
        // A segment that is sealed here must not share its base with its successor.
        let next_offset = if usable {
            scan.next_offset
        } else {
            (scan.next_offset + torn).max(last.base + 1)
        };
        if !usable {
            tracing::warn!(
                segment = %last.path().display(),
                damaged_bytes = scan.tail_damage,
                next_offset,
                "the journal's last segment has a damaged tail: it is fenced off, writing goes on in a new segment"
            );
        }
        Ok((next_offset, usable.then_some(file)))
    }

    /// Reads a whole segment: builds its index and notes its damage.
    fn scan(&self, segment: &Segment, file: &dyn File) -> Result<Scan, JournalError> {
        let mut walker = segment.walk(file, SEGMENT_HEADER as u64, segment.base);
        let mut index = Vec::new();
        let mut tail_damage = 0;
        loop {
            let position = walker.position();
            match walker
                .step(0)
                .map_err(|e| JournalError::io("read", segment.path(), e))?
            {
                Step::End => break,
                Step::Damage(region) => {
                    tail_damage += region.end - region.start;
                    self.note_damage(segment, region);
                }
                Step::Skipped => {}
                Step::Record(entry) => {
                    tail_damage = 0;
                    add_to_index(&mut index, entry.offset, position);
                }
            }
        }
        *unpoison(segment.index.lock()) = Some(index);
        Ok(Scan {
            next_offset: walker.next_offset(),
            tail_damage,
        })
    }

    /// Makes a new last segment visible.
    pub fn push(&self, segment: Segment) -> Arc<Segment> {
        let segment = Arc::new(segment);
        let mut list = unpoison(self.list.write());
        if let Some(previous) = list.last() {
            previous.limit.store(segment.base, Ordering::Release);
        }
        list.push(Arc::clone(&segment));
        segment
    }

    /// The segments that can hold `offset` or a later one.
    pub fn from(&self, offset: u64) -> Vec<Arc<Segment>> {
        let list = unpoison(self.list.read());
        let first = list.partition_point(|segment| segment.base <= offset).saturating_sub(1);
        list[first..].to_vec()
    }

    pub fn first_offset(&self) -> Option<u64> {
        unpoison(self.list.read()).first().map(|segment| segment.base)
    }

    /// Number of files and their bytes.
    pub fn sizes(&self) -> (u64, u64) {
        let list = unpoison(self.list.read());
        (list.len() as u64, list.iter().map(|segment| segment.end()).sum())
    }

    /// Removes the oldest segments while `condition(bytes of all, end offset, bytes of this one)` holds. The last
    /// segment stays: its name carries the next offset.
    pub fn drop_while(&self, condition: impl Fn(u64, u64, u64) -> bool) -> Result<(), JournalError> {
        let mut removed = false;
        loop {
            let mut list = unpoison(self.list.write());
            let total: u64 = list.iter().map(|segment| segment.end()).sum();
            let [oldest, next, ..] = list.as_slice() else {
                break;
            };
            if !condition(total, next.base, oldest.end()) {
                break;
            }
            match self.fs.remove(oldest.path()) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(JournalError::io("remove a segment of", oldest.path(), error));
                }
                _ => {}
            }
            list.remove(0);
            removed = true;
        }
        if removed {
            self.fs
                .sync_dir(&self.folder)
                .map_err(|e| JournalError::io("sync the folder of", &self.folder, e))?;
        }
        Ok(())
    }

    pub fn note_damage(&self, segment: &Segment, region: Range<u64>) {
        let bytes = region.end - region.start;
        if unpoison(self.damage.lock())
            .insert((segment.base, region.start), bytes)
            .is_none()
        {
            tracing::warn!(
                segment = %segment.path().display(),
                position = region.start,
                bytes,
                "damaged bytes in the journal are skipped: after a crash, a write that nobody was told of; otherwise check the disk"
            );
        }
    }

    /// Damaged regions and their bytes.
    pub fn damage(&self) -> (u64, u64) {
        let damage = unpoison(self.damage.lock());
        (damage.len() as u64, damage.values().sum())
    }

    fn is_listed(&self, base: u64) -> bool {
        unpoison(self.list.read()).iter().any(|segment| segment.base == base)
    }
}

struct Scan {
    next_offset: u64,
    /// Damaged bytes after the last sound record.
    tail_damage: u64,
}

impl Segment {
    pub fn new(base: u64, salt: u64, path: PathBuf, end: u64, index: Option<Vec<(u64, u64)>>) -> Self {
        Self {
            base,
            salt,
            path,
            end: end.into(),
            limit: u64::MAX.into(),
            index: Mutex::new(index),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Frames from `index` on became durable and the file now ends at `end`.
    pub fn grow(&self, end: u64, frames: impl Iterator<Item = (u64, u64)>) {
        if let Some(index) = unpoison(self.index.lock()).as_mut() {
            frames.for_each(|(offset, position)| add_to_index(index, offset, position));
        }
        self.end.store(end, Ordering::Release);
    }

    /// A reader that starts at or shortly before `from`; `None` when nothing here reaches it or the segment
    /// was removed meanwhile.
    pub fn reader(self: &Arc<Self>, segments: &Segments, from: u64) -> Result<Option<SegmentReader>, JournalError> {
        if self.limit.load(Ordering::Acquire) <= from {
            return Ok(None);
        }
        let file = match segments.fs.open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !segments.is_listed(self.base) => {
                return Ok(None);
            }
            Err(error) => return Err(JournalError::io("open", &self.path, error)),
        };
        if unpoison(self.index.lock()).is_none() {
            segments.scan(self, file.as_ref())?;
        }
        let (offset, position) = self.index_point(from);
        Ok(Some(SegmentReader {
            file,
            segment: Arc::clone(self),
            position,
            offset,
        }))
    }

    fn index_point(&self, from: u64) -> (u64, u64) {
        let index = unpoison(self.index.lock());
        let points = index.as_deref().unwrap_or_default();
        let after = points.partition_point(|&(offset, _)| offset <= from);
        after
            .checked_sub(1)
            .map_or((self.base, SEGMENT_HEADER as u64), |at| points[at])
    }

    fn walk<'f>(&self, file: &'f dyn File, position: u64, offset: u64) -> Walker<'f> {
        Walker::new(
            file,
            self.salt,
            position,
            self.end(),
            offset..self.limit.load(Ordering::Acquire),
        )
    }
}

/// An open segment and where to start in it.
pub struct SegmentReader {
    file: Arc<dyn File>,
    segment: Arc<Segment>,
    position: u64,
    offset: u64,
}

impl SegmentReader {
    pub fn walk(&self) -> Walker<'_> {
        self.segment.walk(self.file.as_ref(), self.position, self.offset)
    }
}

fn add_to_index(index: &mut Vec<(u64, u64)>, offset: u64, position: u64) {
    let due = index.last().is_none_or(|&(_, last)| position >= last + INDEX_STRIDE);
    if due {
        index.push((offset, position));
    }
}
