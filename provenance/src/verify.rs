//! The offline check of a log's folder: every entry against its hash, every hash against the signed root.

use std::path::Path;

use orrery_protocol::{PublicKey, Record};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::LogError;
use crate::log::tiles::{TILE, TILE_HEIGHT, bundle_path, hash_path};
use crate::note::{Checkpoint, VerifierKey};
use crate::tree::{Hash, Tree, leaf_hash};

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The log's name.
    pub origin: String,
    /// Entries under the checkpoint.
    pub size: u64,
    /// The root that the checkpoint signs, in hexadecimal.
    pub root: String,
    /// The key that the signature was checked with.
    pub key: String,
    /// Whether that key was given, rather than found beside the log, where a forger could have put it.
    pub key_was_given: bool,
    /// Everything that does not agree; empty: the log is proved.
    pub mismatches: Vec<Mismatch>,
}

/// One thing that does not agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// The record's number, where one record is to blame.
    pub record: Option<u64>,
    /// What is wrong with it.
    pub why: String,
}

impl Report {
    /// Whether everything agrees.
    pub fn is_proved(&self) -> bool {
        self.mismatches.is_empty()
    }
}

/// Checks the log in `dir` without writing. With a `key`, only checkpoints signed by it count. `kept` is a checkpoint that
/// the auditor took home earlier: the log must still begin with what that one signs (RFC 6962, section 2.1.2).
///
/// # Errors
/// [`LogError`] when there is no checkpoint to check against or a file cannot be read; what merely does not
/// agree is in the report.
pub fn verify_dir(dir: &Path, key: Option<&PublicKey>, kept: Option<&str>) -> Result<Report, LogError> {
    let note_path = dir.join("checkpoint");
    let bytes = std::fs::read(&note_path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => LogError::NoCheckpoint(note_path.clone()),
        _ => LogError::io("read", &note_path)(source),
    })?;
    let note = String::from_utf8_lossy(&bytes);
    let refused = |source| LogError::Note {
        path: note_path.clone(),
        source,
    };
    let claimed = Checkpoint::read_unverified(&note).map_err(refused)?;
    let verifier = match key {
        Some(key) => VerifierKey::new(&claimed.origin, *key),
        None => {
            let path = dir.join("vkey");
            let text = std::fs::read(&path).map_err(LogError::io("read", &path))?;
            let parsed = String::from_utf8_lossy(&text).parse();
            parsed.map_err(|source| LogError::Note { path, source })?
        }
    };
    let mut mismatches = Vec::new();
    if let Err(error) = Checkpoint::open(&note, &verifier) {
        mismatches.push(Mismatch {
            record: None,
            why: error.to_string(),
        });
    }
    let content = Content::read(dir, claimed.size)?;
    content.compare(&claimed, &mut mismatches);
    check_upper_tiles(dir, &content, &mut mismatches)?;
    if let Some(kept) = kept {
        mismatches.extend(
            content
                .disagreement(kept, &verifier)
                .map(|why| Mismatch { record: None, why }),
        );
    }
    Ok(Report {
        origin: claimed.origin,
        size: claimed.size,
        root: hex::encode(claimed.root),
        key: verifier.to_string(),
        key_was_given: key.is_some(),
        mismatches,
    })
}

/// What the files say about each record.
struct Content {
    /// From `tile/0`; `None` where the tile is cut off.
    stored: Vec<Option<Hash>>,
    /// From the entries; `None` where the bundle is cut off.
    computed: Vec<Option<Hash>>,
    /// Entries that are no statement although their hash holds.
    foreign: Vec<(u64, String)>,
}

impl Content {
    fn read(dir: &Path, size: u64) -> Result<Self, LogError> {
        let mut content = Self {
            stored: Vec::new(),
            computed: Vec::new(),
            foreign: Vec::new(),
        };
        for tile in 0..size.div_ceil(TILE) {
            let width = (size - tile * TILE).min(TILE) as usize;
            let hashes = read_lenient(&dir.join(hash_path(0, tile)))?;
            let (hashes, _) = hashes.as_chunks::<32>();
            let stored: Vec<Option<Hash>> = (0..width).map(|i| hashes.get(i).copied()).collect();
            let bundle = read_lenient(&dir.join(bundle_path(tile)))?;
            let mut rest = bundle.as_slice();
            for (index, hash) in (tile * TILE..).zip(&stored) {
                let Some((entry, after)) = next_entry(rest, hash.as_ref()) else {
                    content.computed.push(None);
                    continue;
                };
                rest = after;
                let computed = entry.map(leaf_hash);
                if let Some(bytes) = entry
                    && computed == *hash
                    && let Err(error) = Record::decode(bytes)
                {
                    content.foreign.push((index, error.to_string()));
                }
                content.computed.push(computed);
            }
            content.stored.extend(stored);
        }
        Ok(content)
    }

    fn compare(&self, claimed: &Checkpoint, mismatches: &mut Vec<Mismatch>) {
        let stored_root = root_of(&self.stored);
        let computed_root = root_of(&self.computed);
        for (index, (stored, computed)) in (0..).zip(self.stored.iter().zip(&self.computed)) {
            let why = match (stored, computed) {
                (Some(stored), Some(computed)) if stored == computed => continue,
                (None, None) => "the record and its hash are missing",
                (None, Some(_)) => "its hash is missing from the tree's tiles",
                (Some(_), None) => "the record is missing or its length was altered",
                _ if computed_root == Some(claimed.root) => "its hash in the tree's tiles was altered",
                _ => "the record was altered: it does not have the hash that the tree holds",
            };
            mismatches.push(Mismatch {
                record: Some(index),
                why: why.to_owned(),
            });
        }
        for (index, why) in &self.foreign {
            mismatches.push(Mismatch {
                record: Some(*index),
                why: format!("the record is not a statement: {why}"),
            });
        }
        let proved = [stored_root, computed_root].contains(&Some(claimed.root));
        if !proved && mismatches.is_empty() {
            let why = format!(
                "the {} records do not have the root that the checkpoint signs",
                claimed.size
            );
            mismatches.push(Mismatch { record: None, why });
        }
    }
}

impl Content {
    /// Why a checkpoint that was kept is not the beginning of this log.
    fn disagreement(&self, kept: &str, verifier: &VerifierKey) -> Option<String> {
        let kept = match Checkpoint::open(kept, verifier) {
            Ok(kept) => kept,
            Err(error) => return Some(format!("the checkpoint that was kept: {error}")),
        };
        let root = usize::try_from(kept.size)
            .ok()
            .and_then(|size| root_of(self.computed.get(..size)?));
        (root != Some(kept.root)).then(|| {
            format!(
                "the log does not begin with the {} records of the checkpoint that was kept: it was cut or written anew",
                kept.size
            )
        })
    }
}

fn root_of(hashes: &[Option<Hash>]) -> Option<Hash> {
    let hashes: Option<Vec<Hash>> = hashes.iter().copied().collect();
    hashes.map(|hashes| Tree::from_leaves(hashes).root())
}

/// The next entry of a bundle and what follows it. When the bytes at the stated length do not have the expected
/// hash, other lengths are tried, so that an altered length costs one record and not the rest of its bundle: the
/// entry is then `None`.
fn next_entry<'b>(bytes: &'b [u8], expected: Option<&Hash>) -> Option<(Option<&'b [u8]>, &'b [u8])> {
    let (length, body) = bytes.split_first_chunk::<2>()?;
    let stated = body.split_at_checked(usize::from(u16::from_be_bytes(*length)));
    if let Some((entry, rest)) = stated
        && expected.is_none_or(|expected| leaf_hash(entry) == *expected)
    {
        return Some((Some(entry), rest));
    }
    let mut hasher = Sha256::new().chain_update([0x00]);
    for end in 0..=body.len().min(usize::from(u16::MAX)) {
        let hash: Hash = hasher.clone().finalize().into();
        if Some(&hash) == expected {
            return Some((None, &body[end..]));
        }
        if let Some(byte) = body.get(end) {
            hasher.update([*byte]);
        }
    }
    stated.map(|(entry, rest)| (Some(entry), rest))
}

/// Tiles above level 0 are a convenience for clients, but a false one would mislead them.
fn check_upper_tiles(dir: &Path, content: &Content, mismatches: &mut Vec<Mismatch>) -> Result<(), LogError> {
    let Some(leaves) = content.stored.iter().copied().collect::<Option<Vec<Hash>>>() else {
        return Ok(());
    };
    let tree = Tree::from_leaves(leaves);
    for level in 1..8u32 {
        let height = level * TILE_HEIGHT;
        let nodes = tree.size() >> height;
        for tile in 0..nodes.div_ceil(TILE) {
            let path = hash_path(level, tile);
            let bytes = read_lenient(&dir.join(&path))?;
            let (found, _) = bytes.as_chunks::<32>();
            for node in tile * TILE..nodes.min((tile + 1) * TILE) {
                if found.get((node % TILE) as usize).copied() != tree.complete(height as usize, node) {
                    let (first, last) = (node << height, ((node + 1) << height) - 1);
                    let why = format!("{path} disagrees with the hashes of records {first} to {last}");
                    mismatches.push(Mismatch { record: None, why });
                }
            }
        }
    }
    Ok(())
}

/// A missing file is a finding, not a failure.
fn read_lenient(path: &Path) -> Result<Vec<u8>, LogError> {
    match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(LogError::io("read", path)),
    }
}
