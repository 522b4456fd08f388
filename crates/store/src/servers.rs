//! The servers that share a database. Each counts its beats; one whose count stands still for a lease is taken for
//! dead by the others, and its turns with it. Clocks of different machines are never compared.

use palisade_protocol::TenantName;

use crate::engine::{Connection, query};
use crate::read::{RUNNING, RunningRow, reading};
use crate::write::{Write, writing};
use crate::{Store, StoreError, Turn};

/// A server as the others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerBeat {
    /// Its name, made up at its start.
    pub server: String,
    /// Stands still when it is dead.
    pub beats: i64,
}

impl Store {
    /// Enters this server under a name of its own, under which it owns the turns that it starts and takes over from
    /// here on.
    pub async fn register_server(&self, server: &str) -> Result<(), StoreError> {
        self.writer.write(Write::RegisterServer { server: server.to_owned() }).await.map(drop)
    }

    /// The name this server is entered under; empty before it is.
    pub fn server(&self) -> String {
        self.server.borrow().clone()
    }

    /// Says that this server lives. [`StoreError::LeaseOver`] when the others do not believe it any more.
    pub async fn beat(&self) -> Result<(), StoreError> {
        self.writer.write(Write::Beat).await.map(drop)
    }

    /// Every server that is entered, this one included.
    pub async fn servers(&self) -> Result<Vec<ServerBeat>, StoreError> {
        let rows =
            query("SELECT id, beats FROM server ORDER BY id").all::<(String, i64)>(&self.readers).await;
        let rows = rows.map_err(reading("servers"))?;
        Ok(rows.into_iter().map(|(server, beats)| ServerBeat { server, beats }).collect())
    }

    /// Declares a server dead, unless it has beaten since; its turns are orphans from here on.
    pub async fn remove_server(&self, dead: &ServerBeat) -> Result<(), StoreError> {
        let ServerBeat { server, beats } = dead.clone();
        self.writer.write(Write::RemoveServer { server, beats }).await.map(drop)
    }

    /// Declares every server but this one dead: for a database that only one can use at a time.
    pub async fn remove_other_servers(&self) -> Result<(), StoreError> {
        self.writer.write(Write::RemoveOtherServers).await.map(drop)
    }

    /// Takes this server off the list; its turns are orphans from here on.
    pub async fn leave(&self) -> Result<(), StoreError> {
        self.writer.write(Write::Leave).await.map(drop)
    }

    /// Running turns that nobody drives, with their tenants: their server is dead, or has released them.
    pub async fn orphaned_turns(&self) -> Result<Vec<(TenantName, Turn)>, StoreError> {
        let sql = format!(
            "{RUNNING} AND (turn.released OR NOT EXISTS (SELECT 1 FROM server WHERE server.id = turn.owner))"
        );
        let rows = crate::engine::query_built(sql).all::<RunningRow>(&self.readers).await;
        rows.map_err(reading("turns"))?.into_iter().map(RunningRow::into_turn).collect()
    }

    /// Running turns that this server is entered as the driver of, with their tenants.
    pub async fn own_turns(&self) -> Result<Vec<(TenantName, Turn)>, StoreError> {
        let (sql, own) = (format!("{RUNNING} AND NOT turn.released AND turn.owner = $1"), self.server());
        let rows = crate::engine::query_built(sql).bind(&own).all::<RunningRow>(&self.readers).await;
        rows.map_err(reading("turns"))?.into_iter().map(RunningRow::into_turn).collect()
    }
}

pub(crate) async fn register(db: &mut Connection, server: &str) -> Result<u64, StoreError> {
    // What dead servers counted in; one that lives after all makes another.
    let sweep = query("DELETE FROM writer WHERE server <> '' AND server NOT IN (SELECT id FROM server)");
    sweep.execute(&mut *db).await.map_err(writing("a server"))?;
    let enter = query("INSERT INTO server (id, beats) VALUES ($1, 0)").bind(server);
    enter.execute(db).await.map_err(writing("a server"))
}

pub(crate) async fn beat(db: &mut Connection, server: &str) -> Result<u64, StoreError> {
    let beat = query("UPDATE server SET beats = beats + 1 WHERE id = $1").bind(server);
    match beat.execute(db).await.map_err(writing("a server's beat"))? {
        0 => Err(StoreError::LeaseOver),
        beaten => Ok(beaten),
    }
}

pub(crate) async fn remove(db: &mut Connection, server: &str, beats: i64) -> Result<u64, StoreError> {
    let remove = query("DELETE FROM server WHERE id = $1 AND beats = $2").bind(server).bind(beats);
    let removed = remove.execute(&mut *db).await.map_err(writing("a server"))?;
    if removed > 0 {
        // Whoever takes over is sure that it is dead, so it will not ask what became of its groups.
        let forget = query("DELETE FROM writer WHERE server = $1").bind(server);
        forget.execute(db).await.map_err(writing("a server"))?;
    }
    Ok(removed)
}

pub(crate) async fn leave(db: &mut Connection, server: &str) -> Result<u64, StoreError> {
    let leave = query("DELETE FROM server WHERE id = $1").bind(server);
    leave.execute(db).await.map_err(writing("a server"))
}

pub(crate) async fn remove_others(db: &mut Connection, server: &str) -> Result<u64, StoreError> {
    let remove = query("DELETE FROM server WHERE id <> $1").bind(server);
    remove.execute(db).await.map_err(writing("servers"))
}
