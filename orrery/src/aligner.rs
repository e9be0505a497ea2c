//! The aligner's place in the process: what fails it later than its start, such as a full disk, does not end the rest.

use std::time::Duration;

use orrery_aligner::{Config, Deps, Error};
use tokio_util::sync::CancellationToken;

/// How long to wait before another start: from the first to the most.
const PAUSE: Duration = Duration::from_secs(1);
const MOST_PAUSE: Duration = Duration::from_secs(30);

/// Runs the aligner and starts it again when it fails after it once ran. What comes meanwhile waits on the bus, and
/// `/readyz` says that the aligner does not run.
///
/// # Errors
/// Why it could not start the first time: that is for a person to settle.
pub async fn keep(config: Config, deps: Deps, stop: CancellationToken) -> Result<(), Error> {
    let mut has_run = false;
    let mut pause = PAUSE;
    loop {
        let mut running = std::pin::pin!(orrery_aligner::run(config.clone(), deps.clone(), stop.clone()));
        let ended = loop {
            tokio::select! {
                ended = &mut running => break ended,
                () = deps.handle.ready(), if !has_run => has_run = true,
            }
        };
        match ended {
            Err(error) if has_run && !stop.is_cancelled() => {
                tracing::error!(%error, again_in = ?pause, "the aligner stopped; what comes meanwhile waits on the bus");
            }
            ended => return ended,
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(MOST_PAUSE);
    }
}
