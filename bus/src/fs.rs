//! The small filesystem that the journal stands on: the host's, or one in memory that can crash, tear,
//! flip and fill up.
//!
//! The contract is POSIX's: bytes survive a crash once [`File::sync`] returned, names once
//! [`FileSystem::sync_dir`] returned. Every call may block.

mod memory;
mod real;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use memory::MemoryFs;
pub use real::RealFs;

/// What the journal needs of a filesystem.
pub trait FileSystem: Send + Sync {
    /// Creates a folder and its parents, durably.
    ///
    /// # Errors
    /// The filesystem's own.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// The names of the files directly in a folder.
    ///
    /// # Errors
    /// The filesystem's own.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Opens a file that exists.
    ///
    /// # Errors
    /// The filesystem's own.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Creates a file that does not exist.
    ///
    /// # Errors
    /// The filesystem's own.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Gives a file another name in the same folder, replacing what had it.
    ///
    /// # Errors
    /// The filesystem's own.
    fn rename(&self, old: &Path, new: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The filesystem's own.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// The filesystem's own.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes a folder for this process until the guard is dropped.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when another process holds it.
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// An open file, read and written at positions.
#[expect(
    clippy::len_without_is_empty,
    reason = "a length in bytes; nobody asks whether a file is empty"
)]
pub trait File: Send + Sync {
    /// Reads what is there, up to the buffer's length; less only at the end of the file.
    ///
    /// # Errors
    /// The filesystem's own.
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all bytes at a position. After an error any prefix may have been written.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] when there is no room.
    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes content and length durable.
    ///
    /// # Errors
    /// The filesystem's own. What was written since the last success may be gone.
    fn sync(&self) -> io::Result<()>;

    /// Cuts the file to a length.
    ///
    /// # Errors
    /// The filesystem's own.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// The file's length.
    ///
    /// # Errors
    /// The filesystem's own.
    fn len(&self) -> io::Result<u64>;
}

/// Replaces a small file's content so that a crash leaves either the old or the new, never a mixture.
///
/// # Errors
/// The filesystem's own.
pub fn write_atomically(fs: &dyn FileSystem, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = beside(path);
    match fs.remove(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = fs.create(&new)?;
    file.write_at(0, bytes)?;
    file.sync()?;
    fs.rename(&new, path)?;
    fs.sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Replaces a file of the host with these rights (such as `0o600`), and makes its folder: after an `Ok` the new content survives
/// a power cut, after a crash the old or the new is there. Blocks.
///
/// # Errors
/// The filesystem's own.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folder = parent.unwrap_or(Path::new("."));
    RealFs.create_dir(folder)?;
    let beside = beside(path);
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    RealFs.sync_dir(folder)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// Reads a whole small file.
///
/// # Errors
/// The filesystem's own.
pub fn read_all(fs: &dyn FileSystem, path: &Path) -> io::Result<Vec<u8>> {
    let file = fs.open(path)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(usize::MAX)];
    let got = file.read_at(0, &mut bytes)?;
    bytes.truncate(got);
    Ok(bytes)
}
