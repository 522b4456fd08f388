//! Creating a session: one HTTP round trip, after which the session is durable and its folders exist.

use std::time::Instant;

use anyhow::Result;
use palisade_testkit::Server;
use serde_json::json;

use super::floor::{Append, health};
use super::row::Row;

/// First requests, which open the connection and fill caches.
const WARM_UP: usize = 10;

/// The figure and its two floors, taken in turn: a disk that others write to changes from one second to the next.
pub(super) struct Created {
    pub(super) session: Row,
    pub(super) health: Row,
    pub(super) append: Row,
}

pub(super) async fn measure(server: &Server, count: usize) -> Result<Created> {
    let mut disk = Append::new(server.folder.path())?;
    let [mut sessions, mut healths, mut appends] = [const { Vec::new() }; 3];
    for _ in 0..WARM_UP + count {
        let began = Instant::now();
        server.session(json!({})).await;
        sessions.push(began.elapsed());
        healths.push(health(server).await);
        appends.push(disk.once()?);
    }
    let row = |what, samples: &mut Vec<_>| Row::times(what, samples.split_off(WARM_UP));
    let (health, append) = (row("GET /health", &mut healths), row("synced append", &mut appends));
    let session = row("create a session", &mut sessions).goal(3.0).above(&[&health, &append]);
    Ok(Created { session, health, append })
}
