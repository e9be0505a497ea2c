//! The catalog's tables in SQLite, and the few statements that touch them.
//!
//! One transaction per commit holds the tail, segments, accepted intervals, clock state, descriptors, keys and input
//! offsets, so that a crash leaves all of them at the same commit or none. It is guarded by an epoch that rises with
//! each opening: whoever lost the folder cannot commit.

use std::path::{Path, PathBuf};

use orrery_protocol::{Digest, TaiNanos};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection, Row};

use super::view::Segment;
use crate::Error;

const FORMAT: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS commits (revision INTEGER PRIMARY KEY, stamp_tai INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS offsets (topic TEXT, part INTEGER, next INTEGER NOT NULL, PRIMARY KEY (topic, part)) STRICT;
CREATE TABLE IF NOT EXISTS tail (id INTEGER PRIMARY KEY, stream TEXT NOT NULL, level INTEGER NOT NULL, batch BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS segments (path TEXT PRIMARY KEY, stream TEXT NOT NULL, size INTEGER NOT NULL, sha256 BLOB NOT NULL,
  row_count INTEGER NOT NULL, min_tai INTEGER NOT NULL, max_tai INTEGER NOT NULL, max_revision INTEGER NOT NULL, added INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS descriptors (stream TEXT, digest BLOB, revision INTEGER NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY (stream, digest)) STRICT;
CREATE TABLE IF NOT EXISTS state (kind TEXT, name TEXT, value BLOB NOT NULL, PRIMARY KEY (kind, name)) STRICT;
";

/// A connection to the catalog file.
pub struct Catalog {
    pub(crate) path: PathBuf,
    pub(crate) connection: SqliteConnection,
}

impl Catalog {
    /// Opens or creates the catalog for its one owner.
    ///
    /// # Errors
    /// [`Error::Catalog`] or [`Error::CatalogFormat`].
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("cache_size", "-16384");
        let mut catalog = Self::connect(path, &options).await?;
        // `raw_sql` would do, were its future `Send` for more than one lifetime (rust-lang/rust#110338).
        for statement in SCHEMA
            .split(';')
            .map(str::trim)
            .filter(|statement| !statement.is_empty())
        {
            sqlx::query(statement)
                .execute(&mut catalog.connection)
                .await
                .map_err(|e| catalog_error(path, e))?;
        }
        sqlx::query("INSERT OR IGNORE INTO meta VALUES ('format', ?1), ('epoch', 0)")
            .bind(FORMAT)
            .execute(&mut catalog.connection)
            .await
            .map_err(|e| catalog_error(path, e))?;
        catalog.check_format().await?;
        Ok(catalog)
    }

    /// Opens a catalog that nobody owns now, without writing to it.
    ///
    /// # Errors
    /// [`Error::NoCatalog`], [`Error::Catalog`] or [`Error::CatalogFormat`].
    pub async fn open_read_only(path: &Path) -> Result<Self, Error> {
        if !path.is_file() {
            return Err(Error::NoCatalog { path: path.to_owned() });
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .immutable(true);
        let mut catalog = Self::connect(path, &options).await?;
        catalog.check_format().await?;
        Ok(catalog)
    }

    /// Opens a private copy, which SQLite may recover from its write-ahead log.
    pub(crate) async fn open_copy(path: &Path) -> Result<Self, Error> {
        let mut catalog = Self::connect(path, &SqliteConnectOptions::new().filename(path)).await?;
        catalog.check_format().await?;
        Ok(catalog)
    }

    async fn connect(path: &Path, options: &SqliteConnectOptions) -> Result<Self, Error> {
        let connection = SqliteConnection::connect_with(options)
            .await
            .map_err(|e| catalog_error(path, e))?;
        Ok(Self {
            path: path.to_owned(),
            connection,
        })
    }

    async fn check_format(&mut self) -> Result<(), Error> {
        let found = self.meta("format").await?;
        if found == FORMAT {
            Ok(())
        } else {
            Err(Error::CatalogFormat {
                path: self.path.clone(),
                found,
                expected: FORMAT,
            })
        }
    }

    pub(crate) async fn meta(&mut self, name: &str) -> Result<i64, Error> {
        let row = sqlx::query("SELECT value FROM meta WHERE name = ?1")
            .bind(name)
            .fetch_one(&mut self.connection)
            .await;
        row.map(|row| row.get(0)).map_err(|e| catalog_error(&self.path, e))
    }

    /// Raises the epoch: from here on only this opening can commit.
    pub(crate) async fn take_over(&mut self) -> Result<i64, Error> {
        let failed = |source| catalog_error(&self.path, source);
        // The row comes before the write is durable: only a commit that was answered says that the epoch is raised,
        // and on a full disk it is not.
        let mut transaction = Connection::begin(&mut self.connection).await.map_err(failed)?;
        let row = sqlx::query("UPDATE meta SET value = value + 1 WHERE name = 'epoch' RETURNING value")
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(row.get(0))
    }

    pub(crate) async fn latest_commit(&mut self) -> Result<(u64, TaiNanos), Error> {
        let row = sqlx::query("SELECT revision, stamp_tai FROM commits ORDER BY revision DESC LIMIT 1")
            .fetch_optional(&mut self.connection)
            .await
            .map_err(|e| catalog_error(&self.path, e))?;
        Ok(row.map_or((0, TaiNanos(0)), |row| {
            (row.get::<i64, _>(0) as u64, TaiNanos(row.get(1)))
        }))
    }

    pub(crate) async fn offsets(&mut self, topic: &str) -> Result<Vec<(u32, u64)>, Error> {
        let rows = sqlx::query("SELECT part, next FROM offsets WHERE topic = ?1")
            .bind(topic)
            .fetch_all(&mut self.connection)
            .await
            .map_err(|e| catalog_error(&self.path, e))?;
        Ok(rows
            .iter()
            .map(|row| (row.get::<i64, _>(0) as u32, row.get::<i64, _>(1) as u64))
            .collect())
    }

    pub(crate) async fn tail(&mut self) -> Result<Vec<(i64, String, i64, Vec<u8>)>, Error> {
        let rows = sqlx::query("SELECT id, stream, level, batch FROM tail ORDER BY id")
            .fetch_all(&mut self.connection)
            .await
            .map_err(|e| catalog_error(&self.path, e))?;
        Ok(rows
            .iter()
            .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3)))
            .collect())
    }

    pub(crate) async fn segments(&mut self) -> Result<Vec<Segment>, Error> {
        let rows = sqlx::query(
            "SELECT path, stream, size, sha256, row_count, min_tai, max_tai, max_revision, added FROM segments ORDER BY min_tai, path",
        )
        .fetch_all(&mut self.connection)
        .await
        .map_err(|e| catalog_error(&self.path, e))?;
        rows.iter()
            .map(|row| {
                let path: String = row.get(0);
                let sha256 = Digest::from_slice(&row.get::<Vec<u8>, _>(3)).ok_or_else(|| Error::Stored {
                    what: "a segment's digest",
                    why: path.clone(),
                })?;
                Ok(Segment {
                    path,
                    table: row.get(1),
                    size: row.get::<i64, _>(2) as u64,
                    sha256,
                    rows: row.get::<i64, _>(4) as u64,
                    min: row.get(5),
                    max: row.get(6),
                    max_revision: row.get::<i64, _>(7) as u64,
                    added: row.get::<i64, _>(8) as u64,
                })
            })
            .collect()
    }

    pub(crate) async fn descriptors(&mut self) -> Result<Vec<(String, u64, Vec<u8>)>, Error> {
        let rows = sqlx::query("SELECT stream, revision, bytes FROM descriptors ORDER BY revision, rowid")
            .fetch_all(&mut self.connection)
            .await
            .map_err(|e| catalog_error(&self.path, e))?;
        Ok(rows
            .iter()
            .map(|row| (row.get(0), row.get::<i64, _>(1) as u64, row.get(2)))
            .collect())
    }

    pub(crate) async fn state(&mut self, kind: &str) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let rows = sqlx::query("SELECT name, value FROM state WHERE kind = ?1 ORDER BY name")
            .bind(kind)
            .fetch_all(&mut self.connection)
            .await
            .map_err(|e| catalog_error(&self.path, e))?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }
}

pub(crate) fn catalog_error(path: &Path, source: sqlx::Error) -> Error {
    const SQLITE_CORRUPT: &str = "11";
    const SQLITE_NOTADB: &str = "26";
    let code = source.as_database_error().and_then(|error| error.code());
    if code.is_some_and(|code| code == SQLITE_CORRUPT || code == SQLITE_NOTADB) {
        return Error::CatalogDamaged {
            path: path.to_owned(),
            reason: source.to_string(),
        };
    }
    Error::Catalog {
        path: path.to_owned(),
        source,
    }
}

pub(crate) async fn insert_segment(connection: &mut SqliteConnection, segment: &Segment) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO segments VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")
        .bind(&segment.path)
        .bind(&segment.table)
        .bind(segment.size as i64)
        .bind(segment.sha256.0.to_vec())
        .bind(segment.rows as i64)
        .bind(segment.min)
        .bind(segment.max)
        .bind(segment.max_revision as i64)
        .bind(segment.added as i64)
        .execute(connection)
        .await
        .map(drop)
}

pub(crate) async fn insert_part(
    connection: &mut SqliteConnection,
    table: &str,
    level: i64,
    bytes: &[u8],
) -> Result<i64, sqlx::Error> {
    sqlx::query("INSERT INTO tail (stream, level, batch) VALUES (?1, ?2, ?3)")
        .bind(table)
        .bind(level)
        .bind(bytes)
        .execute(connection)
        .await
        .map(|done| done.last_insert_rowid())
}
