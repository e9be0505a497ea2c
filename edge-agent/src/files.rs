//! Small files that must survive a crash whole: written beside, fsynced, renamed.

use std::fs::Permissions;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use orrery_bus::fs::replace;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// Makes a folder that only its owner can enter, and its parents.
pub(crate) fn make_folder(path: &Path) -> Result<(), Error> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(at("make the folder", path))
}

/// Replaces a file durably; only its owner can read it.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    replace(path, bytes, 0o600).map_err(at("write", path))
}

/// Reads a file; none when there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at("read", path)(error)),
    }
}

/// Removes a file that may be there.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Takes away what others than its owner may do with a file.
///
/// # Errors
/// Names the file whose rights cannot be changed.
pub(crate) fn make_private(path: &Path) -> Result<(), Error> {
    let tighten = || {
        let mode = std::fs::metadata(path)?.permissions().mode() & 0o777;
        if mode & 0o077 == 0 {
            return Ok(());
        }
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        tracing::warn!(
            "{} could be used by others ({mode:04o}): it is for its owner alone now (0600)",
            path.display()
        );
        Ok(())
    };
    tighten().map_err(at("take the rights of others from", path))
}

/// Replaces a JSON file durably.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let bytes = serde_json::to_vec_pretty(value).map_err(|error| at("write", path)(error.into()))?;
    write(path, &bytes)
}

/// Reads a JSON file; none when there is none.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, remedy: &'static str) -> Result<Option<T>, Error> {
    let Some(bytes) = read(path)? else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Error::Damaged {
            path: path.to_owned(),
            what: error.to_string(),
            remedy,
        })
}

fn at(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { doing, path, source }
}
