//! The only SQL of Palisade: sessions, turns, the event log and the conversation items.
//!
//! All writes go through one writer task that commits whatever is waiting as one group, so that a delta costs
//! microseconds; all reads are plain queries. An event is a row before anybody can see it. Nothing here knows
//! what an event means, decides who may see what, or calls another room.

mod conversation;
mod error;
mod follow;
mod lifetimes;
mod read;
mod write;
mod writer;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

pub use conversation::PlacedItem;
pub use error::StoreError;
pub use follow::Follower;
pub use lifetimes::DueSession;
pub use read::{KeyUse, Turn, TurnState};
pub use write::{ClientAnswer, Commit, IdempotencyKey, NewSession, NewTurn};

/// Connections that read; the one that writes is apart.
const READERS_MAX: u32 = 4;

/// The write-ahead log above which the writer makes room, in bytes. Readers that are never idle keep the
/// database's own, passive checkpoints from ever completing.
pub(crate) const WAL_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The store of one server: a handle that is cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    readers: SqlitePool,
    writer: writer::Writer,
    wakers: follow::Wakers,
}

/// The task that owns the writing connection; it ends when the last [`Store`] is dropped.
pub type WriterTask = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl Store {
    /// Opens (and makes, and migrates) the database at `file`. The caller runs the returned task.
    pub async fn open(file: &Path) -> Result<(Self, WriterTask), StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // What a checkpoint has emptied is given back to the disk.
            .pragma("journal_size_limit", WAL_BYTES_MAX.to_string())
            // FULL: an acknowledged event survives power loss, not only a crash of the process.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10));
        let open = |source| StoreError::Open { file: file.to_owned(), source };
        let writing = SqlitePoolOptions::new()
            .max_connections(1)
            // The file is local: a connection that was good stays good, and asking costs a change of threads.
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.clone())
            .await
            .map_err(open)?;
        sqlx::migrate!().run(&writing).await.map_err(|source| StoreError::Migrate { source })?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS_MAX)
            .test_before_acquire(false)
            .connect_with(options.read_only(true))
            .await
            .map_err(open)?;
        let wakers = follow::Wakers::default();
        let (writer, task) = writer::start(writing, wal_of(file), wakers.clone());
        Ok((Self { readers, writer, wakers }, Box::pin(task)))
    }
}

/// Where SQLite keeps the write-ahead log of a database.
fn wal_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}
