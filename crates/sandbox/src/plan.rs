//! From a session's scope to the list of mounts and the environment inside. Pure: nothing is opened here.

use std::path::{Path, PathBuf};

use palisade_hand_protocol::{
    LaunchSpec, PROXY_INSIDE, RootInside, ScopeMount, SkillMount, TRUST_INSIDE, WORKSPACE_INSIDE,
};
use palisade_protocol::scope::{LockedFolder, Scope, session_dir};
use palisade_protocol::{Access, SessionId, WorkspacePath};

use crate::factory::SandboxConfig;
use crate::{Rootfs, SandboxError};

/// What a server may set inside besides the defaults. A list of what is allowed, because what loaders, shells and
/// interpreters take code from is not a list that ends.
pub const ENV_ALLOWED: &[&str] = &["LANG", "LC_ALL", "TZ"];
/// How the names end that programs read credentials from. Inside, such a variable holds a placeholder.
pub const ENV_ALLOWED_ENDINGS: &[&str] =
    &["_CREDENTIAL", "_CREDENTIALS", "_KEY", "_PASSWORD", "_PAT", "_SECRET", "_TOKEN"];

/// Whether [`SandboxSpec::env`] may have it.
pub fn may_be_set(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    ENV_ALLOWED.contains(&name)
        || (name.bytes().next().is_some_and(|first| first.is_ascii_uppercase())
            && name.len() <= ENV_NAME_BYTES_MAX
            && name.bytes().all(is_plain)
            && ENV_ALLOWED_ENDINGS.iter().any(|ending| name.ends_with(ending)))
}

/// The longest name of a variable that may be set, in bytes.
const ENV_NAME_BYTES_MAX: usize = 64;

/// The way out of a sandbox: without one there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxySpec {
    /// A certificate authority that this sandbox alone trusts, as PEM: the proxy's, for the hosts whose connections it opens.
    pub trust_anchor: Option<String>,
}

/// What one session's sandbox shows.
#[derive(Debug, Clone)]
pub struct SandboxSpec {
    /// Names the session's folder, which holds HOME.
    pub session: SessionId,
    /// The tenant's workspace on the host.
    pub workspace: PathBuf,
    /// What of it the session may see and change.
    pub scope: Scope,
    /// What it may not change, whatever the scope says.
    pub locked: Vec<LockedFolder>,
    /// Name below `/skills`, and the directory on the host. Shown read-only.
    pub skills: Vec<(String, PathBuf)>,
    /// Added to the environment of every command; wins over the defaults. Only names that [`may_be_set`].
    pub env: Vec<(String, String)>,
    /// Whether there is a proxy at [`PROXY_INSIDE`], which programs are told of.
    pub proxy: Option<ProxySpec>,
}

/// A scope root that will be a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RootMount {
    pub(crate) path: WorkspacePath,
    pub(crate) writable: bool,
}

impl SandboxSpec {
    /// The mounts, parents before children. A root that a wider one above already covers is none, so that no
    /// mount point ever lies beneath something writable, but for what is locked: directly below the mount of the whole
    /// workspace, which nobody inside can rename.
    pub(crate) fn mounts(&self) -> Vec<RootMount> {
        let is_locked = |path: &WorkspacePath| self.locked.iter().any(|locked| path.is_within(locked.path()));
        let root = |(path, access): (&WorkspacePath, Access)| RootMount {
            path: path.clone(),
            writable: access == Access::Write && !is_locked(path),
        };
        let mut mounts: Vec<_> = self.scope.roots().into_iter().map(root).collect();
        if self.scope.is_whole() {
            let locked = |folder: &LockedFolder| RootMount { path: folder.path().clone(), writable: false };
            mounts.extend(self.locked.iter().map(locked));
        }
        mounts
    }

    /// HOME inside: on disk, so that it counts for quotas and survives the sandbox (decision 17).
    pub(crate) fn home(&self) -> String {
        format!("{WORKSPACE_INSIDE}/{}/home", session_dir(&self.session))
    }

    pub(crate) fn environment(&self, lang: &str) -> Result<Vec<(String, String)>, SandboxError> {
        if let Some((name, _)) = self.env.iter().find(|(name, _)| !may_be_set(name)) {
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
        let proxy = self.proxy.iter().flat_map(proxy_environment);
        Ok(ours.chain(proxy).chain(self.env.iter().cloned()).collect())
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
            trust_anchor: self.proxy.as_ref().and_then(|proxy| proxy.trust_anchor.clone()),
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

/// What makes programs take the one way out. Names under which nothing leaves anyway are the only exceptions (EG-B8).
fn proxy_environment(proxy: &ProxySpec) -> impl Iterator<Item = (String, String)> + use<> {
    const NO_PROXY: &str = "localhost,127.0.0.1,::1";
    let url = format!("http://{PROXY_INSIDE}");
    let proxies = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];
    let proxies = proxies.map(|name| (name, url.clone()));
    let others = [("NO_PROXY", NO_PROXY), ("no_proxy", NO_PROXY), ("NODE_USE_ENV_PROXY", "1")];
    // Programs that bring authorities of their own are told of the system's, which hold the proxy's.
    let trusted = [
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "GIT_SSL_CAINFO",
        "NODE_EXTRA_CA_CERTS",
        "PIP_CERT",
    ];
    let trusted = trusted.into_iter().filter(|_| proxy.trust_anchor.is_some()).collect::<Vec<_>>();
    let others = others.into_iter().chain(trusted.into_iter().map(|name| (name, TRUST_INSIDE)));
    let others = others.map(|(name, value)| (name, value.to_owned()));
    proxies.into_iter().chain(others).map(|(name, value)| (name.to_owned(), value))
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
        mounts_with(read, write, &[])
    }

    fn mounts_with(read: &[&str], write: &[&str], locked: &[&str]) -> Vec<(String, bool)> {
        let session = SessionId::from_random([0; 6]);
        let texts = |paths: &[&str]| paths.iter().map(|p| (*p).to_owned()).collect();
        let spec = SandboxSpec {
            scope: FileAccess { read: texts(read), write: texts(write) }.scope_for(&session).unwrap(),
            session,
            workspace: "/w".into(),
            locked: locked.iter().map(|name| (*name).to_owned().try_into().unwrap()).collect(),
            skills: vec![],
            env: vec![],
            proxy: None,
        };
        spec.mounts().into_iter().map(|root| (root.path.to_string(), root.writable)).collect()
    }

    #[test]
    fn the_whole_workspace_is_one_mount() {
        assert_eq!(mounts(&["", "a"], &["", ".memory"]), [(String::new(), true)]);
    }

    #[test]
    fn what_is_locked_is_read_only_in_every_scope() {
        let with = |read: &[&str], write: &[&str]| mounts_with(read, write, &["skills", ".pokee"]);
        let named = |mounts: &[(&str, bool)]| -> Vec<_> {
            mounts.iter().map(|(path, writable)| ((*path).to_owned(), *writable)).collect()
        };
        assert_eq!(with(&[""], &[""]), named(&[("", true), ("skills", false), (".pokee", false)]));
        let own = (".sessions/sess_000000000000", true);
        assert_eq!(with(&[""], &["skills/a"]), named(&[("", false), own, ("skills/a", false)]));
        assert_eq!(with(&[], &[".pokee", "p"]), named(&[(".pokee", false), own, ("p", true)]));
        assert_eq!(with(&[], &["skills2"]), named(&[own, ("skills2", true)]));
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
