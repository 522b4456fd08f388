//! Cases that need another uid or another file system: the test runs itself again in such a place. Where that
//! cannot be had, it says so by its name.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use palisade_protocol::{Error, ErrorKind};
use palisade_workspace::{Footprint, Workspace};

use crate::support::{Tenant, at, code, whole, zip_of};

/// The uid that tests use when they start as root; any but 0 does.
const UNPRIVILEGED_UID: u32 = 10_001;
const CHILD: &str = "PALISADE_TEST_CHILD_DIR";

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The copy of this very test binary that another uid may run, and the folder that this uid owns.
fn copied_binary(home: &Path) -> std::path::PathBuf {
    std::fs::set_permissions(home, std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = home.join("test-binary");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
    copy
}

fn run_again(mut command: Command, test: &str, dir: &Path) {
    let output = command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, dir)
        .env("TMPDIR", dir)
        .current_dir(dir)
        .output()
        .unwrap();
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).join("\n");
    assert!(output.status.success() && text.contains("1 passed"), "{test}: {text}");
}

#[test]
fn rights_that_the_owner_took_from_itself() {
    if is_root() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("child");
        std::fs::create_dir(&dir).unwrap();
        chown(&dir, Some(UNPRIVILEGED_UID), Some(UNPRIVILEGED_UID)).unwrap();
        let mut command = Command::new(copied_binary(home.path()));
        command.uid(UNPRIVILEGED_UID).gid(UNPRIVILEGED_UID);
        return run_again(command, "environment::rights_that_the_owner_took_from_itself", &dir);
    }
    let tenant = Tenant::new();
    let set = |path: &str, mode| {
        std::fs::set_permissions(tenant.at(path), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    tenant.write("d/locked/sub/file", "x");
    tenant.write("d/locked/other", "x");
    tenant.write("d/file", "x");
    tenant.write("d/no-write/file", "x");
    set("d/locked/sub", 0);
    set("d/locked", 0);
    set("d/file", 0);
    set("d/no-write", 0o555);
    assert_eq!(code(tenant.get(&whole(), "d/file")), "file.permissions");
    assert_eq!(code(tenant.get(&whole(), "d/locked")), "file.permissions");
    assert_eq!(code(tenant.get(&whole(), "d/locked/other")), "file.permissions");
    let zip = zip_of(tenant.workspace.archive(&whole(), &at("d")).unwrap());
    let mut zip = zip::ZipArchive::new(std::io::Cursor::new(zip)).unwrap();
    let mut told = String::new();
    std::io::Read::read_to_string(&mut zip.by_name("NOT IN THIS ARCHIVE.txt").unwrap(), &mut told).unwrap();
    for line in [
        "file: its permissions do not allow to read it",
        "locked: its permissions do not allow to look into it",
    ] {
        assert!(told.contains(line), "{told}");
    }
    assert!(zip.by_name("no-write/file").is_ok(), "and what can be read is there");
    assert_eq!(code(tenant.workspace.archive(&whole(), &at("d/locked"))), "file.permissions");
    assert_eq!(tenant.get(&whole(), "d").unwrap(), "file locked no-write", "they are listed all the same");
    std::fs::write(tenant.at("d/large"), vec![1; 8 << 20]).unwrap();
    tenant.write("d/closed/sub/file", "x");
    std::fs::rename(tenant.at("d/large"), tenant.at("d/closed/sub/large")).unwrap();
    set("d/closed/sub", 0);
    set("d/closed", 0);
    assert!(tenant.measure().unwrap().bytes >= 8 << 20, "a closed directory hides nothing");
    tenant.workspace.delete(&whole(), &at("d/closed"), true).unwrap();
    tenant.delete(&whole(), "d/file").unwrap();
    assert_eq!(code(tenant.delete(&whole(), "d/locked")), "directory.not_empty");
    tenant.workspace.delete(&whole(), &at("d/locked"), true).unwrap();
    tenant.workspace.delete(&whole(), &at("d"), true).unwrap();
    assert!(!tenant.at("d").exists());
}

#[test]
fn a_full_disk_refuses_and_leaves_nothing() {
    let test = "environment::a_full_disk_refuses_and_leaves_nothing";
    let Some(dir) = std::env::var_os(CHILD) else {
        if !is_root() {
            return eprintln!("skipped here: {test} needs root to mount a small file system");
        }
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("small");
        std::fs::create_dir(&dir).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", r#"mount -t tmpfs -o size=1m none "$0" && exec "$@""#]);
        command.arg(&dir).arg(copied_binary(home.path()));
        return run_again(command, test, &dir);
    };
    let workspace = Workspace::open(&Path::new(&dir).join("workspace"), &[]).unwrap();
    let put = |path: &str, bytes: usize| {
        let mut upload = workspace.begin_upload(&whole(), &at(path), u64::MAX)?;
        upload.write(&vec![b'x'; bytes])?;
        upload.finish()
    };
    put("old", 100_000).unwrap();
    let before = crate::support::names_below(workspace.dir());
    for path in ["new", "old"] {
        let error = Error::from(put(path, 4_000_000).unwrap_err());
        assert_eq!((error.kind, error.code), (ErrorKind::StorageFull, "storage.full"));
    }
    assert_eq!(crate::support::names_below(workspace.dir()), before);
    assert_eq!(std::fs::metadata(workspace.dir().join("old")).unwrap().len(), 100_000);
    put("new", 100_000).unwrap();
    let around = Path::new(&dir).parent().unwrap();
    let volumes =
        Footprint::new(around, vec![dir.clone().into(), workspace.dir().to_owned()]).volumes().unwrap();
    let [own] = volumes.own[..] else { panic!("{volumes:?}") };
    assert!(own.total.bytes == 1 << 20 && own.free.bytes < own.total.bytes, "{own:?}");
    assert!(!volumes.uses_shared && (1..own.total.files).contains(&own.free.files), "{own:?}");
    let volumes = Footprint::new(&dir, vec![workspace.dir().to_owned()]).volumes().unwrap();
    assert!(volumes.uses_shared && volumes.own.is_empty(), "a folder of a file system is not its own");
}
