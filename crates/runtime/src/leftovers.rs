//! What sessions and uploads left in the workspaces, because a server died or a folder could not be removed (decision 34).
//! Only folders of sessions that the store does not know; never one that is just being made.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use palisade_protocol::{Error, SessionId, TenantName};

use crate::sessions::blocking;
use crate::{Rooms, StartError};

/// Between two looks. A folder is made before its session's row, which takes no longer than this: what is dead at two
/// looks is dead.
const LOOK: Duration = Duration::from_secs(120);
/// An upload that nobody has written to for so long was broken off.
const UPLOAD_LEFT_AFTER: Duration = Duration::from_secs(3600);

/// Folders without a session, by tenant.
pub(crate) type Leftovers = HashSet<(TenantName, SessionId)>;

/// Folders of sessions that are gone, or whose row is not there yet.
pub(crate) async fn find(rooms: &Rooms) -> Result<Leftovers, StartError> {
    let mut found = Leftovers::new();
    for (name, tenant) in &rooms.live().tenants {
        let failed = |source| StartError::Workspace { tenant: name.to_string(), source };
        let mut ids: HashSet<_> = tenant.workspace.session_dirs().map_err(failed)?.into_iter().collect();
        ids.extend(tenant.homes.sessions().map_err(failed)?);
        for id in ids {
            if rooms.store.session(name, &id).await?.is_none() {
                found.insert((name.clone(), id));
            }
        }
    }
    Ok(found)
}

/// Removes `dead` and what broken uploads left, and then, look after look, what was not removed when it should have been;
/// in the background, for a workspace may be large.
pub(crate) async fn keep_away(rooms: Arc<Rooms>, dead: Leftovers) {
    remove(&rooms, &dead).await;
    for tenant in rooms.live().tenants.values() {
        let workspace = tenant.workspace.clone();
        tell(blocking(move || Ok(workspace.remove_unfinished_uploads(UPLOAD_LEFT_AFTER).map(drop)?)).await);
    }
    let mut suspected = Leftovers::new();
    loop {
        tokio::select! {
            () = rooms.draining.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        match find(&rooms).await {
            Ok(found) => {
                let dead;
                (dead, suspected) = judge(&suspected, found);
                remove(&rooms, &dead).await;
            }
            Err(error) => {
                tracing::warn!(error = %palisade_protocol::chain(&error), "leftovers could not be looked for");
            }
        }
    }
}

/// Those that were found before as well are dead; the others are suspected from here on.
fn judge(suspected: &Leftovers, found: Leftovers) -> (Leftovers, Leftovers) {
    found.into_iter().partition(|leftover| suspected.contains(leftover))
}

async fn remove(rooms: &Rooms, dead: &Leftovers) {
    for (name, id) in dead {
        let Some(tenant) = rooms.live().tenants.get(name).cloned() else { continue };
        tell(tenant.remove_session(id).await);
    }
}

fn tell(result: Result<(), Error>) {
    if let Err(error) = result {
        tracing::warn!(error = %palisade_protocol::chain(&error), "a leftover was not removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_without_a_session_at_two_looks_is_dead() {
        let leftover = |n: u8| (TenantName::parse("acme").unwrap(), SessionId::from_random([n; 6]));
        let set = |all: &[u8]| all.iter().copied().map(leftover).collect::<Leftovers>();
        let (dead, suspected) = judge(&set(&[]), set(&[1, 2]));
        assert_eq!((dead, &suspected), (set(&[]), &set(&[1, 2])), "they may be just being made");
        // The second has got its session.
        let (dead, suspected) = judge(&suspected, set(&[1, 3]));
        assert_eq!((dead, suspected), (set(&[1]), set(&[3])));
    }
}
