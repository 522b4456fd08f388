//! /usr/local as seen inside: the hand and its second name, the Python packages, and a few small programs that make first
//! steps succeed or say what to do instead. None of the host's own tools stand here.

use std::os::fd::OwnedFd;

use palisade_hand_protocol::{HAND_INSIDE, STATUS_NAME};
use rustix::fs::{Mode, fchmod, symlinkat};

use crate::tree::{attach, make_directories, make_file, open_in_rootfs};

/// Where Debian's python3 looks for packages that pip did not put there for one user (decision 19).
const PYTHON_PACKAGES: &str = "local/lib/python3.11/dist-packages";
/// Names that people type for programs of another name, where the system has no program of theirs.
const SECOND_NAMES: [(&str, &str); 2] = [("python", "python3"), ("pip", "pip3")];
/// LibreOffice's names. Two that share a profile end each other without a word.
const OFFICES: [&str; 6] = ["soffice", "libreoffice", "loffice", "localc", "loimpress", "lowriter"];
const OFFICE: &str = include_str!("local/office.sh");
/// Programs that can do nothing here, and what they say.
const ABSENT: [&str; 9] =
    ["apt", "apt-get", "aptitude", "at", "crontab", "service", "su", "sudo", "systemctl"];
const ABSENT_SAYS: &str = include_str!("local/absent.sh");

/// What is shown there, opened.
pub(crate) struct Shown<'a> {
    pub(crate) rootfs: &'a OwnedFd,
    pub(crate) hand: &'a OwnedFd,
    pub(crate) python_packages: Option<&'a OwnedFd>,
}

/// Fills `local` in the skeleton.
pub(crate) fn fill(skeleton: &OwnedFd, shown: &Shown<'_>) -> Result<(), String> {
    let bin = make_directories(skeleton, "local/bin")?;
    make_directories(skeleton, "local/libexec")?;
    let target = make_file(skeleton, HAND_INSIDE.trim_start_matches("/usr/"), b"")?;
    attach(shown.hand, &target, false, "the hand")?;
    link(&bin, "../libexec/palisade-hand", STATUS_NAME)?;
    let has = |name: &str| open_in_rootfs(shown.rootfs, &format!("usr/bin/{name}")).is_some();
    for (name, program) in SECOND_NAMES {
        if has(program) && !has(name) {
            link(&bin, &format!("/usr/bin/{program}"), name)?;
        }
    }
    if OFFICES.into_iter().any(has) {
        script(skeleton, &bin, "office", OFFICE, OFFICES.into_iter().filter(|name| has(name)))?;
    }
    script(skeleton, &bin, "absent", ABSENT_SAYS, ABSENT)?;
    let target = make_directories(skeleton, PYTHON_PACKAGES)?;
    match shown.python_packages {
        Some(packages) => attach(packages, &target, false, "the Python packages").map(drop),
        None => Ok(()),
    }
}

/// One script under the names that it looks at.
fn script(
    skeleton: &OwnedFd,
    bin: &OwnedFd,
    own_name: &str,
    text: &str,
    names: impl IntoIterator<Item = &'static str>,
) -> Result<(), String> {
    let file = make_file(skeleton, &format!("local/libexec/{own_name}"), text.as_bytes())?;
    fchmod(&file, Mode::from_raw_mode(0o755)).map_err(|e| format!("make {own_name} a program: {e}"))?;
    names.into_iter().try_for_each(|name| link(bin, &format!("../libexec/{own_name}"), name))
}

fn link(bin: &OwnedFd, target: &str, name: &str) -> Result<(), String> {
    symlinkat(target, bin, name).map_err(|e| format!("link {name}: {e}"))
}
