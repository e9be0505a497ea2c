//! The service: takes the topic into the log, once each, and knows whether everything is proved.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use orrery_bus::{From, Message, Position, Record as BusRecord, SharedBus};
use orrery_protocol::{Clock, Record, SealKey, TaiNanos, topics};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::index::{Index, ModelEntry};
use crate::tree::Hash;
use crate::{Config, Error, Log, LogError, Report, verify_dir};

/// Entries that are read at once for the index.
const INDEX_BATCH: u64 = 4_096;
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_LAST: Duration = Duration::from_secs(5);

/// What the service works with.
pub struct Deps {
    /// Where the topic is.
    pub bus: SharedBus,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The log that the routes show too.
    pub handle: Handle,
}

/// The log and its state, shared by the service and its routes.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    log: RwLock<Log>,
    index: RwLock<Index>,
    status: RwLock<Status>,
}

/// Whether the log can be relied on, and until when it knows everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// See [`State`].
    pub state: State,
    /// Everything published before this is in the log; `None` until that was true once.
    pub until: Option<TaiNanos>,
    /// Records that were no statement and went to the dead letters.
    pub refused: u64,
    /// What does not agree, when the state is [`State::Mismatch`].
    pub why: Option<String>,
    /// When every entry was last hashed again and held against the checkpoint; `None` until that ended.
    pub verified: Option<TaiNanos>,
}

/// What the log had at an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// How many entries.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
    /// The last model of each graph.
    pub models: Vec<ModelEntry>,
}

/// The state of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Every entry was checked at the start, and the log has everything that was published.
    Proved,
    /// The check of the entries at the start has not ended.
    Checking,
    /// There are published records that are not in the log yet.
    Behind,
    /// Entries, hashes and checkpoint do not agree. Nothing is added.
    Mismatch,
}

impl Handle {
    /// Opens the log. Blocks.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open(config: &Config, key: SealKey) -> Result<Self, LogError> {
        let log = Log::open(&config.folder, key, &config.origin)?;
        let status = Status {
            state: State::Checking,
            until: None,
            refused: 0,
            why: None,
            verified: None,
        };
        Ok(Self {
            shared: Arc::new(Shared {
                log: RwLock::new(log),
                index: RwLock::default(),
                status: RwLock::new(status),
            }),
        })
    }

    /// The log, for reading. Do not hold it across an await.
    pub fn log(&self) -> RwLockReadGuard<'_, Log> {
        self.shared.log.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state as the service last knew it.
    pub fn status(&self) -> Status {
        self.shared
            .status
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What the log had at an instant; `None` while its entries are not indexed yet, just after a start.
    ///
    /// # Errors
    /// [`LogError::Outside`] when the log is shorter than its index, which is a defect.
    pub fn moment(&self, at: TaiNanos) -> Result<Option<Moment>, LogError> {
        let log = self.log();
        let index = self.shared.index.read().unwrap_or_else(PoisonError::into_inner);
        if index.len() < log.size() {
            return Ok(None);
        }
        let size = index.size_at(at);
        Ok(Some(Moment {
            size,
            root: log.root_at(size)?,
            models: index.models_at(size),
        }))
    }

    /// Reads the entries that are not indexed yet. Blocks.
    fn catch_up_index(&self) -> Result<(), LogError> {
        loop {
            let next = (self.shared.index.read().unwrap_or_else(PoisonError::into_inner)).len();
            let entries = self.log().entries(next, INDEX_BATCH)?;
            if entries.is_empty() {
                return Ok(());
            }
            let mut index = self.shared.index.write().unwrap_or_else(PoisonError::into_inner);
            entries.iter().for_each(|entry| index.push(&entry.bytes));
        }
    }

    fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.shared.status.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn append(&self, entries: &[Vec<u8>], source: &str, consumed: BTreeMap<u32, u64>) -> Result<u64, LogError> {
        self.shared
            .log
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .append_from(entries, source, consumed)
            .inspect(|_| {
                let mut index = self.shared.index.write().unwrap_or_else(PoisonError::into_inner);
                entries.iter().for_each(|entry| index.push(entry));
            })
    }
}

/// Runs until `shutdown`: checks the log, then takes in what is published.
///
/// # Errors
/// [`Error`] when the log does not match itself or the bus cannot be read. A log that does not verify is no error:
/// the state says [`State::Mismatch`], nothing is added, and the routes go on showing it.
pub async fn run(config: Config, deps: Deps, shutdown: CancellationToken) -> Result<(), Error> {
    let Deps { bus, clock, handle } = deps;
    tokio::select! {
        checked = check(&handle, &*clock) => if !checked? {
            shutdown.cancelled().await;
            return Ok(());
        },
        () = shutdown.cancelled() => return Ok(()),
    }
    let mut intake = Intake::start(config, bus, clock, handle).await?;
    let mut subscription = intake.subscribe().await?;
    intake.compare_with_the_bus().await;
    let interval = Duration::from_millis(intake.config.check_interval_ms.max(1));
    let mut ticks = tokio::time::interval(intake.clock.real(interval));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            batch = subscription.next() => {
                tokio::select! {
                    () = shutdown.cancelled() => return Ok(()),
                    taken = intake.take(batch?) => taken?,
                }
                intake.compare_with_the_bus().await;
            }
            _ = ticks.tick() => intake.compare_with_the_bus().await,
        }
    }
}

/// Checks every entry; false when the log does not verify.
async fn check(handle: &Handle, clock: &dyn Clock) -> Result<bool, Error> {
    let checked = handle.clone();
    let found = blocking(move || {
        let (dir, key, damage) = {
            let log = checked.log();
            (
                log.dir().to_owned(),
                log.verifier_key().key,
                log.damage().map(str::to_owned),
            )
        };
        match damage {
            Some(why) => Ok(Some(why)),
            None => verify_dir(&dir, Some(&key), None).map(|report| summary(&report)),
        }
    });
    let Some(why) = found.await? else {
        let indexed = handle.clone();
        blocking(move || indexed.catch_up_index()).await?;
        let now = clock.wall();
        handle.update(|status| status.verified = Some(now));
        return Ok(true);
    };
    tracing::error!(
        why,
        "the provenance log does not verify; nothing is added to it, the rest runs on; `orrery provenance verify` names every record that differs"
    );
    handle.update(|status| (status.state, status.why) = (State::Mismatch, Some(why)));
    Ok(false)
}

/// The first finding of a report, if there is one.
fn summary(report: &Report) -> Option<String> {
    let first = report.mismatches.first()?;
    let place = first
        .record
        .map_or_else(String::new, |record| format!("record {record}: "));
    Some(format!(
        "{place}{} ({} findings in all)",
        first.why,
        report.mismatches.len()
    ))
}

/// The consumer's side: what was taken, and where to go on.
struct Intake {
    config: Config,
    bus: SharedBus,
    clock: Arc<dyn Clock>,
    handle: Handle,
    consumed: BTreeMap<u32, u64>,
}

impl Intake {
    async fn start(config: Config, bus: SharedBus, clock: Arc<dyn Clock>, handle: Handle) -> Result<Self, Error> {
        let mut consumed = handle.log().consumed(&config.source);
        let ends = bus.end(topics::PROVENANCE).await?;
        let is_past = |end: &Position| consumed.get(&end.partition).is_some_and(|offset| *offset > end.offset);
        if ends.iter().any(is_past) {
            tracing::warn!(
                topic = topics::PROVENANCE,
                "the topic is shorter than what the log took from it, so it is a new one: it is taken from its start"
            );
            consumed.clear();
        }
        Ok(Self {
            config,
            bus,
            clock,
            handle,
            consumed,
        })
    }

    async fn subscribe(&self) -> Result<Box<dyn orrery_bus::Subscription>, Error> {
        let at = |(&partition, &offset): (&u32, &u64)| Position { partition, offset };
        let positions = self.consumed.iter().map(at).collect();
        Ok(self.bus.subscribe(topics::PROVENANCE, From::Offsets(positions)).await?)
    }

    /// One batch is one append: one checkpoint and one set of syncs for all of it. A full disk or a bus that is away is
    /// waited out: the log is then behind, and whatever else runs in this process runs on.
    async fn take(&mut self, batch: Vec<Message>) -> Result<(), Error> {
        let mut entries = Vec::with_capacity(batch.len());
        let mut refused = Vec::new();
        for message in batch {
            self.consumed.insert(message.partition, message.offset + 1);
            match refusal(&message) {
                None => entries.push(message.value.to_vec()),
                Some(reason) => refused.push(dead_letter(message, &reason)),
            }
        }
        if !refused.is_empty() {
            let count = refused.len() as u64;
            tracing::warn!(
                count,
                "records on the provenance topic are no statements; they go to the dead letters"
            );
            self.handle.update(|status| status.refused += count);
        }
        let mut pause = RETRY_FIRST;
        while let Err(error) = self.try_to_keep(&entries, &mut refused).await {
            if let Error::Log(LogError::Damaged { .. }) = error {
                return Err(error);
            }
            if pause == RETRY_FIRST {
                tracing::error!(%error, "the provenance log cannot be written; trying again until it can");
            }
            self.handle.update(|status| status.state = State::Behind);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_LAST);
        }
        Ok(())
    }

    async fn try_to_keep(&self, entries: &[Vec<u8>], refused: &mut Vec<orrery_bus::Record>) -> Result<(), Error> {
        if !refused.is_empty() {
            self.bus.publish(topics::DEADLETTER, refused.clone()).await?;
            refused.clear();
        }
        let (handle, source, consumed) = (self.handle.clone(), self.config.source.clone(), self.consumed.clone());
        let entries = entries.to_vec();
        blocking(move || handle.append(&entries, &source, consumed)).await?;
        Ok(())
    }

    /// Whether the log has everything that was published by now.
    async fn compare_with_the_bus(&self) {
        let now = self.clock.wall();
        let complete = match self.bus.end(topics::PROVENANCE).await {
            Ok(ends) => ends
                .iter()
                .all(|end| self.consumed.get(&end.partition).copied().unwrap_or(0) >= end.offset),
            Err(error) => {
                tracing::warn!(%error, "the log cannot ask whether it has everything");
                false
            }
        };
        self.handle.update(|status| {
            status.state = if complete { State::Proved } else { State::Behind };
            if complete {
                status.until = Some(now);
            }
        });
    }
}

/// Why a message cannot be an entry.
fn refusal(message: &Message) -> Option<String> {
    let limit = usize::from(u16::MAX);
    if message.value.len() > limit {
        return Some(format!("{} bytes are above the limit of {limit}", message.value.len()));
    }
    Record::decode(&message.value).err().map(|error| error.to_string())
}

fn dead_letter(message: Message, reason: &str) -> BusRecord {
    let mut headers = message.headers;
    headers.push(("orrery_reason".to_owned(), reason.to_owned()));
    headers.push(("orrery_topic".to_owned(), message.topic));
    BusRecord {
        key: message.key,
        headers,
        value: message.value,
    }
}

/// Runs disk work off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is shutting down; nobody will read the answer.
        Err(_) => std::future::pending().await,
    }
}
