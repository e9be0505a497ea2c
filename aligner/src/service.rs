//! The service: the only loop, and what it owns.
//!
//! Raw messages go through the engine; what it says is published at once by the publisher, then committed by the
//! committer, which waits until the publications are durable: a crash between the two repeats a publication and loses
//! none. If either task dies, the service ends with its error and whoever supervises it starts it again.

use std::sync::Arc;
use std::time::Duration;

use orrery_bus::{From, Message, Position, Record, SharedBus, Subscription};
use orrery_protocol::{Clock, topics};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, Outbox};
use crate::handle::{Command, Enrol, Handle, Live};
use crate::store::{Store, View, Writer};
use crate::{Config, Error};

/// Publications that may wait; each holds what one batch of messages caused, and the bus bounds those in bytes.
const OUTGOING: usize = 64;
/// How long a stop may take before what is left is left to the next start.
const DRAIN: Duration = Duration::from_secs(3);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(5);

/// What the service needs from outside.
#[derive(Clone)]
pub struct Deps {
    /// The bus.
    pub bus: SharedBus,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Where routes and others find the service once it runs.
    pub handle: Handle,
}

/// Runs the aligner until `shutdown`, then drains: what came in is published and committed.
///
/// # Errors
/// [`Error`] when the store or the bus cannot go on; the next start goes on from the catalog.
pub async fn run(config: Config, deps: Deps, shutdown: CancellationToken) -> Result<(), Error> {
    let (store, writer, recovered) = Store::open(&config, deps.clock.wall()).await?;
    let engine = Engine::recover(config.clone(), &recovered, &store.view())?;
    let from = |topic: &str| {
        let positions = recovered.offsets.get(topic).into_iter().flatten();
        From::Offsets(
            positions
                .map(|(partition, offset)| Position {
                    partition: *partition,
                    offset: *offset,
                })
                .collect(),
        )
    };
    let raw = deps.bus.subscribe(topics::RAW, from(topics::RAW)).await?;
    let traces = deps.bus.subscribe(topics::TRACES, from(topics::TRACES)).await?;
    let streams = deps.bus.subscribe(topics::STREAMS, From::Earliest).await?;

    let mut tasks = JoinSet::new();
    let (outgoing, incoming) = mpsc::channel(OUTGOING);
    let (published_sender, published) = watch::channel(0);
    let bus = Arc::clone(&deps.bus);
    tasks.spawn(async move {
        publish(bus, incoming, published_sender).await;
        Ended::Publisher
    });
    let (commands, requests) = mpsc::channel(64);
    let live = Live {
        store: store.clone(),
        bus: Arc::clone(&deps.bus),
        commands,
    };
    deps.handle.set(Some(live));
    let mut service = Service {
        config,
        clock: deps.clock,
        engine,
        store,
        writer: Some(writer),
        tasks,
        outgoing: Some(outgoing),
        published,
        ticket: 0,
        due: None,
        urgent: false,
        waiting: Vec::new(),
    };
    let outcome = service
        .serve(
            Inputs {
                raw,
                traces,
                streams,
                requests,
            },
            &shutdown,
        )
        .await;
    deps.handle.set(None);
    outcome?;
    service.drain().await
}

struct Inputs {
    raw: Box<dyn Subscription>,
    traces: Box<dyn Subscription>,
    streams: Box<dyn Subscription>,
    requests: mpsc::Receiver<Command>,
}

enum Ended {
    Publisher,
    Commit(Box<Writer>, Result<Arc<View>, Error>),
}

/// Records to publish, and the number that stands for "all up to here".
struct Outgoing {
    ticket: u64,
    records: Outbox,
}

type Reply = (u64, oneshot::Sender<Result<bool, Error>>, bool);

struct Service {
    config: Config,
    clock: Arc<dyn Clock>,
    engine: Engine,
    store: Store,
    /// Here unless a commit is under way.
    writer: Option<Writer>,
    tasks: JoinSet<Ended>,
    outgoing: Option<mpsc::Sender<Outgoing>>,
    published: watch::Receiver<u64>,
    ticket: u64,
    due: Option<Instant>,
    urgent: bool,
    /// Answers that wait for a revision to be durable.
    waiting: Vec<Reply>,
}

impl Service {
    async fn serve(&mut self, mut inputs: Inputs, shutdown: &CancellationToken) -> Result<(), Error> {
        loop {
            self.send_outbox();
            self.start_commit_if_due()?;
            let due = self.due;
            // Backpressure: nothing more comes in while publications or rows pile up.
            let intake = !self.engine.has_outbox() && self.engine.pending_bytes() < 4 * self.config.commit_bytes;
            let room = self.outgoing.clone();
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                Some(ended) = self.tasks.join_next() => self.on_ended(ended)?,
                Some(command) = inputs.requests.recv() => self.on_command(command),
                _ = reserve(room), if self.engine.has_outbox() => {}
                messages = inputs.raw.next(), if intake => self.on_raw(messages?).await,
                messages = inputs.traces.next(), if intake => {
                    for message in messages? {
                        self.engine.on_trace(&message);
                    }
                }
                messages = inputs.streams.next(), if intake => {
                    for message in messages? {
                        self.engine.on_stream_announcement(&message);
                    }
                }
                () = sleep_until(due), if due.is_some() && self.writer.is_some() => self.urgent = true,
            }
        }
    }

    async fn on_raw(&mut self, messages: Vec<Message>) {
        for message in messages {
            if let Some(question) = self.engine.on_raw(&message) {
                let archived = self.store.archived_digest(question.claims()).await.unwrap_or_else(|error| {
                    tracing::error!(%error, "an old sequence could not be compared with the archive; taken as a duplicate");
                    None
                });
                self.engine.answer(question, archived);
            }
        }
    }

    /// Hands what is to be published to the publisher, if there is room; the loop waits for room otherwise.
    fn send_outbox(&mut self) {
        let Some(outgoing) = self.outgoing.as_ref().filter(|_| self.engine.has_outbox()) else {
            return;
        };
        if let Ok(permit) = outgoing.try_reserve() {
            self.ticket += 1;
            permit.send(Outgoing {
                ticket: self.ticket,
                records: self.engine.take_outbox(),
            });
        }
    }

    fn start_commit_if_due(&mut self) -> Result<(), Error> {
        if !self.engine.has_pending() {
            (self.due, self.urgent) = (None, false);
            return Ok(());
        }
        if self.due.is_none() {
            self.due = Some(Instant::now() + Duration::from_millis(self.config.commit_ms));
        }
        let now = self.urgent
            || self.engine.pending_bytes() >= self.config.commit_bytes
            || self.due.is_some_and(|due| due <= Instant::now());
        if !now || self.engine.has_outbox() {
            return Ok(());
        }
        let Some(mut writer) = self.writer.take() else {
            return Ok(());
        };
        let commit = self.engine.seal(self.clock.wall())?;
        (self.due, self.urgent) = (None, false);
        let (ticket, mut published) = (self.ticket, self.published.clone());
        self.tasks.spawn(async move {
            // A commit whose rows nobody published would hide them from every consumer for ever.
            if published.wait_for(|done| *done >= ticket).await.is_err() {
                return Ended::Commit(Box::new(writer), Err(Error::NotRunning));
            }
            let done = writer.commit(commit).await;
            Ended::Commit(Box::new(writer), done)
        });
        Ok(())
    }

    fn on_ended(&mut self, ended: Result<Ended, tokio::task::JoinError>) -> Result<(), Error> {
        let broken = |what: String| Error::Internal(format!("the aligner's {what}; it starts again from the catalog"));
        match ended.map_err(|error| broken(format!("task failed: {error}")))? {
            Ended::Publisher => Err(broken("publisher ended".to_owned())),
            Ended::Commit(writer, done) => {
                let view = done?;
                self.writer = Some(*writer);
                let (done, waiting): (Vec<Reply>, Vec<Reply>) = std::mem::take(&mut self.waiting)
                    .into_iter()
                    .partition(|(revision, _, _)| *revision <= view.revision);
                self.waiting = waiting;
                for (_, reply, created) in done {
                    // Whoever asked may have gone; the deed is done either way.
                    let _ = reply.send(Ok(created));
                }
                Ok(())
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        let now = self.clock.wall();
        match command {
            Command::Enrol(enrol) => {
                let Enrol {
                    device,
                    public,
                    title,
                    protocol,
                    reply,
                } = *enrol;
                match self.engine.enrol(&device, public, title, protocol, now) {
                    Ok(created) => self.reply_when_durable(reply, created),
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            Command::Revoke { device, key_id, reply } => match self.engine.revoke(&device, &key_id, now) {
                Ok(revoked) => self.reply_when_durable(reply, revoked),
                Err(error) => drop(reply.send(Err(error))),
            },
            Command::Devices(reply) => drop(reply.send(self.engine.devices_json(now))),
            Command::Gaps {
                device,
                from,
                to,
                reply,
            } => drop(reply.send(self.engine.window_gaps_json(&device, from, to))),
            Command::Status(reply) => {
                let consumed = self
                    .engine
                    .consumed
                    .iter()
                    .filter(|((topic, _), _)| topic == topics::RAW);
                let consumed = consumed.map(|((_, partition), offset)| Position {
                    partition: *partition,
                    offset: *offset,
                });
                let _ = reply.send((self.engine.status_json(&self.store.view()), consumed.collect()));
            }
            Command::Record { key, record } => self.engine.publish_record(&key, &record),
        }
    }

    fn reply_when_durable(&mut self, reply: oneshot::Sender<Result<bool, Error>>, answer: bool) {
        if self.engine.has_pending() {
            self.urgent = true;
            self.waiting.push((self.engine.open_revision(), reply, answer));
        } else {
            let _ = reply.send(Ok(answer));
        }
    }

    /// After intake has stopped: publishes and commits what is left, within the deadline.
    async fn drain(mut self) -> Result<(), Error> {
        let drained = tokio::time::timeout(DRAIN, async {
            loop {
                self.send_outbox();
                self.urgent = true;
                self.start_commit_if_due()?;
                if self.writer.is_some() && !self.engine.has_outbox() && !self.engine.has_pending() {
                    break;
                }
                let room = self.outgoing.clone();
                tokio::select! {
                    Some(ended) = self.tasks.join_next() => self.on_ended(ended)?,
                    _ = reserve(room), if self.engine.has_outbox() => {}
                }
            }
            self.outgoing = None;
            let last = self.ticket;
            let _ = self.published.wait_for(|done| *done >= last).await;
            Ok::<(), Error>(())
        })
        .await;
        match drained {
            Ok(outcome) => outcome?,
            Err(_) => tracing::warn!("the aligner did not drain in time; what is left is read again at the next start"),
        }
        if let Some(writer) = self.writer.take() {
            writer.close().await;
        }
        Ok(())
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

async fn reserve(room: Option<mpsc::Sender<Outgoing>>) {
    match room {
        // Only the room is waited for; the permit goes back and `send_outbox` takes its own.
        Some(room) => drop(room.reserve().await),
        None => std::future::pending().await,
    }
}

/// Publishes in order, again and again until the bus takes it. Ends when the service lets go of its side.
async fn publish(bus: SharedBus, mut incoming: mpsc::Receiver<Outgoing>, published: watch::Sender<u64>) {
    while let Some(first) = incoming.recv().await {
        let mut ticket = first.ticket;
        let mut by_topic: Vec<(&'static str, Vec<Record>)> = Vec::new();
        let mut add = |records: Outbox| {
            for (topic, record) in records {
                match by_topic.iter_mut().find(|(known, _)| *known == topic) {
                    Some((_, records)) => records.push(record),
                    None => by_topic.push((topic, vec![record])),
                }
            }
        };
        add(first.records);
        // What queued up meanwhile shares the next fsync.
        for _ in 1..OUTGOING {
            let Ok(more) = incoming.try_recv() else { break };
            ticket = more.ticket;
            add(more.records);
        }
        let mut all = Vec::with_capacity(by_topic.len());
        for (topic, records) in by_topic {
            all.push(publish_topic(&bus, topic, records));
        }
        futures_util::future::join_all(all).await;
        published.send_replace(ticket);
    }
}

async fn publish_topic(bus: &SharedBus, topic: &'static str, records: Vec<Record>) {
    let mut pause = RETRY_FIRST;
    let mut was_told = false;
    // A dead letter may carry what is too large for the bus; one record must not stop the world.
    let records: Vec<Record> = records.into_iter().filter(|record| fits(topic, record)).collect();
    loop {
        match bus.publish(topic, records.clone()).await {
            Ok(_) => {
                if was_told {
                    tracing::info!(topic, "publishing again");
                }
                return;
            }
            Err(error) => {
                if !std::mem::replace(&mut was_told, true) {
                    tracing::error!(topic, %error, "publishing failed; trying again until it works");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_LAST);
            }
        }
    }
}

fn fits(topic: &str, record: &Record) -> bool {
    let fits = record.size() <= orrery_bus::MAX_RECORD_BYTES;
    if !fits {
        tracing::error!(
            topic,
            bytes = record.size(),
            "a record larger than the bus takes is not published"
        );
    }
    fits
}

/// The service runs as a task of whoever supervises it, so its future must be `Send`: checked where it is made.
#[cfg(test)]
mod tests {
    use super::*;

    fn is_send<T: Send>(_: &T) {}

    #[test]
    fn the_service_can_be_a_task() {
        let check = |config, deps, shutdown| is_send(&run(config, deps, shutdown));
        let _: &dyn Fn(Config, Deps, CancellationToken) = &check;
    }
}
