//! From a session's scope to the list of mounts and the environment inside. Pure: nothing is opened here.

use std::path::{Path, PathBuf};

use palisade_hand_protocol::{LaunchSpec, RootInside, ScopeMount, SkillMount, WORKSPACE_INSIDE};
use palisade_protocol::scope::{Scope, session_dir};
use palisade_protocol::{Access, SessionId, WorkspacePath};

use crate::factory::SandboxConfig;
use crate::{Rootfs, SandboxError};

/// What a server may set inside besides the defaults. A list of what is allowed, because what loaders, shells and
/// interpreters take code from is not a list that ends.
pub const ENV_ALLOWED: &[&str] = &[
    "ALL_PROXY",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LANG",
    "LC_ALL",
    "NODE_EXTRA_CA_CERTS",
    "NODE_USE_ENV_PROXY",
    "NO_PROXY",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "TZ",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// What one session's sandbox shows.
#[derive(Debug, Clone)]
pub struct SandboxSpec {
    /// Names the session's folder, which holds HOME.
    pub session: SessionId,
    /// The tenant's workspace on the host.
    pub workspace: PathBuf,
    /// What of it the session may see and change.
    pub scope: Scope,
    /// Name below `/skills`, and the directory on the host. Shown read-only.
    pub skills: Vec<(String, PathBuf)>,
    /// Added to the environment of every command; wins over the defaults. Only names of [`ENV_ALLOWED`].
    pub env: Vec<(String, String)>,
}

/// A scope root that will be a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RootMount {
    pub(crate) path: WorkspacePath,
    pub(crate) writable: bool,
}

impl SandboxSpec {
    /// The mounts, parents before children. A root that a wider one above already covers is none, so that no
    /// mount point ever lies beneath something writable.
    pub(crate) fn mounts(&self) -> Vec<RootMount> {
        let roots = self.scope.roots().into_iter();
        roots
            .map(|(path, access)| RootMount { path: path.clone(), writable: access == Access::Write })
            .collect()
    }

    /// HOME inside: on disk, so that it counts for quotas and survives the sandbox (decision 17).
    pub(crate) fn home(&self) -> String {
        format!("{WORKSPACE_INSIDE}/{}/home", session_dir(&self.session))
    }

    pub(crate) fn environment(&self, lang: &str) -> Result<Vec<(String, String)>, SandboxError> {
        if let Some((name, _)) = self.env.iter().find(|(name, _)| !ENV_ALLOWED.contains(&name.as_str())) {
            return Err(SandboxError::Spec(format!("{name:?} cannot be set inside")));
        }
        if self.env.iter().any(|(_, value)| value.contains('\0')) {
            return Err(SandboxError::Spec("a value of the environment contains a NUL character".into()));
        }
        let home = self.home();
        let path = format!("{home}/.local/bin:/usr/local/bin:/usr/bin:/bin");
        let defaults = [
            ("PATH", path.as_str()),
            ("HOME", &home),
            ("USER", "agent"),
            ("LOGNAME", "agent"),
            ("SHELL", "/bin/bash"),
            ("LANG", lang),
            ("TMPDIR", "/tmp"),
            ("TERM", "dumb"),
        ];
        let ours =
            defaults.into_iter().filter(|(name, _)| !self.env.iter().any(|(theirs, _)| theirs == name));
        let ours = ours.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(ours.chain(self.env.iter().cloned()).collect())
    }

    /// `cgroups`: what the launcher writes itself into.
    pub(crate) fn launch_spec(
        &self,
        config: &SandboxConfig,
        cgroups: impl Iterator<Item = PathBuf>,
    ) -> Result<LaunchSpec, SandboxError> {
        let scratch = config.scratch_bytes();
        let mount = |root: RootMount| Ok(ScopeMount { path: relative(&root.path)?, writable: root.writable });
        let skill =
            |(name, source): &(String, PathBuf)| Ok(SkillMount { name: name.clone(), source: text(source)? });
        Ok(LaunchSpec {
            bwrap: text(&config.bwrap)?,
            hand: text(&config.hand)?,
            rootfs: match &config.rootfs {
                Rootfs::HostUsr => "/".into(),
                Rootfs::Path(path) => text(path)?,
            },
            python_packages: config.python_packages.as_deref().map(text).transpose()?,
            workspace: text(&self.workspace)?,
            mounts: self.mounts().into_iter().map(mount).collect::<Result<_, SandboxError>>()?,
            skills: self.skills.iter().map(skill).collect::<Result<_, SandboxError>>()?,
            home: self.home(),
            cgroups: cgroups.map(|path| text(&path)).collect::<Result<_, _>>()?,
            tmp_bytes: scratch.tmp,
            shm_bytes: scratch.shm,
        })
    }

    /// Where each mount is inside, in the order of [`Self::mounts`].
    pub(crate) fn roots_inside(&self) -> Result<Vec<RootInside>, SandboxError> {
        let inside = |root: RootMount| {
            let path = format!("{WORKSPACE_INSIDE}/{}", relative(&root.path)?);
            Ok(RootInside { path, writable: root.writable })
        };
        self.mounts().into_iter().map(inside).collect()
    }
}

fn text(path: &Path) -> Result<String, SandboxError> {
    path.to_str().map(str::to_owned).ok_or_else(|| SandboxError::Path(path.to_owned()))
}

fn relative(path: &WorkspacePath) -> Result<String, SandboxError> {
    let unfit = || SandboxError::Path(path.to_string().into());
    std::str::from_utf8(path.as_bytes()).map(str::to_owned).map_err(|_| unfit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use palisade_protocol::FileAccess;

    fn mounts(read: &[&str], write: &[&str]) -> Vec<(String, bool)> {
        let session = SessionId::from_random([0; 6]);
        let texts = |paths: &[&str]| paths.iter().map(|p| (*p).to_owned()).collect();
        let spec = SandboxSpec {
            scope: FileAccess { read: texts(read), write: texts(write) }.scope_for(&session).unwrap(),
            session,
            workspace: "/w".into(),
            skills: vec![],
            env: vec![],
        };
        spec.mounts().into_iter().map(|root| (root.path.to_string(), root.writable)).collect()
    }

    #[test]
    fn the_whole_workspace_is_one_mount() {
        assert_eq!(mounts(&["", "a"], &["", ".memory"]), [(String::new(), true)]);
    }

    #[test]
    fn nothing_is_mounted_below_something_writable() {
        let own = (".sessions/sess_000000000000".to_owned(), true);
        let found = mounts(&["a", "b/c", ".memory"], &["a/out", "b", "b/c/d"]);
        let expected = [(".memory", false), ("a", false), ("a/out", true), ("b", true)];
        let mut expected: Vec<_> = expected.map(|(path, writable)| (path.to_owned(), writable)).into();
        expected.insert(1, own);
        assert_eq!(found, expected);
    }
}
