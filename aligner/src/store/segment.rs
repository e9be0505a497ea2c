//! Segment files: immutable Parquet, durable before the catalog names them, checked when first touched.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, UInt64Type};
use futures_util::StreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use orrery_protocol::Digest;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use super::view::Segment;
use crate::Error;

/// Rows per row group: what a range scan prunes by and a seek has to look through.
const ROW_GROUP_ROWS: usize = 128 * 1024;

/// The folder of segments behind the object-store interface.
#[derive(Debug, Clone)]
pub struct SegmentFiles {
    pub(crate) objects: Arc<LocalFileSystem>,
    folder: PathBuf,
}

impl SegmentFiles {
    /// Uses a folder; creates it when the owner asks.
    ///
    /// # Errors
    /// [`Error::Io`] when it is not there and cannot be made.
    pub fn open(folder: PathBuf, create: bool) -> Result<Option<Self>, Error> {
        let io = |what| {
            let path = folder.clone();
            move |source| Error::Io { what, path, source }
        };
        if create {
            std::fs::create_dir_all(&folder).map_err(io("cannot create the segments folder"))?;
        } else if !folder.is_dir() {
            return Ok(None);
        }
        let objects = LocalFileSystem::new_with_prefix(&folder)
            .map_err(|e| io("cannot open the segments folder")(std::io::Error::other(e)))?;
        Ok(Some(Self {
            objects: Arc::new(objects),
            folder,
        }))
    }

    /// Writes sorted rows as one segment and makes the file durable. The catalog does not know it yet.
    ///
    /// # Errors
    /// [`Error::Io`] names the file.
    pub(crate) async fn write(
        &self,
        path: String,
        table: &str,
        batch: RecordBatch,
        added: u64,
    ) -> Result<Segment, Error> {
        let rows = batch.num_rows();
        let times = batch.column(1).as_primitive::<Int64Type>().values().clone();
        let (Some(&min), Some(&max)) = (times.first(), times.last()) else {
            return Err(Error::Internal(format!("segment {path} would be empty")));
        };
        let max_revision = batch
            .column(3)
            .as_primitive::<UInt64Type>()
            .values()
            .iter()
            .max()
            .copied()
            .unwrap_or(0);
        let io = |source: std::io::Error| Error::Io {
            what: "cannot write segment",
            path: self.folder.join(&path),
            source,
        };
        let encoded =
            tokio::task::spawn_blocking(move || encode(&batch).map(|bytes| (Digest::of(&bytes), bytes))).await;
        let (sha256, bytes) = encoded
            .map_err(|e| io(std::io::Error::other(e)))?
            .map_err(|e| io(std::io::Error::other(e)))?;
        let size = bytes.len() as u64;
        let object = ObjectPath::from(path.as_str());
        self.objects
            .put(&object, PutPayload::from(bytes))
            .await
            .map_err(|e| io(std::io::Error::other(e)))?;
        self.sync(&path).await.map_err(io)?;
        Ok(Segment {
            path,
            table: table.to_owned(),
            size,
            sha256,
            rows: rows as u64,
            min,
            max,
            max_revision,
            added,
        })
    }

    /// The object store does not fsync; a segment must survive a power cut before the catalog names it.
    async fn sync(&self, path: &str) -> std::io::Result<()> {
        let file = self.folder.join(path);
        let root = self.folder.clone();
        tokio::task::spawn_blocking(move || {
            std::fs::File::open(&file)?.sync_all()?;
            let mut folder = file.parent();
            while let Some(here) = folder.filter(|here| here.starts_with(&root)) {
                std::fs::File::open(here)?.sync_all()?;
                folder = here.parent();
            }
            Ok(())
        })
        .await
        .map_err(std::io::Error::other)?
    }

    /// Whether the file still holds exactly the bytes that were written.
    ///
    /// # Errors
    /// [`Error::Segment`]: missing or corrupted.
    pub(crate) async fn check(&self, segment: &Segment) -> Result<(), Error> {
        let object = ObjectPath::from(segment.path.as_str());
        let found = match self.objects.get(&object).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Err(segment.broken("missing")),
            Err(error) => return Err(segment.broken(format!("unreadable: {error}"))),
        };
        if found.meta.size != segment.size {
            let (is, was) = (found.meta.size, segment.size);
            return Err(segment.broken(format!("corrupted: it has {is} bytes, not {was}")));
        }
        let mut hash = <sha2::Sha256 as sha2::Digest>::new();
        let mut stream = found.into_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| segment.broken(format!("unreadable: {error}")))?;
            sha2::Digest::update(&mut hash, &chunk);
        }
        let digest: [u8; 32] = sha2::Digest::finalize(hash).into();
        if digest == segment.sha256.0 {
            Ok(())
        } else {
            Err(segment.broken("corrupted: its bytes were altered"))
        }
    }

    /// Removes files that no catalog names and that are older than `age`: what a crash between write and commit left.
    pub(crate) async fn collect_orphans(&self, known: &HashSet<String>, older_than_utc_nanos: i64) -> usize {
        let mut removed = 0;
        let mut files = self.objects.list(None);
        while let Some(file) = files.next().await {
            let Ok(file) = file else { continue };
            let stamped = file.last_modified.timestamp_nanos_opt().unwrap_or(i64::MAX);
            if known.contains(file.location.as_ref()) || stamped > older_than_utc_nanos {
                continue;
            }
            match self.objects.delete(&file.location).await {
                Ok(()) => removed += 1,
                Err(error) => {
                    tracing::warn!(file = %file.location, %error, "an orphaned segment could not be removed")
                }
            }
        }
        removed
    }
}

fn encode(batch: &RecordBatch) -> Result<Vec<u8>, parquet::errors::ParquetError> {
    let delta = |builder: parquet::file::properties::WriterPropertiesBuilder, name: &str| {
        let column = ColumnPath::from(name);
        builder
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED)
    };
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_created_by(concat!("orrery ", env!("CARGO_PKG_VERSION")).to_owned());
    for column in ["time", "time_tai"] {
        properties = delta(properties, column);
    }
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties.build()))?;
    writer.write(batch)?;
    writer.into_inner()
}
