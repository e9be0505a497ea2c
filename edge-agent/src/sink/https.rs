use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use reqwest::StatusCode;
use serde::Deserialize;

use super::{Sink, SinkError};
use crate::gateway::GatewayClient;

/// Posts to a gateway's ingest route.
pub struct HttpsSink {
    gateway: GatewayClient,
}

impl HttpsSink {
    /// A sink to this gateway.
    pub fn new(gateway: GatewayClient) -> Self {
        Self { gateway }
    }
}

#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    title: String,
    #[serde(default)]
    detail: Option<String>,
}

/// A gateway takes at most this many envelopes at once.
const MOST_AT_ONCE: usize = 4_096;

#[async_trait]
impl Sink for HttpsSink {
    async fn send(&self, envelopes: &[Bytes]) -> Result<(), SinkError> {
        for chunk in envelopes.chunks(MOST_AT_ONCE) {
            self.post(chunk).await?;
        }
        Ok(())
    }
}

impl HttpsSink {
    async fn post(&self, envelopes: &[Bytes]) -> Result<(), SinkError> {
        let mut body = BytesMut::with_capacity(envelopes.iter().map(|bytes| bytes.len() + 4).sum());
        for envelope in envelopes {
            body.extend_from_slice(&(envelope.len() as u32).to_be_bytes());
            body.extend_from_slice(envelope);
        }
        let response = self
            .gateway
            .post("envelopes")
            .timeout(Duration::from_secs(30))
            .header("content-type", "application/vnd.orrery.envelopes")
            .body(body.freeze())
            .send()
            .await
            .map_err(|error| SinkError::Unreachable(self.gateway.explain(&error)))?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let url = self.gateway.url();
        let said = match response.json::<Problem>().await {
            Ok(problem) => problem.detail.unwrap_or(problem.title),
            Err(_) => String::new(),
        };
        Err(match status {
            StatusCode::UNAUTHORIZED => SinkError::Refused(format!(
                "the gateway {url} does not know this agent's token ({said}); enrol again with `orrery-edge enroll`"
            )),
            StatusCode::FORBIDDEN => SinkError::Refused(format!("the gateway {url} refuses the envelopes: {said}")),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                SinkError::Unreachable(format!("the gateway {url} is busy ({status})"))
            }
            status if status.is_client_error() => {
                SinkError::Refused(format!("the gateway {url} refuses the envelopes ({status}): {said}"))
            }
            status => SinkError::Unreachable(format!(
                "the gateway {url} cannot take envelopes now ({status}): {said}"
            )),
        })
    }
}
