//! Both layers against each other (case D15): for random trees, scopes and operations, what the file API answers is what
//! the sandbox sees. Two equal workspaces, one for each side; after every operation the answers are compared, and at the
//! end the trees.
//!
//! A path that leads over a link is asked for on both sides and changed on neither: the API follows links beneath their
//! own scope root only, so it may refuse more than the sandbox does, and must never give more.

use std::collections::BTreeMap;
use std::path::Path;

use palisade_protocol::scope::Scope;
use palisade_protocol::{Access, Error, FileAccess, WorkspacePath};
use palisade_sandbox::{Sandbox, SandboxSpec};
use palisade_workspace::{EntryKind, Opened, Page, Workspace, WorkspaceError};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::support::{Bench, python};

#[derive(Debug, Clone)]
enum Planted {
    Directory,
    File(String),
    Link(String),
    Fifo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Get,
    Put,
    Delete,
    DeleteAll,
}

#[derive(Debug, Clone)]
struct Case {
    tree: Vec<(String, Planted)>,
    access: FileAccess,
    operations: Vec<(Verb, String)>,
}

fn path(names_max: usize) -> impl Strategy<Value = String> {
    prop::collection::vec("[abcä]", 1..=names_max).prop_map(|names| names.join("/"))
}

fn link() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => path(2),
        2 => path(2).prop_map(|path| format!("../{path}")),
        1 => path(2).prop_map(|path| format!("../../{path}")),
        1 => path(2).prop_map(|path| format!("/workspace/{path}")),
        1 => Just("../../outside/secret".to_owned()),
        1 => Just("/etc/hostname".to_owned()),
        1 => Just("..".to_owned()),
        1 => Just(".".to_owned()),
    ]
}

fn planted() -> impl Strategy<Value = Planted> {
    prop_oneof![
        4 => Just(Planted::Directory),
        6 => "[a-z]{0,8}".prop_map(Planted::File),
        3 => link().prop_map(Planted::Link),
        1 => Just(Planted::Fifo),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    let granted = || {
        let one = prop_oneof![1 => Just(String::new()), 4 => path(1), 6 => path(2), 2 => path(3)];
        prop::collection::vec(one, 0..3)
    };
    let verb = prop_oneof![4 => Just(Verb::Get), 3 => Just(Verb::Put), 2 => Just(Verb::Delete), 1 => Just(Verb::DeleteAll)];
    let asked = prop_oneof![1 => Just(String::new()), 8 => path(2), 8 => path(4)];
    (
        prop::collection::vec((path(3), planted()), 0..16),
        (granted(), granted()).prop_map(|(read, write)| FileAccess { read, write }),
        prop::collection::vec((verb, asked), 1..40),
    )
        .prop_map(|(tree, access, operations)| Case { tree, access, operations })
}

/// What either side answered.
#[derive(Debug, Clone, PartialEq)]
enum Answer {
    Content(String),
    /// Names, and what each is.
    Names(BTreeMap<String, String>),
    Done,
    Refused(String),
}

fn plant(workspace: &Path, tree: &[(String, Planted)]) {
    for (path, planted) in tree {
        let at = workspace.join(path);
        // What is in the way of an entry, or leads out of the way, leaves it out: the same on both sides.
        if leads_over_link(workspace, path) || std::fs::create_dir_all(at.parent().unwrap()).is_err() {
            continue;
        }
        let _ = match planted {
            Planted::Directory => std::fs::create_dir(&at),
            Planted::File(text) if !at.exists() => std::fs::write(&at, text),
            Planted::File(_) => Ok(()),
            Planted::Link(target) => std::os::unix::fs::symlink(target, &at),
            Planted::Fifo => rustix::fs::mknodat(
                rustix::fs::CWD,
                &at,
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::from_raw_mode(0o600),
                0,
            )
            .map_err(Into::into),
        };
    }
}

/// Whether a name of the path is a link, the last one too.
fn leads_over_link(workspace: &Path, path: &str) -> bool {
    let mut at = workspace.to_owned();
    path.split('/').any(|name| {
        at.push(name);
        at.is_symlink()
    })
}

fn is_fifo(at: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    at.symlink_metadata().is_ok_and(|found| found.file_type().is_fifo())
}

fn outside(workspace: &Workspace, scope: &Scope, verb: Verb, path: &str) -> Answer {
    let at = WorkspacePath::parse(path).unwrap();
    let answer = || match verb {
        // In the order in which the server asks.
        Verb::Get => match workspace.open_in_memory(scope, &at).map_or_else(
            || workspace.open_read(scope, &at, &Page::default()),
            |file| Ok(Opened::File(file)),
        )? {
            Opened::File(mut read) => Ok(Answer::Content(std::io::read_to_string(&mut read.file).unwrap())),
            Opened::Directory(listing) => {
                let entries = listing.entries.into_iter();
                let named = |kind| if kind == EntryKind::Directory { "directory" } else { "file" };
                Ok(Answer::Names(entries.map(|entry| (entry.name, named(entry.kind).to_owned())).collect()))
            }
        },
        Verb::Put => {
            let mut upload = workspace.begin_upload(scope, &at, 100)?;
            upload.write(b"put")?;
            upload.finish().map(|_| Answer::Done)
        }
        Verb::Delete => workspace.delete(scope, &at, false).map(|()| Answer::Done),
        Verb::DeleteAll => workspace.delete(scope, &at, true).map(|()| Answer::Done),
    };
    let answer: Result<Answer, WorkspaceError> = answer();
    answer.unwrap_or_else(|error| Answer::Refused(Error::from(error).code.to_owned()))
}

/// All operations in one process: a start for each would be most of the test.
async fn inside(sandbox: &Sandbox, operations: &[(Verb, String)]) -> Vec<Answer> {
    let operations: Vec<_> =
        operations.iter().map(|(verb, path)| json!([format!("{verb:?}"), path])).collect();
    let program = format!(
        r#"import errno, json, os, shutil, stat
def kind(at):
    mode = os.lstat(at).st_mode
    return "directory" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"
def get(at):
    fd = os.open(at, os.O_RDONLY | os.O_NONBLOCK)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            return {{name: kind(os.path.join(at, name)) for name in os.listdir(at)}}
        return os.read(fd, 1000).decode() if stat.S_ISREG(mode) else [errno.ENXIO]
    finally:
        os.close(fd)
def put(at):
    os.makedirs(os.path.dirname(at), exist_ok=True)
    fd = os.open(at, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK, 0o644)
    os.write(fd, b"put")
    os.close(fd)
def delete(at):
    os.rmdir(at) if stat.S_ISDIR(os.lstat(at).st_mode) else os.unlink(at)
def delete_all(at):
    shutil.rmtree(at) if stat.S_ISDIR(os.lstat(at).st_mode) else os.unlink(at)
verbs = {{"Get": get, "Put": put, "Delete": delete, "DeleteAll": delete_all}}
answers = []
for verb, path in json.loads(r'''{}'''):
    try:
        answers.append(verbs[verb](os.path.join("/workspace", path)))
    except OSError as error:
        answers.append([error.errno])
print(json.dumps([[errno.errorcode[a[0]]] if isinstance(a, list) else a for a in answers]))"#,
        Value::from(operations)
    );
    let answers: Vec<Value> = serde_json::from_str(&python(sandbox, &program).await).unwrap();
    let answer = |answer: Value| match answer {
        Value::Null => Answer::Done,
        Value::String(content) => Answer::Content(content),
        Value::Array(error) => Answer::Refused(error[0].as_str().unwrap().to_owned()),
        Value::Object(names) => Answer::Names(
            names.into_iter().map(|(name, is)| (name, is.as_str().unwrap().to_owned())).collect(),
        ),
        other => panic!("{other}"),
    };
    answers.into_iter().map(answer).collect()
}

/// What the sandbox may say where the API refuses with this code.
fn errors_for(code: &str, verb: Verb) -> &'static [&'static str] {
    match (code, verb) {
        ("file.not_found", _) => &["ENOENT", "ENOTDIR"],
        ("file.not_regular", _) => &["ENXIO"],
        ("file.is_directory", _) => &["EISDIR"],
        ("directory.file_in_the_way", _) => &["ENOTDIR", "EEXIST"],
        ("directory.not_empty", _) => &["ENOTEMPTY"],
        // A mount point, and most often in the skeleton, which is read-only.
        ("directory.held", _) => &["EBUSY", "EROFS", "EACCES"],
        // Out of scope nothing exists; what would have to be made would be made in the skeleton, which is read-only.
        ("scope.denied", Verb::Get) => &["ENOENT"],
        // Where Landlock is asked before the mount, it is EACCES (contract §3 has both).
        ("scope.denied", _) => &["ENOENT", "EROFS", "EACCES", "EISDIR", "EBUSY", "ENOTEMPTY"],
        // Said whatever is there; the sandbox looks first.
        ("scope.read_only", _) => {
            &["EROFS", "EACCES", "ENOENT", "ENOTDIR", "EISDIR", "EEXIST", "EBUSY", "ENOTEMPTY", "ENXIO"]
        }
        _ => &[],
    }
}

/// Changes that the two sides are meant to differ in are tried on neither.
fn is_comparable(case: &Case, scope: &Scope, workspace: &Path, verb: Verb, path: &str) -> bool {
    let at = WorkspacePath::parse(path).unwrap();
    let is_mount = scope.roots().iter().any(|(root, _)| **root == at);
    let holds_mount = scope.roots().iter().any(|(root, _)| root.is_within(&at) && **root != at);
    match verb {
        Verb::Get => true,
        _ if leads_over_link(workspace, path) || case.tree.is_empty() && path.is_empty() => false,
        Verb::Put => !path.is_empty(),
        // A FIFO is not the API's to remove; and what is above a mount, or is one, is emptied by `rmtree` before it fails.
        Verb::Delete => !is_fifo(&workspace.join(path)) && !path.is_empty(),
        Verb::DeleteAll => {
            !is_fifo(&workspace.join(path))
                && !path.is_empty()
                && !is_mount
                && !holds_mount
                && scope.access(&at) == Access::Write
        }
    }
}

fn compare(over_link: bool, (verb, path): &(Verb, String), outside: &Answer, inside: &Answer) {
    let said = || format!("{verb:?} {path:?}: outside {outside:?}, inside {inside:?}");
    match (outside, inside) {
        (Answer::Names(ours), Answer::Names(theirs)) => {
            let missing = ours.keys().find(|name| !theirs.contains_key(*name));
            assert!(missing.is_none(), "{}: the API shows what the sandbox does not", said());
            if !over_link {
                // Links are shown as what they lead to, or not at all; FIFOs are not shown.
                let plain = |names: &BTreeMap<String, String>| {
                    let mut names = names.clone();
                    names.retain(|name, _| theirs[name] != "other");
                    names
                };
                assert_eq!(plain(ours), plain(theirs), "{}", said());
            }
        }
        (Answer::Refused(_), _) if over_link => {}
        (Answer::Refused(code), Answer::Refused(errno)) => {
            assert!(errors_for(code, *verb).contains(&errno.as_str()), "{}", said());
        }
        _ => assert_eq!(outside, inside, "{}", said()),
    }
}

/// Every name below, with what it is.
fn whole_tree(dir: &Path, below: &Path, into: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(dir.join(below)).unwrap() {
        let path = below.join(entry.unwrap().file_name());
        let at = dir.join(&path);
        let is = match at.symlink_metadata().unwrap().file_type() {
            kind if kind.is_dir() => {
                whole_tree(dir, &path, into);
                "a directory".to_owned()
            }
            kind if kind.is_symlink() => format!("-> {}", at.read_link().unwrap().display()),
            kind if kind.is_file() => std::fs::read_to_string(&at).unwrap(),
            _ => "special".to_owned(),
        };
        into.insert(path.display().to_string(), is);
    }
}

async fn check(bench: &Bench, case: &Case) {
    let twin = bench.outside.with_file_name("twin");
    for dir in [&bench.workspace, &twin] {
        let _ = std::fs::remove_dir_all(dir);
        std::fs::create_dir(dir).unwrap();
        plant(dir, &case.tree);
    }
    let scope = case.access.scope_for(&bench.session).unwrap();
    let [workspace, other] = [&twin, &bench.workspace].map(|dir| Workspace::open(dir, &[]).unwrap());
    let spec = SandboxSpec { scope: scope.clone(), ..bench.spec(&[], &[]) };
    let made = workspace.ensure_scope(&scope).and_then(|()| other.ensure_scope(&scope));
    if made.is_err() {
        // Such a session is refused when it is created.
        return;
    }
    let sandbox = bench.factory.start(spec).await.unwrap();
    // Outside first: what is comparable depends on the tree as it is at each step, and both trees are the same.
    let (mut operations, mut answers) = (Vec::new(), Vec::new());
    for (verb, path) in &case.operations {
        if is_comparable(case, &scope, &twin, *verb, path) {
            let over_link = leads_over_link(&twin, path);
            answers.push((over_link, outside(&workspace, &scope, *verb, path)));
            operations.push((*verb, path.clone()));
        }
    }
    let inside = inside(&sandbox, &operations).await;
    sandbox.shutdown().await;
    for ((operation, (over_link, ours)), theirs) in operations.iter().zip(&answers).zip(&inside) {
        compare(*over_link, operation, ours, theirs);
    }
    let (mut ours, mut theirs) = (BTreeMap::new(), BTreeMap::new());
    whole_tree(&twin, Path::new(""), &mut ours);
    whole_tree(&bench.workspace, Path::new(""), &mut theirs);
    assert_eq!(ours, theirs, "the trees differ in the end");
    assert_eq!(std::fs::read_to_string(bench.outside.join("secret")).unwrap(), "the secret");
}

/// What earlier runs found, kept. The grants are written ones.
fn kept() -> Vec<Case> {
    let case = |write: &[&str], tree: &[(&str, Planted)], operations: &[(Verb, &str)]| Case {
        tree: tree.iter().map(|(path, planted)| ((*path).to_owned(), planted.clone())).collect(),
        access: FileAccess { read: vec![], write: write.iter().map(|path| (*path).to_owned()).collect() },
        operations: operations.iter().map(|(verb, path)| (*verb, (*path).to_owned())).collect(),
    };
    vec![
        // A granted path that a wider one covers is no mount: when it is gone, it may come back as a file.
        case(
            &["", "ä/ä"],
            &[("ä/ä/ä", Planted::Directory)],
            &[(Verb::DeleteAll, "ä"), (Verb::Put, "ä/ä"), (Verb::Get, "ä/ä")],
        ),
        case(&["a", "a/b"], &[], &[(Verb::Delete, "a/b"), (Verb::Put, "a/b"), (Verb::Delete, "a/b")]),
        // A link in it may lead to wherever the wider one reaches.
        case(
            &["a", "a/b"],
            &[("a/c", Planted::File("text".into())), ("a/b/c", Planted::Link("../c".into()))],
            &[(Verb::Get, "a/b/c"), (Verb::Get, "a/b")],
        ),
    ]
}

#[test]
fn d15_the_file_api_answers_what_the_sandbox_sees() {
    let bench = Bench::new();
    let is_long = std::env::var_os("PALISADE_LONG_TESTS").is_some_and(|value| value == "1");
    let config =
        Config { cases: if is_long { 1_000 } else { 100 }, failure_persistence: None, ..Config::default() };
    let executor = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for case in kept() {
        executor.block_on(check(&bench, &case));
    }
    let checked = TestRunner::new(config).run(&case(), |case| {
        executor.block_on(check(&bench, &case));
        Ok(())
    });
    if let Err(error) = checked {
        panic!("{error}");
    }
}
