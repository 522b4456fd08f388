//! A workspace, a hand, an unprivileged uid, and a sandbox over them.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use palisade_agent::tools::Action;
use palisade_protocol::{Access, FileAccess, SessionId, TenantName, ToolCall, ToolOutput, WorkspacePath};
use palisade_sandbox::{
    Cgroups, Limits, Rootfs, RunExit, RunRequest, Sandbox, SandboxConfig, SandboxError, SandboxFactory,
    SandboxSpec,
};
use tempfile::TempDir;

/// The uid that tests take when they are started as root; sandboxes refuse to run as root.
const TEST_UID: u32 = 10_001;
/// Long enough for anything that should end by itself.
pub(crate) const PATIENCE_MS: u64 = 30_000;

/// Everything that a test of the cage needs, in a folder of its own.
pub(crate) struct Bench {
    pub(crate) factory: SandboxFactory,
    pub(crate) workspace: PathBuf,
    /// The session's home.
    pub(crate) home: PathBuf,
    /// Beside the workspace: nothing in it may ever be seen inside.
    pub(crate) outside: PathBuf,
    pub(crate) session: SessionId,
    pub(crate) hand: PathBuf,
    pub(crate) cgroups: Cgroups,
    _folder: TempDir,
}

impl Bench {
    /// Gives up root for good, process-wide.
    pub(crate) fn new() -> Self {
        let hand = built_hand();
        let folder = tempfile::Builder::new().prefix("palisade-cage-").tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        // The uid may not be able to look where the hand was built.
        let reachable_hand = folder.path().join("palisade-hand");
        std::fs::copy(hand, &reachable_hand).unwrap();
        let is_root = rustix::process::getuid().is_root();
        // As the server does: while it is root, and the same for all sandboxes of the process.
        static CGROUPS: std::sync::OnceLock<Cgroups> = std::sync::OnceLock::new();
        let uid = if is_root { TEST_UID } else { rustix::process::getuid().as_raw() };
        let cgroups = CGROUPS.get_or_init(|| Cgroups::prepare(uid)).clone();
        if is_root {
            chown(folder.path(), Some(TEST_UID), Some(TEST_UID)).unwrap();
            give_up_root();
        }
        let workspace = folder.path().join("workspace");
        let outside = folder.path().join("outside");
        let home = folder.path().join("home");
        std::fs::create_dir(&workspace).unwrap();
        std::fs::create_dir_all(home.join(".tmp")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("secret"), "the secret").unwrap();
        let factory = SandboxFactory::new(config(&reachable_hand, &cgroups, Rootfs::HostUsr, None)).unwrap();
        let session = SessionId::from_random([0xa8, 0x61, 0x18, 0xc0, 0x66, 0x88]);
        Self { factory, workspace, home, outside, session, hand: reachable_hand, cgroups, _folder: folder }
    }

    pub(crate) fn factory_with_packages(&self, packages: &Path) -> SandboxFactory {
        SandboxFactory::new(config(&self.hand, &self.cgroups, Rootfs::HostUsr, Some(packages))).unwrap()
    }

    pub(crate) fn factory_with_rootfs(&self, root: &Path) -> SandboxFactory {
        SandboxFactory::new(config(&self.hand, &self.cgroups, Rootfs::Path(root.to_owned()), None)).unwrap()
    }

    pub(crate) fn factory_with_limits(&self, limits: Limits) -> SandboxFactory {
        let config = config(&self.hand, &self.cgroups, Rootfs::HostUsr, None);
        SandboxFactory::new(SandboxConfig { limits, ..config }).unwrap()
    }

    pub(crate) fn factory_without_groups(&self, limits: Limits) -> SandboxFactory {
        let config = config(&self.hand, &Cgroups::none("not asked for"), Rootfs::HostUsr, None);
        SandboxFactory::new(SandboxConfig { limits, ..config }).unwrap()
    }

    pub(crate) fn spec(&self, read: &[&str], write: &[&str]) -> SandboxSpec {
        let texts = |paths: &[&str]| paths.iter().map(|p| (*p).to_owned()).collect();
        let access = FileAccess { read: texts(read), write: texts(write) };
        let memory = WorkspacePath::parse(".memory").unwrap();
        SandboxSpec {
            tenant: TenantName::parse("acme").unwrap(),
            session: self.session.clone(),
            home: self.home.clone(),
            workspace: self.workspace.clone(),
            scope: access.scope_for(&self.session).unwrap().with(memory, Access::Write),
            locked: vec![],
            skills: vec![],
            env: vec![],
            proxy: None,
        }
    }

    /// A sandbox with exactly this scope.
    pub(crate) async fn scoped(&self, read: &[&str], write: &[&str]) -> Sandbox {
        self.factory.start(self.spec(read, write)).await.unwrap()
    }

    /// A sandbox over the whole workspace.
    pub(crate) async fn whole(&self) -> Sandbox {
        self.scoped(&[""], &[""]).await
    }

    /// Writes a file of the workspace on the host, making its folders.
    pub(crate) fn put(&self, path: &str, content: &str) {
        let path = self.workspace.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(crate) fn get(&self, path: &str) -> String {
        std::fs::read_to_string(self.workspace.join(path)).unwrap()
    }
}

fn config(hand: &Path, cgroups: &Cgroups, rootfs: Rootfs, packages: Option<&Path>) -> SandboxConfig {
    SandboxConfig {
        hand: hand.to_owned(),
        bwrap: "bwrap".into(),
        rootfs,
        python_packages: packages.map(Path::to_owned),
        limits: Limits::default(),
        cgroups: cgroups.clone(),
    }
}

/// Runs a command to its end; the output as text.
pub(crate) async fn run(sandbox: &Sandbox, command: &str) -> (RunExit, String) {
    try_run(sandbox, command, PATIENCE_MS).await.unwrap()
}

pub(crate) async fn try_run(
    sandbox: &Sandbox,
    command: &str,
    timeout_ms: u64,
) -> Result<(RunExit, String), SandboxError> {
    let mut text = Vec::new();
    let request = RunRequest { command: command.to_owned(), timeout_ms, background: false };
    let exit = sandbox.run(request, |bytes| text.extend_from_slice(bytes)).await?;
    Ok((exit, String::from_utf8_lossy(&text).into_owned()))
}

/// The output of a command that must succeed.
pub(crate) async fn stdout(sandbox: &Sandbox, command: &str) -> String {
    let (exit, text) = run(sandbox, command).await;
    assert_eq!(exit, RunExit::Code(0), "{command}: {text}");
    text.trim_end().to_owned()
}

/// Asserts that a command fails and says why.
pub(crate) async fn refused(sandbox: &Sandbox, command: &str, reason: &str) {
    let (exit, text) = run(sandbox, command).await;
    assert!(
        exit != RunExit::Code(0) && text.contains(reason),
        "{command}: {exit:?} {text:?}, not {reason:?}"
    );
}

/// Runs a Python program inside; its output.
pub(crate) async fn python(sandbox: &Sandbox, program: &str) -> String {
    stdout(sandbox, &format!("/usr/bin/python3 - <<'PROGRAM'\n{program}\nPROGRAM")).await
}

/// A file tool's result.
pub(crate) async fn tool(sandbox: &Sandbox, name: &str, arguments: serde_json::Value) -> ToolOutput {
    let call = ToolCall { id: "call_1".into(), name: name.into(), arguments: arguments.to_string() };
    match palisade_agent::tools::action(&call) {
        Action::File(operation) => sandbox.file(operation).await.unwrap(),
        Action::Answered(output) => output,
        other => panic!("{name} is no file tool: {other:?}"),
    }
}

/// Waits until `holds`; fails with `what` when it never does.
pub(crate) async fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let until = std::time::Instant::now() + std::time::Duration::from_millis(PATIENCE_MS);
    while !holds() {
        assert!(std::time::Instant::now() < until, "still waiting: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// The pids on the host of every process whose command line holds `marker`.
pub(crate) fn host_processes(marker: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let marked = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(marker))
    };
    pids.filter(marked).collect()
}

/// `PALISADE_HAND`, or the hand built as it is shipped: static.
pub(crate) fn built_hand() -> PathBuf {
    if let Some(hand) = std::env::var_os("PALISADE_HAND") {
        return hand.into();
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from).join("hand");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "palisade-hand", "--release"])
        .args(["--target", "x86_64-unknown-linux-gnu"])
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static")
        .env("CARGO_TARGET_DIR", &target)
        .current_dir(root)
        .status();
    assert!(built.unwrap().success(), "the hand does not build");
    target.join("x86_64-unknown-linux-gnu/release/palisade-hand")
}

/// libc's calls change all threads, unlike the kernel's.
fn give_up_root() {
    #[expect(unsafe_code, reason = "the process-wide change of uid is libc's alone")]
    // SAFETY: plain calls with valid arguments; setgroups gets an empty list.
    unsafe {
        assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
        assert_eq!(libc::setresgid(TEST_UID, TEST_UID, TEST_UID), 0);
        assert_eq!(libc::setresuid(TEST_UID, TEST_UID, TEST_UID), 0);
    }
}
