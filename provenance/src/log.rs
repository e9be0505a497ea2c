//! One log in one folder.
//!
//! ```text
//! vkey                    the key that checkpoints verify with, as NAME+HASH+KEY
//! checkpoint              the newest signed checkpoint (C2SP tlog-checkpoint)
//! state.json              the commit point: size, checkpoint, and how far each topic was taken in
//! tile/<L>/<N>            hashes of level L, 256 per tile (C2SP tlog-tiles)
//! tile/entries/<N>        entries, 256 per bundle: big-endian 16-bit length, bytes
//! ```
//!
//! A tile that is not full yet lies under its full name and is the prefix of what it will be; the HTTP routes
//! serve it under its partial name. Entries and tiles are synced before `state.json` is replaced, and what lies
//! past its size is cut off at the next start: an append happened entirely or not at all.

mod files;
pub mod tiles;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use orrery_protocol::{Record, SealKey};
use serde::{Deserialize, Serialize};

use crate::LogError;
use crate::note::{Checkpoint, VerifierKey, is_key_name};
use crate::tree::{Hash, Tree, leaf_hash};
use files::{TileFile, read_to_end, write_atomically};
use tiles::{TILE, TILE_HEIGHT, bundle_path, hash_path, parse_bundle};

/// One entry as the log gives it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number, from 0.
    pub index: u64,
    /// Its exact bytes: an in-toto statement in JSON.
    pub bytes: Vec<u8>,
    /// Its hash in the tree.
    pub leaf_hash: Hash,
}

/// The commit point of a log.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Committed {
    size: u64,
    /// Bytes of the bundle that is being filled.
    #[serde(default)]
    bundle_bytes: u64,
    checkpoint: String,
    /// Which bus the offsets belong to.
    #[serde(default)]
    source: String,
    /// Next offset per partition of the provenance topic.
    #[serde(default)]
    consumed: BTreeMap<u32, u64>,
}

/// An open log. All methods block; one process may have the folder.
pub struct Log {
    dir: PathBuf,
    key: SealKey,
    origin: String,
    tree: Tree,
    committed: Committed,
    bundle: TileFile,
    hashes: TileFile,
    /// An append failed half-way: what it left must be cut off before the next.
    dirty: bool,
    /// Why nothing may be added.
    damage: Option<String>,
    /// Held for as long as the log is open.
    _lock: std::fs::File,
}

impl Log {
    /// Opens the log in `dir` or starts one. The tree is rebuilt from its tiles and checked against the checkpoint;
    /// entries themselves are checked by [`crate::verify_dir`]. A log that does not match its checkpoint opens too, so
    /// that it can be looked at, and takes nothing more: see [`Log::damage`].
    ///
    /// # Errors
    /// [`LogError::OtherOwner`] when the key or the origin is not the log's, [`LogError::Io`] for the disk.
    pub fn open(dir: &Path, key: SealKey, origin: &str) -> Result<Self, LogError> {
        if !is_key_name(origin) {
            return Err(LogError::BadOrigin(origin.to_owned()));
        }
        files::create_dir(&dir.join("tile/entries"))?;
        files::create_dir(&dir.join("tile/0"))?;
        let lock = files::lock(dir)?;
        check_owner(dir, &VerifierKey::new(origin, key.public()))?;
        let (committed, unreadable) = read_committed(dir)?;
        let tree = load_tree(dir, committed.size)?;
        let mut log = Self {
            dir: dir.to_owned(),
            key,
            origin: origin.to_owned(),
            tree,
            committed,
            bundle: TileFile::default(),
            hashes: TileFile::default(),
            dirty: true,
            damage: unreadable,
            _lock: lock,
        };
        log.damage = log.damage.take().or_else(|| log.disagreement());
        if log.damage.is_some() {
            return Ok(log);
        }
        log.discard_uncommitted()?;
        log.write_upper_tiles(0)?;
        if log.committed.checkpoint.is_empty() {
            log.commit(log.committed.clone())?;
        }
        log.publish_checkpoint()?;
        Ok(log)
    }

    /// Why the log takes nothing more, if it does not match its checkpoint.
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// Appends records; they are durable and under a signed checkpoint when it returns. Returns the first index.
    ///
    /// # Errors
    /// [`LogError`]; the log is then as it was before. [`LogError::Damaged`] for a log with [`Log::damage`].
    pub fn append(&mut self, records: &[Record]) -> Result<u64, LogError> {
        let entries: Vec<Vec<u8>> = records.iter().map(Record::encode).collect();
        let (source, consumed) = (self.committed.source.clone(), self.committed.consumed.clone());
        self.append_from(&entries, &source, consumed)
    }

    /// Appends entries taken from a topic together with how far it was taken, in one step: after a crash
    /// either both happened or neither.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn append_from(
        &mut self,
        entries: &[Vec<u8>],
        source: &str,
        consumed: BTreeMap<u32, u64>,
    ) -> Result<u64, LogError> {
        if let Some(why) = &self.damage {
            return Err(self.damaged(why.clone()));
        }
        if let Some(large) = entries.iter().find(|entry| entry.len() > usize::from(u16::MAX)) {
            return Err(LogError::TooLarge { bytes: large.len() });
        }
        self.discard_uncommitted()?;
        self.dirty = true;
        let first = self.tree.size();
        if let Err(error) = self.write_and_commit(entries, source, consumed) {
            self.tree.truncate(first);
            return Err(error);
        }
        self.dirty = false;
        // The commit stands; a checkpoint file that lags is rewritten by the next append or start.
        if let Err(error) = self.publish_checkpoint() {
            tracing::warn!(%error, "the provenance checkpoint file could not be replaced");
        }
        Ok(first)
    }

    /// Number of entries.
    pub fn size(&self) -> u64 {
        self.committed.size
    }

    /// The root over all entries.
    pub fn root(&self) -> Hash {
        self.tree.root()
    }

    /// The newest checkpoint, a signed note.
    pub fn checkpoint(&self) -> &str {
        &self.committed.checkpoint
    }

    /// The key that checkpoints verify with.
    pub fn verifier_key(&self) -> VerifierKey {
        VerifierKey::new(&self.origin, self.key.public())
    }

    /// The log's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The next offset to take from each partition of the topic on this bus; empty for another bus.
    pub fn consumed(&self, source: &str) -> BTreeMap<u32, u64> {
        if self.committed.source == source {
            self.committed.consumed.clone()
        } else {
            BTreeMap::new()
        }
    }

    /// The proof that entry `index` is in the tree of all entries.
    ///
    /// # Errors
    /// [`LogError::Outside`].
    pub fn prove_inclusion(&self, index: u64) -> Result<Vec<Hash>, LogError> {
        let outside = || LogError::Outside {
            size: self.size(),
            asked: format!("entry {index}"),
        };
        self.tree.inclusion_proof(index, self.size()).ok_or_else(outside)
    }

    /// The proof that the tree of `old` entries is a prefix of the tree of `new` entries.
    ///
    /// # Errors
    /// [`LogError::Outside`].
    pub fn prove_consistency(&self, old: u64, new: u64) -> Result<Vec<Hash>, LogError> {
        let outside = || LogError::Outside {
            size: self.size(),
            asked: format!("a proof from {old} to {new}"),
        };
        self.tree.consistency_proof(old, new).ok_or_else(outside)
    }

    /// The root the tree had at a size.
    ///
    /// # Errors
    /// [`LogError::Outside`].
    pub fn root_at(&self, size: u64) -> Result<Hash, LogError> {
        let outside = || LogError::Outside {
            size: self.size(),
            asked: format!("the root at {size}"),
        };
        self.tree.root_at(size).ok_or_else(outside)
    }

    /// The hash of one entry.
    ///
    /// # Errors
    /// [`LogError::Outside`].
    pub fn leaf(&self, index: u64) -> Result<Hash, LogError> {
        let outside = || LogError::Outside {
            size: self.size(),
            asked: format!("entry {index}"),
        };
        self.tree
            .leaf(index)
            .filter(|_| index < self.size())
            .ok_or_else(outside)
    }

    /// Up to `limit` entries from number `from` on.
    ///
    /// # Errors
    /// [`LogError::Io`], or [`LogError::Damaged`] when a bundle cannot be taken apart.
    pub fn entries(&self, from: u64, limit: u64) -> Result<Vec<Entry>, LogError> {
        let end = from.saturating_add(limit).min(self.size());
        let mut entries = Vec::new();
        for bundle in from / TILE..end.div_ceil(TILE) {
            let path = self.dir.join(bundle_path(bundle));
            let bytes = read_to_end(&path)?;
            for (index, entry) in (bundle * TILE..).zip(parse_bundle(&bytes)) {
                if (from..end).contains(&index)
                    && let Some(leaf_hash) = self.tree.leaf(index)
                {
                    entries.push(Entry {
                        index,
                        bytes: entry.to_vec(),
                        leaf_hash,
                    });
                }
            }
        }
        let whole = entries.len() as u64 == end.saturating_sub(from);
        if whole {
            Ok(entries)
        } else {
            Err(self.damaged(format!("entries from {from} to {end} cannot all be read")))
        }
    }

    /// The bytes of a tile of hashes as C2SP names it, `width` hashes of it, if the log has them.
    pub fn hash_tile(&self, level: u32, index: u64, width: u64) -> Option<Vec<u8>> {
        let height = usize::try_from(level.checked_mul(TILE_HEIGHT)?).ok()?;
        let first = index.checked_mul(TILE)?;
        let hashes = (first..first.checked_add(width)?).map(|index| self.tree.complete(height, index));
        let hashes: Option<Vec<Hash>> = hashes.collect();
        hashes.map(|hashes| hashes.concat())
    }

    /// The bytes of a bundle of entries as C2SP names it, the first `width` entries of it, if the log has them.
    ///
    /// # Errors
    /// As [`Log::entries`].
    pub fn entry_bundle(&self, index: u64, width: u64) -> Result<Option<Vec<u8>>, LogError> {
        let first = index.saturating_mul(TILE);
        if first.saturating_add(width) > self.size() {
            return Ok(None);
        }
        let entries = self.entries(first, width)?;
        let framed = |entry: Entry| [&(entry.bytes.len() as u16).to_be_bytes()[..], &entry.bytes].concat();
        Ok(Some(entries.into_iter().flat_map(framed).collect()))
    }

    fn write_and_commit(
        &mut self,
        entries: &[Vec<u8>],
        source: &str,
        consumed: BTreeMap<u32, u64>,
    ) -> Result<(), LogError> {
        let first = self.tree.size();
        let mut bundle_bytes = self.committed.bundle_bytes;
        for entry in entries {
            let leaf = leaf_hash(entry);
            let index = self.tree.size();
            // `append_from` checked that the length fits.
            let framed = [&(entry.len() as u16).to_be_bytes()[..], entry].concat();
            bundle_bytes = if index.is_multiple_of(TILE) { 0 } else { bundle_bytes } + framed.len() as u64;
            self.bundle.append(&self.dir.join(bundle_path(index / TILE)), &framed)?;
            self.hashes.append(&self.dir.join(hash_path(0, index / TILE)), &leaf)?;
            self.tree.push(leaf);
        }
        self.bundle.sync()?;
        self.hashes.sync()?;
        self.write_upper_tiles(first)?;
        self.commit(Committed {
            size: self.tree.size(),
            bundle_bytes,
            checkpoint: self.sign(),
            source: source.to_owned(),
            consumed,
        })
    }

    /// Writes the tiles above level 0 that grew since the tree had `first` entries. They are small and rebuilt
    /// from level 0 at each start, so they need no care beyond being replaced whole.
    fn write_upper_tiles(&self, first: u64) -> Result<(), LogError> {
        for level in 1..8u32 {
            let span = TILE.pow(level);
            let (old, new) = (first / span, self.tree.size() / span);
            if new == 0 || (old == new && first > 0) {
                break;
            }
            for tile in old / TILE..new.div_ceil(TILE) {
                let width = (new - tile * TILE).min(TILE);
                let bytes = self.hash_tile(level, tile, width).unwrap_or_default();
                write_atomically(&self.dir.join(hash_path(level, tile)), &bytes)?;
            }
        }
        Ok(())
    }

    fn commit(&mut self, mut committed: Committed) -> Result<(), LogError> {
        if committed.checkpoint.is_empty() {
            committed.checkpoint = self.sign();
        }
        let json = serde_json::to_vec_pretty(&committed).expect("texts and numbers always encode");
        write_atomically(&self.dir.join("state.json"), &json)?;
        self.committed = committed;
        Ok(())
    }

    fn sign(&self) -> String {
        let checkpoint = Checkpoint {
            origin: self.origin.clone(),
            size: self.tree.size(),
            root: self.tree.root(),
        };
        checkpoint.sign(&self.key)
    }

    fn publish_checkpoint(&self) -> Result<(), LogError> {
        write_atomically(&self.dir.join("checkpoint"), self.committed.checkpoint.as_bytes())
    }

    /// Cuts off what an append left that was not committed.
    fn discard_uncommitted(&mut self) -> Result<(), LogError> {
        if !self.dirty {
            return Ok(());
        }
        let (tile, within) = (self.size() / TILE, self.size() % TILE);
        let bundle_bytes = if within == 0 { 0 } else { self.committed.bundle_bytes };
        self.bundle = TileFile::open(&self.dir.join(bundle_path(tile)), bundle_bytes)?;
        self.hashes = TileFile::open(&self.dir.join(hash_path(0, tile)), within * 32)?;
        files::remove_after(&self.dir, bundle_path, tile)?;
        files::remove_after(&self.dir, |tile| hash_path(0, tile), tile)?;
        self.dirty = false;
        Ok(())
    }

    /// What in the files does not agree with the commit point.
    fn disagreement(&self) -> Option<String> {
        if self.committed.checkpoint.is_empty() {
            return None;
        }
        let checkpoint = match Checkpoint::open(&self.committed.checkpoint, &self.verifier_key()) {
            Ok(checkpoint) => checkpoint,
            Err(error) => return Some(format!("state.json: {error}")),
        };
        if checkpoint.size != self.size() || checkpoint.root != self.tree.root() {
            return Some(format!("its {} entries have another root", self.size()));
        }
        let (tile, within) = (self.size() / TILE, self.size() % TILE);
        let bundle = bundle_path(tile);
        let length = self.dir.join(&bundle).metadata().map_or(0, |metadata| metadata.len());
        let cut_off = within > 0 && length < self.committed.bundle_bytes;
        cut_off.then(|| format!("{bundle} is too short"))
    }

    fn damaged(&self, why: String) -> LogError {
        LogError::Damaged {
            dir: self.dir.clone(),
            why,
        }
    }
}

fn check_owner(dir: &Path, given: &VerifierKey) -> Result<(), LogError> {
    let path = dir.join("vkey");
    let found = String::from_utf8_lossy(&files::read_if_there(&path)?).trim().to_owned();
    if found.is_empty() {
        return write_atomically(&path, format!("{given}\n").as_bytes());
    }
    let given = given.to_string();
    if found == given {
        Ok(())
    } else {
        Err(LogError::OtherOwner {
            dir: dir.to_owned(),
            found,
            given,
        })
    }
}

/// The commit point, and why it cannot be relied on.
fn read_committed(dir: &Path) -> Result<(Committed, Option<String>), LogError> {
    let bytes = files::read_if_there(&dir.join("state.json"))?;
    if bytes.is_empty() {
        // Without its commit point a log that has a checkpoint is not a new log.
        let orphaned = !files::read_if_there(&dir.join("checkpoint"))?.is_empty();
        let why = "it has a checkpoint but no state.json: restore it from a backup and start again".to_owned();
        return Ok((Committed::default(), orphaned.then_some(why)));
    }
    match serde_json::from_slice(&bytes) {
        Ok(committed) => Ok((committed, None)),
        Err(error) => {
            let why = format!("state.json is damaged ({error}): restore it from a backup and start again");
            Ok((Committed::default(), Some(why)))
        }
    }
}

/// The tree over the hashes on disk; smaller than `size` when some are missing.
fn load_tree(dir: &Path, size: u64) -> Result<Tree, LogError> {
    let mut tree = Tree::default();
    for tile in 0..size.div_ceil(TILE) {
        let width = (size - tile * TILE).min(TILE);
        let bytes = files::read_if_there(&dir.join(hash_path(0, tile)))?;
        let (leaves, _) = bytes.as_chunks::<32>();
        leaves.iter().take(width as usize).for_each(|leaf| tree.push(*leaf));
        if (leaves.len() as u64) < width {
            break;
        }
    }
    Ok(tree)
}
