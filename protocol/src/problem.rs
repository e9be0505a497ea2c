//! RFC 9457 problem details: the one error form of every HTTP route. A service builds it, the HTTP layer prints it.

use serde::{Deserialize, Serialize};

/// A refusal that names what was wrong, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A stable name of the kind of problem: `about:blank` or a URN such as `urn:orrery:unknown-stream`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status code.
    pub status: u16,
    /// What kind of problem it is, the same for every occurrence.
    pub title: String,
    /// What happened this time, and the remedy.
    pub detail: String,
}

impl Problem {
    /// The media type of the JSON form.
    pub const CONTENT_TYPE: &'static str = "application/problem+json";

    /// A problem of kind `urn:orrery:<name>`.
    pub fn new(status: u16, name: &str, title: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:orrery:{name}"),
            status,
            title: title.into(),
            detail: detail.into(),
        }
    }
}
