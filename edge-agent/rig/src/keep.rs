//! What a bench leaves for its next start: after a stop, or a `kill -9`, the board is still warm, as a real one would be.
//!
//! `bench.json` in the rig's folder is replaced about once a second, by a rename and without a sync: what a power cut takes of it
//! is a bench that starts cold.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use orrery_protocol::{Clock, TaiNanos};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::bench::SharedBench;
use crate::physics::Temperatures;

const PERIOD: Duration = Duration::from_secs(1);
/// A bench left alone for longer is cold.
const COLD_AFTER: Duration = Duration::from_secs(6 * 3_600);

/// More than a century: what says so is damaged.
const MOST_STEPS: u64 = 1 << 36;

/// A bench as it was.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// What its noise and weather are drawn from.
    pub seed: u64,
    /// How far its time had gone.
    pub steps: u64,
    /// Its temperatures.
    pub temperatures: Temperatures,
    /// When that was.
    pub at: TaiNanos,
}

/// The bench that was kept in `folder` and how long ago; none when there is none, or another, or it is cold by now.
pub fn read(folder: &Path, seed: u64, now: TaiNanos) -> Option<(Kept, Duration)> {
    let path = file(folder);
    let read = std::fs::read(&path).and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).map_err(io::Error::from));
    let kept = match read {
        Ok(kept) => kept,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!("the bench starts cold: {} cannot be used ({error})", path.display());
            return None;
        }
    };
    if !kept.temperatures.are_possible() || kept.steps > MOST_STEPS {
        tracing::warn!("the bench starts cold: no bench is as {} says", path.display());
        return None;
    }
    let away = now.since(kept.at);
    (kept.seed == seed && away < COLD_AFTER).then_some((kept, away))
}

/// Keeps the bench in `folder` until `shutdown`, and once more then. A folder that cannot be written is told of once.
pub async fn run(bench: SharedBench, clock: Arc<dyn Clock>, folder: PathBuf, shutdown: CancellationToken) {
    let mut is_told = false;
    loop {
        let is_last = shutdown.is_cancelled();
        let kept = bench.at(clock.monotonic()).keep(clock.wall());
        let to = folder.clone();
        // A slow disk must not hold up the instruments.
        let written = tokio::task::spawn_blocking(move || write(&to, &kept)).await;
        if let Ok(Err(error)) = written
            && !std::mem::replace(&mut is_told, true)
        {
            let path = file(&folder);
            tracing::warn!(
                "the bench will start cold next time: cannot write {} ({error})",
                path.display()
            );
        }
        if is_last {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = shutdown.cancelled() => {}
        }
    }
}

fn write(folder: &Path, kept: &Kept) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let (path, beside) = (file(folder), folder.join("bench.new"));
    std::fs::write(&beside, serde_json::to_vec(kept)?)?;
    std::fs::rename(&beside, &path)
}

fn file(folder: &Path) -> PathBuf {
    folder.join("bench.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Bench;
    use orrery_protocol::MonoNanos;

    const STOP: TaiNanos = TaiNanos(1_000_000_000_000_000_000);

    fn warm() -> Kept {
        let bench = SharedBench::new(Bench::new(1, MonoNanos(0)));
        bench.at(MonoNanos(0)).set_pwm(0, 200);
        let kept = bench.at(MonoNanos(600_000_000_000)).keep(STOP);
        assert!(kept.temperatures.sensors[0] > 45.0, "{kept:?}");
        kept
    }

    #[test]
    fn a_bench_goes_on_where_it_stopped_and_cools_while_nobody_heats_it() {
        let folder = tempfile::tempdir().unwrap();
        let kept = warm();
        write(folder.path(), &kept).unwrap();
        // The next boot of the host counts from anew.
        let now = MonoNanos(5_000_000_000);
        let (mut heat, mut steps) = (f64::INFINITY, 0);
        for seconds in [0, 1, 58, 600, 6 * 3_600 - 1] {
            let (read, away) = read(folder.path(), 1, STOP.plus(Duration::from_secs(seconds))).unwrap();
            assert_eq!((read, away), (kept, Duration::from_secs(seconds)));
            let bench = SharedBench::new(Bench::resume(read, away, now));
            let found = bench.at(now).keep(STOP);
            assert_eq!(found.steps, kept.steps + seconds * 20);
            assert!(found.temperatures.heaters[0] < heat && found.steps >= steps);
            (heat, steps) = (found.temperatures.heaters[0], found.steps);
            if seconds == 58 {
                let lost = kept.temperatures.sensors[0] - found.temperatures.sensors[0];
                assert!((1.0..15.0).contains(&lost), "{lost} °C in a minute");
            }
        }
        assert!(heat < 27.0, "cold after hours: {heat}");
    }

    #[test]
    fn what_is_another_bench_or_old_or_damaged_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path(), 1, STOP), None, "nothing was kept");
        write(folder.path(), &warm()).unwrap();
        assert!(read(folder.path(), 1, STOP).is_some());
        assert_eq!(read(folder.path(), 2, STOP), None, "another seed");
        assert_eq!(read(folder.path(), 1, STOP.plus(COLD_AFTER)), None, "long ago");
        let hell = Kept {
            temperatures: Temperatures::uniform(1e9),
            ..warm()
        };
        write(folder.path(), &hell).unwrap();
        assert_eq!(read(folder.path(), 1, STOP), None, "no bench is so hot");
        for damaged in [&b""[..], b"{", b"null", b"{\"seed\":1}"] {
            std::fs::write(file(folder.path()), damaged).unwrap();
            assert_eq!(read(folder.path(), 1, STOP), None);
        }
    }
}
