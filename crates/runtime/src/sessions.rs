//! Create, show, list and destroy sessions.

use palisade_agent::SessionContext;
use palisade_agent::context::ScopeNote;
use palisade_protocol::session::{SessionCursor, SessionOrder, SessionStatus};
use palisade_protocol::{Error, ErrorKind, Session, SessionDraft, SessionId, limits};
use palisade_store::{NewSession, StoreError};

use crate::clock::{now, today};
use crate::lifetimes::{Cause, destroy_session};
use crate::skills::SessionKeep;
use crate::tenant::Tenant;
use crate::{OpCtx, Runtime};

/// Which sessions a bulk delete takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BulkDelete {
    /// Only those without a running turn.
    pub idle_only: bool,
    /// Only those without activity for so many seconds; a running turn is activity, however long ago it began.
    pub inactive_for_s: Option<f64>,
}

impl Runtime {
    /// Creates a session. Its scope's folders exist afterwards; its sandbox starts when it is first needed.
    pub async fn create_session(&self, ctx: &OpCtx, draft: SessionDraft) -> Result<Session, Error> {
        let tenant = &*self.rooms.tenant(ctx)?;
        self.rooms.disk.check()?;
        let ttl = checked_ttl(tenant, draft.ttl)?;
        check_metadata(&draft)?;
        let client_tools = palisade_agent::client_tools::read(&draft.tools)
            .map_err(|what| Error::new(ErrorKind::Malformed, "tools.invalid", what))?;
        let model = self.chosen_model(tenant, draft.model)?;
        let id = SessionId::from_random(palisade_vault::random().map_err(Error::bug)?);
        let file_access = draft.file_access.unwrap_or_default();
        let scope = tenant.scope(&id, &file_access)?;
        let workspace = tenant.workspace.clone();
        let prepared = scope.clone();
        let prepare = move || -> Result<String, Error> {
            workspace.ensure_scope(&prepared)?;
            Ok(workspace.agent_context()?)
        };
        let agent_context = tenant.share.disk.run(prepare).await??;
        // Until the session is written down with them.
        let _given = tenant.shelf.snapshots.give().await;
        let skills = self.rooms.session_skills(tenant).await?;
        let keep = SessionKeep {
            agent: SessionContext {
                date: today(),
                agent_context,
                skills: skills.iter().map(|skill| skill.entry.clone()).collect(),
                client_tools,
                memory: tenant.shows_memory(&scope),
                scope: (!scope.is_whole())
                    .then(|| ScopeNote { read: file_access.read.clone(), write: file_access.write.clone() }),
                network: tenant.config.network.clone(),
            },
            skill_dirs: skills.into_iter().map(|skill| (skill.entry.name, skill.dir)).collect(),
        };
        let created_at = now();
        let session = Session {
            id,
            created_at,
            last_activity: created_at,
            busy: false,
            persistent: draft.persistent,
            ttl,
            status: SessionStatus::Ready,
            metadata: draft.metadata,
            locked: Vec::new(),
            file_access,
            model,
            expires_at: created_at + ttl as f64,
            last_response_id: None,
        };
        let session = tenant.shown(session);
        let context = serde_json::to_string(&keep).map_err(Error::bug)?;
        let new = NewSession {
            tenant: ctx.tenant().clone(),
            session: session.clone(),
            context,
            snapshots: keep.skill_dirs.iter().filter_map(|(_, dir)| crate::snapshots::name(dir)).collect(),
            sessions_max: tenant.config.concurrent_sessions_max,
        };
        if let Err(error) = tenant.share.store.create_session(new).await {
            return Err(self.not_created(ctx, tenant, session.id, error).await);
        }
        tracing::info!(tenant = %ctx.tenant(), session = %session.id, model = %session.model, "session created");
        Ok(session)
    }

    /// One session's record.
    pub async fn session(&self, ctx: &OpCtx, id: &SessionId) -> Result<Session, Error> {
        let tenant = self.rooms.tenant(ctx)?;
        Ok(tenant.shown(self.rooms.session(ctx, id).await?))
    }

    /// A page of the tenant's sessions, at most `limit` and at most as many as may be listed, and where the next page
    /// begins, if there is one.
    pub async fn sessions(
        &self,
        ctx: &OpCtx,
        after: Option<&SessionCursor>,
        order: SessionOrder,
        limit: usize,
    ) -> Result<(Vec<Session>, Option<SessionCursor>), Error> {
        let tenant = self.rooms.tenant(ctx)?;
        let _place = tenant.share.bulk.place().await?;
        let limit = limit.min(limits::SESSIONS_LISTED_MAX);
        // One more than is shown, so that it can be seen that there are more.
        let mut sessions = tenant.share.store.sessions(ctx.tenant(), after, order, limit + 1).await?;
        let is_cut = sessions.len() > limit;
        sessions.truncate(limit);
        let next = sessions.last().filter(|_| is_cut).map(SessionCursor::of);
        let shown = sessions.into_iter().map(|session| tenant.shown(session));
        Ok((shown.collect(), next))
    }

    /// Destroys a session: its turn is cancelled, its sandbox ends with every process in it, its record and its
    /// own folder go. The workspace and `.memory/` stay.
    pub async fn delete_session(&self, ctx: &OpCtx, id: &SessionId) -> Result<(), Error> {
        self.rooms.session(ctx, id).await?;
        destroy_session(&self.rooms, ctx.tenant(), id, Cause::Deleted).await
    }

    /// Destroys every session that matches; returns how many went. One that cannot go keeps no other: its error is told
    /// when all were tried.
    pub async fn delete_sessions(&self, ctx: &OpCtx, which: BulkDelete) -> Result<u64, Error> {
        let (mut deleted, mut failed) = (0, None);
        let inactive_since = which.inactive_for_s.map(|seconds| now() - seconds);
        let spares_busy = which.idle_only || inactive_since.is_some();
        for session in self.all_sessions(ctx).await? {
            let is_recent = inactive_since.is_some_and(|since| session.last_activity > since);
            if (spares_busy && session.busy) || is_recent {
                continue;
            }
            // Decided once more where it is deleted: those before it may have taken a while.
            let cause = match spares_busy {
                true => Cause::DeletedIfIdle { inactive_since: inactive_since.unwrap_or(f64::MAX) },
                false => Cause::Deleted,
            };
            match destroy_session(&self.rooms, ctx.tenant(), &session.id, cause).await {
                Ok(()) => deleted += 1,
                // Somebody else was quicker.
                Err(error) if error.kind == ErrorKind::NotFound => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(deleted), Err)
    }

    /// All of them, page by page.
    async fn all_sessions(&self, ctx: &OpCtx) -> Result<Vec<Session>, Error> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let (page, next) = self
                .sessions(ctx, after.as_ref(), SessionOrder::OldestFirst, limits::SESSIONS_LISTED_MAX)
                .await?;
            all.extend(page);
            match next {
                Some(next) => after = Some(next),
                None => return Ok(all),
            }
        }
    }

    /// Takes back what was made for a session that the store refused, and says when another try may succeed.
    async fn not_created(&self, ctx: &OpCtx, tenant: &Tenant, id: SessionId, error: StoreError) -> Error {
        let workspace = tenant.workspace.clone();
        let removed = tenant.share.disk.run(move || Ok(workspace.remove_session_dir(&id)?)).await;
        if let Err(error) = removed.flatten() {
            tracing::warn!(
                error = %palisade_protocol::chain(&error),
                "the folder of a refused session was not removed"
            );
        }
        match error {
            StoreError::TooManySessions { .. } => {
                let wait_s = crate::lifetimes::seconds_to_next_end(&self.rooms, ctx.tenant()).await;
                Error::from(error).retry_after(wait_s)
            }
            error => error.into(),
        }
    }

    fn chosen_model(&self, tenant: &Tenant, asked: Option<String>) -> Result<String, Error> {
        match asked {
            Some(model) if tenant.config.client_model_selection => {
                if self.rooms.router.catalog().model(&model).is_some() {
                    return Ok(model);
                }
                let message = format!("there is no model {model:?}; GET /v1/models lists the catalog");
                Err(Error::new(ErrorKind::Malformed, "model.unknown", message))
            }
            _ => Ok(tenant.config.default_model.clone()),
        }
    }
}

fn checked_ttl(tenant: &Tenant, asked: Option<u64>) -> Result<u64, Error> {
    let ttl_max_s = tenant.config.session_ttl_max_s;
    let ttl = asked.unwrap_or(tenant.config.session_ttl_s);
    if (1..=ttl_max_s).contains(&ttl) {
        return Ok(ttl);
    }
    let message = format!("'ttl' must be between 1 and {ttl_max_s} seconds");
    Err(Error::new(ErrorKind::Malformed, "session.bad_ttl", message))
}

fn check_metadata(draft: &SessionDraft) -> Result<(), Error> {
    let bytes = serde_json::to_vec(&draft.metadata).map_err(Error::bug)?.len();
    if bytes <= limits::METADATA_BYTES_MAX {
        return Ok(());
    }
    let message =
        format!("'metadata' has {bytes} bytes as JSON; at most {} are kept", limits::METADATA_BYTES_MAX);
    Err(Error::new(ErrorKind::Malformed, "session.metadata_too_large", message))
}

/// Runs something that waits for the disk where it does not hold up others.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(Error::bug)?
}
