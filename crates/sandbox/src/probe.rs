//! Whether sandboxes can be started here at all, and what to do when not.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use palisade_protocol::{FileAccess, SessionId, TenantName};

use crate::{ProxySpec, RunExit, RunRequest, SandboxError, SandboxFactory, SandboxSpec};

const PROBE_MS_MAX: u64 = 10_000;
/// Names that are tried for its folder.
const NAMES_MAX: u32 = 1_000;

/// What a sandbox that was tried has.
#[derive(Debug, Clone, Copy)]
pub struct Probed {
    /// See [`crate::Sandbox::landlock_abi`].
    pub landlock_abi: u32,
}

/// Starts a sandbox over an empty folder, runs `true` in it, and ends it.
pub async fn probe(factory: &SandboxFactory) -> Result<Probed, SandboxError> {
    let folder = new_folder().map_err(SandboxError::at("making a folder for the probe"))?;
    let result = probe_in(factory, &folder).await;
    if let Err(e) = std::fs::remove_dir_all(&folder) {
        tracing::warn!(folder = %folder.display(), error = %e, "could not remove the probe's folder");
    }
    result
}

/// An empty folder with a name that nobody has: a server that was killed in its probe has left one behind, and its
/// number is given out again, in a container to the very next.
fn new_folder() -> std::io::Result<PathBuf> {
    static PROBES: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = PROBES.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("palisade-probe-{}-{number}", std::process::id()));
        // Not `create_dir_all`: a folder that somebody else put there is not ours to use.
        match std::fs::create_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && number < NAMES_MAX => {}
            made => return made.map(|()| folder),
        }
    }
}

async fn probe_in(factory: &SandboxFactory, folder: &Path) -> Result<Probed, SandboxError> {
    let session = SessionId::from_random([0; 6]);
    let tenant = TenantName::parse("probe").map_err(|e| SandboxError::Spec(e.to_string()))?;
    let scope = FileAccess::default().scope_for(&session).map_err(|e| SandboxError::Spec(e.to_string()))?;
    let (skills, env, proxy) = (vec![], vec![], Some(ProxySpec::default()));
    let (workspace, home, locked) = (folder.join("workspace"), folder.join("home"), vec![]);
    for part in [&workspace, &home] {
        std::fs::create_dir(part).map_err(SandboxError::at("making a folder for the trial"))?;
    }
    let spec = SandboxSpec { tenant, session, home, workspace, scope, locked, skills, env, proxy };
    let sandbox = factory.start(spec).await?;
    let request = RunRequest { command: "true".into(), timeout_ms: PROBE_MS_MAX, background: false };
    let exit = sandbox.run(request, |_| {}).await;
    let probed = Probed { landlock_abi: sandbox.landlock_abi() };
    sandbox.shutdown().await;
    match exit? {
        RunExit::Code(0) => Ok(probed),
        other => Err(SandboxError::Command(format!("`true` came out as {other:?}"))),
    }
}

/// What to do about a known complaint of the launcher or of bubblewrap.
pub(crate) fn hint_for(message: &str) -> &'static str {
    const KNOWN: &[(&[&str], &str)] = &[
        (
            &["create a user namespace", "Creating new namespace failed", "No permissions to create"],
            "unprivileged user namespaces are off or used up: see the sysctls user.max_user_namespaces and \
             kernel.unprivileged_userns_clone, and a container's seccomp profile",
        ),
        (
            &["setting up uid map", "/proc/self/uid_map", "/proc/self/setgroups"],
            "user namespaces are restricted here: on Ubuntu see kernel.apparmor_restrict_unprivileged_userns",
        ),
        (
            &["mount proc"],
            "/proc is masked, as containers have it by default: set `procMount: Unmasked` with `hostUsers: false`, \
             or for Docker `--security-opt systempaths=unconfined`",
        ),
        (&["as root"], "set a user for the server, or start it as one"),
        (
            &["open the workspace", "open the scope path"],
            "this user must be able to reach the data directory",
        ),
    ];
    let known = KNOWN.iter().find(|(words, _)| words.iter().any(|word| message.contains(word)));
    known.map_or("", |(_, hint)| hint)
}

#[cfg(test)]
mod tests {
    use super::hint_for;

    #[test]
    fn known_complaints_have_a_hint() {
        for (message, word) in [
            ("launch: create a user namespace: No space left on device (os error 28)", "max_user_namespaces"),
            ("bwrap: Creating new namespace failed: Resource temporarily unavailable", "max_user_namespaces"),
            ("bwrap: Can't mount proc on /newroot/proc: Operation not permitted", "procMount"),
            ("bwrap: setting up uid map: Permission denied", "apparmor"),
        ] {
            assert!(hint_for(message).contains(word), "{message}");
        }
        assert_eq!(hint_for("bwrap: something new"), "");
    }
}
