//! One path, given as any bytes, against a tree full of links that lead out: what is found lies inside, what is made
//! lies inside, and the strict look-up follows nothing. Used by the tests here and by the fuzz target.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use palisade_beneath::Root;
use palisade_protocol::WorkspacePath;

/// The pieces that most paths are put together from: random bytes alone would find no name of the tree.
const PIECES: [&[u8]; 24] = [
    b"/",
    b"/",
    b"/",
    b"/",
    b"..",
    b"../",
    b".",
    b"./",
    b"//",
    b"dir",
    b"sub",
    b"file",
    b"in",
    b"in-dir",
    b"out",
    b"absolute",
    b"dangling",
    b"circle",
    b"magic",
    b"up",
    b"secret",
    b"\xff",
    b"etc/passwd",
    b"\0",
];

/// The tree, and what lies in it.
pub(crate) struct Tree {
    home: PathBuf,
    root: Root,
    inside: HashSet<(u64, u64)>,
    inside_names: usize,
    outside_names: usize,
}

impl Tree {
    /// Makes the tree below an empty folder.
    pub(crate) fn new(home: &Path) -> Self {
        let at = |path: &str| home.join(path);
        std::fs::create_dir_all(at("root/dir/sub/sub")).expect("making the tree");
        std::fs::create_dir_all(at("outside/dir/sub")).expect("making the other side");
        for file in
            ["root/file", "root/dir/file", "root/dir/sub/file", "outside/secret", "outside/dir/secret"]
        {
            std::fs::write(at(file), file).expect("writing a file");
        }
        let absolute = at("outside");
        let links: [(&str, &Path); 12] = [
            ("in", Path::new("dir/sub/../file")),
            ("in-dir", Path::new("dir")),
            ("dir/in-dir", Path::new("../dir/sub")),
            ("dir/up", Path::new("..")),
            ("dir/sub/up", Path::new("../..")),
            ("up", Path::new("..")),
            ("out", Path::new("../outside")),
            ("dir/out", Path::new("../../outside/dir")),
            ("absolute", &absolute),
            ("dangling", Path::new("nowhere/at/all")),
            ("circle", Path::new("dir/../circle")),
            ("magic", Path::new("/proc/self/root")),
        ];
        for (link, target) in links {
            symlink(target, at("root").join(link)).expect("planting a link");
        }
        let root = Root::open(&at("root")).expect("opening the root");
        let mut inside = HashSet::new();
        collect(&at("root"), &mut inside);
        let [inside_names, outside_names] = ["root", "outside"].map(|side| names(&at(side)));
        Self { home: home.to_owned(), root, inside, inside_names, outside_names }
    }

    /// # Panics
    /// When something got out.
    pub(crate) fn check(&self, bytes: &[u8]) {
        let path = put_together(bytes);
        if let Ok(parsed) = WorkspacePath::parse(&path) {
            assert!(
                parsed.names().all(|name| name != b".." && name != b"." && !name.contains(&0)),
                "{parsed}"
            );
            assert!(!path.starts_with(b"/") && !parsed.as_bytes().starts_with(b"/"), "{parsed}");
            let again = WorkspacePath::parse(parsed.as_bytes()).expect("what was parsed can be parsed");
            assert_eq!(again, parsed, "parsing twice changes nothing more");
        }
        let path = Path::new(OsStr::from_bytes(&path));
        let in_memory = ["", "dir", "in-dir"].map(|root| self.root.look_up_in_memory(Path::new(root), path));
        assert!(in_memory[2].is_err(), "a root is looked up strictly");
        for found in in_memory.into_iter().chain([self.root.look_up(path)]).flatten() {
            let found = found.metadata();
            assert!(self.inside.contains(&(found.device, found.inode)), "{} leads out", path.display());
        }
        for strict in [self.root.mount_source(path).ok(), self.root.narrow(path).ok().map(|root| dup(&root))]
        {
            let Some(found) = strict else { continue };
            // The way of names alone, with no link on it, or the kernel would have refused.
            let is_at = std::fs::read_link(proc_path(&found)).expect("asking where it is");
            assert!(
                is_at.starts_with(self.home.join("root")),
                "{} leads to {}",
                path.display(),
                is_at.display()
            );
            let mut way = PathBuf::new();
            for name in path.iter() {
                way.push(name);
                assert!(!self.home.join("root").join(&way).is_symlink(), "{} was followed", way.display());
            }
        }
        self.check_making(path);
    }

    fn check_making(&self, path: &Path) {
        let made = self.root.create_dir_all(path);
        assert_eq!(
            names(&self.home.join("outside")),
            self.outside_names,
            "{} made something",
            path.display()
        );
        let Ok((directory, levels)) = made else { return self.check_taken_back(path) };
        let is_at = std::fs::read_link(proc_path(&directory)).expect("asking where it is");
        assert!(
            is_at.starts_with(self.home.join("root")),
            "{} was made at {}",
            path.display(),
            is_at.display()
        );
        let names: Vec<_> = path.iter().rev().take(levels).collect();
        directory.remove_made(names).expect("taking back what was made");
        self.check_taken_back(path);
    }

    fn check_taken_back(&self, path: &Path) {
        assert_eq!(names(&self.home.join("root")), self.inside_names, "{} left something", path.display());
    }
}

/// An even first byte: pieces; an odd one: the bytes themselves.
fn put_together(bytes: &[u8]) -> Vec<u8> {
    match bytes.split_first() {
        None => Vec::new(),
        Some((first, rest)) if first % 2 == 1 => rest.to_vec(),
        Some((_, rest)) => rest
            .iter()
            .take(200)
            .flat_map(|byte| PIECES[usize::from(*byte) % PIECES.len()])
            .copied()
            .collect(),
    }
}

fn proc_path(fd: &impl std::os::fd::AsFd) -> String {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

fn dup(root: &Root) -> std::os::fd::OwnedFd {
    use std::os::fd::AsFd as _;
    root.as_fd().try_clone_to_owned().expect("copying a descriptor")
}

fn collect(dir: &Path, into: &mut HashSet<(u64, u64)>) {
    let here = std::fs::metadata(dir).expect("looking at a folder");
    into.insert((here.dev(), here.ino()));
    for entry in std::fs::read_dir(dir).expect("reading a folder") {
        let entry = entry.expect("reading a folder");
        let found = entry.metadata().expect("looking at an entry");
        if found.is_dir() {
            collect(&entry.path(), into);
        } else if found.is_file() {
            into.insert((found.dev(), found.ino()));
        }
    }
}

fn names(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).expect("reading a folder").flatten();
    let is_dir = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.map(|entry| 1 + if is_dir(&entry) { names(&entry.path()) } else { 0 }).sum()
}
