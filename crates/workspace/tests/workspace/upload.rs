//! Writing: whole or not at all, within its limit, and nothing left behind.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use palisade_protocol::{Error, ErrorKind};

use crate::support::{Tenant, at, code, scope, whole, zip_of};

#[test]
fn a_new_file_gets_its_parents_and_says_what_was_written() {
    let tenant = Tenant::new();
    let mut upload = tenant.workspace.begin_upload(&whole(), &at("new/deep/report.txt"), 100).unwrap();
    upload.write(b"one ").unwrap();
    upload.write(b"two").unwrap();
    let written = upload.finish().unwrap();
    assert_eq!((written.path.as_str(), written.size), ("new/deep/report.txt", 7));
    let json = serde_json::to_value(&written).unwrap();
    assert_eq!(
        json,
        serde_json::json!({"path": "new/deep/report.txt", "size": 7, "modified": written.modified})
    );
    assert_eq!(tenant.get(&whole(), "new/deep/report.txt").unwrap(), "one two");
    assert_eq!(tenant.get(&whole(), "new/deep").unwrap(), "report.txt");
}

#[test]
fn over_the_limit_nothing_changes() {
    let tenant = Tenant::new();
    tenant.write("f", "old");
    let before = tenant.names();
    for limit in [0, 4, 9] {
        let mut upload = tenant.workspace.begin_upload(&whole(), &at("f"), limit).unwrap();
        let error =
            Error::from([b"12345", b"67890"].into_iter().find_map(|part| upload.write(part).err()).unwrap());
        assert_eq!((error.kind, error.code), (ErrorKind::TooLarge, "upload.too_large"), "{limit}");
        drop(upload);
        assert_eq!(tenant.names(), before, "{limit}");
        assert_eq!(tenant.get(&whole(), "f").unwrap(), "old", "{limit}");
    }
    let mut deep = tenant.workspace.begin_upload(&whole(), &at("new/deep/f"), 1).unwrap();
    assert_eq!(code(deep.write(b"12")), "upload.too_large");
    drop(deep);
    assert_eq!(tenant.names(), before, "the directories made for it are gone, too");
    let mut exact = tenant.workspace.begin_upload(&whole(), &at("f"), 10).unwrap();
    exact.write(b"1234567890").unwrap();
    exact.finish().unwrap();
    assert_eq!(tenant.get(&whole(), "f").unwrap(), "1234567890");
}

#[test]
fn an_unfinished_upload_is_never_seen_and_leaves_nothing() {
    let tenant = Tenant::new();
    tenant.write("d/f", "old");
    let before = tenant.names();
    let mut upload = tenant.workspace.begin_upload(&whole(), &at("d/f"), 100).unwrap();
    upload.write(b"half").unwrap();
    let temporary = tenant.names().into_iter().find(|name| !before.contains(name)).unwrap();
    let temporary = format!("d/{}", temporary.rsplit('/').next().unwrap());
    assert_eq!(tenant.get(&whole(), "d").unwrap(), "f");
    assert_eq!(tenant.get(&whole(), "d/f").unwrap(), "old");
    assert_eq!(code(tenant.get(&whole(), &temporary)), "file.not_found");
    assert_eq!(code(tenant.put(&whole(), &temporary, "x")), "file.reserved_name");
    assert_eq!(code(tenant.delete(&whole(), &temporary)), "file.reserved_name");
    let archive = tenant.workspace.archive(&whole(), &at("d")).unwrap();
    let zipped = zip::ZipArchive::new(std::io::Cursor::new(zip_of(archive))).unwrap();
    assert_eq!(zipped.file_names().map(|name| name.unwrap()).collect::<Vec<_>>(), ["f"]);
    drop(upload);
    assert_eq!(tenant.names(), before);
}

#[test]
fn what_stands_in_the_way_is_named() {
    let tenant = Tenant::new();
    tenant.write("dir/inner", "x");
    tenant.write("file", "x");
    for (path, expected) in [
        ("dir", "file.is_directory"),
        ("", "file.is_directory"),
        ("file/below", "directory.file_in_the_way"),
        ("file/below/deep", "directory.file_in_the_way"),
        (".sessions/sess_070707070707", "file.is_directory"),
    ] {
        assert_eq!(code(tenant.put(&whole(), path, "new")), expected, "{path}");
    }
    // A root of the scope is a directory also while it is missing; a grant that a wider one covers is a path like any other.
    assert_eq!(code(tenant.put(&scope(&[], &["root"]), "root", "new")), "file.is_directory");
    assert_eq!(code(tenant.put(&scope(&[], &["", "covered"]), "covered", "new")), "ok");
}

/// Case D04: the agent sees the temporary's name as soon as it is there.
#[test]
fn what_takes_the_temporarys_place_is_not_put_in_the_files() {
    let tenant = Tenant::new();
    tenant.write("d/file", "old");
    type Plant = fn(&Tenant, &std::path::Path);
    let plants: [Plant; 4] = [
        |tenant, at| std::os::unix::fs::symlink(tenant.outside().join("secret"), at).unwrap(),
        |_, at| std::fs::write(at, "planted").unwrap(),
        |_, at| std::fs::create_dir(at).unwrap(),
        |_, _| {},
    ];
    for plant in plants {
        let mut upload = tenant.workspace.begin_upload(&whole(), &at("d/file"), 100).unwrap();
        upload.write(b"new").unwrap();
        let dir = std::fs::read_dir(tenant.at("d")).unwrap();
        let names = dir.map(|entry| entry.unwrap().path());
        let temporary = names.into_iter().find(|path| !path.ends_with("file")).unwrap();
        std::fs::remove_file(&temporary).unwrap();
        plant(&tenant, &temporary);
        assert_eq!(code(upload.finish()), "file.changing");
        assert_eq!(std::fs::read_to_string(tenant.at("d/file")).unwrap(), "old");
        assert_eq!(std::fs::read_to_string(tenant.outside().join("secret")).unwrap(), "OUTSIDE");
        let _ = std::fs::remove_dir(&temporary);
    }
    assert_eq!(tenant.names().iter().filter(|name| name.contains("/d/")).count(), 1);
}

#[test]
fn a_directory_that_appears_meanwhile_is_not_replaced() {
    let tenant = Tenant::new();
    let upload = tenant.workspace.begin_upload(&whole(), &at("f"), 100).unwrap();
    tenant.write("f/inner", "x");
    let before: Vec<_> = tenant.names().into_iter().filter(|name| !name.contains("upload")).collect();
    assert_eq!(code(upload.finish()), "file.is_directory");
    assert_eq!(tenant.names(), before);
}

#[test]
fn a_replaced_file_keeps_its_rights() {
    let tenant = Tenant::new();
    tenant.write("run.sh", "old");
    let mode = |path: &str| std::fs::metadata(tenant.at(path)).unwrap().permissions().mode() & 0o777;
    std::fs::set_permissions(tenant.at("run.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    tenant.put(&whole(), "run.sh", "new").unwrap();
    tenant.put(&whole(), "plain", "new").unwrap();
    assert_eq!((mode("run.sh"), mode("plain")), (0o755, 0o644));
}

#[test]
fn a_removed_scope_root_is_made_again_by_the_next_write() {
    let tenant = Tenant::new();
    let scope = scope(&[], &["projects/p1"]);
    tenant.workspace.ensure_scope(&scope).unwrap();
    std::fs::remove_dir_all(tenant.at("projects")).unwrap();
    assert_eq!(code(tenant.get(&scope, "projects/p1/f")), "file.not_found");
    tenant.put(&scope, "projects/p1/f", "x").unwrap();
    assert_eq!(tenant.get(&scope, "projects/p1/f").unwrap(), "x");
}

#[test]
fn a_reader_sees_the_old_file_or_the_new_one() {
    let tenant = Tenant::new();
    let content = |letter: &str| letter.repeat(300_000);
    tenant.put(&whole(), "f", &content("a")).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let reader = threads.spawn(|| {
            let mut seen = [0, 0];
            while !done.load(Ordering::Relaxed) || seen.contains(&0) {
                // Through the API and beside it, as the sandbox reads.
                for text in
                    [tenant.get(&whole(), "f").unwrap(), std::fs::read_to_string(tenant.at("f")).unwrap()]
                {
                    assert!(
                        text == content("a") || text == content("b"),
                        "{} bytes of a mixture",
                        text.len()
                    );
                    seen[usize::from(text.starts_with('b'))] += 1;
                }
            }
        });
        for round in 0..200 {
            tenant.put(&whole(), "f", &content(if round % 2 == 0 { "b" } else { "a" })).unwrap();
            if reader.is_finished() {
                break;
            }
        }
        tenant.put(&whole(), "f", &content("b")).unwrap();
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn what_a_killed_server_left_is_swept_and_what_is_being_written_is_not() {
    let tenant = Tenant::new();
    tenant.write("deep/er/f", "kept");
    let before = tenant.names();
    for path in ["deep/er/f", "top", "deep/new"] {
        let mut upload = tenant.workspace.begin_upload(&whole(), &at(path), 100).unwrap();
        upload.write(b"half").unwrap();
        // As if the process had ended here.
        std::mem::forget(upload);
    }
    assert_eq!(tenant.names().len(), before.len() + 3);
    let hour = std::time::Duration::from_secs(3_600);
    assert_eq!(tenant.workspace.remove_unfinished_uploads(hour).unwrap(), 0);
    assert_eq!(tenant.workspace.remove_unfinished_uploads(std::time::Duration::ZERO).unwrap(), 3);
    assert_eq!(tenant.names(), before);
}

#[test]
fn a_failing_upload_never_takes_the_directory_from_another() {
    let tenant = Tenant::new();
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                drop(tenant.workspace.begin_upload(&whole(), &at("new/deep/failing"), 100));
            }
        });
        let puts: Vec<_> = (0..5_000)
            .map(|_| {
                let put = tenant.workspace.begin_upload(&whole(), &at("new/deep/good"), 100);
                let put = put.map(drop).map_err(|error| error.to_string());
                // What one of the two found and the other made stays; without it they would race only once.
                let _ = tenant.workspace.delete(&whole(), &at("new"), true);
                put
            })
            .collect();
        done.store(true, Ordering::Relaxed);
        assert_eq!(puts.into_iter().find(Result::is_err), None);
    });
}
