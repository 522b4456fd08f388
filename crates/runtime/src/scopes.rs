//! What sessions may see of the files, remembered for a moment: who reads a hundred small files asks the database once
//! a second and not a hundred times.
//!
//! A scope never changes, so all that can be wrong with a remembered one is that its session is gone. A session that is
//! destroyed here is forgotten before anybody is told so; one that another server destroys by that server's notice, and
//! where the notice is lost by the moment's end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use palisade_protocol::scope::Scope;
use palisade_protocol::{SessionId, TenantName};

/// How long one is believed.
const KEPT: Duration = Duration::from_secs(1);
/// How many are remembered; with more sessions than that reading files at once, all are asked for anew.
const REMEMBERED_MAX: usize = 4096;

/// The scopes that were asked for a moment ago.
#[derive(Default)]
pub(crate) struct Scopes {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    remembered: HashMap<SessionId, Remembered>,
    /// Counts what was forgotten on purpose.
    endings: u64,
}

struct Remembered {
    tenant: TenantName,
    scope: Arc<Scope>,
    since: Instant,
}

/// Taken before the database is asked. What was asked for before a session ended must not be remembered after it.
pub(crate) struct Asked {
    endings: u64,
    at: Instant,
}

impl Scopes {
    /// The scope of the tenant's session; `Err` where it has to be asked for.
    pub(crate) fn get(&self, tenant: &TenantName, session: &SessionId) -> Result<Arc<Scope>, Asked> {
        self.get_at(tenant, session, Instant::now())
    }

    fn get_at(&self, tenant: &TenantName, session: &SessionId, now: Instant) -> Result<Arc<Scope>, Asked> {
        let inner = self.lock();
        match inner.remembered.get(session) {
            Some(known) if known.tenant == *tenant && now.duration_since(known.since) < KEPT => {
                Ok(known.scope.clone())
            }
            _ => Err(Asked { endings: inner.endings, at: now }),
        }
    }

    /// What the database said.
    pub(crate) fn remember(&self, asked: Asked, tenant: &TenantName, session: &SessionId, scope: Arc<Scope>) {
        let mut inner = self.lock();
        if inner.endings != asked.endings {
            return;
        }
        if inner.remembered.len() >= REMEMBERED_MAX {
            inner.remembered.clear();
        }
        let known = Remembered { tenant: tenant.clone(), scope, since: asked.at };
        inner.remembered.insert(session.clone(), known);
    }

    /// The session is gone.
    pub(crate) fn forget(&self, session: &SessionId) {
        let mut inner = self.lock();
        inner.endings += 1;
        inner.remembered.remove(session);
    }

    /// Sessions may be gone that nobody has heard of.
    pub(crate) fn forget_all(&self) {
        let mut inner = self.lock();
        inner.endings += 1;
        inner.remembered.clear();
    }

    // The map is whole after any panic, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use palisade_protocol::FileAccess;

    use super::*;

    fn names() -> (TenantName, SessionId, Arc<Scope>) {
        let session = SessionId::from_random([7; 6]);
        let scope = FileAccess::default().scope_for(&session).unwrap();
        (TenantName::parse("acme").unwrap(), session, Arc::new(scope))
    }

    #[test]
    fn a_scope_is_remembered_for_its_tenant_and_for_a_moment() {
        let (scopes, (tenant, session, scope)) = (Scopes::default(), names());
        let began = Instant::now();
        let asked = scopes.get_at(&tenant, &session, began).unwrap_err();
        scopes.remember(asked, &tenant, &session, scope);
        let is_known =
            |tenant: &TenantName, after: Duration| scopes.get_at(tenant, &session, began + after).is_ok();
        assert!(is_known(&tenant, Duration::from_millis(999)));
        assert!(!is_known(&tenant, KEPT), "counted from the question, not from the answer");
        assert!(!is_known(&TenantName::parse("other").unwrap(), Duration::ZERO));
    }

    #[test]
    fn what_ended_meanwhile_is_not_remembered() {
        for forget in [Scopes::forget as fn(&Scopes, &SessionId), |scopes, _| scopes.forget_all()] {
            let (scopes, (tenant, session, scope)) = (Scopes::default(), names());
            let (before, during) =
                (scopes.get(&tenant, &session).unwrap_err(), scopes.get(&tenant, &session).unwrap_err());
            scopes.remember(before, &tenant, &session, scope.clone());
            assert!(scopes.get(&tenant, &session).is_ok());
            forget(&scopes, &session);
            assert!(scopes.get(&tenant, &session).is_err());
            scopes.remember(during, &tenant, &session, scope);
            assert!(scopes.get(&tenant, &session).is_err(), "it was asked for before the end");
        }
    }

    #[test]
    fn there_is_an_end_to_what_is_remembered() {
        let (scopes, (tenant, _, scope)) = (Scopes::default(), names());
        for number in 0..2 * REMEMBERED_MAX as u64 {
            let bytes = number.to_be_bytes();
            let session = SessionId::from_random(std::array::from_fn(|at| bytes[at + 2]));
            let asked = scopes.get(&tenant, &session).unwrap_err();
            scopes.remember(asked, &tenant, &session, scope.clone());
        }
        assert!(scopes.lock().remembered.len() <= REMEMBERED_MAX);
    }
}
