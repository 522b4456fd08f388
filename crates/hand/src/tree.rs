//! The skeleton: a small tmpfs that holds what is ours to show (the scope, the skills, /etc, /usr/local), each
//! piece attached by descriptor.
//!
//! No path of the workspace is resolved twice: a source is opened once, strictly, and what was opened is what
//! is mounted. No mount point ever lies beneath something the agent may write, because a rename there would
//! move it; but for a locked folder, whose mount point is all that there is to rename.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use palisade_beneath::Root;
use palisade_hand_protocol::{LaunchSpec, SHM_FILES_MAX, ScopeMount, TMP_FILES_MAX};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::{etc, local, sys};

const DIRECTORY_MODE: u32 = 0o755;
/// The skeleton holds names only, and /etc's few small files.
const SKELETON_SIZE: u64 = 4 * 1024 * 1024;
const SKELETON_INODES: u64 = 16 * 1024;

type Step<T> = Result<T, String>;

/// Makes the skeleton and mounts it at `stage`.
pub(crate) fn build(spec: &LaunchSpec, stage: &str) -> Step<()> {
    // Opened before the stage covers anything, and after the namespaces were entered: a descriptor of another
    // mount namespace cannot be cloned.
    let sources = Sources::open(spec)?;
    let skeleton = Tmpfs { size: SKELETON_SIZE, files: SKELETON_INODES, mode: "0755", may_run: true }
        .mount(rustix::fs::CWD, stage)
        .map_err(|e| format!("mount a tmpfs at {stage}: {e}"))?;
    attach_scratch(&skeleton, spec)?;
    etc::fill(&skeleton, &sources.rootfs, spec.trust_anchor.as_deref())?;
    let Sources { rootfs, hand, python_packages, .. } = &sources;
    local::fill(&skeleton, &local::Shown { rootfs, hand, python_packages: python_packages.as_ref() })?;
    attach_skills(&skeleton, &sources.skills)?;
    let home = make_directories(&skeleton, "home")?;
    attach(&sources.home, &home, true, "the session's home")?;
    attach_scope(&skeleton, &sources)?;
    seal(&skeleton, true).map_err(|e| format!("make the skeleton read-only: {e}"))
}

/// Everything that will be attached, opened.
struct Sources {
    rootfs: OwnedFd,
    hand: OwnedFd,
    home: OwnedFd,
    python_packages: Option<OwnedFd>,
    skills: Vec<(String, OwnedFd)>,
    scope: Vec<(ScopeMount, OwnedFd)>,
}

impl Sources {
    fn open(spec: &LaunchSpec) -> Step<Self> {
        let workspace = Root::open(Path::new(&spec.workspace))
            .map_err(|e| format!("open the workspace {}: {e}", spec.workspace))?;
        let scope =
            spec.mounts.iter().map(|mount| Ok((mount.clone(), open_scope_root(&workspace, &mount.path)?)));
        let skills =
            spec.skills.iter().map(|skill| Ok((skill.name.clone(), open_trusted(&skill.source, true)?)));
        Ok(Self {
            rootfs: open_trusted(&spec.rootfs, true)?,
            hand: open_trusted(&spec.hand, false)?,
            // Nothing inside can put anything in its place: the folder that it lies in is never shown.
            home: open_trusted(&spec.home, true)?,
            python_packages: spec
                .python_packages
                .as_deref()
                .map(|path| open_trusted(path, true))
                .transpose()?,
            skills: skills.collect::<Step<_>>()?,
            scope: scope.collect::<Step<_>>()?,
        })
    }
}

/// A path that the operator configured; its links are followed.
fn open_trusted(path: &str, directory: bool) -> Step<OwnedFd> {
    let kind = if directory { OFlags::DIRECTORY } else { OFlags::empty() };
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC | kind, Mode::empty())
        .map_err(|e| format!("open {path}: {e}"))
}

/// A scope root, strictly. Missing directories are made (decision 20), one level at a time, each below a
/// descriptor of the one above.
fn open_scope_root(workspace: &Root, path: &str) -> Step<OwnedFd> {
    let fail = |e: io::Error| format!("open the scope path '{path}': {e}");
    let mut ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
    ends.push(path.len());
    let mut reached = workspace.mount_source(Path::new("")).map_err(fail)?;
    let mut start = 0;
    for end in ends.into_iter().filter(|end| *end > 0) {
        let (prefix, name) = (Path::new(&path[..end]), &path[start..end]);
        reached = match workspace.mount_source(prefix) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                make_directory(&reached, name).map_err(|e| fail(e.into()))?;
                workspace.mount_source(prefix).map_err(fail)?
            }
            found => found.map_err(fail)?,
        };
        start = end + 1;
    }
    let kind = FileType::from_raw_mode(fstat(&reached).map_err(|e| fail(e.into()))?.st_mode);
    if kind == FileType::Directory {
        Ok(reached)
    } else {
        Err(format!("the scope path '{path}' is not a directory"))
    }
}

/// A file system in memory. bubblewrap can make one, but not bound its number of files.
struct Tmpfs {
    size: u64,
    files: u64,
    mode: &'static str,
    /// Whether programs may be executed from it.
    may_run: bool,
}

impl Tmpfs {
    /// The answer is its root.
    fn mount(&self, parent: impl AsFd, name: &str) -> io::Result<OwnedFd> {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "size", self.size.to_string())?;
        fsconfig_set_string(&context, "nr_inodes", self.files.to_string())?;
        fsconfig_set_string(&context, "mode", self.mode)?;
        fsconfig_create(&context)?;
        let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
        attributes.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, !self.may_run);
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        move_mount(&mount, "", parent, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        Ok(mount)
    }
}

/// What may be written without the disk, and the file that covers what nobody may open.
fn attach_scratch(skeleton: &OwnedFd, spec: &LaunchSpec) -> Step<()> {
    for (name, size, files, may_run) in
        [("tmp", spec.tmp_bytes, TMP_FILES_MAX, true), ("shm", spec.shm_bytes, SHM_FILES_MAX, false)]
    {
        make_directories(skeleton, name)?;
        let mode = "1777";
        Tmpfs { size, files, mode, may_run }
            .mount(skeleton, name)
            .map_err(|e| format!("mount a tmpfs for {name}: {e}"))?;
    }
    let masked = make_file(skeleton, "masked", b"")?;
    rustix::fs::fchmod(&masked, Mode::empty()).map_err(|e| format!("close the mask: {e}"))
}

fn attach_skills(skeleton: &OwnedFd, skills: &[(String, OwnedFd)]) -> Step<()> {
    let folder = make_directories(skeleton, "skills")?;
    for (name, source) in skills {
        if matches!(name.as_str(), "" | "." | "..") || name.contains('/') {
            return Err(format!("'{name}' is not a skill's name"));
        }
        let target = make_directories(&folder, name)?;
        attach(source, &target, false, name)?;
    }
    Ok(())
}

fn attach_scope(skeleton: &OwnedFd, sources: &Sources) -> Step<()> {
    let workspace = make_directories(skeleton, "workspace")?;
    let mut attached: Vec<(&ScopeMount, OwnedFd)> = Vec::with_capacity(sources.scope.len());
    for (mount, source) in &sources.scope {
        let above = attached.iter().rfind(|(above, _)| is_below(&mount.path, &above.path));
        let target = match above {
            None if mount.path.is_empty() => {
                workspace.try_clone().map_err(|e| format!("open the workspace: {e}"))?
            }
            None => make_directories(&workspace, &mount.path)?,
            Some((above, _)) if above.writable && !is_locked(mount, above) => {
                return Err(format!("'{}' would be mounted below the writable '{}'", mount.path, above.path));
            }
            Some((above, tree)) => {
                target_within(tree, mount.path[above.path.len()..].trim_start_matches('/'))?
            }
        };
        let tree = attach(source, &target, mount.writable, &mount.path)?;
        attached.push((mount, tree));
    }
    Ok(())
}

/// The mount point of a nested root, strictly inside the tree that is already attached above it.
fn target_within(tree: &OwnedFd, path: &str) -> Step<OwnedFd> {
    // The descriptor's own /proc entry is that very directory, whatever its path.
    let root = Root::open(Path::new(&format!("/proc/self/fd/{}", tree.as_raw_fd())));
    root.and_then(|root| root.mount_source(Path::new(path)))
        .map_err(|e| format!("open the mount point '{path}': {e}"))
}

/// A read-only folder at the top of a writable workspace. Above its mount point there is only the mount of the whole
/// workspace, and mount points cannot be renamed or removed by who sees them as such: all that lives in this tenant's
/// sandboxes.
fn is_locked(mount: &ScopeMount, above: &ScopeMount) -> bool {
    above.path.is_empty() && !mount.writable && !mount.path.contains('/')
}

fn is_below(path: &str, above: &str) -> bool {
    above.is_empty() || path.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))
}

/// Clones what `source` is, makes it safe, and puts it on `target`. The answer is the attached mount's root.
pub(crate) fn attach(source: &OwnedFd, target: &OwnedFd, writable: bool, what: &str) -> Step<OwnedFd> {
    let clone =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(source, "", clone).map_err(|e| match e {
        Errno::INVAL => format!("mount '{what}': another file system is mounted below it"),
        other => format!("clone the mount of '{what}': {other}"),
    })?;
    seal(&tree, !writable).map_err(|e| format!("set the mount attributes of '{what}': {e}"))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&tree, "", target, "", flags).map_err(|e| format!("attach '{what}': {e}"))?;
    Ok(tree)
}

fn seal(mount: impl AsFd, read_only: bool) -> io::Result<()> {
    let read_only = if read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
    sys::add_mount_attributes(mount, read_only | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV)
}

/// Something of the system to show, links resolved within it; `None` where it does not exist.
pub(crate) fn open_in_rootfs(rootfs: &OwnedFd, path: &str) -> Option<OwnedFd> {
    openat2(rootfs, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT).ok()
}

/// The same, for what is read here.
pub(crate) fn open_in_rootfs_to_read(rootfs: &OwnedFd, path: &str) -> Option<OwnedFd> {
    openat2(rootfs, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT).ok()
}

fn make_directory(parent: impl AsFd, name: &str) -> rustix::io::Result<()> {
    match mkdirat(parent, name, Mode::from_raw_mode(DIRECTORY_MODE)) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// `mkdir -p` inside the skeleton, where nobody else can act; the answer is the last directory.
pub(crate) fn make_directories(root: &OwnedFd, path: &str) -> Step<OwnedFd> {
    let fail = |e: Errno| format!("make '{path}' in the skeleton: {e}");
    let mut at = root.try_clone().map_err(|e| format!("make '{path}' in the skeleton: {e}"))?;
    for name in path.split('/') {
        make_directory(&at, name).map_err(fail)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        at = openat(&at, name, flags, Mode::empty()).map_err(fail)?;
    }
    Ok(at)
}

/// A small file inside the skeleton.
pub(crate) fn make_file(root: &OwnedFd, path: &str, content: &[u8]) -> Step<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file =
        openat(root, path, flags, Mode::from_raw_mode(0o644)).map_err(|e| format!("make '{path}': {e}"))?;
    let mut file = std::fs::File::from(file);
    io::Write::write_all(&mut file, content).map_err(|e| format!("write '{path}': {e}"))?;
    Ok(file.into())
}
