//! Who may read what, and what reading a thing that is no file answers.

use std::io::Read as _;
use std::sync::mpsc;
use std::time::Duration;

use palisade_protocol::{Access, Error, ErrorKind};
use palisade_workspace::{Opened, ReadFile};

use crate::support::{Tenant, at, code, first, scope, whole};

#[test]
fn each_rule_of_the_scope() {
    let tenant = Tenant::new();
    tenant.write("a/read/file", "r");
    tenant.write("a/read/deep/file", "d");
    tenant.write("a/write/file", "w");
    tenant.write("b/file", "b");
    tenant.write("top", "t");
    let scope = scope(&["a/read"], &["a/write"]);
    tenant.workspace.ensure_scope(&scope).unwrap();
    for (path, get, put, delete) in [
        ("a/read/file", "ok", "scope.read_only", "scope.read_only"),
        ("a/read/deep/file", "ok", "scope.read_only", "scope.read_only"),
        ("a/read/missing", "file.not_found", "scope.read_only", "scope.read_only"),
        ("a/read/file/below", "file.not_found", "scope.read_only", "scope.read_only"),
        ("a/write/missing/deep", "file.not_found", "ok", "ok"),
        ("a/write/file", "ok", "ok", "ok"),
        ("a/write", "ok", "file.is_directory", "directory.held"),
        ("a/read", "ok", "scope.read_only", "scope.read_only"),
        ("a", "ok", "scope.denied", "scope.denied"),
        ("", "ok", "scope.denied", "scope.denied"),
        ("b/file", "scope.denied", "scope.denied", "scope.denied"),
        ("b/missing", "scope.denied", "scope.denied", "scope.denied"),
        ("b", "scope.denied", "scope.denied", "scope.denied"),
        ("missing", "scope.denied", "scope.denied", "scope.denied"),
        ("top", "scope.denied", "scope.denied", "scope.denied"),
        (".memory", "scope.denied", "scope.denied", "scope.denied"),
        (".sessions/sess_000000000000/x", "scope.denied", "scope.denied", "scope.denied"),
        (".sessions/sess_070707070707/x", "file.not_found", "ok", "ok"),
    ] {
        assert_eq!(code(tenant.get(&scope, path)), get, "GET {path:?}");
        assert_eq!(code(tenant.put(&scope, path, "new")), put, "PUT {path:?}");
        assert_eq!(code(tenant.delete(&scope, path)), delete, "DELETE {path:?}");
    }
    assert_eq!(std::fs::read_to_string(tenant.at("b/file")).unwrap(), "b");
    assert_eq!(std::fs::read_to_string(tenant.at("a/read/file")).unwrap(), "r");
}

#[test]
fn out_of_scope_says_the_contracts_sentence_and_nothing_of_the_disk() {
    let tenant = Tenant::new();
    tenant.write("other/there", "x");
    let scope = scope(&[], &["mine"]);
    for path in ["other/there", "other/not-there"] {
        let error = Error::from(tenant.get(&scope, path).unwrap_err());
        assert_eq!(error.kind, ErrorKind::Forbidden);
        assert_eq!(error.message, format!("'{path}' not in session scope"));
    }
}

#[test]
fn a_file_says_its_length_time_and_tag() {
    let tenant = Tenant::new();
    tenant.write("f", "12345");
    let open = || match tenant.workspace.open_read(&whole(), &at("f"), &first(1)).unwrap() {
        Opened::File(read) => read,
        Opened::Directory(_) => panic!("a file was opened"),
    };
    let mut first = open();
    let mut text = String::new();
    first.file.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), first.size), ("12345", 5));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - first.modified).abs() < 60.0, "{} is not about {now}", first.modified);
    // Whether it is weak is a matter of the moment.
    let tag = |read: &ReadFile| read.validators.tag.as_ref().unwrap().opaque.clone();
    assert_eq!(tag(&open()), tag(&first));
    tenant.put(&whole(), "f", "54321").unwrap();
    assert_ne!(tag(&open()), tag(&first), "the same length, another content");
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let tenant = Tenant::new();
    std::fs::create_dir(tenant.at("d")).unwrap();
    tenant.fifo("d/fifo");
    let _socket = std::os::unix::net::UnixListener::bind(tenant.at("d/socket")).unwrap();
    tenant.link("d/to-fifo", "fifo");
    let mut names = vec!["d/fifo", "d/socket", "d/to-fifo"];
    let device = rustix::fs::mknodat(
        rustix::fs::CWD,
        tenant.at("d/device"),
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::from_raw_mode(0o666),
        rustix::fs::makedev(1, 5),
    );
    match device {
        Ok(()) => names.push("d/device"),
        Err(error) => eprintln!("skipped here: the device in what_is_no_file_is_refused_at_once ({error})"),
    }
    let (done, waiting) = mpsc::channel();
    let count = names.len();
    std::thread::spawn(move || {
        for name in names {
            let codes = [
                code(tenant.get(&whole(), name)),
                code(tenant.put(&whole(), name, "x")),
                // A link that stays inside may be deleted: the link, and not what it leads to.
                if name == "d/to-fifo" { "file.not_regular" } else { code(tenant.delete(&whole(), name)) },
            ];
            done.send((name, codes)).unwrap();
        }
        assert_eq!(tenant.get(&whole(), "d").unwrap(), "", "a listing shows none of them");
    });
    for _ in 0..count {
        let (name, codes) = waiting.recv_timeout(Duration::from_secs(10)).expect("an open hangs");
        assert_eq!(codes, ["file.not_regular"; 3], "{name}");
    }
}

#[test]
fn a_sparse_file_costs_nothing_to_open() {
    let tenant = Tenant::new();
    let length = 4 << 40;
    std::fs::File::create(tenant.at("sparse")).unwrap().set_len(length).unwrap();
    match tenant.workspace.open_read(&whole(), &at("sparse"), &first(1)).unwrap() {
        Opened::File(read) => assert_eq!(read.size, length),
        Opened::Directory(_) => panic!("a file was opened"),
    }
}

#[test]
fn what_is_in_memory_needs_no_disk() {
    let tenant = Tenant::new();
    let large = "x".repeat(100_000);
    for (name, text) in [("d/small", "12345"), ("d/empty", ""), ("d/large", large.as_str())] {
        tenant.write(name, text);
        tenant.link(&format!("{}.link", &name[2..]), name);
        for path in [name.to_owned(), format!("{}.link", &name[2..])] {
            for seen in [whole(), scope(&["d"], &[])] {
                if seen.access(&at(&path)) == Access::None {
                    let known = tenant.workspace.open_in_memory(&seen, &at(&path));
                    assert!(known.is_none(), "{path} is out of scope");
                    continue;
                }
                // First, because a link that is new is written to when it is followed.
                let Opened::File(asked) = tenant.workspace.open_read(&seen, &at(&path), &first(1)).unwrap()
                else {
                    panic!("{path} is a file")
                };
                let known = tenant.workspace.open_in_memory(&seen, &at(&path)).expect("it was just read");
                let tag = |read: &ReadFile| read.validators.tag.as_ref().unwrap().opaque.clone();
                assert_eq!(
                    (known.size, tag(&known), &known.content),
                    (asked.size, tag(&asked), &asked.content)
                );
                assert_eq!(
                    known.content.map(|content| content.len()),
                    (text.len() < 65_536).then_some(text.len())
                );
            }
        }
    }
    // Whatever is no file is left to the one that can say why.
    std::fs::create_dir(tenant.at("empty-dir")).unwrap();
    tenant.fifo("pipe");
    tenant.link("out", tenant.outside().join("secret"));
    for path in ["", "d", "empty-dir", "pipe", "out", "absent", "d/small/x"] {
        assert!(tenant.workspace.open_in_memory(&whole(), &at(path)).is_none(), "{path}");
    }
}
