//! The two engines behind the store: SQLite, which needs nothing, and PostgreSQL, which several servers share.
//!
//! A query is one text for both: `$N` parameters and plain types. What only one engine has stays in this file and in
//! `link.rs`. Nothing here knows a table.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream::BoxStream};
use sqlx::postgres::{PgArguments, PgPool, PgRow};
use sqlx::sqlite::{SqliteArguments, SqlitePool, SqliteRow};
use sqlx::{
    Arguments, AssertSqlSafe, Encode, Executor, FromRow, PgConnection, Postgres, SqlSafeStr, SqlStr, Sqlite,
    SqliteConnection, Type,
};
use tokio::sync::Semaphore;

use crate::error::{Fault, fault_of};

/// Connections that read a database server: each answer is a way there and back, so more are on the way at once.
pub(crate) const POSTGRES_READERS_MAX: u32 = 16;

/// Of these, those that one owner reads with at a time.
const POSTGRES_READERS_OF_OWNER_MAX: usize = 4;
/// The same of a file, where a reader is a thread.
const SQLITE_READERS_OF_OWNER_MAX: usize = 2;

/// Where a store is.
#[derive(Clone)]
pub enum StoreUrl {
    /// A file of this machine; one server.
    Sqlite(PathBuf),
    /// A database that several servers may share: `postgres://user:password@host/database`.
    Postgres(String),
}

// The URL may hold a password.
impl std::fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(file) => write!(f, "Sqlite({})", file.display()),
            Self::Postgres(_) => f.write_str("Postgres(…)"),
        }
    }
}

/// Connections that read, which all owners share.
#[derive(Clone, Debug)]
pub(crate) enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// One owner's share of them. It asks for so many at a time and no more, so that the pool, which serves whoever came
/// first, serves owners in turn.
#[derive(Clone, Debug)]
pub(crate) struct Readers {
    pool: Pool,
    places: Arc<Semaphore>,
}

impl Readers {
    pub(crate) fn new(pool: Pool) -> Self {
        let places = match pool {
            Pool::Sqlite(_) => SQLITE_READERS_OF_OWNER_MAX,
            Pool::Postgres(_) => POSTGRES_READERS_OF_OWNER_MAX,
        };
        Self { pool, places: Arc::new(Semaphore::new(places)) }
    }

    pub(crate) fn for_another_owner(&self) -> Self {
        Self::new(self.pool.clone())
    }

    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.pool, Pool::Postgres(_))
    }
}

/// The connection that writes.
#[derive(Debug)]
pub(crate) enum Connection {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Connection {
    /// What makes a SELECT hold the rows it read until the transaction ends. On SQLite the transaction holds them
    /// all, for there is one writer at a time.
    pub(crate) fn for_update(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "",
            Self::Postgres(_) => " FOR UPDATE",
        }
    }

    /// One statement without parameters or rows, as BEGIN is.
    pub(crate) async fn run(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(connection) => sqlx::raw_sql(sql).execute(connection).await.map(drop),
            Self::Postgres(connection) => sqlx::raw_sql(sql).execute(connection).await.map(drop),
        }
    }
}

/// Where a query runs: a reader or the writing connection.
pub(crate) enum Target<'a> {
    Readers(&'a Readers),
    Sqlite(&'a mut SqliteConnection),
    Postgres(&'a mut PgConnection),
}

impl<'a> From<&'a Readers> for Target<'a> {
    fn from(readers: &'a Readers) -> Self {
        Self::Readers(readers)
    }
}

impl<'a> From<&'a mut Connection> for Target<'a> {
    fn from(connection: &'a mut Connection) -> Self {
        match connection {
            Connection::Sqlite(connection) => Self::Sqlite(connection),
            Connection::Postgres(connection) => Self::Postgres(connection),
        }
    }
}

/// A parameter.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'q> {
    Text(&'q str),
    MaybeText(Option<&'q str>),
    Int(i64),
    MaybeFloat(Option<f64>),
    Float(f64),
    Bool(bool),
}

macro_rules! value_from {
    ($($from:ty => $variant:ident),*) => {
        $(impl<'q> From<$from> for Value<'q> {
            fn from(value: $from) -> Self {
                Self::$variant(value)
            }
        })*
    };
}

value_from!(&'q str => Text, Option<&'q str> => MaybeText, i64 => Int, f64 => Float, Option<f64> => MaybeFloat, bool => Bool);

impl<'q> From<&'q String> for Value<'q> {
    fn from(value: &'q String) -> Self {
        Self::Text(value)
    }
}

/// What rows are read into: tuples and structs that both engines can fill.
pub(crate) trait Columns:
    for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}
impl<T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin> Columns for T {}

/// A statement with its parameters.
pub(crate) struct Query<'q> {
    sql: SqlStr,
    values: Vec<Value<'q>>,
}

/// A statement of one text for both engines.
pub(crate) fn query<'q>(sql: &'static str) -> Query<'q> {
    Query { sql: sql.into_sql_str(), values: Vec::new() }
}

/// The same, for a text put together from constants; never from what anybody sent.
pub(crate) fn query_built<'q>(sql: String) -> Query<'q> {
    Query { sql: AssertSqlSafe(sql).into_sql_str(), values: Vec::new() }
}

/// `(($1, $2), ($3, $4), …)` without the outer parentheses: placeholders of `rows` rows, counted on from `from`.
pub(crate) fn placeholders(from: usize, rows: usize, columns: usize) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(rows * columns * 5);
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { ", (" });
        for column in 0..columns {
            let comma = if column == 0 { "" } else { ", " };
            // Writing to a String does not fail.
            let _ = write!(text, "{comma}${}", from + row * columns + column);
        }
        text.push(')');
    }
    text
}

impl<'q> Query<'q> {
    /// The next parameter.
    pub(crate) fn bind(mut self, value: impl Into<Value<'q>>) -> Self {
        self.values.push(value.into());
        self
    }

    /// The number of rows changed.
    pub(crate) async fn execute(self, db: &mut Connection) -> Result<u64, sqlx::Error> {
        match db {
            Connection::Sqlite(connection) => {
                Ok(self.on_sqlite()?.execute(connection).await?.rows_affected())
            }
            Connection::Postgres(connection) => {
                Ok(self.on_postgres()?.execute(connection).await?.rows_affected())
            }
        }
    }

    /// Every row; say LIMIT where there may be many.
    pub(crate) async fn all<T: Columns>(self, target: impl Into<Target<'_>>) -> Result<Vec<T>, sqlx::Error> {
        let mut all = Vec::new();
        self.each(target, |row| {
            all.push(row);
            ControlFlow::Continue(())
        })
        .await?;
        Ok(all)
    }

    /// The first row, if there is one.
    pub(crate) async fn optional<T: Columns>(
        self,
        target: impl Into<Target<'_>>,
    ) -> Result<Option<T>, sqlx::Error> {
        let mut first = None;
        self.each(target, |row| {
            first = Some(row);
            ControlFlow::Break(())
        })
        .await?;
        Ok(first)
    }

    /// The row that must be there.
    pub(crate) async fn one<T: Columns>(self, target: impl Into<Target<'_>>) -> Result<T, sqlx::Error> {
        self.optional(target).await?.ok_or(sqlx::Error::RowNotFound)
    }

    /// Row by row, so that whoever reads may stop before memory is full.
    pub(crate) async fn each<T: Columns>(
        self,
        target: impl Into<Target<'_>>,
        taken: impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<(), sqlx::Error> {
        match target.into() {
            Target::Readers(readers) => self.each_of(readers, taken).await,
            Target::Sqlite(connection) => take_rows(connection.fetch(self.on_sqlite()?), taken).await,
            Target::Postgres(connection) => take_rows(connection.fetch(self.on_postgres()?), taken).await,
        }
    }

    async fn each_of<T: Columns>(
        self,
        readers: &Readers,
        mut taken: impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<(), sqlx::Error> {
        let _place = readers.places.acquire().await.map_err(|_| sqlx::Error::PoolClosed)?;
        let pool = match &readers.pool {
            Pool::Sqlite(pool) => return take_rows(pool.fetch(self.on_sqlite()?), taken).await,
            Pool::Postgres(pool) => pool,
        };
        let (mut is_untouched, mut stale) = (true, 0);
        loop {
            let rows = pool.fetch(self.on_postgres()?);
            let tracked = |row| {
                is_untouched = false;
                taken(row)
            };
            match take_rows(rows, tracked).await {
                // Every connection of the pool may be one that the database has closed since.
                Err(error) if is_untouched && stale < POSTGRES_READERS_MAX && is_broken(&error) => stale += 1,
                done => return done,
            }
        }
    }

    fn on_sqlite(&self) -> Result<sqlx::query::Query<'q, Sqlite, SqliteArguments>, sqlx::Error> {
        Ok(sqlx::query_with(self.sql.clone(), arguments(&self.values)?))
    }

    fn on_postgres(&self) -> Result<sqlx::query::Query<'q, Postgres, PgArguments>, sqlx::Error> {
        Ok(sqlx::query_with(self.sql.clone(), arguments(&self.values)?))
    }
}

/// Whether the connection was lost, and not the pool's patience.
fn is_broken(error: &sqlx::Error) -> bool {
    let is_of_the_pool = matches!(error, sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed);
    fault_of(error) == Fault::Lost && !is_of_the_pool
}

async fn take_rows<R, T: for<'r> FromRow<'r, R>>(
    mut rows: BoxStream<'_, Result<R, sqlx::Error>>,
    mut taken: impl FnMut(T) -> ControlFlow<()>,
) -> Result<(), sqlx::Error>
where
    R: sqlx::Row,
{
    while let Some(row) = rows.next().await {
        if taken(T::from_row(&row?)?).is_break() {
            break;
        }
    }
    Ok(())
}

fn arguments<A: Arguments>(values: &[Value<'_>]) -> Result<A, sqlx::Error>
where
    for<'t> &'t str: Encode<'t, A::Database> + Type<A::Database>,
    for<'t> Option<&'t str>: Encode<'t, A::Database> + Type<A::Database>,
    for<'t> i64: Encode<'t, A::Database> + Type<A::Database>,
    for<'t> f64: Encode<'t, A::Database> + Type<A::Database>,
    for<'t> Option<f64>: Encode<'t, A::Database> + Type<A::Database>,
    for<'t> bool: Encode<'t, A::Database> + Type<A::Database>,
{
    let mut arguments = A::default();
    arguments.reserve(values.len(), values.len() * size_of::<i64>());
    for value in values {
        match *value {
            // PostgreSQL knows no NUL in a text; what a client or a program wrote is the same on both engines.
            Value::Text(text) if text.contains('\0') => {
                arguments.add(text.replace('\0', "\u{fffd}").as_str())
            }
            Value::Text(text) => arguments.add(text),
            Value::MaybeText(text) => arguments.add(text),
            Value::Int(number) => arguments.add(number),
            Value::Float(number) => arguments.add(number),
            Value::MaybeFloat(number) => arguments.add(number),
            Value::Bool(flag) => arguments.add(flag),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}
