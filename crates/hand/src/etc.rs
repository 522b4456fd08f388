//! /etc as seen inside: generated files, and the few parts of the system's own that programs cannot do without.
//! Nothing that names the host or its users may stand here.

use std::os::fd::OwnedFd;

use palisade_hand_protocol::{TRUST_BYTES_MAX, TRUST_INSIDE, UID_INSIDE};
use rustix::fs::{FileType, Mode, OFlags, fstat, openat, symlinkat};
use rustix::io::Errno;

use crate::control::read_whole;
use crate::tree::{attach, make_directories, make_file, open_in_rootfs, open_in_rootfs_to_read};

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

/// Fills `etc` in the skeleton.
pub(crate) fn fill(
    skeleton: &OwnedFd,
    rootfs: &OwnedFd,
    home: &str,
    trust_anchor: Option<&str>,
) -> Result<(), String> {
    let etc = make_directories(skeleton, "etc")?;
    for (name, content) in generated(home) {
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
    trust_anchor.map_or(Ok(()), |anchor| trust(skeleton, rootfs, &etc, anchor))
}

/// Puts an authority behind the system's own, in a file that covers theirs. Programs are told of it by name.
fn trust(skeleton: &OwnedFd, rootfs: &OwnedFd, etc: &OwnedFd, anchor: &str) -> Result<(), String> {
    let path = TRUST_INSIDE.trim_start_matches("/etc/");
    let mut bundle = match open_in_rootfs_to_read(rootfs, TRUST_INSIDE) {
        Some(file) => read_whole(file, TRUST_BYTES_MAX).map_err(|e| format!("read {TRUST_INSIDE}: {e}"))?,
        None => Vec::new(),
    };
    bundle.extend_from_slice(anchor.as_bytes());
    match openat(etc, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(theirs) => {
            let ours = make_file(skeleton, "trust", &bundle)?;
            attach(&ours, &theirs, false, TRUST_INSIDE).map(drop)
        }
        Err(Errno::NOENT) => {
            let (folder, _) = path.rsplit_once('/').unwrap_or_default();
            make_directories(etc, folder)?;
            make_file(etc, path, &bundle).map(drop)
        }
        Err(e) => Err(format!("open {TRUST_INSIDE}: {e}")),
    }
}

fn generated(home: &str) -> [(&'static str, String); 8] {
    let id = UID_INSIDE;
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
    ]
}
