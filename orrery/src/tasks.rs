//! The services' tasks: who owns them, what their death means, and how they stop.

use std::future::Future;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::error::Failure;

/// How long the stop waits for the intake to drain, and then for the rest to stop.
const INTAKE_DEADLINE: Duration = Duration::from_millis(1_500);
const REST_DEADLINE: Duration = Duration::from_millis(3_000);

/// One stage of the stop: tasks that are told to stop together.
#[derive(Default)]
pub struct Stage {
    set: JoinSet<(&'static str, Result<(), String>)>,
    stop: CancellationToken,
}

impl Stage {
    /// Cancelled when this stage is to stop.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Adds a task.
    pub fn spawn<E: std::fmt::Display>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.set
            .spawn(async move { (name, task.await.map_err(|error| error.to_string())) });
    }

    async fn end(&mut self, deadline: Duration) {
        self.stop.cancel();
        let ended = timeout(deadline, async {
            while let Some(ended) = self.set.join_next().await {
                if let Err(error) = outcome(ended) {
                    tracing::error!(error, "did not stop cleanly");
                }
            }
        });
        if ended.await.is_err() {
            tracing::warn!(waited = ?deadline, "what had not stopped is cut off; nothing acknowledged is lost");
        }
    }
}

/// The tasks of an instance: those that take data in stop first, those that work on it when the intake has drained. A task
/// that ends before the stop ends the instance, since each of them is needed.
#[derive(Default)]
pub struct Tasks {
    /// Instruments and the agent.
    pub intake: Stage,
    /// Everything behind the bus.
    pub rest: Stage,
}

impl Tasks {
    /// Waits for a task to end before its time: why the start cannot go on.
    pub async fn failed(&mut self) -> Failure {
        let ended = tokio::select! {
            Some(ended) = self.intake.set.join_next() => ended,
            Some(ended) = self.rest.set.join_next() => ended,
            else => std::future::pending().await,
        };
        Failure::from_error(why(ended))
    }

    /// Waits until the stop is asked for or a task ends, then stops everything.
    ///
    /// # Errors
    /// Names the task that ended and why.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), Failure> {
        let ended = tokio::select! {
            () = stop => None,
            Some(ended) = self.intake.set.join_next() => Some(ended),
            Some(ended) = self.rest.set.join_next() => Some(ended),
        };
        let result = match ended {
            None => {
                tracing::info!("stopping: the intake drains, then the services; a second signal ends at once");
                Ok(())
            }
            Some(ended) => {
                let why = why(ended);
                tracing::error!(why, "stopping");
                Err(Failure::from_error(why))
            }
        };
        self.intake.end(INTAKE_DEADLINE).await;
        self.rest.end(REST_DEADLINE).await;
        result
    }
}

fn why(ended: Result<(&'static str, Result<(), String>), JoinError>) -> String {
    outcome(ended).map_or_else(|error| error, |name| format!("the {name} ended by itself"))
}

fn outcome(ended: Result<(&'static str, Result<(), String>), JoinError>) -> Result<&'static str, String> {
    match ended {
        Ok((name, Ok(()))) => Ok(name),
        Ok((name, Err(error))) => Err(format!("the {name} stopped: {error}")),
        Err(panicked) => Err(format!("a service died: {panicked}")),
    }
}
