//! Appends and bytes per second with an fsync before every acknowledgement, for 1, 8 and 64 appenders:
//! `cargo bench -p orrery-bus --bench journal [-- FOLDER]`. The folder decides which disk is measured.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use orrery_bus::Record;
use orrery_bus::journal::{Journal, JournalOptions};
use orrery_protocol::{ManualClock, TaiNanos};
use tokio::time::Instant;

const RUN: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() {
    let parent = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'))
        .map(PathBuf::from);
    println!(
        "{:>9} {:>8} {:>12} {:>10} {:>10} {:>14}",
        "appenders", "bytes", "appends/s", "MB/s", "fsyncs/s", "appends/fsync"
    );
    for value_bytes in [200, 16 * 1024] {
        for appenders in [1, 8, 64] {
            measure(parent.as_deref(), appenders, value_bytes).await;
        }
    }
}

async fn measure(parent: Option<&std::path::Path>, appenders: usize, value_bytes: usize) {
    let folder = match parent {
        Some(parent) => tempfile::tempdir_in(parent),
        None => tempfile::tempdir(),
    };
    let folder = folder.expect("a folder to measure in");
    let clock = Arc::new(ManualClock::new(TaiNanos(0)));
    let journal = Journal::open(folder.path(), JournalOptions::default(), clock).expect("the journal opens");
    let journal = Arc::new(journal);
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..appenders {
        let journal = Arc::clone(&journal);
        tasks.spawn(async move {
            let record = Record::new("tclab-01", vec![7; value_bytes]);
            while start.elapsed() < RUN {
                journal.append(vec![record.clone()]).await.expect("an append");
            }
        });
    }
    tasks.join_all().await;
    let seconds = start.elapsed().as_secs_f64();
    let stats = journal.stats();
    println!(
        "{appenders:>9} {value_bytes:>8} {:>12.0} {:>10.1} {:>10.0} {:>14.1}",
        stats.appended as f64 / seconds,
        stats.bytes as f64 / seconds / 1e6,
        stats.groups as f64 / seconds,
        stats.appended as f64 / stats.groups as f64,
    );
}
