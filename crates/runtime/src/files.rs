//! The tenant's files through a session's scope. The disk is only touched on the tenant's share of the blocking threads;
//! what the kernel has in memory is taken from there at once.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, stream};
use palisade_protocol::scope::Scope;
use palisade_protocol::{Error, SessionId, WorkspacePath};
use palisade_workspace::{Amount, Listing, Upload, Workspace, WorkspaceError};

use crate::snapshots::Snapshots;
use crate::storage::Storage;
use crate::tenant::Tenant;
use crate::threads::Lane;
use crate::{OpCtx, Runtime};

pub use palisade_workspace::{
    Conditions, Entry, Opened, Page, ReadFile, Tag, Tags, Validators, Verdict, Written,
};

/// An upload on its way. Dropped before `finish`, it leaves nothing.
pub struct FileUpload {
    upload: Upload,
    storage: Arc<Storage>,
    /// Told of a change of skills.
    snapshots: Option<Arc<Snapshots>>,
    disk: Lane,
}

impl Runtime {
    /// Opens a file, or lists a page of a directory.
    pub async fn open_file(
        &self,
        ctx: &OpCtx,
        id: &SessionId,
        path: WorkspacePath,
        page: Page,
    ) -> Result<Opened, Error> {
        let (tenant, scope) = self.files_of(ctx, id).await?;
        // Two changes of the thread would take longer than the rest of a small file's request.
        if let Some(file) = tenant.workspace.open_in_memory(&scope, &path) {
            return Ok(Opened::File(file));
        }
        let files = tenant.workspace.clone();
        tenant.share.disk.run(move || Ok(files.open_read(&scope, &path, &page)?)).await?
    }

    /// Where the caller's files are read from the disk: a share of the threads.
    pub fn disk(&self, ctx: &OpCtx) -> Result<Lane, Error> {
        Ok(self.rooms.tenant(ctx)?.share.disk.clone())
    }

    /// Lists a page of a directory.
    pub async fn list_files(
        &self,
        ctx: &OpCtx,
        id: &SessionId,
        path: WorkspacePath,
        page: Page,
    ) -> Result<Listing, Error> {
        let (tenant, scope) = self.files_of(ctx, id).await?;
        let files = tenant.workspace.clone();
        Ok(tenant.share.bulk.run(move || files.list(&scope, &path, &page)).await??)
    }

    /// Deletes a file or a directory that is as the conditions say.
    pub async fn delete_file(
        &self,
        ctx: &OpCtx,
        id: &SessionId,
        path: WorkspacePath,
        recursive: bool,
        conditions: Conditions,
    ) -> Result<(), Error> {
        let is_of_skills = is_of_skills(&path);
        let delete = move |files: &Arc<Workspace>, scope: &Scope| {
            Ok(files.delete_if(scope, &path, recursive, &conditions)?)
        };
        self.with_files(ctx, id, delete).await?;
        if is_of_skills {
            self.rooms.tenant(ctx)?.shelf.snapshots.look();
        }
        Ok(())
    }

    /// Begins to write a file; nothing is seen under its name before [`FileUpload::finish`].
    /// `announced` is the length the caller promises, so that what is too large is refused before it is sent. The
    /// conditions are asked now and once more, atomically, when the file is put in its place.
    pub async fn upload_file(
        &self,
        ctx: &OpCtx,
        id: &SessionId,
        path: WorkspacePath,
        announced: Option<u64>,
        conditions: Conditions,
    ) -> Result<FileUpload, Error> {
        let tenant = &*self.rooms.tenant(ctx)?;
        let (bytes_max, storage) = (tenant.config.upload_bytes_max, tenant.storage.clone());
        let disk = tenant.share.disk.clone();
        let room = storage.clone();
        let snapshots = is_of_skills(&path).then(|| tenant.shelf.snapshots.clone());
        let upload = self
            .with_files(ctx, id, move |files, scope| {
                let upload = files.begin_upload(scope, &path, bytes_max)?.only_if(conditions)?;
                match announced {
                    Some(bytes) if bytes > bytes_max => {
                        Err(WorkspaceError::UploadTooLarge { path, limit_bytes: bytes_max }.into())
                    }
                    _ => {
                        room.check(Amount { bytes: announced.unwrap_or(0), files: 1 })?;
                        room.take(Amount { bytes: 0, files: 1 })?;
                        Ok(upload)
                    }
                }
            })
            .await?;
        Ok(FileUpload { upload, storage, snapshots, disk })
    }

    /// A directory as a zip, made piece by piece as the caller asks for more, so that one who reads slowly holds a place
    /// of its tenant's and no thread. When the archive cannot be finished, the stream ends with an error, so that half
    /// of it cannot pass for the whole.
    pub async fn archive_files(
        &self,
        ctx: &OpCtx,
        id: &SessionId,
        path: WorkspacePath,
    ) -> Result<impl Stream<Item = std::io::Result<Bytes>> + Send + use<>, Error> {
        let (tenant, scope) = self.files_of(ctx, id).await?;
        let place = tenant.share.archive()?;
        let (lane, files) = (tenant.share.bulk.clone(), tenant.workspace.clone());
        let begin = move || Ok::<_, Error>(files.archive(&scope, &path)?.into_pieces());
        let archive = lane.run(begin).await??;
        let state = (archive, lane, place);
        Ok(stream::try_unfold(state, |(mut pieces, lane, place)| async move {
            loop {
                let next = lane.run(move || (pieces.next_piece(), pieces)).await;
                let (piece, back) = next.map_err(std::io::Error::other)?;
                pieces = back;
                match piece.map_err(std::io::Error::other)? {
                    None => return Ok(None),
                    // Much was read and little came of it.
                    Some(piece) if piece.is_empty() => {}
                    Some(piece) => return Ok(Some((piece.into(), (pieces, lane, place)))),
                }
            }
        }))
    }

    async fn with_files<T: Send + 'static>(
        &self,
        ctx: &OpCtx,
        id: &SessionId,
        work: impl FnOnce(&Arc<Workspace>, &Scope) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (tenant, scope) = self.files_of(ctx, id).await?;
        let files = tenant.workspace.clone();
        tenant.share.disk.run(move || work(&files, &scope)).await?
    }

    /// Whose files they are, and what of them the session may see.
    async fn files_of(&self, ctx: &OpCtx, id: &SessionId) -> Result<(Arc<Tenant>, Arc<Scope>), Error> {
        let tenant = self.rooms.tenant(ctx)?;
        let asked = match self.rooms.scopes.get(ctx.tenant(), id) {
            Ok(scope) => return Ok((tenant, scope)),
            Err(asked) => asked,
        };
        let session = self.rooms.session(ctx, id).await?;
        let scope = Arc::new(tenant.scope(id, &session.file_access)?);
        self.rooms.scopes.remember(asked, ctx.tenant(), id, scope.clone());
        Ok((tenant, scope))
    }
}

fn is_of_skills(path: &WorkspacePath) -> bool {
    WorkspacePath::parse("skills").is_ok_and(|skills| path.is_within(&skills))
}

impl FileUpload {
    /// Appends.
    pub async fn write(mut self, bytes: Bytes) -> Result<Self, Error> {
        let disk = self.disk.clone();
        disk.run(move || {
            self.storage.take(Amount { bytes: bytes.len() as u64, files: 0 })?;
            self.upload.write(&bytes)?;
            Ok(self)
        })
        .await?
    }

    /// Puts the file in its place.
    pub async fn finish(self) -> Result<Written, Error> {
        let written = self.disk.run(move || self.upload.finish()).await??;
        if let Some(snapshots) = self.snapshots {
            snapshots.look();
        }
        Ok(written)
    }
}
