//! Snapshots: what a graph needs to go on bit-identically, durable and checked.
//!
//! File layout: 8 bytes `ORRSNAP1`, 32 bytes SHA-256 of the rest, then CBOR of [`Snapshot`]. A file is written beside
//! its place, synced and renamed over it; one that does not read is set aside, never trusted and never fatal.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use orrery_bus::Position;
use orrery_bus::fs::replace;
use orrery_protocol::Digest;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::progress::State;

const MAGIC: &[u8; 8] = b"ORRSNAP1";

/// A graph's state between two ticks, with the places in the log that belong to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Version of the module's memory layout.
    pub abi: u32,
    /// Digest over graph and model; another one means another graph.
    pub identity: Digest,
    /// The next offsets of `orrery.aligned`.
    pub aligned: Vec<Position>,
    /// The next offsets of `orrery.traces`: everything this state computed lies below.
    pub traces: Vec<Position>,
    /// Progress.
    pub state: State,
    /// The node's persistent bytes; none between runs.
    #[serde(with = "hex_option")]
    pub node: Option<Vec<u8>>,
}

/// Bytes as one text rather than an array of numbers.
mod hex_option {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => serializer.serialize_str(&hex::encode(bytes)),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| hex::decode(text).map_err(serde::de::Error::custom))
            .transpose()
    }
}

impl Snapshot {
    /// Writes the snapshot durably: what was there before stays until this one is complete.
    ///
    /// # Errors
    /// [`Error::File`] names the file.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let mut body = Vec::new();
        ciborium::into_writer(self, &mut body).map_err(|error| Error::File {
            path: path.to_owned(),
            source: io::Error::other(error.to_string()),
        })?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&Digest::of(&body).0);
        bytes.extend_from_slice(&body);
        replace(path, &bytes, 0o600).map_err(|source| Error::File {
            path: path.to_owned(),
            source,
        })
    }

    /// Reads a snapshot; `None` when there is none. A damaged file is renamed to `*.damaged` and reported as none.
    ///
    /// # Errors
    /// [`Error::File`] when the file exists and cannot be read at all.
    pub fn read(path: &Path) -> Result<Option<Self>, Error> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(Error::File {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let checked = bytes.strip_prefix(MAGIC).and_then(|rest| rest.split_at_checked(32));
        let snapshot = checked
            .filter(|(sum, body)| Digest::of(body).0.as_slice() == *sum)
            .and_then(|(_, body)| ciborium::from_reader(body).ok());
        if snapshot.is_none() {
            set_aside(path, "damaged");
        }
        Ok(snapshot)
    }
}

/// Renames a snapshot that cannot be used, so that a person can look at it.
pub fn set_aside(path: &Path, why: &str) {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{why}"));
    tracing::warn!(file = %path.display(), why, "snapshot set aside; the graph starts anew from the log");
    if let Err(error) = fs::rename(path, PathBuf::from(aside)) {
        tracing::warn!(file = %path.display(), %error, "the snapshot could not be renamed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_is_set_aside_and_not_fatal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("twin.snapshot");
        assert_eq!(Snapshot::read(&path).unwrap(), None);
        let state = State {
            tick: 5,
            run: None,
            ended: false,
            streams: vec![],
            outputs: vec![f64::from_bits(0x3ff0_0000_0000_0001)],
            variance: vec![],
            parameters: Default::default(),
            events: vec![],
            script: Default::default(),
        };
        let snapshot = Snapshot {
            abi: orrery_lang::abi::ABI,
            identity: Digest([1; 32]),
            aligned: vec![],
            traces: vec![],
            state,
            node: Some(vec![1, 2, 3]),
        };
        snapshot.write(&path).unwrap();
        assert_eq!(Snapshot::read(&path).unwrap().as_ref(), Some(&snapshot));

        let mut bytes = fs::read(&path).unwrap();
        bytes[60] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(Snapshot::read(&path).unwrap(), None);
        assert!(!path.exists());
        assert!(folder.path().join("twin.snapshot.damaged").exists());
    }
}
