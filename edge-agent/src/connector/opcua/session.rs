//! One connection to a server: login, the task that drives it, and what its failures mean.

use std::sync::Arc;
use std::time::Duration;

use opcua::client::{Client, ClientBuilder, IdentityToken, Session};
use opcua::types::{EndpointDescription, MessageSecurityMode, StatusCode, UserTokenPolicy};
use tokio::task::JoinSet;

use super::OpcUaConfig;
use crate::connector::{CREDENTIALS, ConnectError};

const TIMEOUT: Duration = Duration::from_secs(10);

/// A session that is being driven by its own task.
pub struct Connection {
    /// The session.
    pub session: Arc<Session>,
    driver: JoinSet<StatusCode>,
}

impl Connection {
    /// Connects and logs in.
    ///
    /// # Errors
    /// Names the server and the remedy.
    pub async fn open(config: &OpcUaConfig) -> Result<Self, ConnectError> {
        config.check().map_err(ConnectError::Settings)?;
        let url = &config.url;
        let unreachable = |problem: &str| ConnectError::Unreachable(format!("{url} {problem}"));
        let connect = async {
            let mut client = client().map_err(ConnectError::Unreachable)?;
            let endpoint: EndpointDescription = (
                url.as_str(),
                "None",
                MessageSecurityMode::None,
                UserTokenPolicy::anonymous(),
            )
                .into();
            let identity = match &config.username {
                Some(user) => IdentityToken::new_user_name(user.clone(), config.password.clone().unwrap_or_default()),
                None => IdentityToken::Anonymous,
            };
            client
                .connect_to_matching_endpoint(endpoint, identity)
                .await
                .map_err(|error| explain(url, error.status()))
        };
        let (session, event_loop) = tokio::time::timeout(TIMEOUT, connect)
            .await
            .map_err(|_| unreachable("does not answer; check the address and the firewall"))??;
        session.disable_reconnects();
        let mut driver = JoinSet::new();
        driver.spawn(event_loop.run());
        let mut connection = Self { session, driver };
        tokio::select! {
            is_connected = connection.session.wait_for_connection() => {
                if is_connected { return Ok(connection); }
            }
            Some(ended) = connection.driver.join_next() => {
                return Err(explain(url, ended.unwrap_or(StatusCode::BadUnexpectedError)));
            }
            () = tokio::time::sleep(TIMEOUT) => {}
        }
        Err(unreachable(
            "does not open a session; check user name, password and the server's log",
        ))
    }

    /// Resolves when the connection is lost.
    pub async fn lost(&mut self) -> StatusCode {
        match self.driver.join_next().await {
            Some(Ok(status)) => status,
            _ => StatusCode::BadConnectionClosed,
        }
    }

    /// Says goodbye, without waiting long for the answer.
    pub async fn close(mut self) {
        drop(tokio::time::timeout(Duration::from_millis(500), self.session.disconnect()).await);
        self.driver.shutdown().await;
    }
}

fn client() -> Result<Client, String> {
    ClientBuilder::new()
        .application_name("Orrery edge agent")
        .application_uri("urn:orrery:edge-agent")
        .pki_dir(std::env::temp_dir().join("orrery-edge-pki"))
        .create_sample_keypair(false)
        .trust_server_certs(true)
        .session_retry_limit(0)
        .keep_alive_interval(Duration::from_secs(2))
        .max_failed_keep_alive_count(3)
        .request_timeout(Duration::from_secs(5))
        .client()
        .map_err(|problems| format!("the OPC UA client cannot start: {}", problems.join(", ")))
}

fn explain(url: &str, status: StatusCode) -> ConnectError {
    let problem = if status == StatusCode::BadUserAccessDenied
        || status == StatusCode::BadIdentityTokenRejected
        || status == StatusCode::BadIdentityTokenInvalid
    {
        let refused = format!("the OPC UA server {url} refuses the credentials; {CREDENTIALS}");
        return ConnectError::Denied(refused);
    } else if status == StatusCode::BadCommunicationError || status == StatusCode::BadConnectionRejected {
        format!("nobody answers at {url} ({status}); check the address and that the server runs")
    } else if status == StatusCode::BadSecurityPolicyRejected || status == StatusCode::BadTcpEndpointUrlInvalid {
        // The library answers the same when no endpoint takes an anonymous user.
        format!(
            "the OPC UA server {url} offers no endpoint we can use ({status}); give username and password if it wants \
             them, or enable the security policy None on it"
        )
    } else {
        format!("no session with the OPC UA server {url} ({status}); check the address and the server's log")
    };
    ConnectError::Unreachable(problem)
}
