//! The one reader of `orrery.aligned` and `orrery.traces`.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use orrery_bus::{BusError, From, Message, Position, SharedBus, Subscription};
use orrery_protocol::{AlignedBlock, RowKey, StreamId, topics};
use tokio_util::sync::CancellationToken;

use super::cursor::{Frontier, Seen};
use super::hub::Hub;
use super::message::{self, MAX_ROWS, Outgoing};

/// How long to wait before the bus is asked again after it failed.
const RETRY: Duration = Duration::from_millis(500);

/// Reads until stopped; a failing bus is waited out.
pub async fn run(hub: Arc<Hub>, bus: SharedBus, stopping: CancellationToken) {
    let mut feed = Feed {
        hub,
        places: BTreeMap::new(),
        frontier: Frontier::default(),
        last: HashMap::new(),
    };
    loop {
        let failed = tokio::select! {
            () = stopping.cancelled() => return,
            ended = feed.read(&bus) => ended,
        };
        feed.hub.set_reading(false);
        if let Err(error) = failed {
            tracing::warn!(%error, "the live stream cannot read the bus; it tries again");
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

struct Feed {
    hub: Arc<Hub>,
    /// The next offset of each topic and partition: after an outage it goes on from there.
    places: BTreeMap<&'static str, BTreeMap<u32, u64>>,
    /// The hub's frontier as this task knows it: nobody else moves it.
    frontier: Frontier,
    /// The last row of each stream, to tell new rows from late ones.
    last: HashMap<StreamId, RowKey>,
}

impl Feed {
    async fn read(&mut self, bus: &SharedBus) -> Result<(), BusError> {
        let mut aligned = self.subscribe(bus, topics::ALIGNED).await?;
        let mut traces = self.subscribe(bus, topics::TRACES).await?;
        self.hub.set_reading(true);
        loop {
            let (topic, batch) = tokio::select! {
                batch = aligned.next() => (topics::ALIGNED, batch?),
                batch = traces.next() => (topics::TRACES, batch?),
            };
            for found in &batch {
                let next = found.next_position();
                self.places
                    .entry(topic)
                    .or_default()
                    .insert(next.partition, next.offset);
                self.take(found);
            }
        }
    }

    /// From the end of the topic, the first time; then from what was read last, so that an outage leaves no hole.
    async fn subscribe(&mut self, bus: &SharedBus, topic: &'static str) -> Result<Box<dyn Subscription>, BusError> {
        let places = self.places.entry(topic).or_default();
        if places.is_empty() {
            let ends = bus.end(topic).await?;
            places.extend(ends.iter().map(|end| (end.partition, end.offset)));
        }
        let at = |(&partition, &offset): (&u32, &u64)| Position { partition, offset };
        let from = match places.is_empty() {
            true => From::Latest,
            false => From::Offsets(places.iter().map(at).collect()),
        };
        let subscribed = bus.subscribe(topic, from).await;
        if let Err(BusError::NoPartition { .. }) = subscribed {
            // The topic was made anew.
            self.places.remove(topic);
        }
        subscribed
    }

    fn take(&mut self, found: &Message) {
        match AlignedBlock::decode(&found.value) {
            Ok(block) => self.pass_on(&block),
            Err(error) => {
                tracing::warn!(topic = found.topic, offset = found.offset, %error, "a block was left out");
            }
        }
    }

    fn pass_on(&mut self, block: &AlignedBlock) {
        let wanted = self.hub.wants_stream(&block.stream);
        if block.is_empty() {
            if wanted {
                self.hub
                    .publish(&block.stream, None, Some(&Arc::new(message::watermark(block))));
            }
            return;
        }
        let fresh = self.fresh_rows(block);
        if fresh.start > 0 && wanted {
            let late = Arc::new(message::invalidate(block, 0..fresh.start));
            self.hub.publish(&block.stream, None, Some(&late));
        }
        for rows in parts(fresh) {
            let seen = Seen {
                time: block.time(rows.end - 1),
                revision: block.revision,
            };
            self.frontier.advance(&block.stream, seen);
            let message: Option<Arc<Outgoing>> =
                wanted.then(|| Arc::new(message::samples(block, rows, &self.frontier.encode())));
            self.hub.publish(&block.stream, Some(seen), message.as_ref());
        }
    }

    /// The rows after the last one that passed. A block is in stream order, so late rows come first.
    fn fresh_rows(&mut self, block: &AlignedBlock) -> Range<usize> {
        let rows = block.len();
        let newest = block.key(rows - 1);
        let Some(last) = self.last.get_mut(&block.stream) else {
            self.last.insert(block.stream.clone(), newest);
            return 0..rows;
        };
        let first = (0..rows).find(|&row| block.key(row) > *last).unwrap_or(rows);
        if newest > *last {
            *last = newest;
        }
        first..rows
    }
}

fn parts(rows: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = rows.end;
    rows.step_by(MAX_ROWS)
        .map(move |start| start..(start + MAX_ROWS).min(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_block_becomes_several_messages() {
        let found: Vec<_> = parts(10..2 * MAX_ROWS + 11).collect();
        assert_eq!(
            found,
            [
                10..MAX_ROWS + 10,
                MAX_ROWS + 10..2 * MAX_ROWS + 10,
                2 * MAX_ROWS + 10..2 * MAX_ROWS + 11
            ]
        );
        assert_eq!(parts(3..3).count(), 0);
    }
}
