//! What a listing shows, in which order, and what it leaves out.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use palisade_protocol::limits::DIRECTORY_ENTRIES_MAX;
use palisade_workspace::EntryKind;

use crate::support::{Tenant, at, code, first, is_long, scope, whole};

#[test]
fn the_wire_form() {
    let tenant = Tenant::new();
    tenant.write("d/file.txt", "123");
    std::fs::create_dir(tenant.at("d/sub")).unwrap();
    let listing = tenant.workspace.list(&whole(), &at("d"), &first(10)).unwrap();
    let json = serde_json::to_value(&listing.entries).unwrap();
    let modified = |n: usize| json[n]["modified"].as_f64().unwrap();
    assert_eq!(
        json,
        serde_json::json!([
            {"name": "file.txt", "type": "file", "size": 3, "modified": modified(0)},
            {"name": "sub", "type": "directory", "size": 0, "modified": modified(1)},
        ])
    );
    assert!(modified(0) > 1.6e9);
    assert_eq!(listing.next_after, None);
}

#[test]
fn a_scopes_ancestor_shows_only_what_leads_to_the_scope() {
    let tenant = Tenant::new();
    tenant.write("projects/p1/a", "");
    tenant.write("projects/p2/b", "");
    tenant.write("projects/file", "");
    tenant.write("other/c", "");
    let scope = scope(&["projects/p1", "projects/p1/deeper", "shared/templates"], &["projects/p3/out"]);
    tenant.workspace.ensure_scope(&scope).unwrap();
    assert_eq!(tenant.get(&scope, "").unwrap(), ".sessions projects shared");
    assert_eq!(tenant.get(&scope, "projects").unwrap(), "p1 p3");
    assert_eq!(tenant.get(&scope, "projects/p3").unwrap(), "out");
    assert_eq!(tenant.get(&scope, ".sessions").unwrap(), "sess_070707070707");
    assert_eq!(tenant.get(&scope, "projects/p1").unwrap(), "a deeper");
    let listing = tenant.workspace.list(&scope, &at("projects"), &first(10)).unwrap();
    assert!(listing.entries.iter().all(|entry| entry.kind == EntryKind::Directory));
}

#[test]
fn an_ancestor_that_became_a_link_shows_nothing_of_its_target() {
    let tenant = Tenant::new();
    std::fs::create_dir_all(tenant.outside().join("mine")).unwrap();
    tenant.link("projects", tenant.outside());
    let scope = scope(&["projects/mine"], &[]);
    assert_eq!(code(tenant.get(&scope, "projects")), "file.not_found");
    assert_eq!(tenant.get(&scope, "").unwrap(), ".sessions", "the link itself is no way to the scope");
}

#[test]
fn names_that_are_not_utf8_can_still_be_named() {
    let tenant = Tenant::new();
    let name = OsStr::from_bytes(b"caf\xe9 1.txt");
    std::fs::write(tenant.workspace.dir().join(name), "latin").unwrap();
    let listing = tenant.workspace.list(&whole(), &at(""), &first(10)).unwrap();
    let entry = listing.entries.iter().find(|entry| entry.name_percent.is_some()).unwrap();
    assert_eq!(entry.name, "caf\u{fffd} 1.txt");
    let percent = entry.name_percent.clone().unwrap();
    assert_eq!(percent, "caf%E9%201.txt");
    let bytes: Vec<u8> = percent_encoding::percent_decode_str(&percent).collect();
    let path = palisade_protocol::WorkspacePath::parse(bytes).unwrap();
    assert!(tenant.workspace.open_read(&whole(), &path, &first(1)).is_ok());
    tenant.workspace.delete(&whole(), &path, false).unwrap();
    assert!(!tenant.workspace.dir().join(name).exists());
}

#[test]
fn links_are_shown_as_what_they_lead_to_and_others_not_at_all() {
    let tenant = Tenant::new();
    tenant.write("real/file", "12");
    tenant.link("in/file", "../real/file");
    tenant.link("in/dir", "../real");
    tenant.link("in/dangling", "nowhere");
    tenant.link("in/out", tenant.outside().join("secret"));
    tenant.link("in/circle", "circle");
    let shown = |scope| {
        let listing = tenant.workspace.list(&scope, &at("in"), &first(10)).unwrap();
        listing.entries.into_iter().map(|entry| (entry.name, entry.kind, entry.size)).collect::<Vec<_>>()
    };
    assert_eq!(
        shown(whole()),
        [("dir".to_owned(), EntryKind::Directory, 0), ("file".to_owned(), EntryKind::File, 2)]
    );
    assert_eq!(
        shown(scope(&["in", "real"], &[])),
        [],
        "another root of the same scope is not beneath this one"
    );
}

#[test]
fn a_large_directory_is_cut_by_name() {
    let tenant = Tenant::new();
    std::fs::create_dir(tenant.at("d")).unwrap();
    for number in 0..5_000 {
        std::fs::write(tenant.at(&format!("d/{number:05}")), "").unwrap();
    }
    let listing = tenant.workspace.list(&whole(), &at("d"), &first(100)).unwrap();
    assert_eq!(listing.next_after.as_deref(), Some("00099"));
    let names: Vec<_> = listing.entries.iter().map(|entry| entry.name.clone()).collect();
    assert_eq!(names, (0..100).map(|number| format!("{number:05}")).collect::<Vec<_>>());
    let exact = tenant.workspace.list(&whole(), &at("d"), &first(5_000)).unwrap();
    assert_eq!((exact.entries.len(), exact.next_after), (5_000, None));
    let all = tenant.workspace.list(&whole(), &at("d"), &first(DIRECTORY_ENTRIES_MAX)).unwrap();
    assert_eq!((all.entries.len(), all.next_after), (5_000, None));
}

/// Every name of `d`, page by page, as a client would ask.
fn all_pages(tenant: &Tenant, entries_max: usize) -> Vec<Vec<u8>> {
    let mut page = first(entries_max);
    let mut names = Vec::new();
    loop {
        let listing = tenant.workspace.list(&whole(), &at("d"), &page).unwrap();
        assert!(listing.entries.len() <= entries_max);
        let decoded = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
        for entry in &listing.entries {
            names.push(
                entry.name_percent.as_ref().map_or(entry.name.clone().into_bytes(), |name| decoded(name)),
            );
        }
        match listing.next_after {
            Some(next) => page.after = OsStr::from_bytes(&decoded(&next)).to_owned(),
            None => return names,
        }
    }
}

#[test]
fn names_of_any_bytes_come_back_page_by_page() {
    let tenant = Tenant::new();
    std::fs::create_dir(tenant.at("d")).unwrap();
    let mut made: Vec<Vec<u8>> = [
        "-rf",
        "A",
        "a",
        "\u{e4}",
        "a\u{308}",
        "line\nbreak",
        "\u{1b}[2J",
        "\u{202e}txt.exe",
        "%41",
        "+",
        " ",
        "*",
        "'\"$`;",
        "back\\slash",
    ]
    .map(|name| name.as_bytes().to_vec())
    .into();
    made.extend([vec![0xff], vec![b'a', 0xc3], vec![b'x'; 255], vec![0xf0; 255]]);
    for name in &made {
        std::fs::write(tenant.at("d").join(OsStr::from_bytes(name)), name).unwrap();
    }
    // What no page shows must neither end the pages nor be counted twice.
    for number in 0..10 {
        tenant.link(&format!("d/m{number}"), "/nowhere");
    }
    made.sort();
    for entries_max in [1, 2, 3, 5, 100] {
        assert_eq!(all_pages(&tenant, entries_max), made, "{entries_max} a page");
    }
    for name in &made {
        let path = [b"d/", name.as_slice()].concat();
        let path = palisade_protocol::WorkspacePath::parse(path).unwrap();
        assert!(tenant.workspace.open_read(&whole(), &path, &first(1)).is_ok(), "{path}");
        tenant.workspace.delete(&whole(), &path, false).unwrap();
    }
    assert_eq!(all_pages(&tenant, 3), Vec::<Vec<u8>>::new());
}

/// Case D11: the memory of a page is the page's, whatever the directory holds.
#[test]
fn a_directory_of_very_many() {
    let count = if is_long() { 1_000_000 } else { 30_000 };
    let tenant = Tenant::new();
    std::fs::create_dir(tenant.at("d")).unwrap();
    for number in 0..count {
        let name = |number: usize| tenant.at(&format!("d/{number:07}"));
        // A hard link costs no inode; a file may have 65,000 of them.
        match number % 60_000 {
            0 => std::fs::write(name(number), "x").unwrap(),
            linked => std::fs::hard_link(name(number - linked), name(number)).unwrap(),
        }
    }
    let peak_kib = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before_kib = peak_kib();
    let begun = std::time::Instant::now();
    let listing = tenant.workspace.list(&whole(), &at("d"), &first(1_000)).unwrap();
    println!("the first 1,000 of {count}: {:?}", begun.elapsed());
    assert_eq!((listing.entries.len(), listing.next_after.as_deref()), (1_000, Some("0000999")));
    assert!(peak_kib() - before_kib < 4 * 1024, "{} KiB for a page of 1,000", peak_kib() - before_kib);
    let all = all_pages(&tenant, DIRECTORY_ENTRIES_MAX);
    assert_eq!(all.len(), count);
    assert!(all.is_sorted());
    let begun = std::time::Instant::now();
    tenant.workspace.delete(&whole(), &at("d"), true).unwrap();
    println!("{count} removed in {:?}", begun.elapsed());
}

#[test]
fn a_file_with_several_names_says_so() {
    let tenant = Tenant::new();
    tenant.write("a/one", "x");
    std::fs::hard_link(tenant.at("a/one"), tenant.at("a/two")).unwrap();
    tenant.write("a/single", "x");
    let listing = tenant.workspace.list(&whole(), &at("a"), &first(10)).unwrap();
    let links: Vec<_> = listing.entries.iter().map(|entry| (entry.name.as_str(), entry.links)).collect();
    assert_eq!(links, [("one", Some(2)), ("single", None), ("two", Some(2))]);
}

#[test]
fn a_file_is_not_listed() {
    let tenant = Tenant::new();
    tenant.write("f", "x");
    assert_eq!(code(tenant.workspace.list(&whole(), &at("f"), &first(10))), "directory.is_file");
    assert_eq!(code(tenant.workspace.list(&whole(), &at("missing"), &first(10))), "file.not_found");
    assert_eq!(code(tenant.workspace.list(&scope(&["a"], &[]), &at("b"), &first(10))), "scope.denied");
}
