//! What the gateway remembers about who may do what, in two files of the keys folder:
//!
//! - `operator.token`: the operator's token in clear, because it is printed again at each start;
//! - `trust.json`: fingerprints of enrolment tokens and of agents' tokens, never the tokens themselves.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use orrery_protocol::{DeviceId, TaiNanos};
use serde::{Deserialize, Serialize};

use super::secret::{Fingerprint, Kind, Secret};
use crate::error::KeysError;
use crate::files;

const OPERATOR_FILE: &str = "operator.token";
const TRUST_FILE: &str = "trust.json";
/// Used and expired enrolment tokens are remembered for so long, so that a second use is told from a wrong token.
const REMEMBER_SPENT: Duration = Duration::from_secs(30 * 86_400);

/// Tokens and what they open.
#[derive(Debug)]
pub struct Trust {
    operator: Secret,
    operator_fingerprint: Fingerprint,
    session: Fingerprint,
    path: PathBuf,
    state: RwLock<State>,
    /// Held over a change and its write, so that files never go back in time.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, Default)]
struct State {
    enrolments: HashMap<Fingerprint, Enrolment>,
    agents: HashMap<Fingerprint, Agent>,
}

#[derive(Debug, Clone)]
struct Enrolment {
    note: String,
    expires: TaiNanos,
    used: bool,
    /// Someone is enrolling with it right now; never stored.
    reserved: bool,
}

/// An agent that may send for its devices.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Its name in logs and provenance.
    pub name: String,
    /// The devices whose envelopes it may send.
    pub devices: Arc<[DeviceId]>,
}

/// Why an enrolment token does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnrolmentRefused {
    /// Never made here, or forgotten.
    #[error("this enrolment token is not known here: make one with `POST /api/v1/enrollment-tokens`")]
    Unknown,
    /// Its time is over.
    #[error("this enrolment token has expired: make a new one with `POST /api/v1/enrollment-tokens`")]
    Expired,
    /// It enrolled someone already, or is about to.
    #[error(
        "this enrolment token was used already and opens only once: make a new one with \
         `POST /api/v1/enrollment-tokens`"
    )]
    Used,
}

impl Trust {
    /// Reads the folder, and makes the operator's token at the first start.
    pub fn open(folder: &Path) -> Result<Self, KeysError> {
        let operator = open_operator(&folder.join(OPERATOR_FILE))?;
        let path = folder.join(TRUST_FILE);
        let state = match files::read(&path)? {
            Some(bytes) => decode(&bytes).map_err(|reason| KeysError::Damaged {
                path: path.clone(),
                reason,
                loss: "agents must enrol again",
            })?,
            None => State::default(),
        };
        Ok(Self {
            operator_fingerprint: operator.fingerprint(),
            session: Fingerprint::of(&operator.session()),
            operator,
            path,
            state: RwLock::new(state),
            writing: tokio::sync::Mutex::new(()),
        })
    }

    /// The operator's token.
    pub fn operator(&self) -> &Secret {
        &self.operator
    }

    /// Whether the text is the operator's token.
    pub fn is_operator(&self, text: &str) -> bool {
        Fingerprint::of(text).same(&self.operator_fingerprint)
    }

    /// Whether the text is the session cookie of the operator.
    pub fn is_session(&self, text: &str) -> bool {
        Fingerprint::of(text).same(&self.session)
    }

    /// The agent that the token belongs to. Looking up a digest tells a caller nothing about other tokens.
    pub fn agent(&self, text: &str) -> Option<Agent> {
        self.read(|state| state.agents.get(&Fingerprint::of(text)).cloned())
    }

    /// Makes a one-time enrolment token, durable before it is returned.
    pub async fn make_enrolment(&self, note: String, now: TaiNanos, life: Duration) -> Result<Secret, KeysError> {
        let secret = Secret::generate(Kind::Enrolment)?;
        let enrolment = Enrolment {
            note,
            expires: now.plus(life),
            used: false,
            reserved: false,
        };
        let fingerprint = secret.fingerprint();
        self.change(now, move |state| {
            state.enrolments.insert(fingerprint, enrolment.clone());
        })
        .await?;
        Ok(secret)
    }

    /// Whether an enrolment token would open now; returns its note.
    pub fn check_enrolment(&self, text: &str, now: TaiNanos) -> Result<String, EnrolmentRefused> {
        self.read(|state| check(state.enrolments.get(&Fingerprint::of(text)), now).map(|found| found.note.clone()))
    }

    /// Takes an enrolment token so that nobody else can; dropping the reservation gives it back.
    pub fn reserve(self: &Arc<Self>, text: &str, now: TaiNanos) -> Result<Reservation, EnrolmentRefused> {
        let fingerprint = Fingerprint::of(text);
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let note = check(state.enrolments.get(&fingerprint), now)?.note.clone();
        if let Some(enrolment) = state.enrolments.get_mut(&fingerprint) {
            enrolment.reserved = true;
        }
        Ok(Reservation {
            trust: Arc::clone(self),
            fingerprint,
            note,
            open: true,
        })
    }

    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Applies a change to the file first and to memory after.
    async fn change(&self, now: TaiNanos, apply: impl Fn(&mut State)) -> Result<(), KeysError> {
        let _writing = self.writing.lock().await;
        let apply = |state: &mut State| {
            state
                .enrolments
                .retain(|_, enrolment| enrolment.expires.plus(REMEMBER_SPENT) > now);
            apply(state);
        };
        let mut next = self.read(State::clone);
        apply(&mut next);
        let bytes = encode(&next);
        let path = self.path.clone();
        files::replace_in_background(path, bytes).await?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        apply(&mut state);
        Ok(())
    }
}

/// An enrolment token that someone is using.
#[derive(Debug)]
pub struct Reservation {
    trust: Arc<Trust>,
    fingerprint: Fingerprint,
    note: String,
    open: bool,
}

impl Reservation {
    /// What the maker of the token wrote about it.
    pub fn note(&self) -> &str {
        &self.note
    }

    /// Spends the token and makes the agent's own, both durable before it returns.
    pub async fn spend(mut self, devices: Vec<DeviceId>, now: TaiNanos) -> Result<Secret, KeysError> {
        let secret = Secret::generate(Kind::Agent)?;
        let name = match devices.as_slice() {
            [] => "agent".to_owned(),
            [only] => format!("agent {only}"),
            [first, rest @ ..] => format!("agent {first} +{}", rest.len()),
        };
        let agent = Agent {
            name,
            devices: devices.into(),
        };
        let (spent, fingerprint) = (self.fingerprint, secret.fingerprint());
        self.trust
            .change(now, move |state| {
                if let Some(enrolment) = state.enrolments.get_mut(&spent) {
                    enrolment.used = true;
                }
                state.agents.insert(fingerprint, agent.clone());
            })
            .await?;
        self.open = false;
        Ok(secret)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.open {
            let mut state = self.trust.state.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(enrolment) = state.enrolments.get_mut(&self.fingerprint) {
                enrolment.reserved = false;
            }
        }
    }
}

fn check(found: Option<&Enrolment>, now: TaiNanos) -> Result<&Enrolment, EnrolmentRefused> {
    match found {
        None => Err(EnrolmentRefused::Unknown),
        Some(enrolment) if enrolment.used || enrolment.reserved => Err(EnrolmentRefused::Used),
        Some(enrolment) if enrolment.expires <= now => Err(EnrolmentRefused::Expired),
        Some(enrolment) => Ok(enrolment),
    }
}

fn open_operator(path: &Path) -> Result<Secret, KeysError> {
    let Some(bytes) = files::read(path)? else {
        let secret = Secret::generate(Kind::Operator)?;
        files::replace(path, format!("{}\n", secret.expose()).as_bytes())?;
        return Ok(secret);
    };
    std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| Secret::from_text(text, Kind::Operator))
        .ok_or_else(|| KeysError::Damaged {
            path: path.to_owned(),
            reason: "it holds no operator token".to_owned(),
            loss: "a new token is made and browsers must sign in again",
        })
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    enrolments: Vec<EnrolmentEntry>,
    agents: Vec<AgentEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnrolmentEntry {
    sha256: String,
    note: String,
    expires: TaiNanos,
    used: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentEntry {
    sha256: String,
    name: String,
    devices: Vec<DeviceId>,
}

fn encode(state: &State) -> Vec<u8> {
    let mut enrolments: Vec<EnrolmentEntry> = (state.enrolments.iter())
        .map(|(fingerprint, enrolment)| EnrolmentEntry {
            sha256: fingerprint.to_hex(),
            note: enrolment.note.clone(),
            expires: enrolment.expires,
            used: enrolment.used,
        })
        .collect();
    enrolments.sort_by(|a, b| a.sha256.cmp(&b.sha256));
    let mut agents: Vec<AgentEntry> = (state.agents.iter())
        .map(|(fingerprint, agent)| AgentEntry {
            sha256: fingerprint.to_hex(),
            name: agent.name.clone(),
            devices: agent.devices.to_vec(),
        })
        .collect();
    agents.sort_by(|a, b| a.sha256.cmp(&b.sha256));
    serde_json::to_vec_pretty(&File {
        version: 1,
        enrolments,
        agents,
    })
    .expect("strings, integers and booleans always encode")
}

fn decode(bytes: &[u8]) -> Result<State, String> {
    let file: File = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if file.version != 1 {
        return Err(format!("version {} is of a newer Orrery", file.version));
    }
    let fingerprint = |text: &str| Fingerprint::from_hex(text).ok_or_else(|| format!("`{text}` is no SHA-256"));
    let mut state = State::default();
    for entry in file.enrolments {
        let enrolment = Enrolment {
            note: entry.note,
            expires: entry.expires,
            used: entry.used,
            reserved: false,
        };
        state.enrolments.insert(fingerprint(&entry.sha256)?, enrolment);
    }
    for entry in file.agents {
        let agent = Agent {
            name: entry.name,
            devices: entry.devices.into(),
        };
        state.agents.insert(fingerprint(&entry.sha256)?, agent);
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: TaiNanos = TaiNanos(1_800_000_000_000_000_000);
    const HOUR: Duration = Duration::from_secs(3_600);

    fn device(name: &str) -> DeviceId {
        DeviceId::new(name).unwrap()
    }

    #[tokio::test]
    async fn tokens_survive_a_restart_and_only_their_fingerprints_are_stored() {
        let folder = tempfile::tempdir().unwrap();
        let trust = Arc::new(Trust::open(folder.path()).unwrap());
        let one_time = trust.make_enrolment("bench".into(), NOW, HOUR).await.unwrap();
        let reservation = trust.reserve(one_time.expose(), NOW).unwrap();
        assert_eq!(reservation.note(), "bench");
        let token = reservation.spend(vec![device("a"), device("b")], NOW).await.unwrap();

        let again = Arc::new(Trust::open(folder.path()).unwrap());
        assert!(again.is_operator(trust.operator().expose()));
        assert!(again.is_session(&trust.operator().session()));
        assert!(!again.is_operator(&trust.operator().session()));
        assert_eq!(
            &*again.agent(token.expose()).unwrap().devices,
            &[device("a"), device("b")]
        );
        assert_eq!(
            again.reserve(one_time.expose(), NOW).unwrap_err(),
            EnrolmentRefused::Used
        );
        let stored = std::fs::read_to_string(folder.path().join(TRUST_FILE)).unwrap();
        assert!(!stored.contains(token.expose()) && !stored.contains(one_time.expose()));
    }

    #[tokio::test]
    async fn a_reservation_excludes_others_and_returns_the_token_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let trust = Arc::new(Trust::open(folder.path()).unwrap());
        let one_time = trust.make_enrolment(String::new(), NOW, HOUR).await.unwrap();
        let first = trust.reserve(one_time.expose(), NOW).unwrap();
        assert_eq!(
            trust.reserve(one_time.expose(), NOW).unwrap_err(),
            EnrolmentRefused::Used
        );
        drop(first);
        assert!(trust.reserve(one_time.expose(), NOW).is_ok());
        assert_eq!(
            trust.reserve(one_time.expose(), NOW.plus(HOUR)).unwrap_err(),
            EnrolmentRefused::Expired
        );
        assert_eq!(trust.reserve("orr_en_x", NOW).unwrap_err(), EnrolmentRefused::Unknown);
    }

    #[test]
    fn a_damaged_file_is_named_with_its_remedy() {
        let folder = tempfile::tempdir().unwrap();
        files::replace(&folder.path().join(TRUST_FILE), b"{").unwrap();
        let message = Trust::open(folder.path()).unwrap_err().to_string();
        assert!(
            message.contains("trust.json is damaged") && message.contains("enrol again"),
            "{message}"
        );
    }
}
