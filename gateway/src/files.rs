//! Small private files that survive a crash: written beside, synced, renamed, and the folder synced.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::KeysError;

const OWNER_ONLY: u32 = 0o600;

/// Replaces `path` by `bytes`, readable by its owner alone; after an `Ok` the new content survives a power cut.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), KeysError> {
    let fail = |source| KeysError::Io {
        action: "write",
        path: path.to_owned(),
        source,
    };
    orrery_bus::fs::replace(path, bytes, OWNER_ONLY).map_err(fail)
}

/// [`replace`] for async callers: the disk may take its time.
pub async fn replace_in_background(path: PathBuf, bytes: Vec<u8>) -> Result<(), KeysError> {
    let named = path.clone();
    tokio::task::spawn_blocking(move || replace(&path, &bytes))
        .await
        .unwrap_or_else(|error| {
            Err(KeysError::Io {
                action: "write",
                path: named,
                source: io::Error::other(error),
            })
        })
}

/// Reads `path`, `None` when it does not exist; takes away the rights that others have on it.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, KeysError> {
    let fail = |source| KeysError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    if metadata.permissions().mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "others could read this file; its rights are now 0600");
        fs::set_permissions(path, fs::Permissions::from_mode(OWNER_ONLY)).map_err(fail)?;
    }
    fs::read(path).map(Some).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_private_and_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys/secret");
        replace(&path, b"first").unwrap();
        replace(&path, b"second").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"second");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!folder.path().join("keys/secret.new").exists());
    }

    #[test]
    fn loose_rights_are_taken_away_and_an_absent_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loose");
        assert!(read(&path).unwrap().is_none());
        fs::write(&path, b"x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        read(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
