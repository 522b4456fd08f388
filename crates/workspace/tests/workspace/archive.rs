//! A directory as a zip: exactly its files, and a clear refusal when it is too large.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Cursor, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;

use palisade_protocol::{Error, ErrorKind};
use palisade_workspace::ARCHIVE_ENTRIES_MAX;

use crate::support::{Tenant, at, code, scope, whole, zip_of};

fn zipped(tenant: &Tenant, path: &str) -> zip::ZipArchive<Cursor<Vec<u8>>> {
    let archive = tenant.workspace.archive(&whole(), &at(path)).unwrap();
    zip::ZipArchive::new(Cursor::new(zip_of(archive))).unwrap()
}

fn unzipped(tenant: &Tenant, path: &str) -> BTreeMap<String, String> {
    let mut zip = zipped(tenant, path);
    (0..zip.len())
        .map(|number| {
            let mut file = zip.by_index(number).unwrap();
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            (file.name().unwrap().into_owned(), text)
        })
        .collect()
}

#[test]
fn holds_the_files_and_nothing_that_leads_out() {
    let tenant = Tenant::new();
    tenant.write("d/a.txt", "alpha");
    tenant.write("d/sub/b.txt", &"beta ".repeat(50_000));
    tenant.write("keep/c.txt", "gamma");
    std::fs::create_dir(tenant.at("d/empty")).unwrap();
    std::fs::write(tenant.at("d").join(OsStr::from_bytes(b"\xff")), "bytes").unwrap();
    tenant.write("d/back\\slash", "windows");
    tenant.link("d/linked.txt", "../keep/c.txt");
    tenant.link("d/linked-dir", "../keep");
    tenant.link("d/self", ".");
    tenant.link("d/out", tenant.outside().join("secret"));
    tenant.fifo("d/fifo");
    let expected = [
        ("a.txt", "alpha".to_owned()),
        ("sub/", String::new()),
        ("sub/b.txt", "beta ".repeat(50_000)),
        ("empty/", String::new()),
        ("%FF", "bytes".to_owned()),
        ("back%5Cslash", "windows".to_owned()),
        ("linked.txt", "gamma".to_owned()),
        (
            "NOT IN THIS ARCHIVE.txt",
            "These were left out of the archive:\n\n\
             fifo: it is no regular file\n\
             linked-dir: it is a link to a folder, or to no regular file\n\
             out: it is a link that leads to nothing here\n\
             self: it is a link to a folder, or to no regular file\n"
                .to_owned(),
        ),
    ];
    let expected: BTreeMap<_, _> = expected.into_iter().map(|(name, text)| (name.to_owned(), text)).collect();
    assert_eq!(unzipped(&tenant, "d"), expected);
    assert_eq!(unzipped(&tenant, "d/empty"), BTreeMap::new());
}

#[test]
fn names_that_become_the_same_stay_apart() {
    let tenant = Tenant::new();
    let names: [&[u8]; 10] = [
        b"a\\b",
        b"a%5Cb",
        b"a%5Cb~2",
        b"caf\xe9",
        b"caf%E9",
        b"C:x",
        b"line\nbreak",
        b"..\\..\\up",
        b"NOT IN THIS ARCHIVE.txt",
        b"\xfe",
    ];
    for name in names {
        std::fs::create_dir_all(tenant.at("d").join(OsStr::from_bytes(name)).parent().unwrap()).unwrap();
        std::fs::write(tenant.at("d").join(OsStr::from_bytes(name)), name).unwrap();
    }
    for folder in [&b"f\\g"[..], b"f%5Cg"] {
        std::fs::create_dir(tenant.at("d").join(OsStr::from_bytes(folder))).unwrap();
        std::fs::write(tenant.at("d").join(OsStr::from_bytes(folder)).join("in"), folder).unwrap();
    }
    tenant.fifo("d/fifo");
    let mut zip = zipped(&tenant, "d");
    let mut found = BTreeMap::new();
    for number in 0..zip.len() {
        let mut file = zip.by_index(number).unwrap();
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        let name = file.name().unwrap().into_owned();
        assert!(!name.contains('\\') && !name.contains("..\\") && !name.contains('\n'), "{name}");
        assert_eq!(found.insert(name.clone(), content), None, "{name} stands twice");
    }
    for (entry, name) in [
        ("a%5Cb", &b"a%5Cb"[..]),
        ("a%5Cb~2", b"a%5Cb~2"),
        ("a%5Cb~3", b"a\\b"),
        ("caf%E9", b"caf%E9"),
        ("caf%E9~2", b"caf\xe9"),
        ("C%3Ax", b"C:x"),
        ("..%5C..%5Cup", b"..\\..\\up"),
        ("f%5Cg/in", b"f%5Cg"),
        ("f%5Cg~2/in", b"f\\g"),
        ("NOT IN THIS ARCHIVE.txt", b"NOT IN THIS ARCHIVE.txt"),
    ] {
        assert_eq!(found.get(entry).map(Vec::as_slice), Some(name), "{entry}: {:?}", found.keys());
    }
    assert!(found["_NOT IN THIS ARCHIVE.txt"].ends_with(b"fifo: it is no regular file\n"));
}

#[test]
fn a_piece_takes_a_bounded_time_however_well_it_packs() {
    let tenant = Tenant::new();
    std::fs::create_dir(tenant.at("d")).unwrap();
    std::fs::File::create(tenant.at("d/holes")).unwrap().set_len(64 << 20).unwrap();
    let mut pieces = tenant.workspace.archive(&whole(), &at("d")).unwrap().into_pieces();
    let mut count = 0;
    while pieces.next_piece().unwrap().is_some() {
        count += 1;
    }
    assert!(count >= 32, "{count} pieces for 64 MiB of nothing");
}

#[test]
fn keeps_times_and_rights() {
    let tenant = Tenant::new();
    tenant.write("d/run.sh", "x");
    std::fs::set_permissions(tenant.at("d/run.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    std::fs::File::options().write(true).open(tenant.at("d/run.sh")).unwrap().set_modified(time).unwrap();
    let mut zip = zipped(&tenant, "d");
    let file = zip.by_index(0).unwrap();
    assert_eq!(file.unix_mode().unwrap() & 0o777, 0o755);
    let modified = file.last_modified().unwrap();
    assert_eq!((modified.year(), modified.month(), modified.day(), modified.hour()), (2023, 11, 14, 22));
}

#[test]
fn what_is_too_large_is_refused_before_the_first_byte() {
    let tenant = Tenant::new();
    std::fs::create_dir(tenant.at("sparse")).unwrap();
    std::fs::File::create(tenant.at("sparse/huge")).unwrap().set_len(4 << 40).unwrap();
    let error = Error::from(tenant.workspace.archive(&whole(), &at("sparse")).unwrap_err());
    assert_eq!((error.kind, error.code), (ErrorKind::TooLarge, "archive.too_large"));
    std::fs::create_dir(tenant.at("many")).unwrap();
    tenant.write("first", "x");
    for number in 0..=ARCHIVE_ENTRIES_MAX {
        std::fs::hard_link(tenant.at("first"), tenant.at(&format!("many/{number}"))).unwrap();
    }
    assert_eq!(code(tenant.workspace.archive(&whole(), &at("many"))), "archive.too_large");
    std::fs::remove_file(tenant.at("many/0")).unwrap();
    assert_eq!(code(tenant.workspace.archive(&whole(), &at("many"))), "ok", "exactly at the bound");
}

#[test]
fn names_that_would_take_much_memory_are_refused() {
    let tenant = Tenant::new();
    let deep: Vec<String> = std::iter::repeat_n("n".repeat(250), 13).collect();
    let deep = tenant.at("deep").join(deep.join("/"));
    std::fs::create_dir_all(&deep).unwrap();
    tenant.write("first", "x");
    for number in 0..2_600 {
        std::fs::hard_link(tenant.at("first"), deep.join(number.to_string())).unwrap();
    }
    assert_eq!(code(tenant.workspace.archive(&whole(), &at("deep"))), "archive.too_large");
}

#[test]
fn only_directories_in_scope() {
    let tenant = Tenant::new();
    tenant.write("a/f", "x");
    assert_eq!(code(tenant.workspace.archive(&whole(), &at("a/f"))), "directory.is_file");
    assert_eq!(code(tenant.workspace.archive(&scope(&["b"], &[]), &at("a"))), "scope.denied");
    assert_eq!(code(tenant.workspace.archive(&scope(&["a/b"], &[]), &at("a"))), "scope.denied");
}

#[test]
fn what_changes_meanwhile_is_left_out_or_cut() {
    let tenant = Tenant::new();
    for name in ["gone", "grown", "swapped", "kept"] {
        tenant.write(&format!("d/{name}"), "12345");
    }
    let archive = tenant.workspace.archive(&whole(), &at("d")).unwrap();
    std::fs::remove_file(tenant.at("d/gone")).unwrap();
    tenant.write("d/grown", "1234567890");
    std::fs::remove_file(tenant.at("d/swapped")).unwrap();
    tenant.link("d/swapped", tenant.outside().join("secret"));
    let mut zip = zip::ZipArchive::new(Cursor::new(zip_of(archive))).unwrap();
    let mut names: Vec<_> = zip.file_names().map(|name| name.unwrap().into_owned()).collect();
    names.sort();
    assert_eq!(
        names,
        ["NOT IN THIS ARCHIVE.txt", "grown", "kept"],
        "a link that leads out is told, what is gone is not"
    );
    assert_eq!(zip.by_name("grown").unwrap().size(), 5);
}
