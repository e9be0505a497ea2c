//! The data folder: one process owns it, and tells others of its user where it answers.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use orrery_bus::fs::replace;
use orrery_protocol::SealKey;
use serde::{Deserialize, Serialize};

use crate::error::{Exit, Failure};

/// A data folder that this process owns until the value is dropped.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    // Held for its lock.
    _lock: File,
}

/// How to reach the process that owns a folder; the file is readable by its user alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The address of the page and the API.
    pub url: String,
    /// The operator's token.
    pub token: String,
    /// The process.
    pub pid: u32,
}

/// What stands at a data folder right now.
pub enum State {
    /// A process owns it and answers here.
    Running(Endpoint),
    /// Nobody owns it: it is this process's to read until the value is dropped.
    Stopped(Folder),
}

impl Folder {
    /// Takes the folder, making it when it is not there.
    ///
    /// # Errors
    /// `Conflict` when another process owns it, with the process and its address.
    pub fn own(root: &Path) -> Result<Self, Failure> {
        private_dir(root)?;
        match Self::lock(root)? {
            Some(folder) => Ok(folder),
            None => {
                let who = read_endpoint(root).map_or_else(String::new, |owner| {
                    format!(" (process {}, at {})", owner.pid, owner.url)
                });
                let message = format!(
                    "{} belongs to a running Orrery{who}: stop that one, or give another folder with --data",
                    root.display()
                );
                Err(Failure::new(Exit::Conflict, message))
            }
        }
    }

    /// Finds the owner of an existing folder, or takes the folder when there is none.
    ///
    /// # Errors
    /// `NotFound` when there is no such data folder, `Unreachable` when its owner has not said where it answers.
    pub fn find(root: &Path) -> Result<State, Failure> {
        if !root.join(LOCK).exists() {
            let message = format!(
                "{} is not a data folder of Orrery: start one with `orrery up --data {}`, or name another with --data",
                root.display(),
                root.display()
            );
            return Err(Failure::new(Exit::NotFound, message));
        }
        if let Some(folder) = Self::lock(root)? {
            return Ok(State::Stopped(folder));
        }
        let endpoint = read_endpoint(root).ok_or_else(|| {
            let message = format!(
                "an Orrery owns {} and has not opened its address yet: try again",
                root.display()
            );
            Failure::new(Exit::Unreachable, message)
        })?;
        Ok(State::Running(endpoint))
    }

    fn lock(root: &Path) -> Result<Option<Self>, Failure> {
        let path = root.join(LOCK);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| cannot("open", &path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self {
                root: root.to_owned(),
                _lock: file,
            })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(cannot("lock", &path, &error)),
        }
    }

    /// A place inside the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Tells other processes of this user where this one answers.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn announce(&self, endpoint: &Endpoint) -> Result<(), Failure> {
        let bytes = serde_json::to_vec(endpoint).map_err(Failure::from_error)?;
        write_private(&self.path(ENDPOINT), &bytes)
    }

    /// Withdraws the announcement.
    pub fn withdraw(&self) {
        let _ = fs::remove_file(self.path(ENDPOINT));
    }

    /// A signing key kept in `keys/<name>.key`, made from the system's randomness on first use.
    ///
    /// # Errors
    /// When the file cannot be read or written, or is not 32 bytes in hexadecimal.
    pub fn key(&self, name: &str) -> Result<SealKey, Failure> {
        let path = self.path("keys").join(format!("{name}.key"));
        let remedy = "restore it from a backup, or remove it to get a new key under which nothing earlier verifies";
        orrery_edge_agent::keys::seed_file(&path, remedy).map_err(Failure::from_error)
    }
}

const LOCK: &str = "owner.lock";
const ENDPOINT: &str = "endpoint.json";

fn read_endpoint(root: &Path) -> Option<Endpoint> {
    serde_json::from_slice(&fs::read(root.join(ENDPOINT)).ok()?).ok()
}

/// Makes a folder that only its user may enter, with its parents.
pub fn private_dir(path: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| cannot("make", path, &error))
}

/// Writes a file that only its user may read, durably and in one step.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    replace(path, bytes, 0o600).map_err(|error| cannot("write", path, &error))
}

fn cannot(verb: &str, path: &Path, error: &std::io::Error) -> Failure {
    let advice = "check its owner and permissions, or give another folder with --data";
    Failure::new(
        Exit::Failure,
        format!("cannot {verb} {}: {error}; {advice}", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_owns_a_folder_and_others_find_it() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().join("data");
        assert_eq!(Folder::find(&root).err().unwrap().exit, Exit::NotFound);
        let folder = Folder::own(&root).unwrap();
        assert_eq!(Folder::find(&root).err().unwrap().exit, Exit::Unreachable);
        let endpoint = Endpoint {
            url: "http://127.0.0.1:1".to_owned(),
            token: "t".to_owned(),
            pid: 7,
        };
        folder.announce(&endpoint).unwrap();
        let conflict = Folder::own(&root).err().unwrap();
        assert_eq!(conflict.exit, Exit::Conflict);
        assert!(conflict.message.contains("process 7"), "{conflict}");
        assert!(matches!(Folder::find(&root).unwrap(), State::Running(found) if found == endpoint));
        drop(folder);
        assert!(matches!(Folder::find(&root).unwrap(), State::Stopped(_)));
    }

    #[test]
    fn a_key_is_made_once_and_a_damaged_one_is_named() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::own(temporary.path()).unwrap();
        let key = folder.key("control").unwrap();
        assert_eq!(folder.key("control").unwrap().public(), key.public());
        fs::write(folder.path("keys/control.key"), "zz").unwrap();
        assert!(
            folder
                .key("control")
                .err()
                .unwrap()
                .message
                .contains("control.key is damaged")
        );
    }
}
