//! The cursor: up to where a client has seen each stream. It needs no memory on our side, so it survives a restart.
//!
//! Text form: base64url without padding of `1;<stream>=<TAI nanoseconds>,<revision>;…`. Clients treat it as opaque.

use std::collections::BTreeMap;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use orrery_protocol::{StreamId, TaiNanos};

/// A cursor names at most so many streams; beyond that the ones that were silent longest are left out.
const MAX_STREAMS: usize = 512;
const MAX_TEXT: usize = 256 * 1024;

/// The last row of each stream that has passed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    streams: BTreeMap<StreamId, Seen>,
}

/// Where one stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The time of its last row.
    pub time: TaiNanos,
    /// The revision that row came with.
    pub revision: u64,
}

/// A text that is no cursor of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cursor is not one of this server's: start without one and load the window")]
pub struct NoCursor;

impl Frontier {
    /// Moves a stream on; it never goes back.
    pub fn advance(&mut self, stream: &StreamId, seen: Seen) {
        match self.streams.get_mut(stream) {
            Some(known) => {
                known.time = known.time.max(seen.time);
                known.revision = known.revision.max(seen.revision);
            }
            None => {
                self.streams.insert(stream.clone(), seen);
                self.shed();
            }
        }
    }

    /// Where a stream stands.
    pub fn get(&self, stream: &StreamId) -> Option<Seen> {
        self.streams.get(stream).copied()
    }

    /// The streams it names.
    pub fn streams(&self) -> impl Iterator<Item = &StreamId> {
        self.streams.keys()
    }

    fn shed(&mut self) {
        while self.streams.len() > MAX_STREAMS {
            let oldest = self
                .streams
                .iter()
                .min_by_key(|(_, seen)| seen.time)
                .map(|(stream, _)| stream.clone());
            if let Some(oldest) = oldest {
                self.streams.remove(&oldest);
            }
        }
    }

    /// The cursor's text.
    pub fn encode(&self) -> String {
        let mut text = String::from("1");
        for (stream, seen) in &self.streams {
            let _ = write!(text, ";{stream}={},{}", seen.time.0, seen.revision);
        }
        URL_SAFE_NO_PAD.encode(text)
    }

    /// Reads a cursor's text, whoever sent it.
    pub fn decode(text: &str) -> Result<Self, NoCursor> {
        if text.len() > MAX_TEXT {
            return Err(NoCursor);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| NoCursor)?;
        let text = String::from_utf8(bytes).map_err(|_| NoCursor)?;
        let mut parts = text.split(';');
        if parts.next() != Some("1") {
            return Err(NoCursor);
        }
        let mut frontier = Self::default();
        for part in parts {
            let (stream, seen) = part.split_once('=').ok_or(NoCursor)?;
            let (time, revision) = seen.split_once(',').ok_or(NoCursor)?;
            let stream = StreamId::new(stream).map_err(|_| NoCursor)?;
            let time = TaiNanos(time.parse().map_err(|_| NoCursor)?);
            let revision = revision.parse().map_err(|_| NoCursor)?;
            frontier.streams.insert(stream, Seen { time, revision });
        }
        frontier.shed();
        Ok(frontier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(name: &str) -> StreamId {
        StreamId::new(name).unwrap()
    }

    #[test]
    fn a_cursor_reads_back() {
        let mut frontier = Frontier::default();
        frontier.advance(
            &stream("tclab-01/board"),
            Seen {
                time: TaiNanos(i64::MAX),
                revision: 7,
            },
        );
        frontier.advance(
            &stream("a/b"),
            Seen {
                time: TaiNanos(-5),
                revision: 0,
            },
        );
        assert_eq!(Frontier::decode(&frontier.encode()), Ok(frontier));
        assert_eq!(Frontier::decode(&Frontier::default().encode()), Ok(Frontier::default()));
    }

    #[test]
    fn a_frontier_never_goes_back() {
        let mut frontier = Frontier::default();
        frontier.advance(
            &stream("a/b"),
            Seen {
                time: TaiNanos(9),
                revision: 3,
            },
        );
        frontier.advance(
            &stream("a/b"),
            Seen {
                time: TaiNanos(5),
                revision: 4,
            },
        );
        assert_eq!(
            frontier.get(&stream("a/b")),
            Some(Seen {
                time: TaiNanos(9),
                revision: 4
            })
        );
    }

    #[test]
    fn the_number_of_streams_is_bounded_and_the_newest_stay() {
        let mut frontier = Frontier::default();
        for at in 0..MAX_STREAMS as i64 + 10 {
            frontier.advance(
                &stream(&format!("d/s{at}")),
                Seen {
                    time: TaiNanos(at),
                    revision: 1,
                },
            );
        }
        assert_eq!(frontier.streams().count(), MAX_STREAMS);
        assert!(frontier.get(&stream("d/s0")).is_none() && frontier.get(&stream("d/s521")).is_some());
    }

    #[test]
    fn foreign_texts_are_refused() {
        for text in [
            "",
            "x",
            "!!",
            &URL_SAFE_NO_PAD.encode("2;a/b=1,2"),
            &URL_SAFE_NO_PAD.encode("1;a/b=1"),
        ] {
            assert_eq!(Frontier::decode(text), Err(NoCursor), "{text}");
        }
    }
}
