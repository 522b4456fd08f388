//! What sessions and uploads left in the workspaces, because a server died or a folder could not be removed (decision 34).
//! Only folders of sessions that the store does not know; never one that is just being made.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use palisade_protocol::{Error, SessionId, TenantName};
use palisade_workspace::WorkspaceError;

use crate::Rooms;
use crate::tenant::Tenant;

/// Between two looks. A folder is made before its session's row, which takes no longer than this: what is dead at two
/// looks is dead.
const LOOK: Duration = Duration::from_secs(120);
/// An upload that nobody has written to for so long was broken off.
const UPLOAD_LEFT_AFTER: Duration = Duration::from_secs(3600);

/// Folders without a session, by tenant.
pub(crate) type Leftovers = HashSet<(TenantName, SessionId)>;

/// Folders of sessions that are gone, or whose row is not there yet. A tenant that cannot be looked at has none.
pub(crate) async fn find(rooms: &Rooms) -> Leftovers {
    let tenants = rooms.live().tenants.clone();
    let looks = tenants.into_iter().map(|(name, tenant)| async move {
        match of_tenant(&name, &tenant).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(tenant = %name, error = %palisade_protocol::chain(&error), "leftovers could not be looked for");
                Vec::new()
            }
        }
    });
    join_all(looks).await.into_iter().flatten().collect()
}

async fn of_tenant(name: &TenantName, tenant: &Tenant) -> Result<Vec<(TenantName, SessionId)>, Error> {
    let (workspace, homes) = (tenant.workspace.clone(), tenant.homes.clone());
    let list = move || -> Result<HashSet<SessionId>, WorkspaceError> {
        Ok(workspace.session_dirs()?.into_iter().chain(homes.sessions()?).collect())
    };
    let mut found = Vec::new();
    for id in tenant.share.bulk.run(list).await?? {
        if tenant.share.store.session(name, &id).await?.is_none() {
            found.push((name.clone(), id));
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
        let remove = move || workspace.remove_unfinished_uploads(UPLOAD_LEFT_AFTER);
        tell(tenant.share.bulk.run(remove).await.and_then(|removed| Ok(removed.map(drop)?)));
    }
    let mut suspected = Leftovers::new();
    loop {
        tokio::select! {
            () = rooms.draining.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let dead;
        (dead, suspected) = judge(&suspected, find(&rooms).await);
        remove(&rooms, &dead).await;
    }
}

/// Those that were found before as well are dead; the others are suspected from here on.
fn judge(suspected: &Leftovers, found: Leftovers) -> (Leftovers, Leftovers) {
    found.into_iter().partition(|leftover| suspected.contains(leftover))
}

/// Each tenant's one after the other, and no tenant's after another's.
async fn remove(rooms: &Rooms, dead: &Leftovers) {
    let tenants = rooms.live().tenants.clone();
    let removals = tenants.iter().map(|(name, tenant)| async move {
        for (_, id) in dead.iter().filter(|(owner, _)| owner == name) {
            tell(tenant.remove_session(id).await);
        }
    });
    join_all(removals).await;
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
