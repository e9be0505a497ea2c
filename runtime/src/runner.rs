//! One graph's task: the log in, ticks through the sandbox, traces out, snapshots behind.
//!
//! The order is always: publish, then snapshot. A crash in between repeats ticks from the last snapshot and publishes
//! the same rows again; what had been decided for them is read back from `orrery.traces` first.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use orrery_bus::{From, Message, Position, Record, SharedBus, Subscription};
use orrery_protocol::{AlignedBlock, Clock, Digest, MonoNanos, topics};
use tokio_util::sync::CancellationToken;

use crate::engine::ModelNode;
use crate::error::{Error, NodeError};
use crate::handle::{Activity, GraphHandle};
use crate::progress::{Blocked, Event, Progress};
use crate::replay::push_block;
use crate::snapshot::{Snapshot, set_aside};
use crate::trace::{TickTrace, TraceWriter, decision_of};

/// Ticks per visit to the worker thread while catching up.
const BATCH_TICKS: usize = 256;
/// The least real time before a stream of a sped-up clock is no longer waited for.
const PLAYBACK_PATIENCE: Duration = Duration::from_secs(2);

pub(crate) struct Runner {
    pub graph: Arc<GraphHandle>,
    pub bus: SharedBus,
    pub clock: Arc<dyn Clock>,
    pub snapshot_path: PathBuf,
    pub snapshot_every: Duration,
}

/// What the runner carries from one turn to the next.
struct Turn {
    progress: Progress<ModelNode>,
    /// Next offset per partition of `orrery.aligned`.
    aligned: BTreeMap<u32, u64>,
    waiting: Option<(i64, MonoNanos)>,
    saved_at: MonoNanos,
    ticks_since_save: u64,
    /// What the last block that lacked a bound channel was told to lack.
    lacking: Option<String>,
    /// Whether it was said that snapshots cannot be written.
    is_unsaved_told: bool,
}

/// How a visit to the worker thread ended.
enum Advanced {
    /// The ticks that were ready ran.
    On(Turn),
    /// The model failed at a tick.
    Failed(Turn),
    /// The worker panicked, and the state went with it.
    Lost,
}

impl Runner {
    /// Runs the graph until shutdown. One that fails says so in its state and waits for a reset.
    pub async fn run(self, shutdown: CancellationToken) {
        loop {
            match self.run_from_snapshot(&shutdown).await {
                Ok(()) if shutdown.is_cancelled() => return,
                Ok(()) => {}
                Err(error) => self.graph.set_activity(Activity::Failed(error.to_string())),
            }
            self.graph.set_vantage(None);
            if !self.is_reset(&shutdown).await {
                return;
            }
        }
    }

    /// Waits for a reset; false at shutdown. What else was asked stays asked.
    async fn is_reset(&self, shutdown: &CancellationToken) -> bool {
        let mut kept = Vec::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return false,
                () = self.graph.requested.notified() => kept.extend(self.graph.take_requests()),
            }
            if kept.contains(&Event::Reset) {
                kept.retain(|event| *event != Event::Reset);
                kept.into_iter().for_each(|event| self.graph.request(event));
                return true;
            }
        }
    }

    /// Goes on from the snapshot until shutdown, or until there is no state left to go on from.
    async fn run_from_snapshot(&self, shutdown: &CancellationToken) -> Result<(), Error> {
        let Some(mut turn) = self.resume(shutdown).await? else {
            return Ok(());
        };
        let positions = turn
            .aligned
            .iter()
            .map(|(partition, offset)| Position {
                partition: *partition,
                offset: *offset,
            })
            .collect();
        let from = if turn.aligned.is_empty() {
            From::Earliest
        } else {
            From::Offsets(positions)
        };
        let mut log = self.bus.subscribe(topics::ALIGNED, from).await?;
        let writer = TraceWriter::new(&self.graph.file.graph, &self.graph.layout);
        self.announce(&writer).await?;
        loop {
            turn = match self.advance(turn, &writer, shutdown).await? {
                Advanced::On(turn) => turn,
                Advanced::Failed(turn) => match self.revive(turn, log.as_mut(), shutdown).await? {
                    Some(turn) => turn,
                    None => return Ok(()),
                },
                Advanced::Lost => return Ok(()),
            };
            if shutdown.is_cancelled() {
                self.save(&mut turn).await;
                return Ok(());
            }
            let patience = self.patience(&mut turn);
            tokio::select! {
                () = shutdown.cancelled() => {
                    self.save(&mut turn).await;
                    return Ok(());
                }
                batch = log.next() => self.take(&mut turn, batch?),
                () = self.graph.requested.notified() => {
                    for event in self.graph.take_requests() {
                        turn.progress.request(event);
                    }
                }
                () = tokio::time::sleep(self.clock.real(patience)) => {}
            }
        }
    }

    async fn announce(&self, writer: &TraceWriter) -> Result<(), Error> {
        let descriptor = writer.descriptor();
        let record = Record::new(descriptor.stream.as_str().to_owned(), descriptor.encode());
        self.bus.publish(topics::STREAMS, vec![record]).await?;
        Ok(())
    }

    fn take(&self, turn: &mut Turn, batch: Vec<Message>) {
        for message in batch {
            let next = message.next_position();
            turn.aligned.insert(next.partition, next.offset);
            let known = |key: &[u8]| {
                self.graph
                    .layout
                    .streams
                    .iter()
                    .any(|stream| stream.id.as_str().as_bytes() == key)
            };
            if !known(&message.key) {
                continue;
            }
            match AlignedBlock::decode(&message.value) {
                Ok(block) => {
                    let lacking = self.graph.layout.lacking(&block);
                    if lacking.is_some() && lacking != turn.lacking {
                        tracing::warn!(graph = self.graph.id(), lacking, "a bound channel is not there");
                        turn.lacking = lacking;
                    }
                    let late = push_block(&mut turn.progress, &block);
                    self.graph.count(|statistics| statistics.late_rows += late);
                }
                Err(error) => {
                    self.graph.count(|statistics| statistics.unreadable_blocks += 1);
                    tracing::warn!(graph = self.graph.id(), offset = message.offset, %error, "aligned block skipped");
                }
            }
        }
    }

    /// Waits for a reset after the model failed, hearing the log all the while, so that the new run starts from what is
    /// measured then. The failed tick and those passed over stay without a trace. `None` at shutdown: the last snapshot
    /// stays as it is, and a restart meets the same log and says the same.
    async fn revive(
        &self,
        mut turn: Turn,
        log: &mut dyn Subscription,
        shutdown: &CancellationToken,
    ) -> Result<Option<Turn>, Error> {
        turn.progress.give_up();
        loop {
            turn.progress.pass_over();
            tokio::select! {
                () = shutdown.cancelled() => return Ok(None),
                batch = log.next() => self.take(&mut turn, batch?),
                () = self.graph.requested.notified() => {
                    let events = self.graph.take_requests();
                    let reset = events.contains(&Event::Reset);
                    events.into_iter().for_each(|event| turn.progress.request(event));
                    if reset {
                        break;
                    }
                }
            }
        }
        // A failed instance is in no defined state.
        let node = match self.graph.model.node(self.graph.file.graph.limits) {
            Ok(node) => node,
            Err(error) => {
                self.graph.set_activity(Activity::Failed(error.to_string()));
                return Ok(None);
            }
        };
        turn.progress = turn.progress.with_node(node);
        turn.waiting = None;
        self.graph.set_activity(Activity::Waiting("reset".to_owned()));
        Ok(Some(turn))
    }

    /// Runs every tick that is ready, publishes the rows, saves when due.
    async fn advance(
        &self,
        mut turn: Turn,
        writer: &TraceWriter,
        shutdown: &CancellationToken,
    ) -> Result<Advanced, Error> {
        loop {
            let Some((back, ticks, failure)) = compute(turn.progress).await else {
                self.graph.set_activity(Activity::Failed(
                    "its worker thread panicked; this is a defect, report it with the log".to_owned(),
                ));
                return Ok(Advanced::Lost);
            };
            turn.progress = back;
            self.publish(&ticks, writer, shutdown).await?;
            self.account(&mut turn, &ticks, failure.is_none());
            if let Some(error) = failure {
                self.graph.set_activity(Activity::Failed(error.to_string()));
                self.graph.set_vantage(None);
                return Ok(Advanced::Failed(turn));
            }
            if self.clock.monotonic().since(turn.saved_at) >= self.snapshot_every {
                self.save(&mut turn).await;
            }
            if ticks.len() < BATCH_TICKS || shutdown.is_cancelled() {
                return Ok(Advanced::On(turn));
            }
        }
    }

    fn account(&self, turn: &mut Turn, ticks: &[TickTrace], sound: bool) {
        if let Some(last) = ticks.last() {
            turn.ticks_since_save += ticks.len() as u64;
            self.graph.count(|statistics| {
                statistics.ticks += ticks.len() as u64;
                statistics.runs += ticks.iter().filter(|tick| tick.sequence == 0).count() as u64;
                let waived = |tick: &&TickTrace| tick.frontier.iter().any(|stream| stream.waived);
                statistics.ticks_waived += ticks.iter().filter(waived).count() as u64;
                statistics.last_tick = Some(last.time);
            });
        }
        if sound && !ticks.is_empty() {
            match turn.progress.vantage() {
                Ok(vantage) => self.graph.set_vantage(vantage),
                Err(error) => {
                    tracing::warn!(graph = self.graph.id(), %error, "no look ahead from this tick")
                }
            }
        }
        if turn.progress.state().run.is_some() {
            self.graph.set_activity(Activity::Running);
        } else {
            self.graph.set_vantage(None);
            self.graph
                .set_activity(Activity::Waiting(match (&turn.lacking, turn.progress.blocked()) {
                    (Some(lacking), Blocked { tick: None, .. }) => lacking.clone(),
                    (_, blocked) => blocked.to_string(),
                }));
        }
    }

    /// Publishes until it is durable; the bus being away is no reason to lose a tick.
    async fn publish(
        &self,
        ticks: &[TickTrace],
        writer: &TraceWriter,
        shutdown: &CancellationToken,
    ) -> Result<(), Error> {
        if ticks.is_empty() {
            return Ok(());
        }
        let key = writer.descriptor().stream.as_str().to_owned();
        let mut records = Vec::with_capacity(ticks.len());
        for tick in ticks {
            match writer.block(tick).and_then(|block| block.encode()) {
                Ok(bytes) => records.push(Record::new(key.clone(), bytes)),
                Err(error) => {
                    tracing::error!(graph = self.graph.id(), %error, "trace row does not encode")
                }
            }
        }
        let mut pause = Duration::from_millis(100);
        let mut was_told = false;
        loop {
            match self.bus.publish(topics::TRACES, records.clone()).await {
                Ok(_) if was_told => {
                    tracing::info!(graph = self.graph.id(), "traces are published again");
                    return Ok(());
                }
                Ok(_) => return Ok(()),
                Err(error) if shutdown.is_cancelled() => return Err(error.into()),
                Err(error) if !was_told => {
                    was_told = true;
                    tracing::warn!(graph = self.graph.id(), %error, "trace not published; trying again until it is")
                }
                Err(_) => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(self.clock.real(pause)) => {}
            }
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    /// Stops waiting for streams that are overdue; says how long until the next one could be.
    fn patience(&self, turn: &mut Turn) -> Duration {
        let idle = Duration::from_secs(1);
        let blocked = turn.progress.blocked();
        let Blocked {
            tick: Some(tick),
            time_moves: true,
            streams,
        } = blocked
        else {
            turn.waiting = None;
            return idle;
        };
        let now = self.clock.monotonic();
        let since = match turn.waiting {
            Some((waited_for, since)) if waited_for == tick => since,
            _ => now,
        };
        turn.waiting = Some((tick, since));
        let waited = now.since(since);
        let mut next = idle;
        for stream in self
            .graph
            .layout
            .streams
            .iter()
            .filter(|layout| streams.contains(&layout.id))
        {
            let most = Duration::from_nanos(u64::try_from(stream.max_wait_nanos).unwrap_or(0));
            // `max_wait` guards against a silent device, in the device's time. Under a sped-up clock a stall of this machine
            // would pass for one, so at least PLAYBACK_PATIENCE of real time must have gone by as well.
            let is_sped_up = self.clock.real(most) < most;
            let is_stalled = is_sped_up && self.clock.real(waited) < PLAYBACK_PATIENCE;
            if waited < most {
                next = next.min(most - waited);
            } else if is_stalled {
                next = next.min(most);
            } else if !turn.progress.is_waived(&stream.id) {
                tracing::info!(graph = self.graph.id(), stream = %stream.id, "not waited for any longer; its last values hold");
                turn.progress.waive(&stream.id);
                next = Duration::ZERO;
            }
        }
        next
    }

    /// Makes the state durable. A full disk or a bus that is away costs repeated ticks after a restart, not the graph.
    async fn save(&self, turn: &mut Turn) {
        turn.saved_at = self.clock.monotonic();
        if turn.ticks_since_save == 0 {
            return;
        }
        match self.snapshot_of(turn).await {
            Ok(()) => {
                turn.ticks_since_save = 0;
                turn.is_unsaved_told = false;
            }
            Err(error) if !turn.is_unsaved_told => {
                turn.is_unsaved_told = true;
                tracing::error!(graph = self.graph.id(), %error, "snapshots are not written; the last one stays");
            }
            Err(_) => {}
        }
    }

    async fn snapshot_of(&self, turn: &mut Turn) -> Result<(), Error> {
        let saved = turn.progress.save();
        let (state, node) = match saved {
            Ok(saved) => saved,
            Err(error) => {
                tracing::error!(graph = self.graph.id(), %error, "no snapshot taken");
                return Ok(());
            }
        };
        let snapshot = Snapshot {
            abi: orrery_lang::abi::ABI,
            identity: Digest(self.graph.layout.identity),
            aligned: turn
                .aligned
                .iter()
                .map(|(partition, offset)| Position {
                    partition: *partition,
                    offset: *offset,
                })
                .collect(),
            traces: self.bus.end(topics::TRACES).await?,
            state,
            node,
        };
        let path = self.snapshot_path.clone();
        let writing = tokio::task::spawn_blocking(move || snapshot.write(&path));
        writing.await.unwrap_or_else(|cut_off| {
            Err(Error::File {
                path: self.snapshot_path.clone(),
                source: std::io::Error::other(cut_off),
            })
        })
    }

    async fn resume(&self, shutdown: &CancellationToken) -> Result<Option<Turn>, Error> {
        let node = match self.graph.model.node(self.graph.file.graph.limits) {
            Ok(node) => node,
            Err(error) => {
                self.graph.set_activity(Activity::Failed(error.to_string()));
                return Ok(None);
            }
        };
        let layout = self.graph.layout.clone();
        let (mut progress, aligned, traces) = match self.snapshot()? {
            Some(snapshot) => match Progress::restore(layout.clone(), node, snapshot.state, snapshot.node.as_deref()) {
                Ok(progress) => (progress, snapshot.aligned, From::Offsets(snapshot.traces)),
                Err(error) => {
                    tracing::warn!(graph = self.graph.id(), %error, "snapshot does not fit");
                    set_aside(&self.snapshot_path, "unfit");
                    return Box::pin(self.resume(shutdown)).await;
                }
            },
            None => (Progress::new(layout, node), Vec::new(), From::Earliest),
        };
        self.follow_published(&mut progress, traces, shutdown).await?;
        Ok(Some(Turn {
            progress,
            aligned: aligned
                .into_iter()
                .map(|position| (position.partition, position.offset))
                .collect(),
            waiting: None,
            saved_at: self.clock.monotonic(),
            ticks_since_save: 0,
            lacking: None,
            is_unsaved_told: false,
        }))
    }

    fn snapshot(&self) -> Result<Option<Snapshot>, Error> {
        let Some(snapshot) = Snapshot::read(&self.snapshot_path)? else {
            return Ok(None);
        };
        let ours = snapshot.abi == orrery_lang::abi::ABI && snapshot.identity.0 == self.graph.layout.identity;
        if !ours {
            set_aside(&self.snapshot_path, "other-graph");
        }
        Ok(ours.then_some(snapshot))
    }

    /// Reads what was published beyond the snapshot, so that the same ticks decide the same again.
    async fn follow_published(
        &self,
        progress: &mut Progress<ModelNode>,
        from: From,
        shutdown: &CancellationToken,
    ) -> Result<(), Error> {
        let mut start: BTreeMap<u32, u64> = BTreeMap::new();
        if let From::Offsets(positions) = &from {
            start.extend(positions.iter().map(|position| (position.partition, position.offset)));
        }
        let mut missing: BTreeMap<u32, u64> = BTreeMap::new();
        for end in self.bus.end(topics::TRACES).await? {
            if end.offset > start.get(&end.partition).copied().unwrap_or(0) {
                missing.insert(end.partition, end.offset);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let stream = self.graph.file.graph.output_stream();
        let mut published: Box<dyn Subscription> = self.bus.subscribe(topics::TRACES, from).await?;
        while !missing.is_empty() {
            let batch = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                // Offsets may skip at the very end, so silence ends the search too.
                batch = tokio::time::timeout(Duration::from_secs(2), published.next()) => match batch {
                    Ok(batch) => batch?,
                    Err(_) => return Ok(()),
                },
            };
            for message in batch {
                if missing
                    .get(&message.partition)
                    .is_some_and(|end| message.offset + 1 >= *end)
                {
                    missing.remove(&message.partition);
                }
                if message.key.as_ref() != stream.as_str().as_bytes() {
                    continue;
                }
                let decided = AlignedBlock::decode(&message.value)
                    .ok()
                    .and_then(|block| decision_of(&block, progress.layout()));
                if let Some((tick, decision)) = decided {
                    progress.follow(tick, decision);
                }
            }
        }
        Ok(())
    }
}

/// Runs ready ticks on a worker thread, so that a slow guest holds no other task up. `None` after a panic.
async fn compute(
    mut progress: Progress<ModelNode>,
) -> Option<(Progress<ModelNode>, Vec<TickTrace>, Option<NodeError>)> {
    let work = move || {
        let mut ticks = Vec::new();
        while ticks.len() < BATCH_TICKS {
            match progress.tick() {
                Ok(Some(tick)) => ticks.push(tick),
                Ok(None) => break,
                Err(error) => return (progress, ticks, Some(error)),
            }
        }
        (progress, ticks, None)
    };
    tokio::task::spawn_blocking(work).await.ok()
}
