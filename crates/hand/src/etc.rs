//! /etc as seen inside: generated files, and the few parts of the system's own that programs cannot do without.
//! Nothing that names the host or its users may stand here.

use std::os::fd::OwnedFd;

use palisade_hand_protocol::{HOME_INSIDE, TRUST_BYTES_MAX, TRUST_INSIDE, UID_INSIDE};
use rustix::fs::{FileType, Mode, OFlags, fstat, openat, symlinkat};
use rustix::io::Errno;

use crate::control::read_whole;
use crate::tree::{attach, make_directories, make_file, open_in_rootfs, open_in_rootfs_to_read};

/// Where the files lie in the skeleton that cover others.
const COVERS: &str = "covers";
/// What is shown of the system's /etc, read-only, where it exists: configuration that programs of /usr read.
const SHOWN: &[&str] = &[
    "ImageMagick-6",
    "ImageMagick-7",
    "alternatives",
    "fonts",
    "ghostscript",
    "java-11-openjdk",
    "java-17-openjdk",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "libreoffice",
    "magic",
    "mime.types",
    "papersize",
    "perl",
    "protocols",
    "python3",
    "python3.11",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "xdg",
];

/// What stands behind a file of the system's own, in one that covers it. Programs of the system read it there, and ours is
/// read last.
const ADDED: &[(&str, &str)] = &[
    ("java-11-openjdk/net.properties", include_str!("etc/net.properties")),
    ("java-17-openjdk/net.properties", include_str!("etc/net.properties")),
    ("python3.11/sitecustomize.py", include_str!("etc/sitecustomize.py")),
];
/// The longest of the system's files that something is added to, in bytes.
const ADDED_TO_BYTES_MAX: u64 = 256 * 1024;

/// Fills `etc` in the skeleton.
pub(crate) fn fill(skeleton: &OwnedFd, rootfs: &OwnedFd, trust_anchor: Option<&str>) -> Result<(), String> {
    let etc = make_directories(skeleton, "etc")?;
    for (name, content) in generated() {
        if let Some((folder, _)) = name.rsplit_once('/') {
            make_directories(&etc, folder)?;
        }
        make_file(&etc, name, content.as_bytes())?;
    }
    for (target, name) in [
        ("/usr/share/zoneinfo/Etc/UTC", "localtime"),
        ("../usr/lib/os-release", "os-release"),
        ("../proc/self/mounts", "mtab"),
    ] {
        symlinkat(target, &etc, name).map_err(|e| format!("link /etc/{name}: {e}"))?;
    }
    for name in SHOWN {
        let Some(source) = open_in_rootfs(rootfs, &format!("etc/{name}")) else { continue };
        let kind = fstat(&source).map_err(|e| format!("stat /etc/{name}: {e}"))?.st_mode;
        if let Some((folder, _)) = name.rsplit_once('/') {
            make_directories(&etc, folder)?;
        }
        let target = if FileType::from_raw_mode(kind) == FileType::Directory {
            make_directories(&etc, name)?
        } else {
            make_file(&etc, name, b"")?
        };
        attach(&source, &target, false, name)?;
    }
    make_directories(skeleton, COVERS)?;
    for (name, addition) in ADDED {
        if open_in_rootfs(rootfs, &format!("etc/{name}")).is_some() {
            add(skeleton, rootfs, &etc, name, addition, ADDED_TO_BYTES_MAX)?;
        }
    }
    trust_anchor.map_or(Ok(()), |anchor| trust(skeleton, rootfs, &etc, anchor))
}

/// Covers the system's file with one that has an addition behind it.
fn add(
    skeleton: &OwnedFd,
    rootfs: &OwnedFd,
    etc: &OwnedFd,
    name: &str,
    addition: &str,
    bytes_max: u64,
) -> Result<(), String> {
    let theirs = openat(etc, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let theirs = theirs.map_err(|e| format!("open /etc/{name}: {e}"))?;
    let mut content = match open_in_rootfs_to_read(rootfs, &format!("etc/{name}")) {
        Some(file) => read_whole(file, bytes_max).map_err(|e| format!("read /etc/{name}: {e}"))?,
        None => Vec::new(),
    };
    content.extend_from_slice(addition.as_bytes());
    let ours = make_file(skeleton, &format!("{COVERS}/{}", name.replace('/', "-")), &content)?;
    attach(&ours, &theirs, false, name).map(drop)
}

/// Puts an authority behind the system's own, in a file that covers theirs. Programs are told of it by name.
fn trust(skeleton: &OwnedFd, rootfs: &OwnedFd, etc: &OwnedFd, anchor: &str) -> Result<(), String> {
    let path = TRUST_INSIDE.trim_start_matches("/etc/");
    match openat(etc, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(_) => add(skeleton, rootfs, etc, path, anchor, TRUST_BYTES_MAX),
        Err(Errno::NOENT) => {
            let (folder, _) = path.rsplit_once('/').unwrap_or_default();
            make_directories(etc, folder)?;
            make_file(etc, path, anchor.as_bytes()).map(drop)
        }
        Err(e) => Err(format!("open {TRUST_INSIDE}: {e}")),
    }
}

fn generated() -> [(&'static str, String); 11] {
    let id = UID_INSIDE;
    let home = HOME_INSIDE;
    let nologin = "/usr/sbin/nologin";
    [
        (
            "passwd",
            format!(
                "root:x:0:0:root:/nonexistent:{nologin}\nagent:x:{id}:{id}:agent:{home}:/bin/bash\n\
                 nobody:x:65534:65534:nobody:/nonexistent:{nologin}\n"
            ),
        ),
        ("group", format!("root:x:0:\nagent:x:{id}:\nnogroup:x:65534:\n")),
        ("hosts", "127.0.0.1\tlocalhost palisade\n::1\tlocalhost\n".into()),
        ("hostname", "palisade\n".into()),
        ("nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n".into()),
        ("resolv.conf", String::new()),
        ("timezone", "Etc/UTC\n".into()),
        ("shells", "/bin/sh\n/bin/bash\n".into()),
        ("gitconfig", include_str!("etc/gitconfig").into()),
        ("pip.conf", include_str!("etc/pip.conf").into()),
        ("ssh/ssh_config", include_str!("etc/ssh_config").into()),
    ]
}
