//! The bus in one process: a journal per topic, one partition each.
//!
//! ```text
//! <folder>/<topic>/…            the topic's journal
//! <folder>/.groups/<group>@<topic>
//!   0  8  magic "ORRYGRP" 0x01     8  8  next offset, little-endian     16  4  crc32c of bytes 0..16
//! ```

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use orrery_protocol::Clock;
use tokio::sync::Mutex;

use crate::bus::{blocking, check_name, check_sizes, start_at};
use crate::fs::{FileSystem, RealFs, read_all, write_atomically};
use crate::journal::{Journal, JournalError, JournalOptions, Stats};
use crate::{Bus, BusError, From, Message, Position, Record, Subscription};

/// How much one `next` returns at most, give or take a record.
const BATCH_BYTES: usize = 1024 * 1024;
const GROUP_MAGIC: [u8; 8] = *b"ORRYGRP\x01";

/// A [`Bus`] of embedded journals. Only one process can have the folder.
pub struct JournalBus {
    fs: Arc<dyn FileSystem>,
    folder: PathBuf,
    options: JournalOptions,
    clock: Arc<dyn Clock>,
    topics: Mutex<HashMap<String, Arc<Journal>>>,
    /// Commits replace files, so two of one group must not interleave.
    commits: Arc<std::sync::Mutex<()>>,
    _lock: Box<dyn Send + Sync>,
}

impl JournalBus {
    /// Opens the bus in a folder of the host's filesystem, creating it if need be.
    ///
    /// # Errors
    /// [`BusError::Journal`] when the folder cannot be used or another process has it.
    pub async fn open(folder: &Path, options: JournalOptions, clock: Arc<dyn Clock>) -> Result<Self, BusError> {
        Self::open_in(Arc::new(RealFs), folder, options, clock).await
    }

    /// The same on any filesystem.
    ///
    /// # Errors
    /// As [`JournalBus::open`].
    pub async fn open_in(
        fs: Arc<dyn FileSystem>,
        folder: &Path,
        options: JournalOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BusError> {
        let folder = folder.to_owned();
        blocking(move || {
            let groups = folder.join(".groups");
            fs.create_dir(&groups)
                .map_err(|e| JournalError::io("create the folder", &groups, e))?;
            let lock = fs.lock(&folder).map_err(|e| JournalError::locked(&folder, e))?;
            let (topics, commits) = (Mutex::default(), Arc::default());
            Ok(Self {
                fs,
                folder,
                options,
                clock,
                topics,
                commits,
                _lock: lock,
            })
        })
        .await
    }

    /// Counters of every topic opened so far.
    pub async fn stats(&self) -> Vec<(String, Stats)> {
        let topics = self.topics.lock().await;
        let mut stats: Vec<_> = topics
            .iter()
            .map(|(name, journal)| (name.clone(), journal.stats()))
            .collect();
        stats.sort_by(|a, b| a.0.cmp(&b.0));
        stats
    }

    async fn journal(&self, topic: &str) -> Result<Arc<Journal>, BusError> {
        check_name("topic", topic)?;
        let mut topics = self.topics.lock().await;
        if let Some(journal) = topics.get(topic) {
            return Ok(Arc::clone(journal));
        }
        let (fs, clock, options) = (Arc::clone(&self.fs), Arc::clone(&self.clock), self.options.clone());
        let folder = self.folder.join(topic);
        let journal = blocking(move || Ok(Arc::new(Journal::open_in(fs, &folder, options, clock)?))).await?;
        topics.insert(topic.to_owned(), Arc::clone(&journal));
        Ok(journal)
    }

    fn group_file(&self, group: &str, topic: &str) -> Result<PathBuf, BusError> {
        check_name("group", group)?;
        check_name("topic", topic)?;
        Ok(self.folder.join(".groups").join(format!("{group}@{topic}")))
    }
}

#[async_trait]
impl Bus for JournalBus {
    async fn publish(&self, topic: &str, records: Vec<Record>) -> Result<Vec<Position>, BusError> {
        check_sizes(topic, &records)?;
        let offsets = self.journal(topic).await?.append(records).await?;
        Ok(offsets.map(|offset| Position { partition: 0, offset }).collect())
    }

    async fn subscribe(&self, topic: &str, from: From) -> Result<Box<dyn Subscription>, BusError> {
        let journal = self.journal(topic).await?;
        let end = journal.next_offset();
        let within = |position: &Position| start_at(topic, *position, 0, end);
        let next = match from {
            From::Earliest => 0,
            From::Latest => end,
            From::Offsets(positions) => {
                if let Some(stray) = positions.iter().find(|position| position.partition != 0) {
                    return Err(BusError::NoPartition {
                        topic: topic.to_owned(),
                        partition: stray.partition,
                    });
                }
                positions.first().map_or(0, within)
            }
            From::Group(group) => self.committed(&group, topic).await?.first().map_or(0, within),
        };
        Ok(Box::new(JournalSubscription {
            journal,
            topic: topic.to_owned(),
            next,
        }))
    }

    async fn commit(&self, group: &str, topic: &str, position: Position) -> Result<(), BusError> {
        let path = self.group_file(group, topic)?;
        if position.partition != 0 {
            return Err(BusError::NoPartition {
                topic: topic.to_owned(),
                partition: position.partition,
            });
        }
        let mut bytes = [GROUP_MAGIC, position.offset.to_le_bytes()].concat();
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        let (fs, commits) = (Arc::clone(&self.fs), Arc::clone(&self.commits));
        blocking(move || {
            let _one_at_a_time = commits.lock();
            write_atomically(fs.as_ref(), &path, &bytes)
                .map_err(|e| JournalError::io("store the group's offset of", &path, e).into())
        })
        .await
    }

    async fn committed(&self, group: &str, topic: &str) -> Result<Vec<Position>, BusError> {
        let path = self.group_file(group, topic)?;
        let fs = Arc::clone(&self.fs);
        blocking(move || {
            let bytes = match read_all(fs.as_ref(), &path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(JournalError::io("read the group's offset of", &path, error).into()),
            };
            let offset = parse_commit(&bytes);
            if offset.is_none() {
                // Delivery is at-least-once: starting over is right, stopping is not.
                tracing::warn!(file = %path.display(), "a group's stored offset is damaged: the group starts over");
            }
            Ok(offset
                .map(|offset| Position { partition: 0, offset })
                .into_iter()
                .collect())
        })
        .await
    }

    async fn end(&self, topic: &str) -> Result<Vec<Position>, BusError> {
        let offset = self.journal(topic).await?.next_offset();
        Ok(vec![Position { partition: 0, offset }])
    }
}

struct JournalSubscription {
    journal: Arc<Journal>,
    topic: String,
    next: u64,
}

#[async_trait]
impl Subscription for JournalSubscription {
    async fn next(&mut self) -> Result<Vec<Message>, BusError> {
        loop {
            self.journal.wait(self.next).await;
            let (journal, from) = (Arc::clone(&self.journal), self.next);
            let batch = blocking(move || Ok(journal.read(from, BATCH_BYTES)?)).await?;
            self.next = batch.next;
            if batch.entries.is_empty() {
                continue;
            }
            let message = |entry: crate::journal::Entry| Message {
                topic: self.topic.clone(),
                partition: 0,
                offset: entry.offset,
                key: entry.record.key,
                headers: entry.record.headers,
                value: entry.record.value,
                appended: entry.appended,
            };
            return Ok(batch.entries.into_iter().map(message).collect());
        }
    }
}

fn parse_commit(bytes: &[u8]) -> Option<u64> {
    let (content, crc) = bytes.split_at_checked(16)?;
    let sound = content[..8] == GROUP_MAGIC && crc == crc32c::crc32c(content).to_le_bytes();
    if sound {
        Some(u64::from_le_bytes(content[8..].try_into().ok()?))
    } else {
        None
    }
}
