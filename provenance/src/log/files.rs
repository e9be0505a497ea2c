//! The few file operations of the log, each with its place in the error.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use orrery_bus::fs::{FileSystem, RealFs, replace};

use crate::LogError;

/// The tile that is being filled, open for appending. A full one is left for the next by its path.
#[derive(Default)]
pub struct TileFile {
    open: Option<(PathBuf, File)>,
}

impl TileFile {
    /// Opens a tile and cuts it to a length.
    pub fn open(path: &Path, length: u64) -> Result<Self, LogError> {
        let mut tile = Self::default();
        tile.switch_to(path)?;
        if let Some((path, file)) = &tile.open {
            file.set_len(length).map_err(LogError::io("cut", path))?;
        }
        Ok(tile)
    }

    /// Appends to the tile of this path.
    pub fn append(&mut self, path: &Path, bytes: &[u8]) -> Result<(), LogError> {
        if self.open.as_ref().is_none_or(|(open, _)| open != path) {
            self.sync()?;
            self.switch_to(path)?;
        }
        match &mut self.open {
            Some((path, file)) => file.write_all(bytes).map_err(LogError::io("append to", path)),
            None => Ok(()),
        }
    }

    /// Makes what was appended durable.
    pub fn sync(&mut self) -> Result<(), LogError> {
        match &self.open {
            Some((path, file)) => file.sync_data().map_err(LogError::io("sync", path)),
            None => Ok(()),
        }
    }

    fn switch_to(&mut self, path: &Path) -> Result<(), LogError> {
        let parent = path.parent().unwrap_or(Path::new("."));
        create_dir(parent)?;
        let is_new = !path.exists();
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .map_err(LogError::io("open", path))?;
        if is_new {
            sync_dir(parent)?;
        }
        self.open = Some((path.to_owned(), file));
        Ok(())
    }
}

/// Replaces a file so that a crash leaves the old or the new content.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), LogError> {
    replace(path, bytes, 0o644).map_err(LogError::io("replace", path))
}

/// Takes the folder for this process until the file is dropped.
pub fn lock(dir: &Path) -> Result<File, LogError> {
    let path = dir.join("lock");
    let opened = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = opened.map_err(LogError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(LogError::Locked { dir: dir.to_owned() }),
        Err(fs::TryLockError::Error(error)) => Err(LogError::io("lock", &path)(error)),
    }
}

pub fn create_dir(dir: &Path) -> Result<(), LogError> {
    RealFs.create_dir(dir).map_err(LogError::io("create the folder", dir))
}

pub fn read_to_end(path: &Path) -> Result<Vec<u8>, LogError> {
    fs::read(path).map_err(LogError::io("read", path))
}

/// The file's content, empty when there is no such file.
pub fn read_if_there(path: &Path) -> Result<Vec<u8>, LogError> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(LogError::io("read", path)),
    }
}

/// Removes the tiles after number `last`, which only an append that was not committed can have left.
pub fn remove_after(dir: &Path, path: impl Fn(u64) -> String, last: u64) -> Result<(), LogError> {
    for tile in last + 1.. {
        let path = dir.join(path(tile));
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            other => other.map_err(LogError::io("remove", &path))?,
        }
    }
    Ok(())
}

fn sync_dir(dir: &Path) -> Result<(), LogError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(LogError::io("sync the folder", dir))
}
