//! One Ed25519 key per device, in files that only the agent's user can read.

use std::path::{Path, PathBuf};

use orrery_protocol::{DeviceId, SealKey};

use crate::error::Error;
use crate::files;

/// The key of a device: read from `<folder>/<device>.key`, or made there on first use.
///
/// # Errors
/// As [`seed_file`]. A damaged key is never replaced: the device is enrolled under it.
pub fn load_or_create(folder: &Path, device: &DeviceId) -> Result<SealKey, Error> {
    let remedy = "restore it from a backup, or remove it and enrol the device again under a new id";
    seed_file(&key_file(folder, device), remedy)
}

/// The key in a file, made there on first use. The file holds the 32-byte seed as 64 hexadecimal digits, for its owner alone:
/// looser rights are taken away.
///
/// # Errors
/// Names the file that cannot be read, written or understood; `remedy` says what to do about the last.
pub fn seed_file(path: &Path, remedy: &'static str) -> Result<SealKey, Error> {
    if let Some(bytes) = files::read(path)? {
        // A filesystem without rights still has keys that work.
        if let Err(error) = files::make_private(path) {
            tracing::warn!("{error}");
        }
        let text = String::from_utf8_lossy(&bytes);
        let seed = hex::decode(text.trim())
            .ok()
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        return seed
            .map(|seed| SealKey::from_seed(&seed))
            .ok_or_else(|| Error::Damaged {
                path: path.to_owned(),
                what: "it does not hold 64 hexadecimal digits".to_owned(),
                remedy,
            });
    }
    if let Some(folder) = path.parent() {
        files::make_folder(folder)?;
    }
    let mut seed = [0u8; 32];
    getrandom::fill(&mut seed).map_err(|error| Error::File {
        doing: "make a random key for",
        path: path.to_owned(),
        source: std::io::Error::other(error.to_string()),
    })?;
    files::write(path, hex::encode(seed).as_bytes())?;
    Ok(SealKey::from_seed(&seed))
}

fn key_file(folder: &Path, device: &DeviceId) -> PathBuf {
    folder.join(format!("{device}.key"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let device = DeviceId::new("d1").unwrap();
        let first = load_or_create(folder.path(), &device).unwrap();
        assert_eq!(load_or_create(folder.path(), &device).unwrap().public(), first.public());
        let file = key_file(folder.path(), &device);
        let mode = || std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(load_or_create(folder.path(), &device).unwrap().public(), first.public());
        assert_eq!(mode(), 0o600, "looser rights are taken away");
        let other = load_or_create(folder.path(), &DeviceId::new("d2").unwrap()).unwrap();
        assert_ne!(other.public(), first.public());
    }

    #[test]
    fn a_damaged_key_is_named_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let device = DeviceId::new("d1").unwrap();
        std::fs::write(key_file(folder.path(), &device), "not a key").unwrap();
        let error = load_or_create(folder.path(), &device).unwrap_err().to_string();
        assert!(
            error.contains("d1.key is damaged") && error.contains("enrol"),
            "{error}"
        );
        assert_eq!(std::fs::read(key_file(folder.path(), &device)).unwrap(), b"not a key");
    }
}
