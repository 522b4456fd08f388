//! Both look-ups against a real tree with hostile content.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::ffi::OsStr;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::Path;

use palisade_beneath::{Directory, Kind, Root, Visit};
use rustix::io::Errno;

fn tree() -> (tempfile::TempDir, Root) {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(home.path().join("root/dir/sub")).unwrap();
    std::fs::create_dir(home.path().join("outside")).unwrap();
    std::fs::write(home.path().join("outside/secret"), "OUTSIDE").unwrap();
    std::fs::write(home.path().join("root/dir/file"), "inside").unwrap();
    let link = |at: &str, to: &Path| symlink(to, home.path().join("root").join(at)).unwrap();
    link("in", Path::new("dir/sub/../file"));
    link("in-dir", Path::new("dir"));
    link("out", Path::new("../outside"));
    link("absolute", &home.path().join("root/dir"));
    link("dangling", Path::new("nowhere"));
    link("circle", Path::new("circle"));
    link("magic", Path::new("/proc/self/root"));
    let root = Root::open(&home.path().join("root")).unwrap();
    (home, root)
}

fn errno<T>(result: std::io::Result<T>) -> Option<Errno> {
    result.err().as_ref().and_then(Errno::from_io_error)
}

fn names(directory: &Directory) -> Vec<(String, Kind)> {
    let mut names = Vec::new();
    directory
        .read(|name, kind| {
            names.push((name.to_string_lossy().into_owned(), kind));
            Visit::More
        })
        .unwrap();
    names.sort_by(|one, other| one.0.cmp(&other.0));
    names
}

#[test]
fn the_file_look_up_follows_links_only_beneath_the_root() {
    let (_home, root) = tree();
    for path in ["dir/file", "in", "in-dir/file", "./dir//file"] {
        let mut text = String::new();
        root.look_up(Path::new(path)).unwrap().open_file().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "inside", "{path}");
    }
    for (path, expected) in [
        ("out/secret", Errno::XDEV),
        ("../outside/secret", Errno::XDEV),
        ("dir/../../outside", Errno::XDEV),
        ("/etc/passwd", Errno::XDEV),
        ("absolute/file", Errno::XDEV),
        ("magic/etc/passwd", Errno::XDEV),
        ("circle", Errno::LOOP),
        ("dangling", Errno::NOENT),
        ("dir/missing", Errno::NOENT),
        ("dir/file/below", Errno::NOTDIR),
    ] {
        assert_eq!(errno(root.look_up(Path::new(path))), Some(expected), "{path}");
    }
}

#[test]
fn the_strict_look_up_follows_no_link_at_all() {
    let (_home, root) = tree();
    for path in ["", "dir", "dir/sub"] {
        assert!(root.mount_source(Path::new(path)).is_ok(), "{path:?}");
        assert!(root.narrow(Path::new(path)).is_ok(), "{path:?}");
    }
    assert!(root.mount_source(Path::new("dir/file")).is_ok());
    assert_eq!(errno(root.narrow(Path::new("dir/file"))), Some(Errno::NOTDIR));
    for path in ["in", "in-dir", "in-dir/sub", "out", "absolute", "dangling", "circle"] {
        assert_eq!(errno(root.mount_source(Path::new(path))), Some(Errno::LOOP), "{path}");
        assert!(root.narrow(Path::new(path)).is_err(), "{path}");
    }
    assert_eq!(errno(root.narrow(Path::new(".."))), Some(Errno::XDEV));
}

#[test]
fn a_narrower_root_bounds_its_own_links() {
    let (home, root) = tree();
    symlink("../in", home.path().join("root/dir/up")).unwrap();
    assert!(root.look_up(Path::new("dir/up")).is_ok());
    let narrow = root.narrow(Path::new("dir")).unwrap();
    assert_eq!(errno(narrow.look_up(Path::new("up"))), Some(Errno::XDEV));
    assert!(narrow.look_up(Path::new("file")).is_ok());
}

#[test]
fn only_what_it_is_can_be_opened() {
    let (home, root) = tree();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let fifo = home.path().join("root/fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let found = root.look_up(Path::new("fifo")).unwrap();
    assert_eq!(found.metadata().kind, Kind::Special);
    assert_eq!(found.open_file().unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(found.open_directory().unwrap_err().kind(), ErrorKind::NotADirectory);
    let directory = root.look_up(Path::new("dir")).unwrap();
    assert_eq!(directory.open_file().unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(root.directory(Path::new("dir/file")).unwrap_err().kind(), ErrorKind::NotADirectory);
}

#[test]
fn a_found_file_is_opened_whatever_its_path_has_become() {
    let (home, root) = tree();
    let found = root.look_up(Path::new("dir/file")).unwrap();
    let path = home.path().join("root/dir/file");
    std::fs::remove_file(&path).unwrap();
    symlink(home.path().join("outside/secret"), &path).unwrap();
    let mut text = String::new();
    found.open_file().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "inside");
}

#[test]
fn directories_are_made_beneath_and_never_through_a_link_that_leads_out() {
    let (home, root) = tree();
    assert_eq!(root.create_dir_all(Path::new("in-dir/a/b/c")).unwrap().1, 3);
    assert!(home.path().join("root/dir/a/b/c").is_dir());
    assert_eq!(root.create_dir_all(Path::new("in-dir/a/b/c")).unwrap().1, 0);
    assert_eq!(names(&root.create_dir_all(Path::new("")).unwrap().0).len(), 8);
    for (path, expected) in [
        ("out/made", Errno::XDEV),
        ("dangling/made", Errno::LOOP),
        ("dangling", Errno::LOOP),
        ("circle/made", Errno::LOOP),
        ("dir/file/made", Errno::NOTDIR),
        ("dir/made/../../../outside/made", Errno::NOENT),
    ] {
        assert_eq!(errno(root.create_dir_all(Path::new(path))), Some(expected), "{path}");
    }
    for path in ["in-dir/made", "out/made", "dangling/made"] {
        assert_eq!(errno(root.create_dir_all_strict(Path::new(path))), Some(Errno::LOOP), "{path}");
    }
    root.create_dir_all_strict(Path::new("strict/a")).unwrap();
    assert!(home.path().join("root/strict/a").is_dir());
    assert_eq!(std::fs::read_dir(home.path().join("outside")).unwrap().count(), 1);
}

#[test]
fn a_directorys_names_are_single_and_never_followed() {
    let (home, root) = tree();
    let top = root.directory(Path::new("")).unwrap();
    for name in ["", ".", "..", "dir/file", "/etc", "../outside"] {
        let name = OsStr::new(name);
        let plain = OsStr::new("plain");
        for refused in [
            errno(top.metadata(name)),
            errno(top.enter(name)),
            errno(top.make_and_enter(name)),
            errno(top.create_file(name, 0o600)),
            errno(top.rename(name, plain)),
            errno(top.rename(plain, name)),
            errno(top.remove_file(name)),
            errno(top.remove_empty_dir(name)),
            errno(top.remove_tree(name)),
        ] {
            assert_eq!(refused, Some(Errno::INVAL), "{name:?}");
        }
    }
    for link in ["out", "dangling", "in-dir"] {
        let link = OsStr::new(link);
        assert_eq!(errno(top.create_file(link, 0o600)), Some(Errno::EXIST), "{link:?}");
        assert_eq!(errno(top.enter(link)), Some(Errno::LOOP), "{link:?}");
        assert_eq!(errno(top.remove_tree(link)), Some(Errno::NOTDIR), "{link:?}");
        assert_eq!(top.metadata(link).unwrap().kind, Kind::Link, "{link:?}");
        top.remove_file(link).unwrap();
    }
    assert!(home.path().join("outside/secret").exists() && home.path().join("root/dir/file").exists());
}

#[test]
fn a_file_is_replaced_by_renaming_over_it() {
    let (_home, root) = tree();
    let directory = root.directory(Path::new("dir")).unwrap();
    directory.create_file(OsStr::new("new"), 0o600).unwrap().write_all(b"new").unwrap();
    directory.rename(OsStr::new("new"), OsStr::new("file")).unwrap();
    directory.sync().unwrap();
    assert_eq!(names(&directory), [("file".to_owned(), Kind::File), ("sub".to_owned(), Kind::Directory)]);
    assert_eq!(names(&directory).len(), 2, "it can be read again");
    assert_eq!(errno(directory.rename(OsStr::new("file"), OsStr::new("sub"))), Some(Errno::ISDIR));
}

#[test]
fn a_tree_that_is_filled_while_it_is_removed_ends_either_way() {
    let (home, root) = tree();
    let busy = home.path().join("root/busy");
    let top = root.directory(Path::new("")).unwrap();
    std::thread::scope(|threads| {
        let filler = threads.spawn(|| {
            for number in 0..2_000 {
                // Fails whenever the directory has just been taken away.
                let _ = std::fs::create_dir_all(busy.join(format!("{}/{number}", number % 5)));
            }
        });
        while !filler.is_finished() {
            match errno(top.remove_tree(OsStr::new("busy"))) {
                None | Some(Errno::NOENT | Errno::NOTEMPTY | Errno::AGAIN) => {}
                other => assert_eq!(other, None),
            }
        }
    });
    let _ = top.remove_tree(OsStr::new("busy"));
    assert!(!busy.exists());
}

#[test]
fn what_was_made_is_taken_back_while_it_is_empty() {
    let (home, root) = tree();
    let made = || {
        let (made, levels) = root.create_dir_all(Path::new("in-dir/x/y/z")).unwrap();
        assert_eq!(levels, 3);
        made
    };
    let names = ["z", "y", "x"].map(OsStr::new);
    made().remove_made(names).unwrap();
    assert!(home.path().join("root/dir/sub").exists() && !home.path().join("root/dir/x").exists());

    // A name that is too long shows only when it is made, below others that were.
    let long = format!("in-dir/x/y/{}/z", "n".repeat(300));
    assert_eq!(errno(root.create_dir_all(Path::new(&long))), Some(Errno::NAMETOOLONG));
    assert!(!home.path().join("root/dir/x").exists(), "an error leaves nothing");

    let kept = made();
    std::fs::write(home.path().join("root/dir/x/file"), "").unwrap();
    assert_eq!(errno(kept.remove_made(names)), Some(Errno::NOTEMPTY));
    assert!(home.path().join("root/dir/x").exists() && !home.path().join("root/dir/x/y").exists());
    std::fs::remove_dir_all(home.path().join("root/dir/x")).unwrap();

    let moved = made();
    std::fs::create_dir_all(home.path().join("outside/z")).unwrap();
    std::fs::rename(home.path().join("root/dir/x/y/z"), home.path().join("outside/moved")).unwrap();
    assert_eq!(errno(moved.remove_made(names)), Some(Errno::AGAIN));
    assert!(home.path().join("outside/z").exists() && home.path().join("outside/moved").exists());
}
