//! From a session's scope to the list of mounts and the environment inside. Pure: nothing is opened here.

use std::path::{Path, PathBuf};

use palisade_hand_protocol::{
    HOME_INSIDE, LaunchSpec, PROXY_INSIDE, RootInside, SCRATCH_INSIDE, ScopeMount, SkillMount, TRUST_INSIDE,
    WORKSPACE_INSIDE,
};
use palisade_protocol::scope::{LockedFolder, Scope};
use palisade_protocol::{Access, SessionId, TenantName, WorkspacePath};

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
    /// Whose it is: a tenant's sandboxes together have one tenant's share of the processors.
    pub tenant: TenantName,
    /// Whose session it is.
    pub session: SessionId,
    /// The session's home on the host, beside the workspace and in nobody else's reach.
    pub home: PathBuf,
    /// The tenant's workspace on the host.
    pub workspace: PathBuf,
    /// What of it the session may see and change.
    pub scope: Scope,
    /// What it may not change, but for paths below it that the scope names for writing.
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
    /// workspace, which nobody inside can rename. A path below a locked folder is writable where the scope names it.
    pub(crate) fn mounts(&self) -> Vec<RootMount> {
        let is_locked = |path: &WorkspacePath| self.locked.iter().any(|locked| path == locked.path());
        let root = |(path, access): (&WorkspacePath, Access)| RootMount {
            path: path.clone(),
            writable: access == Access::Write && !is_locked(path),
        };
        let mut mounts: Vec<_> = self.scope.roots().into_iter().map(root).collect();
        if self.scope.is_whole() {
            let locked = |folder: &LockedFolder| RootMount { path: folder.path().clone(), writable: false };
            mounts.extend(self.locked.iter().map(locked));
            mounts.extend(self.opened().map(|path| RootMount { path: path.clone(), writable: true }));
        }
        mounts
    }

    /// What the scope names for writing below something locked.
    fn opened(&self) -> impl Iterator<Item = &WorkspacePath> {
        let is_below = |path: &WorkspacePath, other: &WorkspacePath| path != other && path.is_within(other);
        let below_locked =
            move |path: &WorkspacePath| self.locked.iter().any(|folder| is_below(path, folder.path()));
        let named = move || self.scope.granted_for_writing().filter(move |path| below_locked(path));
        named().filter(move |path| !named().any(|wider| is_below(path, wider)))
    }

    pub(crate) fn environment(&self, lang: &str) -> Result<Vec<(String, String)>, SandboxError> {
        if let Some((name, _)) = self.env.iter().find(|(name, _)| !may_be_set(name)) {
            return Err(SandboxError::Spec(format!("{name:?} cannot be set inside")));
        }
        if self.env.iter().any(|(_, value)| value.contains('\0')) {
            return Err(SandboxError::Spec("a value of the environment contains a NUL character".into()));
        }
        let path = format!("{HOME_INSIDE}/.local/bin:/usr/local/bin:/usr/bin:/bin");
        let defaults = [
            ("PATH", path.as_str()),
            ("HOME", HOME_INSIDE),
            ("USER", "agent"),
            ("LOGNAME", "agent"),
            ("SHELL", "/bin/bash"),
            ("LANG", lang),
            ("TMPDIR", SCRATCH_INSIDE),
            ("TERM", "dumb"),
            // Nobody is there to page, edit or answer: each of these would wait for ever, or fail.
            ("PAGER", "cat"),
            ("EDITOR", "true"),
            ("GIT_EDITOR", "true"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("DEBIAN_FRONTEND", "noninteractive"),
            // `npm install -g` needs a place that may be written, and `require` looks only where it is told.
            ("NPM_CONFIG_PREFIX", "/home/agent/.local"),
            ("NPM_CONFIG_UPDATE_NOTIFIER", "false"),
            ("NPM_CONFIG_YES", "true"),
            ("NODE_PATH", "/home/agent/.local/lib/node_modules"),
            // What a program says is to be seen when it says it.
            ("PYTHONUNBUFFERED", "1"),
            // Compiled files are told apart by seconds: a file that is changed within one, as an agent does, would run as it was.
            ("PYTHONDONTWRITEBYTECODE", "1"),
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
            home: text(&self.home)?,
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
    // `[::1]` is not among them: httpx takes no name in brackets, and fails at all. Where that form is asked for,
    // curl and wget read `::1`, and Python is told by its sitecustomize.
    const NO_PROXY: &str = "localhost,127.0.0.1,127.0.0.0/8,::1,0.0.0.0,palisade";
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
            tenant: TenantName::parse("acme").unwrap(),
            session,
            home: "/h".into(),
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
        assert_eq!(with(&[""], &["skills/a"]), named(&[("", false), own, ("skills/a", true)]));
        let whole = [("", true), ("skills", false), (".pokee", false)];
        let opened = [("skills/a", true), ("skills/b/c", true)];
        let read = ["", "skills/d"];
        assert_eq!(
            with(&read, &["", "skills/a", "skills/a/x", "skills/b/c"]),
            named(&[&whole[..], &opened].concat())
        );
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
