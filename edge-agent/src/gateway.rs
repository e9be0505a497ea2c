//! The agent's side of a gateway's HTTP: one keep-alive client, enrolment, clock probes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use orrery_protocol::{DeviceId, PublicKey};
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::Error;
use crate::files;

/// A gateway and the token to show it.
#[derive(Clone)]
pub struct GatewayClient {
    client: reqwest::Client,
    url: String,
    token: String,
}

/// Why a gateway did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    /// The address is not one.
    #[error("`{0}` is not a gateway's address; write http://HOST:PORT or https://HOST:PORT")]
    Address(String),
    /// Nobody there.
    #[error("{0}")]
    Unreachable(String),
    /// The token is not accepted.
    #[error("{0}")]
    Denied(String),
    /// A device is enrolled under another key.
    #[error("{0}")]
    Conflict(String),
    /// Anything else.
    #[error("{0}")]
    Refused(String),
}

impl GatewayClient {
    /// A client for the gateway at `url`.
    ///
    /// # Errors
    /// [`GatewayError::Address`] when `url` is not an HTTP address.
    pub fn new(url: &str, token: &str) -> Result<Self, GatewayError> {
        let url = url.trim_end_matches('/').to_owned();
        let parsed = reqwest::Url::parse(&url).map_err(|_| GatewayError::Address(url.clone()))?;
        if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
            return Err(GatewayError::Address(url));
        }
        let client = reqwest::Client::builder()
            .user_agent(concat!("orrery-edge/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(5))
            .pool_idle_timeout(Duration::from_secs(60))
            .tcp_nodelay(true)
            .build()
            .map_err(|error| GatewayError::Refused(format!("no HTTP client: {error}")))?;
        Ok(Self {
            client,
            url,
            token: token.to_owned(),
        })
    }

    /// The gateway's address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A POST below `/api/v1`.
    pub fn post(&self, route: &str) -> reqwest::RequestBuilder {
        self.client
            .post(format!("{}/api/v1/{route}", self.url))
            .bearer_auth(&self.token)
    }

    /// A GET below `/api/v1`.
    pub fn get(&self, route: &str) -> reqwest::RequestBuilder {
        self.client
            .get(format!("{}/api/v1/{route}", self.url))
            .bearer_auth(&self.token)
    }

    /// What a failed request means and what to do.
    pub fn explain(&self, error: &reqwest::Error) -> String {
        let url = &self.url;
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        if error.is_timeout() {
            format!("the gateway {url} does not answer in time; check the network")
        } else if error.is_connect() {
            format!("cannot reach the gateway {url} ({cause}); check the address and that Orrery runs")
        } else {
            format!("the request to the gateway {url} failed: {cause}")
        }
    }

    /// Whether the gateway knows this client's token; none when it cannot be asked now.
    pub async fn knows_token(&self) -> Option<bool> {
        let probe = self
            .post("clock/probe")
            .timeout(Duration::from_secs(5))
            .json(&json!({ "t0": "0" }));
        let status = probe.send().await.ok()?.status();
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Some(false),
            status if status.is_success() => Some(true),
            _ => None,
        }
    }

    /// Enrols devices; the token of this client is a one-time enrolment token, or the operator's.
    ///
    /// # Errors
    /// [`GatewayError`] says whether address, token or key is the matter.
    pub async fn enroll(&self, wanted: &[Enrolling]) -> Result<Enrolment, GatewayError> {
        let column = |of: fn(&Enrolling) -> serde_json::Value| wanted.iter().map(of).collect::<Vec<_>>();
        let request = json!({
            "device_ids": column(|one| json!(one.device)),
            "keys": column(|one| json!(URL_SAFE_NO_PAD.encode(one.key.as_bytes()))),
            "titles": column(|one| json!(one.title)),
            "protocols": column(|one| json!(one.protocol)),
        });
        let response = self
            .post("enrollments")
            .timeout(Duration::from_secs(15))
            .json(&request)
            .send()
            .await
            .map_err(|error| GatewayError::Unreachable(self.explain(&error)))?;
        let status = response.status();
        let url = &self.url;
        if !status.is_success() {
            let said = response.text().await.unwrap_or_default();
            let said = serde_json::from_str::<serde_json::Value>(&said)
                .ok()
                .and_then(|problem| {
                    problem
                        .get("detail")
                        .and_then(|detail| detail.as_str())
                        .map(str::to_owned)
                })
                .unwrap_or(said);
            return Err(match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => GatewayError::Denied(format!(
                    "the gateway {url} does not accept the enrolment token ({said}); ask its operator for a new one"
                )),
                StatusCode::CONFLICT => GatewayError::Conflict(format!(
                    "{said}; the key in this agent's folder is not the enrolled one: use the folder it was enrolled from, or another device id"
                )),
                _ => GatewayError::Refused(format!("the gateway {url} refuses the enrolment ({status}): {said}")),
            });
        }
        let answer: Answer = response
            .json()
            .await
            .map_err(|error| GatewayError::Refused(format!("the gateway {url} answered something else: {error}")))?;
        let command_keys = answer
            .command_keys
            .iter()
            .filter_map(|text| URL_SAFE_NO_PAD.decode(text).ok())
            .filter_map(|bytes| PublicKey::from_bytes(&bytes).ok())
            .collect();
        let devices = wanted.iter().map(|one| one.device.clone()).collect();
        Ok(Enrolment {
            url: self.url.clone(),
            token: answer.token,
            devices,
            command_keys,
        })
    }
}

#[derive(Deserialize)]
struct Answer {
    token: String,
    #[serde(default)]
    command_keys: Vec<String>,
}

/// A device to enrol.
#[derive(Debug, Clone)]
pub struct Enrolling {
    /// Its id.
    pub device: DeviceId,
    /// Its public key.
    pub key: PublicKey,
    /// A name for people.
    pub title: Option<String>,
    /// How the agent talks to it.
    pub protocol: Option<String>,
}

/// What enrolment gave: kept in `<folder>/enrolment.json`, readable by the agent's user alone.
#[derive(Clone, Serialize, Deserialize)]
pub struct Enrolment {
    /// The gateway.
    pub url: String,
    /// The agent's bearer token.
    pub token: String,
    /// The devices it opens for.
    pub devices: Vec<DeviceId>,
    /// Whose commands to carry out.
    pub command_keys: Vec<PublicKey>,
}

impl std::fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Enrolment {{ url: {:?}, devices: {:?}, .. }}",
            self.url, self.devices
        )
    }
}

impl Enrolment {
    /// Reads what was stored, if anything.
    ///
    /// # Errors
    /// Names the file that is damaged.
    pub fn load(folder: &Path) -> Result<Option<Self>, Error> {
        files::read_json(
            &Self::file(folder),
            "remove it and enrol again with `orrery-edge enroll`",
        )
    }

    /// Stores it durably.
    ///
    /// # Errors
    /// Names the file that cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), Error> {
        files::make_folder(folder)?;
        files::write_json(&Self::file(folder), self)
    }

    /// Whether it opens this gateway for all of these devices.
    pub fn covers<'a>(&self, url: &str, mut devices: impl Iterator<Item = &'a DeviceId>) -> bool {
        self.url == url.trim_end_matches('/') && devices.all(|device| self.devices.contains(device))
    }

    fn file(folder: &Path) -> PathBuf {
        folder.join("enrolment.json")
    }
}
