//! The command line's way to a running instance: HTTP with the operator's token.

use std::path::Path;

use futures_util::StreamExt;
use serde_json::Value;

use crate::cli::Target;
use crate::commands::print;
use crate::error::{Exit, Failure};
use crate::folder::{Endpoint, Folder, State};

/// Who answers a command: a running instance, or the stopped folder itself.
pub enum Source {
    /// A running instance.
    Running(Client),
    /// A folder nobody runs; locked for as long as this lives.
    Stopped(Folder),
}

impl Source {
    /// Finds the instance that the options name.
    ///
    /// # Errors
    /// When there is neither an instance nor a folder.
    pub fn find(target: &Target) -> Result<Self, Failure> {
        if let (Some(url), Some(token)) = (&target.url, &target.token) {
            return Ok(Self::Running(Client::new(url, token)?));
        }
        match Folder::find(&target.data.data)? {
            State::Running(Endpoint { url, token, .. }) => Ok(Self::Running(Client::new(&url, &token)?)),
            State::Stopped(folder) => Ok(Self::Stopped(folder)),
        }
    }

    /// The running instance.
    ///
    /// # Errors
    /// `Unreachable` when the folder is stopped.
    pub fn running(target: &Target) -> Result<Client, Failure> {
        match Self::find(target)? {
            Self::Running(client) => Ok(client),
            Self::Stopped(folder) => Err(not_running(folder.root())),
        }
    }
}

fn not_running(root: &Path) -> Failure {
    let message = format!(
        "no Orrery runs on {}: start it with `orrery up --data {}`",
        root.display(),
        root.display()
    );
    Failure::new(Exit::Unreachable, message)
}

/// A running instance.
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Client {
    fn new(url: &str, token: &str) -> Result<Self, Failure> {
        let http = reqwest::Client::builder().build().map_err(Failure::from_error)?;
        Ok(Self {
            http,
            base: format!("{}/api/v1", url.trim_end_matches('/')),
            token: token.to_owned(),
        })
    }

    /// A GET that answers JSON.
    ///
    /// # Errors
    /// As the answer's problem says.
    pub async fn get(&self, path: &str, parameters: &[(&str, String)]) -> Result<Value, Failure> {
        let request = self.http.get(self.url(path)).query(parameters);
        self.send(request)
            .await?
            .json()
            .await
            .map_err(|error| self.broken(&error))
    }

    /// A POST of JSON that answers JSON.
    ///
    /// # Errors
    /// As the answer's problem says.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let request = self.http.post(self.url(path)).json(body);
        self.send(request)
            .await?
            .json()
            .await
            .map_err(|error| self.broken(&error))
    }

    /// A GET whose answer goes to standard output as it comes.
    ///
    /// # Errors
    /// As the answer's problem says.
    pub async fn print_get(&self, path: &str, parameters: &[(&str, String)]) -> Result<(), Failure> {
        let response = self.send(self.http.get(self.url(path)).query(parameters)).await?;
        self.print(response).await
    }

    /// A POST of JSON whose answer goes to standard output as it comes.
    ///
    /// # Errors
    /// As the answer's problem says.
    pub async fn print_post(&self, path: &str, body: &Value) -> Result<(), Failure> {
        let response = self.send(self.http.post(self.url(path)).json(body)).await?;
        self.print(response).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, Failure> {
        let response = request
            .bearer_auth(&self.token)
            .send()
            .await
            .map_err(|error| self.broken(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        Err(Failure::from_problem(
            status,
            &response.text().await.unwrap_or_default(),
        ))
    }

    async fn print(&self, response: reqwest::Response) -> Result<(), Failure> {
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| self.broken(&error))?;
            if !print(&chunk)? {
                break;
            }
        }
        Ok(())
    }

    fn broken(&self, error: &reqwest::Error) -> Failure {
        let message = if error.is_connect() {
            format!("nobody answers at {}: is Orrery running there?", self.base)
        } else {
            format!("{}: {error}", self.base)
        };
        Failure::new(Exit::Unreachable, message)
    }
}
