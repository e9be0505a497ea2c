//! A filesystem in memory that misbehaves on request: for tests of whoever promises durability.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{File, FileSystem};

/// A filesystem in memory. Clones share it; what is not synced does not surely survive [`MemoryFs::crash`].
#[derive(Clone, Default)]
pub struct MemoryFs {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Default)]
struct Disk {
    /// What programs see.
    names: BTreeMap<PathBuf, Inode>,
    /// What a crash leaves of the names.
    durable_names: BTreeMap<PathBuf, Inode>,
    capacity: Option<usize>,
    fail_syncs: usize,
    short_writes: usize,
    syncs: u64,
    /// Rises at a crash: files opened before it are dead.
    life: u64,
}

type Inode = Arc<Mutex<Content>>;

#[derive(Default)]
struct Content {
    bytes: Vec<u8>,
    durable: Vec<u8>,
}

impl MemoryFs {
    /// An empty filesystem without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The power fails: of what was not synced, `fate` decides. For each file it is asked with the number of
    /// unsynced bytes and answers how many of them reached the disk and whether the rest of the file's new
    /// length is there too, filled with zeros. Names that were not synced are gone. Files opened before are dead.
    pub fn crash(&self, mut fate: impl FnMut(usize) -> (usize, bool)) {
        let mut disk = self.lock();
        disk.life += 1;
        disk.names = disk.durable_names.clone();
        for inode in disk.names.values() {
            let mut content = lock(inode);
            let safe = content.durable.len().min(content.bytes.len());
            let unsynced = content.bytes.len() - safe;
            let (kept, zero_filled) = fate(unsynced);
            let kept = safe + kept.min(unsynced);
            let mut after = content.durable[..safe].to_vec();
            let written = content.bytes[safe..kept].to_vec();
            after.extend_from_slice(&written);
            if zero_filled {
                after.resize(content.bytes.len(), 0);
            }
            content.bytes = after.clone();
            content.durable = after;
        }
    }

    /// Flips one bit of a file, on the disk and in every reader's eyes.
    pub fn flip(&self, path: &Path, byte: usize, bit: u8) {
        let disk = self.lock();
        if let Some(inode) = disk.names.get(path) {
            let mut content = lock(inode);
            let content = &mut *content;
            for bytes in [&mut content.bytes, &mut content.durable] {
                if let Some(target) = bytes.get_mut(byte) {
                    *target ^= 1 << (bit % 8);
                }
            }
        }
    }

    /// Limits all files together to this many bytes; `None` is a disk without end.
    pub fn set_capacity(&self, capacity: Option<usize>) {
        self.lock().capacity = capacity;
    }

    /// The next `count` syncs fail, and what they should have saved stays unsaved.
    pub fn fail_syncs(&self, count: usize) {
        self.lock().fail_syncs = count;
    }

    /// The next `count` writes stop half-way with an error.
    pub fn tear_writes(&self, count: usize) {
        self.lock().short_writes = count;
    }

    /// Every file with its length.
    pub fn files(&self) -> Vec<(PathBuf, usize)> {
        let disk = self.lock();
        disk.names
            .iter()
            .map(|(path, inode)| (path.clone(), lock(inode).bytes.len()))
            .collect()
    }

    /// Syncs of files so far: how well commits are grouped.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(inode: &Inode) -> MutexGuard<'_, Content> {
    inode.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FileSystem for MemoryFs {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let disk = self.lock();
        let inside = disk.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let disk = self.lock();
        let inode = disk.names.get(path).ok_or(io::ErrorKind::NotFound)?.clone();
        Ok(Arc::new(MemoryFile {
            fs: self.clone(),
            inode,
            life: disk.life,
        }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut disk = self.lock();
        if disk.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = Inode::default();
        disk.names.insert(path.to_owned(), inode.clone());
        Ok(Arc::new(MemoryFile {
            fs: self.clone(),
            inode,
            life: disk.life,
        }))
    }

    fn rename(&self, old: &Path, new: &Path) -> io::Result<()> {
        let mut disk = self.lock();
        let inode = disk.names.remove(old).ok_or(io::ErrorKind::NotFound)?;
        disk.names.insert(new.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.lock()
            .names
            .remove(path)
            .map(|_| ())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.lock();
        let inside = |path: &PathBuf| path.parent() == Some(dir);
        let now: Vec<_> = disk
            .names
            .iter()
            .filter(|(path, _)| inside(path))
            .map(|(p, i)| (p.clone(), i.clone()))
            .collect();
        disk.durable_names.retain(|path, _| !inside(path));
        disk.durable_names.extend(now);
        Ok(())
    }

    fn lock(&self, _dir: &Path) -> io::Result<Box<dyn Send + Sync>> {
        Ok(Box::new(()))
    }
}

struct MemoryFile {
    fs: MemoryFs,
    inode: Inode,
    life: u64,
}

impl MemoryFile {
    fn alive(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.fs.lock();
        if disk.life == self.life {
            Ok(disk)
        } else {
            Err(io::Error::other("the machine crashed since this file was opened"))
        }
    }
}

impl File for MemoryFile {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let _disk = self.alive()?;
        let content = lock(&self.inode);
        let start = usize::try_from(position).unwrap_or(usize::MAX).min(content.bytes.len());
        let got = buffer.len().min(content.bytes.len() - start);
        buffer[..got].copy_from_slice(&content.bytes[start..start + got]);
        Ok(got)
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.alive()?;
        let used: usize = disk.names.values().map(|inode| lock(inode).bytes.len()).sum();
        let mut content = lock(&self.inode);
        let start = usize::try_from(position).unwrap_or(usize::MAX);
        let room = disk.capacity.map_or(usize::MAX, |capacity| {
            capacity
                .saturating_sub(used)
                .saturating_add(content.bytes.len().saturating_sub(start))
        });
        let mut kept = bytes.len().min(room);
        let mut failure = (kept < bytes.len()).then(|| io::Error::from(io::ErrorKind::StorageFull));
        if disk.short_writes > 0 {
            disk.short_writes -= 1;
            kept = kept.min(bytes.len() / 2);
            failure = Some(io::Error::other("injected: the write stopped half-way"));
        }
        let end = start + kept;
        if content.bytes.len() < end {
            content.bytes.resize(end, 0);
        }
        content.bytes[start..end].copy_from_slice(&bytes[..kept]);
        failure.map_or(Ok(()), Err)
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.alive()?;
        disk.syncs += 1;
        if disk.fail_syncs > 0 {
            disk.fail_syncs -= 1;
            return Err(io::Error::other("injected: the sync failed"));
        }
        let mut content = lock(&self.inode);
        content.durable = content.bytes.clone();
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let _disk = self.alive()?;
        lock(&self.inode)
            .bytes
            .truncate(usize::try_from(len).unwrap_or(usize::MAX));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let _disk = self.alive()?;
        Ok(lock(&self.inode).bytes.len() as u64)
    }
}
