//! The only SQL of Palisade: sessions, turns, the event log, the conversation items, the ledgers and the vault, on SQLite or
//! PostgreSQL.
//!
//! All writes go through one writer task that commits whatever is waiting as one group, so that a delta costs
//! microseconds; all reads are plain queries. An event is a row before anybody can see it. Nothing here knows
//! what an event means, decides who may see what, or calls another room.

mod audit;
mod conversation;
mod engine;
mod error;
mod follow;
mod ledger;
mod lifetimes;
mod link;
mod metering;
mod notices;
mod queue;
mod read;
mod servers;
mod sessions;
mod sweep;
mod turns;
mod vault;
mod write;
mod writer;

use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::SqlitePoolOptions;
use tokio::sync::{mpsc, watch};

pub use audit::{AuditRange, SkillUse};
pub use conversation::PlacedItem;
pub use engine::StoreUrl;
pub use error::StoreError;
pub use follow::Follower;
pub use ledger::{LedgerEntry, LedgerState, Posting, PostingKind};
pub use lifetimes::DueSession;
pub use metering::{CallerUsage, Charge, MeteredCall, TurnAccount};
pub use notices::Notice;
pub use read::{KeyUse, Turn, TurnState};
pub use servers::ServerBeat;
pub use vault::{StoredCredential, StoredDataKey, StoredKek, TenantVault, VaultChange, VaultHead};
pub use write::{ClientAnswer, Commit, IdempotencyKey, NewSession, NewTurn};

use engine::{Connection, Pool, Readers};
use link::{Link, Source};

/// Connections that read a file; the one that writes is apart.
const SQLITE_READERS_MAX: u32 = 8;

/// The store of one server, as one owner uses it: a tenant, or the server itself. Owners take turns at the writer, and
/// each has a bounded number of readers. Cheap to clone; clones are the same owner.
#[derive(Clone, Debug)]
pub struct Store {
    readers: Readers,
    writer: queue::Owner,
    stop: writer::Stop,
    wakers: follow::Wakers,
    server: watch::Receiver<String>,
}

/// A task of the store's; it ends when the last [`Store`] is dropped, or whoever takes the notices.
pub type StoreTask = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// A store that was opened.
pub struct OpenStore {
    /// The handle.
    pub store: Store,
    /// For the caller to run: what writes, and what listens to other servers.
    pub tasks: Vec<StoreTask>,
    /// What other servers did; nobody, where a store has one server only.
    pub notices: mpsc::Receiver<Notice>,
}

impl Store {
    /// Opens (and makes, and migrates) the database.
    pub async fn open(url: &StoreUrl) -> Result<OpenStore, StoreError> {
        let wakers = follow::Wakers::default();
        let (sender, notices) = notices::channel();
        let (named, server) = watch::channel(String::new());
        let (mut link, readers) = match url {
            StoreUrl::Sqlite(file) => {
                let options = link::sqlite_options(file);
                let readers = SqlitePoolOptions::new()
                    .max_connections(SQLITE_READERS_MAX)
                    // The file is local: a connection that was good stays good, and asking costs a change of threads.
                    .test_before_acquire(false)
                    .connect_lazy_with(options.clone().read_only(true));
                (Link::new(Source::Sqlite { options, wal: link::wal_of(file) }), Pool::Sqlite(readers))
            }
            StoreUrl::Postgres(url) => {
                let options = link::postgres_options(url)
                    .map_err(|source| StoreError::Open { place: "of this URL".to_owned(), source })?;
                let readers = PgPoolOptions::new()
                    .max_connections(engine::POSTGRES_READERS_MAX)
                    .acquire_timeout(link::READ_WAIT_MAX)
                    .test_before_acquire(false)
                    .connect_lazy_with(options.clone());
                (Link::new(Source::Postgres { options }), Pool::Postgres(readers))
            }
        };
        let place = link.place();
        let open = |source| StoreError::Open { place, source };
        let migrator = sqlx::migrate!();
        let migrated = match link.connection().await.map_err(open)? {
            Connection::Sqlite(connection) => migrator.run(connection).await,
            Connection::Postgres(connection) => migrator.run(connection).await,
        };
        migrated.map_err(|source| StoreError::Migrate { source })?;
        let place = link.place();
        link.migrated().await.map_err(|source| StoreError::Open { place, source })?;
        let mut tasks: Vec<StoreTask> = Vec::new();
        if let Pool::Postgres(pool) = &readers {
            let own = server.clone();
            let is_own = move |name: &str| *own.borrow() == name;
            tasks.push(Box::pin(notices::listen(pool.clone(), wakers.clone(), is_own, sender)));
        }
        let stop = writer::Stop::default();
        let (writer, task) = writer::start(link, wakers.clone(), named, stop.clone());
        tasks.push(Box::pin(task));
        Ok(OpenStore {
            store: Self { readers: Readers::new(readers), writer, stop, wakers, server },
            tasks,
            notices,
        })
    }

    /// Whether other servers may use the same database at the same time.
    pub fn is_shared(&self) -> bool {
        self.readers.is_shared()
    }

    /// The same store for another owner, with a share of its own.
    #[must_use]
    pub fn for_another_owner(&self) -> Self {
        Self { readers: self.readers.for_another_owner(), writer: self.writer.another(), ..self.clone() }
    }

    /// The server stops: from now on a database that is away is waited for only a few seconds.
    pub fn hurry(&self) {
        self.stop.hurry();
    }

    /// Finishes what was asked before, and ends the writer: every later write is [`StoreError::Stopped`]. A database in
    /// a file is then whole in that file alone.
    pub async fn close(&self) {
        self.writer.close().await;
    }
}
