//! Which entries the log had at an instant, and which models ran: an index over the entries, kept in memory.
//!
//! Of a statement it reads only its time, and of a model's its subjects.

use std::collections::BTreeMap;

use orrery_protocol::{Record, RecordKind, TaiNanos};
use serde::Serialize;

/// The index over a log's entries.
#[derive(Debug, Default)]
pub struct Index {
    /// Per entry, the latest time that it or one before it names: the log's order is what counts.
    stamps: Vec<TaiNanos>,
    models: Vec<ModelEntry>,
}

/// A model that a graph ran, as an entry says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelEntry {
    /// The graph.
    pub graph: String,
    /// The model's name.
    pub model: String,
    /// SHA-256 of its module.
    pub sha256: String,
    /// The entry that says so; its proof is under `/provenance/proof`.
    pub index: String,
    #[serde(skip)]
    entry: u64,
}

impl Index {
    /// Takes up the next entry of the log.
    pub fn push(&mut self, statement: &[u8]) {
        let entry = self.stamps.len() as u64;
        let last = self.stamps.last().copied().unwrap_or(TaiNanos(i64::MIN));
        // What is no statement still has its place.
        let Ok(record) = Record::decode(statement) else {
            self.stamps.push(last);
            return;
        };
        self.stamps.push(record.at.max(last));
        if record.kind == RecordKind::Model {
            self.models.extend(model_of(&record, entry));
        }
    }

    /// How many entries are indexed.
    pub fn len(&self) -> u64 {
        self.stamps.len() as u64
    }

    /// How many entries the log had at an instant.
    pub fn size_at(&self, at: TaiNanos) -> u64 {
        self.stamps.partition_point(|stamp| *stamp <= at) as u64
    }

    /// The last model of each graph among the first `size` entries.
    pub fn models_at(&self, size: u64) -> Vec<ModelEntry> {
        let earlier = self.models.iter().take_while(|model| model.entry < size);
        let latest: BTreeMap<&str, &ModelEntry> = earlier.map(|model| (model.graph.as_str(), model)).collect();
        latest.into_values().cloned().collect()
    }
}

fn model_of(record: &Record, entry: u64) -> Option<ModelEntry> {
    let named = |prefix: &str| {
        let mut found = record.subject.iter();
        found.find_map(|subject| {
            Some((
                subject.name.strip_prefix(prefix)?.to_owned(),
                subject.sha256.to_string(),
            ))
        })
    };
    let (model, sha256) = named("model/")?;
    let (graph, _) = named("graph/")?;
    Some(ModelEntry {
        graph,
        model,
        sha256,
        index: entry.to_string(),
        entry,
    })
}

#[cfg(test)]
mod tests {
    use orrery_protocol::{Digest, Subject};

    use super::*;

    fn record(kind: RecordKind, at: i64, byte: u8) -> Vec<u8> {
        let subject = |name: &str| Subject {
            name: name.to_owned(),
            sha256: Digest([byte; 32]),
        };
        let record = Record {
            kind,
            subject: vec![subject("model/TCLab"), subject("graph/twin")],
            predicate: serde_json::Value::Null,
            at: TaiNanos(at),
        };
        record.encode()
    }

    #[test]
    fn an_instant_has_the_entries_and_models_of_its_time() {
        let mut index = Index::default();
        index.push(&record(RecordKind::Config, 10, 0));
        index.push(&record(RecordKind::Model, 20, 1));
        index.push(b"no statement");
        index.push(&record(RecordKind::Model, 30, 2));
        index.push(&record(RecordKind::Command, 25, 3)); // A clock that was behind: its place counts.
        let sizes: Vec<u64> = [9, 10, 20, 29, 30].map(|at| index.size_at(TaiNanos(at))).into();
        assert_eq!(sizes, [0, 1, 3, 3, 5]);
        assert!(index.models_at(1).is_empty());
        assert_eq!(index.models_at(3)[0].sha256, Digest([1; 32]).to_string());
        let last = &index.models_at(5)[0];
        assert_eq!(
            (last.model.as_str(), last.graph.as_str(), last.index.as_str()),
            ("TCLab", "twin", "3")
        );
    }
}
