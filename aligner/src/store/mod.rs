//! The replay store: a catalog in SQLite, a durable tail inside it, immutable Parquet segments beside it.
//!
//! ```text
//! catalog.sqlite   commits, input offsets, tail (Arrow IPC blobs), segments, descriptors, state
//! segments/        <device>/<name>/<bucket>-<epoch>-<revision>-<n>.parquet, raw.envelopes/…
//! ```
//! [`Store`] reads and is shared; [`Writer`] is the single owner that commits. A reader takes one [`View`] and sees one
//! commit for as long as it likes: segments are never altered, and a file leaves only after the catalog dropped it.

mod catalog;
mod commit;
mod reader;
mod segment;
mod view;
mod writer;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use arrow::ipc::reader::StreamReader;
use orrery_protocol::{Descriptor, TaiNanos};

pub use commit::Commit;
pub use reader::SegmentReader;
pub use view::{Part, RAW_TABLE, Segment, Table, View};
pub use writer::Writer;

use crate::columns::{self, Keys};
use crate::{Config, Error};
use catalog::Catalog;
use segment::SegmentFiles;

/// Reads the replay store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    files: Option<SegmentFiles>,
    view: RwLock<Arc<View>>,
    checked: Mutex<HashSet<String>>,
    query_memory_bytes: usize,
}

/// What was durable when the store was opened, for whoever goes on from there.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The latest commit.
    pub revision: u64,
    /// State by kind, then (name, value).
    pub state: BTreeMap<&'static str, Vec<(String, Vec<u8>)>>,
    /// Next offsets per topic.
    pub offsets: BTreeMap<&'static str, Vec<(u32, u64)>>,
}

/// Kinds of small state that commits carry.
pub const STATE_KINDS: [&str; 5] = ["device", "chain", "clock bank", "stream", "counters"];

impl Store {
    /// Opens the store of a data folder for its one owner, who holds the folder's lock.
    ///
    /// # Errors
    /// [`Error`] names the catalog or folder that could not be used.
    pub async fn open(config: &Config, now: TaiNanos) -> Result<(Self, Writer, Recovered), Error> {
        std::fs::create_dir_all(&config.data).map_err(|source| Error::Io {
            what: "cannot create the data folder",
            path: config.data.clone(),
            source,
        })?;
        let files = SegmentFiles::open(config.data.join("segments"), true)?;
        let mut catalog = Catalog::open(&catalog_path(&config.data)).await?;
        let epoch = catalog.take_over().await?;
        let view = load_view(&mut catalog).await?;
        let mut recovered = Recovered {
            revision: view.revision,
            ..Recovered::default()
        };
        for kind in STATE_KINDS {
            recovered.state.insert(kind, catalog.state(kind).await?);
        }
        for topic in [orrery_protocol::topics::RAW, orrery_protocol::topics::TRACES] {
            recovered.offsets.insert(topic, catalog.offsets(topic).await?);
        }
        let known: HashSet<String> = view
            .tables
            .values()
            .flat_map(|table| table.segments.iter().map(|segment| segment.path.clone()))
            .collect();
        let store = Self::with_view(files, view, config);
        if let Some(files) = &store.0.files {
            let limit = now
                .to_utc()
                .0
                .saturating_sub((config.orphan_seconds as i64).saturating_mul(1_000_000_000));
            let removed = files.collect_orphans(&known, limit).await;
            if removed > 0 {
                tracing::info!(removed, "removed segment files that no commit names");
            }
        }
        let writer = Writer::new(store.clone(), catalog, epoch, config.clone());
        Ok((store, writer, recovered))
    }

    /// Opens the store of a stopped data folder without writing to the folder.
    ///
    /// # Errors
    /// [`Error::NoCatalog`] when the folder never ran; [`Error`] names what could not be read.
    pub async fn open_read_only(data: &Path) -> Result<Self, Error> {
        let path = catalog_path(data);
        let log = path.with_extension("sqlite-wal");
        let pending = std::fs::metadata(&log).is_ok_and(|meta| meta.len() > 0);
        let view = if pending {
            // After a kill the last commits stand in the write-ahead log, and recovering it writes: do that on a copy.
            let copy = Copied::of(&path, &log)?;
            load_view(&mut Catalog::open_copy(&copy.catalog()).await?).await?
        } else {
            load_view(&mut Catalog::open_read_only(&path).await?).await?
        };
        let files = SegmentFiles::open(data.join("segments"), false)?;
        Ok(Self::with_view(files, view, &Config::for_data(data)))
    }

    fn with_view(files: Option<SegmentFiles>, view: View, config: &Config) -> Self {
        Self(Arc::new(Inner {
            files,
            view: RwLock::new(Arc::new(view)),
            checked: Mutex::default(),
            query_memory_bytes: config.query_memory_bytes,
        }))
    }

    /// The latest commit's tables.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.0.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_view(&self, view: View) {
        *self.0.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
    }

    pub(crate) fn query_memory_bytes(&self) -> usize {
        self.0.query_memory_bytes
    }

    pub(crate) fn files(&self) -> Option<&SegmentFiles> {
        self.0.files.as_ref()
    }

    /// Checks a segment's bytes the first time this process touches it.
    pub(crate) async fn check_segment(&self, segment: &Segment) -> Result<(), Error> {
        let files = self.files().ok_or_else(|| segment.broken("missing"))?;
        let known = self
            .0
            .checked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&segment.path);
        if !known {
            files.check(segment).await?;
            self.mark_checked(&segment.path);
        }
        Ok(())
    }

    pub(crate) fn mark_checked(&self, path: &str) {
        self.0
            .checked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(path.to_owned());
    }
}

fn catalog_path(data: &Path) -> PathBuf {
    data.join("catalog.sqlite")
}

async fn load_view(catalog: &mut Catalog) -> Result<View, Error> {
    let (revision, stamp) = catalog.latest_commit().await?;
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    for (name, since, bytes) in catalog.descriptors().await? {
        let descriptor = Descriptor::decode(&bytes)?;
        let table = tables.entry(name.clone()).or_insert_with(|| Table::new(&name, &[]));
        add_descriptor(table, since, Arc::new(descriptor))?;
    }
    for segment in catalog.segments().await? {
        let table = tables
            .entry(segment.table.clone())
            .or_insert_with(|| empty_table(&segment.table));
        table.segments.push(Arc::new(segment));
    }
    for (id, name, level, bytes) in catalog.tail().await? {
        let part = read_part(id, level, &bytes)?;
        let table = tables.entry(name.clone()).or_insert_with(|| empty_table(&name));
        widen(table, &part.batch)?;
        table.tail.push(Arc::new(part));
    }
    let tables = tables
        .into_iter()
        .map(|(name, table)| (name, Arc::new(table)))
        .collect();
    Ok(View {
        revision,
        stamp,
        tables,
    })
}

fn empty_table(name: &str) -> Table {
    if name == RAW_TABLE {
        Table::new(name, &crate::archive::raw_fields())
    } else {
        Table::new(name, &[])
    }
}

/// Lets a table hold the columns of a batch that came without a descriptor.
fn widen(table: &mut Table, batch: &arrow::array::RecordBatch) -> Result<(), Error> {
    let known = &table.schema.fields()[columns::STORED_KEYS..];
    let schema = batch.schema();
    let more = &schema.fields()[columns::STORED_KEYS..];
    let union = columns::union_fields(known, more).map_err(|why| Error::Stored {
        what: "a tail part",
        why,
    })?;
    if union.len() != known.len() {
        table.schema = columns::stored_schema(&union);
    }
    Ok(())
}

fn add_descriptor(table: &mut Table, revision: u64, descriptor: Arc<Descriptor>) -> Result<(), Error> {
    let known = table.schema.fields()[columns::STORED_KEYS..].to_vec();
    let union = columns::union_fields(&known, &columns::channel_fields(&descriptor)).map_err(|why| Error::Stored {
        what: "a descriptor",
        why,
    })?;
    table.schema = columns::stored_schema(&union);
    table.descriptors.push((revision, descriptor));
    Ok(())
}

fn read_part(id: i64, level: i64, bytes: &[u8]) -> Result<Part, Error> {
    let stored = |why: String| Error::Stored {
        what: "a tail part",
        why,
    };
    let mut reader = StreamReader::try_new(bytes, None).map_err(|e| stored(e.to_string()))?;
    let batch = reader
        .next()
        .ok_or_else(|| stored("it is empty".to_owned()))?
        .map_err(|e| stored(e.to_string()))?;
    part_of(id, level, bytes.len() as u64, batch)
}

fn part_of(id: i64, level: i64, bytes: u64, batch: arrow::array::RecordBatch) -> Result<Part, Error> {
    let keys = Keys::of(&batch).map_err(Error::arrow("tail"))?;
    if keys.is_empty() {
        return Err(Error::Stored {
            what: "a tail part",
            why: "it has no rows".to_owned(),
        });
    }
    let (min, max) = (keys.time(0), keys.time(keys.len() - 1));
    Ok(Part {
        id,
        level,
        bytes,
        batch,
        min,
        max,
    })
}

/// A private copy of a catalog and its write-ahead log, removed when dropped.
struct Copied(PathBuf);

impl Copied {
    fn of(catalog: &Path, log: &Path) -> Result<Self, Error> {
        let mut name = std::ffi::OsString::from("orrery-read-");
        let random: [u8; 8] =
            std::array::from_fn(|at| std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), at) as u8);
        name.push(format!("{}-{}", std::process::id(), hex::encode(random)));
        let copy = Self(std::env::temp_dir().join(name));
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io {
                what: "cannot copy the catalog to a temporary folder",
                path,
                source,
            }
        };
        std::fs::create_dir(&copy.0).map_err(io(&copy.0))?;
        std::fs::copy(catalog, copy.catalog()).map_err(io(catalog))?;
        std::fs::copy(log, copy.0.join("catalog.sqlite-wal")).map_err(io(log))?;
        Ok(copy)
    }

    fn catalog(&self) -> PathBuf {
        catalog_path(&self.0)
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "a temporary copy of the catalog stays behind");
        }
    }
}
