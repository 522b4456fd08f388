//! The writing connection: opened, set up, opened again when it was lost. It never decides what is written.

use std::path::PathBuf;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use crate::engine::{Connection, query};
use crate::notices::Told;

/// The write-ahead log above which the writer makes room, in bytes. Readers that are never idle keep the
/// database's own, passive checkpoints from ever completing.
pub(crate) const WAL_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What PostgreSQL is to do about a server that holds rows and says nothing (it was stopped, its host is gone), and
/// about one that waits for such a row: less than a lease, so that whoever takes over need not wait.
const POSTGRES_SETTINGS: &str = "SET idle_in_transaction_session_timeout = '8s'; SET lock_timeout = '10s';
     SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3";

/// How to come to the database.
pub(crate) enum Source {
    Sqlite { options: SqliteConnectOptions, wal: PathBuf },
    Postgres { options: PgConnectOptions },
}

pub(crate) struct Link {
    source: Source,
    connection: Option<Connection>,
    is_migrated: bool,
    /// Where its groups are counted, once there is a row for it.
    writer: Option<String>,
    /// The group that was begun last.
    group: i64,
}

impl Link {
    pub(crate) fn new(source: Source) -> Self {
        Self { source, connection: None, is_migrated: false, writer: None, group: 0 }
    }

    /// The connection, opened if need be.
    pub(crate) async fn connection(&mut self) -> Result<&mut Connection, sqlx::Error> {
        if self.connection.is_none() {
            let mut connection = self.connect().await?;
            self.count_from_here(&mut connection).await?;
            self.connection = Some(connection);
        }
        self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)
    }

    /// Makes the row in which groups are counted, the first time. There is none before the database is migrated.
    async fn count_from_here(&mut self, connection: &mut Connection) -> Result<(), sqlx::Error> {
        if !self.is_remote() || self.writer.is_some() || !self.is_migrated {
            return Ok(());
        }
        let row =
            "INSERT INTO writer (id, server, groups) VALUES (gen_random_uuid()::text, '', 0) RETURNING id";
        let (writer,) = query(row).one::<(String,)>(connection).await?;
        self.writer = Some(writer);
        Ok(())
    }

    /// The database has every table: groups are counted from here on.
    pub(crate) async fn migrated(&mut self) -> Result<(), sqlx::Error> {
        self.is_migrated = true;
        if self.is_remote() {
            self.close().await;
        }
        self.connection().await.map(drop)
    }

    async fn connect(&self) -> Result<Connection, sqlx::Error> {
        match &self.source {
            Source::Sqlite { options, .. } => Ok(Connection::Sqlite(options.connect().await?)),
            Source::Postgres { options } => {
                let mut connection = Connection::Postgres(options.connect().await?);
                connection.run(POSTGRES_SETTINGS).await?;
                Ok(connection)
            }
        }
    }

    /// Gives the connection up; with it goes whatever it had begun.
    pub(crate) async fn close(&mut self) {
        // What cannot be closed politely is gone all the same.
        let _ = match self.connection.take() {
            Some(Connection::Sqlite(connection)) => connection.close().await,
            Some(Connection::Postgres(connection)) => connection.close_hard().await,
            None => Ok(()),
        };
    }

    /// Takes the lock at once where there is one for the whole database, so that no reader's lock can stand in
    /// the way of an upgrade later.
    pub(crate) async fn begin(&mut self) -> Result<&mut Connection, sqlx::Error> {
        let connection = self.connection().await?;
        let begin = match connection {
            Connection::Sqlite(_) => "BEGIN IMMEDIATE",
            Connection::Postgres(_) => "BEGIN",
        };
        connection.run(begin).await?;
        Ok(connection)
    }

    /// On PostgreSQL: tells the other servers when this transaction commits, and counts it, so that its outcome can be
    /// asked for should the answer be lost; its number.
    pub(crate) async fn announce(&mut self, server: &str, told: &Told) -> Result<Option<i64>, sqlx::Error> {
        let Some(writer) = self.writer.clone() else { return Ok(None) };
        self.group += 1;
        let group = self.group;
        let connection = self.connection().await?;
        for payload in told.payloads() {
            query("SELECT 1 FROM (SELECT pg_notify($1, $2)) AS told")
                .bind(crate::notices::CHANNEL)
                .bind(&payload)
                .execute(&mut *connection)
                .await?;
        }
        let count = query("UPDATE writer SET groups = $1, server = $2 WHERE id = $3");
        match count.bind(group).bind(server).bind(&writer).execute(connection).await? {
            0 => {
                // The others took this server for dead; it begins anew on another connection.
                self.writer = None;
                Err(sqlx::Error::PoolClosed)
            }
            _ => Ok(Some(group)),
        }
    }

    /// Whether the group of this number was committed. Waits for a transaction that may still be at it: it holds the
    /// row. (PostgreSQL's own numbers of transactions are given out again after a crash, so they cannot tell.)
    pub(crate) async fn was_committed(&mut self, group: i64) -> Result<bool, sqlx::Error> {
        let writer = self.writer.clone().unwrap_or_default();
        let connection = self.connection().await?;
        let count = query("SELECT groups FROM writer WHERE id = $1 FOR UPDATE").bind(&writer);
        Ok(count.one::<(i64,)>(connection).await?.0 >= group)
    }

    /// Waits for readers to leave SQLite's write-ahead log, and begins it anew. Of no harm when they do not: the next
    /// look tries again.
    pub(crate) async fn keep_wal_small(&mut self) {
        let Source::Sqlite { wal, .. } = &self.source else { return };
        let bytes = std::fs::metadata(wal).map_or(0, |found| found.len());
        if bytes <= WAL_BYTES_MAX {
            return;
        }
        let emptied = match self.connection().await {
            Ok(connection) => connection.run("PRAGMA wal_checkpoint(RESTART)").await,
            Err(error) => Err(error),
        };
        if let Err(error) = emptied {
            tracing::warn!(
                bytes,
                error = %palisade_protocol::chain(&error),
                "the write-ahead log was not emptied"
            );
        }
    }

    /// Puts what the write-ahead log holds into the database itself, so that its file alone is whole; waits for readers as
    /// long as for a lock.
    pub(crate) async fn fold_wal(&mut self) {
        if self.is_remote() {
            return;
        }
        let folded = match self.connection().await {
            Ok(connection) => {
                query("PRAGMA wal_checkpoint(TRUNCATE)").one::<(i64, i64, i64)>(connection).await
            }
            Err(error) => Err(error),
        };
        let why = match folded {
            Ok((0, ..)) => return,
            Ok(_) => "somebody still reads it".to_owned(),
            Err(error) => palisade_protocol::chain(&error).to_string(),
        };
        tracing::warn!(
            why,
            "the write-ahead log was not folded into the database: copy palisade.db-wal with it"
        );
    }

    /// Where the database is, for people; without a password.
    pub(crate) fn place(&self) -> String {
        match &self.source {
            Source::Sqlite { options, .. } => options.get_filename().display().to_string(),
            Source::Postgres { options } => {
                let host = options.get_socket().map_or_else(
                    || format!("{}:{}", options.get_host(), options.get_port()),
                    |socket| socket.display().to_string(),
                );
                format!(
                    "postgres://{}@{host}/{}",
                    options.get_username(),
                    options.get_database().unwrap_or("")
                )
            }
        }
    }

    /// Whether a lost connection is worth another try: another machine may come back, a file does not.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.source, Source::Postgres { .. })
    }
}

/// SQLite as every connection of ours uses it.
pub(crate) fn sqlite_options(file: &std::path::Path) -> SqliteConnectOptions {
    use sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
    SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // What a checkpoint has emptied is given back to the disk.
        .pragma("journal_size_limit", WAL_BYTES_MAX.to_string())
        // FULL: an acknowledged event survives power loss, not only a crash of the process.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(10))
        .statement_cache_capacity(STATEMENTS_MAX)
}

/// PostgreSQL as every connection of ours uses it. A password is in the URL, in PGPASSWORD, or in the file that
/// PGPASSFILE names: the home directory of whoever started the server may be closed to it.
pub(crate) fn postgres_options(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    let has_password = url.split_once('@').is_some_and(|(user, _)| user.matches(':').count() > 1);
    let is_elsewhere = ["PGPASSWORD", "PGPASSFILE"].iter().any(|name| std::env::var_os(name).is_some());
    let separator = if url.contains('?') { '&' } else { '?' };
    let options: PgConnectOptions = match has_password || is_elsewhere {
        true => url.parse()?,
        false => format!("{url}{separator}password=").parse()?,
    };
    Ok(options.application_name("palisade").statement_cache_capacity(STATEMENTS_MAX))
}

/// Prepared statements kept on a connection: those of the code, and one for each number of rows in an INSERT.
pub(crate) const STATEMENTS_MAX: usize = 256;

/// Where SQLite keeps the write-ahead log of a database.
pub(crate) fn wal_of(file: &std::path::Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// How long a read waits for a connection.
pub(crate) const READ_WAIT_MAX: Duration = Duration::from_secs(10);
