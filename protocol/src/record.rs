//! Provenance records: the leaves of the log, as in-toto Statements (in-toto attestation framework, Statement v1).

use serde::{Deserialize, Serialize};

use crate::{Digest, PayloadError, TaiNanos};

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordKind {
    /// The configuration a service started with.
    Config,
    /// A key was enrolled or revoked.
    Key,
    /// A model was loaded.
    Model,
    /// A replay's digest was asked for.
    Replay,
    /// A command was sent.
    Command,
}

impl RecordKind {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Key => "key",
            Self::Model => "model",
            Self::Replay => "replay",
            Self::Command => "command",
        }
    }
}

/// A thing a record speaks of, by name and digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Its name.
    pub name: String,
    /// Its SHA-256.
    pub sha256: Digest,
}

/// One statement for the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// What it is about.
    pub kind: RecordKind,
    /// What it speaks of.
    pub subject: Vec<Subject>,
    /// What it says.
    pub predicate: serde_json::Value,
    /// When, in reference time.
    pub at: TaiNanos,
}

#[derive(Serialize, Deserialize)]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<StatementSubject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: StatementPredicate,
}

#[derive(Serialize, Deserialize)]
struct StatementSubject {
    name: String,
    digest: Sha256Digest,
}

#[derive(Serialize, Deserialize)]
struct Sha256Digest {
    sha256: Digest,
}

#[derive(Serialize, Deserialize)]
struct StatementPredicate {
    at: String,
    statement: serde_json::Value,
}

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://orrery.dev/provenance/";

impl Record {
    /// The statement's JSON bytes: what the log hashes.
    pub fn encode(&self) -> Vec<u8> {
        let subject = self.subject.iter().map(|subject| StatementSubject {
            name: subject.name.clone(),
            digest: Sha256Digest { sha256: subject.sha256 },
        });
        let statement = Statement {
            kind: STATEMENT.to_owned(),
            subject: subject.collect(),
            predicate_type: format!("{PREDICATE}{}/v1", self.kind.as_str()),
            predicate: StatementPredicate {
                at: self.at.to_rfc3339(),
                statement: self.predicate.clone(),
            },
        };
        serde_json::to_vec(&statement).expect("a statement of texts and JSON values always encodes")
    }

    /// Reads a statement.
    ///
    /// # Errors
    /// [`PayloadError`] says what is missing or wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        let refuse = |why: String| PayloadError::new("provenance record", why);
        let statement: Statement = serde_json::from_slice(bytes).map_err(|error| refuse(error.to_string()))?;
        if statement.kind != STATEMENT {
            return Err(refuse(format!("its type is `{}`, not `{STATEMENT}`", statement.kind)));
        }
        let kind = [
            RecordKind::Config,
            RecordKind::Key,
            RecordKind::Model,
            RecordKind::Replay,
            RecordKind::Command,
        ]
        .into_iter()
        .find(|kind| statement.predicate_type == format!("{PREDICATE}{}/v1", kind.as_str()))
        .ok_or_else(|| refuse(format!("its predicate type `{}` is unknown", statement.predicate_type)))?;
        let at = TaiNanos::parse_rfc3339(&statement.predicate.at).map_err(|error| refuse(error.to_string()))?;
        let subject = statement
            .subject
            .into_iter()
            .map(|subject| Subject {
                name: subject.name,
                sha256: subject.digest.sha256,
            })
            .collect();
        Ok(Self {
            kind,
            subject,
            predicate: statement.predicate.statement,
            at,
        })
    }
}
