//! What a session sees of the workspace, and what it cannot touch (cases A).

use palisade_protocol::FileAccess;
use palisade_sandbox::{RunExit, Sandbox, SandboxError};

use crate::support::{Bench, python, refused, run, stdout, tool};

/// Read `ref` and `shared/templates`, write `projects/p1` and `ref/output`; everything else is a secret.
async fn typical(bench: &Bench) -> Sandbox {
    bench.put("ref/a.txt", "reference");
    std::fs::create_dir(bench.workspace.join("ref/empty")).unwrap();
    bench.put("ref/output/b.txt", "b");
    bench.put("shared/templates/t.txt", "template");
    bench.put("shared/secret.txt", "secret");
    bench.put("projects/p1/p.txt", "p");
    bench.put("projects/p2/secret.txt", "secret");
    bench.put("private/secret.txt", "secret");
    bench.scoped(&["ref", "shared/templates"], &["projects/p1", "ref/output"]).await
}

#[tokio::test]
async fn a01_listings_show_only_the_scope() {
    let bench = Bench::new();
    let sandbox = typical(&bench).await;
    for (folder, expected) in [
        ("/workspace", ".memory .sessions projects ref shared"),
        ("/workspace/projects", "p1"),
        ("/workspace/shared", "templates"),
        ("/workspace/ref", "a.txt empty output"),
        ("/workspace/.sessions", "sess_a86118c06688"),
        ("/home", "agent"),
        ("/", "bin dev etc home lib lib64 proc run sbin skills tmp usr var workspace"),
        ("/tmp", ""),
    ] {
        // Some hosts have more library folders at the top.
        let command = format!("LC_ALL=C ls -A --ignore=lib32 --ignore=libx32 {folder} | tr '\\n' ' '");
        assert_eq!(stdout(&sandbox, &command).await, expected, "{folder}");
    }
}

#[tokio::test]
async fn a02_what_is_out_of_scope_does_not_exist() {
    let bench = Bench::new();
    let sandbox = typical(&bench).await;
    let host_paths =
        [bench.workspace.as_path(), &bench.outside, std::path::Path::new(env!("CARGO_MANIFEST_DIR"))];
    let paths =
        ["private", "private/secret.txt", "shared/secret.txt", "projects/p2", "projects/p2/secret.txt"]
            .map(|path| format!("/workspace/{path}"));
    let system = ["/root", "/home/other", "/opt", "/sys", "/boot", "/etc/shadow", "/oldroot", "/newroot"]
        .map(str::to_owned);
    for path in paths.into_iter().chain(system).chain(host_paths.map(|path| path.display().to_string())) {
        let reason = "No such file or directory";
        refused(&sandbox, &format!("stat '{path}'"), reason).await;
        refused(&sandbox, &format!("cat '{path}'"), reason).await;
        let read = tool(&sandbox, "Read", serde_json::json!({"file_path": path})).await;
        assert_eq!(read.code.as_deref(), Some("file.not_found"), "{path}: {read:?}");
    }
}

#[tokio::test]
async fn a03_a_read_scope_refuses_every_kind_of_write() {
    let bench = Bench::new();
    let sandbox = typical(&bench).await;
    for command in [
        "touch ref/new",
        "echo x > ref/a.txt",
        "truncate -s 0 ref/a.txt",
        "rm ref/a.txt",
        "mv ref/a.txt ref/b.txt",
        "chmod 777 ref/a.txt",
        "touch -d 2000-01-01 ref/a.txt",
        "mkdir ref/new",
        "ln -s x ref/new",
        "mkfifo ref/new",
        "rmdir ref/empty",
        "python3 -c 'import os; fd = os.open(\"ref/a.txt\", os.O_RDONLY); os.fchmod(fd, 0o777)'",
        "exec 5< ref/a.txt; echo x > /proc/self/fd/5",
    ] {
        refused(&sandbox, &format!("export LC_ALL=C; {command}"), "Read-only file system").await;
    }
    let mmap = "import mmap, os\nfd = os.open('ref/a.txt', os.O_RDONLY)\n\
                try: mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_WRITE)\nexcept OSError as e: print(e.errno)";
    assert_eq!(python(&sandbox, mmap).await, "13");
    let write = tool(&sandbox, "Write", serde_json::json!({"file_path": "ref/a.txt", "content": "x"})).await;
    assert_eq!(write.code.as_deref(), Some("file.read_only"));
    assert_eq!(bench.get("ref/a.txt"), "reference");
}

#[tokio::test]
async fn a03_a_write_scope_is_written_through() {
    let bench = Bench::new();
    let sandbox = typical(&bench).await;
    stdout(&sandbox, "echo out > ref/output/new; echo p > projects/p1/p.txt; mkdir -p projects/p1/x/y").await;
    stdout(&sandbox, "echo remember > .memory/MEMORY.md").await;
    assert_eq!(bench.get("ref/output/new"), "out\n");
    assert_eq!(bench.get("projects/p1/p.txt"), "p\n");
    assert_eq!(bench.get(".memory/MEMORY.md"), "remember\n");
    assert!(bench.workspace.join("projects/p1/x/y").is_dir());
}

#[tokio::test]
async fn a04_the_skeleton_takes_no_writes() {
    let bench = Bench::new();
    let sandbox = typical(&bench).await;
    let folders =
        ["/", "/workspace", "/workspace/projects", "/etc", "/dev", "/usr", "/usr/local", "/usr/local/bin"];
    for folder in folders.into_iter().chain(["/skills", "/run", "/var", "/home"]) {
        refused(&sandbox, &format!("mkdir {folder}/new"), "Read-only file system").await;
        refused(&sandbox, &format!("touch {folder}/new"), "Read-only file system").await;
    }
}

#[tokio::test]
async fn a05_links_lead_nowhere_but_inside() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let secret = bench.outside.join("secret");
    stdout(
        &sandbox,
        &format!("ln -s {} abs; ln -s ../outside/secret rel; ln -s loop loop", secret.display()),
    )
    .await;
    stdout(&sandbox, "ln -s rel chain0; for i in $(seq 40); do ln -s chain$((i-1)) chain$i; done").await;
    for (link, reason) in [
        ("abs", "No such file"),
        ("rel", "No such file"),
        ("loop", "Too many levels"),
        ("chain40", "Too many levels"),
    ] {
        refused(&sandbox, &format!("cat {link}"), reason).await;
        let read = tool(&sandbox, "Read", serde_json::json!({"file_path": link})).await;
        assert!(read.is_error && !read.content.contains("the secret"), "{read:?}");
    }
}

#[tokio::test]
async fn a06_proc_links_lead_into_the_own_tree_only() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let secret = bench.outside.join("secret");
    for root in ["/proc/self/root", "/proc/self/cwd/..", "/proc/1/root", "/proc/thread-self/root"] {
        let (exit, text) = run(&sandbox, &format!("cat {root}{}", secret.display())).await;
        assert!(exit != RunExit::Code(0), "{root}: {text}");
    }
    let pids: u32 = stdout(&sandbox, "ls -d /proc/[0-9]* | wc -l").await.parse().unwrap();
    assert!(pids < 10, "{pids} processes are visible");
}

#[tokio::test]
async fn a07_a08_nothing_is_linked_or_moved_across_scopes() {
    let bench = Bench::new();
    let sandbox = typical(&bench).await;
    for command in [
        "ln ref/a.txt projects/p1/hard",
        "ln /usr/bin/passwd projects/p1/hard",
        "python3 -c 'import os; os.rename(\"projects/p1/p.txt\", \"ref/p.txt\")'",
        "python3 -c 'import os; os.rename(\"projects/p1/p.txt\", \"ref/output/p.txt\")'",
        "python3 -c 'import os; os.link(\"ref/output/b.txt\", \"projects/p1/b.txt\")'",
    ] {
        // The kernel may notice the read-only side first.
        let (exit, text) = run(&sandbox, command).await;
        let crossed = text.contains("cross-device") || text.contains("Read-only file system");
        assert!(exit != RunExit::Code(0) && crossed, "{command}: {text}");
    }
}

#[tokio::test]
async fn a09_a_mount_point_cannot_be_renamed_away() {
    let bench = Bench::new();
    let sandbox = typical(&bench).await;
    for command in ["mv ref ref2", "mv ref/output ref/o2", "mv projects/p1 projects/p3", "rmdir ref/output"] {
        let (exit, text) = run(&sandbox, command).await;
        assert!(exit != RunExit::Code(0), "{command}: {text}");
    }
    assert_eq!(bench.get("ref/output/b.txt"), "b");
}

#[tokio::test]
async fn a12_a_link_in_the_place_of_a_scope_root_is_refused() {
    let bench = Bench::new();
    for planted in ["scope", "parent"] {
        std::os::unix::fs::symlink(&bench.outside, bench.workspace.join(planted)).unwrap();
    }
    std::fs::create_dir(bench.outside.join("below")).unwrap();
    for root in ["scope", "parent/below", "parent/made"] {
        let error = bench.factory.start(bench.spec(&[root], &[])).await.unwrap_err();
        let named = matches!(&error, SandboxError::Start { message, .. } if message.contains(root));
        assert!(named, "{error}");
    }
    assert!(!bench.outside.join("made").exists());
}

#[tokio::test]
async fn a13_a_planted_link_below_a_mount_point_creates_nothing_on_the_host() {
    let bench = Bench::new();
    bench.put("projects/keep", "");
    let victim = bench.outside.join("victim");
    for target in [format!("/oldroot{}", victim.display()), victim.display().to_string()] {
        let link = bench.workspace.join("projects/link");
        std::os::unix::fs::symlink(target, &link).unwrap();
        assert!(bench.factory.start(bench.spec(&["projects"], &["projects/link/deep"])).await.is_err());
        std::fs::remove_file(link).unwrap();
    }
    assert!(!victim.exists());
}

#[tokio::test]
async fn a15_a_scope_root_swapped_for_a_link_is_never_mounted() {
    let bench = Bench::new();
    bench.put("scope/inside", "");
    let (scope, link) = (bench.workspace.join("scope"), bench.workspace.join("link"));
    std::os::unix::fs::symlink(&bench.outside, &link).unwrap();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let swapper = std::thread::spawn({
        let stop = stop.clone();
        move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                use rustix::fs::{CWD, RenameFlags, renameat_with};
                renameat_with(CWD, &scope, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        }
    });
    let (mut started, mut refused) = (0, 0);
    let times = if std::env::var_os("PALISADE_LONG_TESTS").is_some() { 10_000 } else { 60 };
    for _ in 0..times {
        match bench.factory.start(bench.spec(&["scope"], &[])).await {
            Ok(sandbox) => {
                started += 1;
                let listing = stdout(&sandbox, "ls scope").await;
                assert_eq!(listing, "inside");
            }
            Err(_) => refused += 1,
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    swapper.join().unwrap();
    println!("started {started}, refused {refused}");
    assert!(started > 0, "nothing was tried");
}

#[tokio::test]
async fn a17_a_scope_root_that_changed_on_the_host_is_noticed() {
    let bench = Bench::new();
    let sandbox = typical(&bench).await;
    assert!(!sandbox.is_stale());
    bench.put("projects/p1/another", "a change inside a root is none of the root");
    assert!(!sandbox.is_stale());
    std::fs::rename(bench.workspace.join("projects"), bench.workspace.join("moved")).unwrap();
    assert!(sandbox.is_stale());
    std::fs::create_dir_all(bench.workspace.join("projects/p1")).unwrap();
    assert!(sandbox.is_stale(), "another directory under the old name");
    let again = bench.scoped(&["ref", "shared/templates"], &["projects/p1", "ref/output"]).await;
    assert_eq!((again.is_stale(), stdout(&again, "ls projects/p1").await.as_str()), (false, ""));
}

#[tokio::test]
async fn a19_overlapping_scopes_do_not_depend_on_their_order() {
    let bench = Bench::new();
    bench.put("a/b/c/f", "f");
    for (read, write) in [
        (vec!["a", "a/b/c"], vec!["a/b"]),
        (vec!["a/b/c", "a"], vec!["a/b"]),
        (vec!["a"], vec!["a/b/c", "a/b"]),
    ] {
        let sandbox = bench.scoped(&read, &write).await;
        refused(&sandbox, "touch a/new", "Read-only file system").await;
        stdout(&sandbox, "touch a/b/new a/b/c/new; rm a/b/new a/b/c/new").await;
    }
}

#[tokio::test]
async fn missing_roots_are_made_and_files_as_roots_are_refused() {
    let bench = Bench::new();
    let sandbox = bench.scoped(&["new/read"], &["new/write/deep"]).await;
    assert_eq!(stdout(&sandbox, "ls new; ls new/write").await, "read\nwrite\ndeep");
    bench.put("file", "");
    let error = bench.factory.start(bench.spec(&["file"], &[])).await.unwrap_err();
    assert!(error.to_string().contains("not a directory"), "{error}");
}

#[tokio::test]
async fn the_memory_may_be_read_only() {
    let bench = Bench::new();
    bench.put(".memory/MEMORY.md", "remembered");
    bench.put("p/x", "");
    let mut spec = bench.spec(&[], &["p"]);
    let access = FileAccess { read: vec![".memory".into()], write: vec!["p".into()] };
    spec.scope = access.scope_for(&spec.session).unwrap();
    let sandbox = bench.factory.start(spec).await.unwrap();
    assert_eq!(stdout(&sandbox, "cat .memory/MEMORY.md").await, "remembered");
    refused(&sandbox, "echo x > .memory/MEMORY.md", "Read-only file system").await;
}

#[tokio::test]
async fn a_read_only_workspace_still_has_a_home() {
    let bench = Bench::new();
    bench.put("a/x", "x");
    let mut spec = bench.spec(&[""], &[]);
    let access = FileAccess { read: vec![String::new()], write: vec![] };
    spec.scope = access.scope_for(&spec.session).unwrap();
    let sandbox = bench.factory.start(spec).await.unwrap();
    refused(&sandbox, "touch a/y", "Read-only file system").await;
    stdout(&sandbox, "touch ~/y && [ $HOME = /home/agent ]").await;
}

/// In the working tree it was swept up by `git add -A` and `zip -r .`, and other sessions read it and wrote to it.
#[tokio::test]
async fn a_home_is_out_of_the_working_tree_and_out_of_other_sessions_reach() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let mut spec = bench.spec(&[""], &[""]);
    spec.home = bench.outside.with_file_name("another-home");
    std::fs::create_dir(&spec.home).unwrap();
    let other = bench.factory.start(spec).await.unwrap();
    stdout(&sandbox, "mkdir ~/.ssh; echo of-one > ~/.ssh/id; echo of-one > ~/.netrc; echo mine > mine").await;
    let sweep =
        "grep -rl of-one . /home /tmp 2>/dev/null; find . -path './.sessions/*/*'; find /home -name .netrc";
    assert_eq!(stdout(&other, &format!("{sweep}; true")).await, "");
    refused(&other, "cat /proc/1/root/home/agent/.netrc", "").await;
    // Nor do the own sweeps meet it.
    assert_eq!(stdout(&sandbox, "grep -rl -e of-one -e mine .").await, "./mine");
    assert_eq!(std::fs::read_to_string(bench.home.join(".netrc")).unwrap(), "of-one\n");
    // A fresh sandbox of the session finds it again.
    sandbox.shutdown().await;
    assert_eq!(stdout(&bench.whole().await, "cat ~/.netrc; cd; pwd").await, "of-one\n/home/agent");
}

#[tokio::test]
async fn temporary_files_have_the_disk() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let on_disk = "head -c 300M /dev/zero > $TMPDIR/large && mv $TMPDIR/large /var/tmp/larger && \
                   stat -c %s $TMPDIR/larger && rm /var/tmp/larger && mktemp";
    let said = stdout(&sandbox, on_disk).await;
    assert!(said.starts_with("314572800\n/home/agent/.tmp/tmp."), "{said}");
    refused(&sandbox, "export LC_ALL=C; head -c 300M /dev/zero > /tmp/large", "No space left on device")
        .await;
}

#[tokio::test]
async fn a10_a11_nothing_is_carved_out_of_what_may_be_written() {
    let bench = Bench::new();
    bench.put("rw/inner/f", "f");
    // A narrower or weaker root below a writable one is no mount of its own, whether it is there or not: nothing
    // hidden or read-only could be renamed away, because there is nothing of the kind.
    let sandbox = bench.scoped(&["rw/inner", "rw/missing"], &["rw"]).await;
    let points = "grep -c ' /workspace/rw' /proc/self/mountinfo";
    assert_eq!(stdout(&sandbox, points).await, "1");
    stdout(&sandbox, "mv rw/inner rw/moved && mkdir -p rw/inner rw/missing && echo x > rw/missing/x").await;
    // And what was never granted stays away from the next session, whatever this one did.
    bench.put("hidden/secret.txt", "secret");
    refused(&sandbox, "ls hidden", "No such file or directory").await;
    refused(&sandbox, "mkdir hidden", "Read-only file system").await;
    let next = bench.scoped(&["rw/inner"], &["rw"]).await;
    refused(&next, "cat hidden/secret.txt rw/../hidden/secret.txt", "No such file or directory").await;
}

/// Read-only at the top of a writable workspace: the one mount point below something the agent may write.
#[tokio::test]
async fn a09_a10_a11_a_locked_folder_stays_locked_and_in_its_place() {
    let bench = Bench::new();
    bench.put(".pokee/AGENTS.md", "the rules");
    bench.put("mine/f", "f");
    let mut spec = bench.spec(&[""], &[""]);
    spec.locked = [".pokee", "missing"].map(|name| name.to_owned().try_into().unwrap()).to_vec();
    let (sandbox, other) =
        (bench.factory.start(spec.clone()).await.unwrap(), bench.factory.start(spec.clone()).await.unwrap());
    let exchange = "python3 -c 'import ctypes, os; libc = ctypes.CDLL(None, use_errno=True); \
        libc.renameat2(-100, b\".pokee\", -100, b\"mine\", 2) and exit(os.strerror(ctypes.get_errno()))'";
    for (command, reason) in [
        ("echo evil > .pokee/AGENTS.md", "Read-only file system"),
        ("echo evil > /proc/self/cwd/.pokee/AGENTS.md", "Read-only file system"),
        ("ln -s .pokee way && echo evil > way/AGENTS.md", "Read-only file system"),
        ("chmod 777 .pokee", "Read-only file system"),
        ("rm -rf .pokee", "Read-only file system"),
        ("touch missing/new", "Read-only file system"),
        ("mv .pokee away", "Device or resource busy"),
        ("rmdir missing", "Device or resource busy"),
        ("mkdir new; mv -T new missing", "Device or resource busy"),
        ("mv -T mine .pokee", ""),
        (exchange, "Device or resource busy"),
        ("ln .pokee/AGENTS.md hard", "Invalid cross-device link"),
    ] {
        refused(&sandbox, &format!("export LC_ALL=C; {command}"), reason).await;
        refused(&other, &format!("export LC_ALL=C; {command}"), "").await;
    }
    let write = serde_json::json!({"file_path": ".pokee/AGENTS.md", "content": "evil"});
    assert_eq!(tool(&sandbox, "Write", write).await.code.as_deref(), Some("file.read_only"));
    // All beside it is as writable as ever, and what the host writes into it is seen.
    stdout(&sandbox, "echo g > mine/g && mv mine/g g && mkdir -p .pokee2/x").await;
    bench.put(".pokee/AGENTS.md", "new rules");
    assert_eq!(stdout(&sandbox, "cat .pokee/AGENTS.md").await, "new rules");
    assert!(!sandbox.is_stale() && bench.workspace.join("missing").is_dir());
    // Gone on the host, which the file API refuses to do, it is noticed before the next call.
    std::fs::remove_dir(bench.workspace.join("missing")).unwrap();
    assert!(sandbox.is_stale());
    std::os::unix::fs::symlink(&bench.outside, bench.workspace.join("missing")).unwrap();
    let error = bench.factory.start(spec).await.unwrap_err();
    assert!(matches!(&error, SandboxError::Start { message, .. } if message.contains("missing")), "{error}");
}

#[tokio::test]
async fn below_a_locked_folder_only_what_is_named_is_open() {
    let bench = Bench::new();
    bench.put("skills/own/SKILL.md", "own");
    bench.put("skills/other/SKILL.md", "other");
    for (read, write) in
        [(vec![""], vec!["", "skills/own"]), (vec!["skills"], vec!["skills/own", "p"]), (vec![""], vec!["p"])]
    {
        let mut spec = bench.spec(&read, &write);
        spec.locked = vec!["skills".to_owned().try_into().unwrap()];
        let sandbox = bench.factory.start(spec).await.unwrap();
        let shown = "mkdir -p p; touch p/f; cat skills/own/SKILL.md skills/other/SKILL.md";
        assert_eq!(stdout(&sandbox, shown).await, "ownother");
        let locked = ["skills/other/new", "skills/new"];
        let own = ["skills/own/new"];
        let is_open = write.contains(&"skills/own");
        let (open, closed) =
            if is_open { (&own[..], &locked[..]) } else { (&[][..], &["skills/own/new", "skills/new"][..]) };
        for path in open {
            stdout(&sandbox, &format!("mkdir {path} && rmdir {path}")).await;
        }
        for path in closed {
            refused(&sandbox, &format!("export LC_ALL=C; mkdir {path}"), "Read-only file system").await;
        }
        // Nor can it be moved away with what is open below it.
        refused(&sandbox, "mv skills/own skills/moved || mv skills away", "").await;
    }
}

#[tokio::test]
async fn a14_a_path_is_never_an_argument() {
    let bench = Bench::new();
    for path in ["..", "a/../b", "/etc", "a//b", ".", "a/.", "a\0b", "a/..", "./a"] {
        let access = FileAccess { read: vec![path.to_owned()], write: vec![] };
        let scope = access.scope_for(&bench.session);
        // What is not refused is another spelling of a path that is inside.
        if let Ok(scope) = scope {
            let inside = |path: &palisade_protocol::WorkspacePath| {
                !path.as_bytes().split(|b| *b == b'/').any(|name| matches!(name, b".." | b"."))
            };
            assert!(scope.roots().iter().all(|(path, _)| inside(path)), "{path}");
        }
    }
    // Names that look like options of bubblewrap or of the launcher, or like something of a shell, are names.
    let names = ["--ro-bind", "-rf", "--", "$(touch pwned)", "a b", "*", "ü"];
    let sandbox = bench.scoped(&names, &[]).await;
    for name in names {
        assert_eq!(stdout(&sandbox, &format!("ls -d -- '{name}'")).await, name);
    }
    assert!(!bench.workspace.join("pwned").exists());
    // Longer than any path may be: an error of the start, with nothing made.
    let long = vec!["n".repeat(250); 20].join("/");
    let access = FileAccess { read: vec![long], write: vec![] };
    if let Ok(scope) = access.scope_for(&bench.session) {
        let spec = palisade_sandbox::SandboxSpec { scope, ..bench.spec(&[""], &[""]) };
        assert!(matches!(bench.factory.start(spec).await, Err(SandboxError::Start { .. })));
    }
}

#[tokio::test]
async fn a16_what_is_replaced_on_the_host_is_seen_at_once() {
    let bench = Bench::new();
    bench.put("p/f", "old");
    let sandbox = bench.scoped(&["p"], &[]).await;
    bench.put("p/new", "new");
    std::fs::rename(bench.workspace.join("p/new"), bench.workspace.join("p/f")).unwrap();
    // Only directories are mounted, so no file inside can be one that the host has replaced.
    assert_eq!(stdout(&sandbox, "cat p/f").await, "new");
    let writing = bench.scoped(&[], &["p"]).await;
    stdout(&writing, "sed -i s/new/edited/ p/f && mv p/f p/g && mv p/g p/f").await;
    assert_eq!(bench.get("p/f"), "edited");
}

#[tokio::test]
async fn a18_a_mount_point_removed_on_the_host_opens_nothing() {
    let bench = Bench::new();
    bench.put("ref/a.txt", "reference");
    std::fs::create_dir_all(bench.workspace.join("ref/output")).unwrap();
    let sandbox = bench.scoped(&["ref"], &["ref/output"]).await;
    std::fs::remove_dir(bench.workspace.join("ref/output")).unwrap();
    assert!(sandbox.is_stale(), "the next call gets another sandbox");
    // Until then the one that is there has lost a place to write, and gained none.
    let (_, text) = run(&sandbox, "export LC_ALL=C; touch ref/output/x; touch ref/x; ls ref").await;
    assert!(text.contains("'ref/x': Read-only file system"), "{text}");
    assert!(!bench.workspace.join("ref/x").exists() && !bench.workspace.join("ref/output").exists());
}

#[tokio::test]
async fn a20_mounts_name_the_own_workspace_and_nobody_elses() {
    let bench = Bench::new();
    std::fs::create_dir_all(bench.outside.join("tenants/somebody-else/workspace")).unwrap();
    let sandbox = typical(&bench).await;
    let mounts = stdout(&sandbox, "cat /proc/self/mountinfo /proc/mounts /proc/1/mountinfo; true").await;
    assert!(!mounts.contains("somebody-else") && !mounts.contains("p2") && !mounts.contains("secret"));
    // Where the own workspace lies can be read: the kernel tells it of any bind mount. SECURITY.md says so.
    assert!(mounts.contains("/workspace/projects/p1"), "{mounts}");
    // Renamed away on the host, the mount would name a path outside of the scope: then it is stale.
    std::fs::rename(bench.workspace.join("projects/p1"), bench.workspace.join("projects/p9")).unwrap();
    assert!(sandbox.is_stale());
}

#[tokio::test]
async fn a21_names_may_be_any_bytes() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let program = "import os\n\
         names = [b'new\\nline', b'\\x1b[31mred', 'a\\u202eb'.encode(), b'n' * 255, b'\\xff\\xfe', b'-rf', b'Case', b'case',\n\
         \x20        'e\\u0301'.encode(), '\\u00e9'.encode(), b' ', b'\\\\']\n\
         os.mkdir('odd')\n\
         for name in names: open(b'odd/' + name, 'w').write('odd')\n\
         print(len(os.listdir('odd')) == len(names))";
    assert_eq!(python(&sandbox, program).await, "True");
    assert_eq!(std::fs::read_dir(bench.workspace.join("odd")).unwrap().count(), 12);
    // The tools neither stumble nor follow; what is no text is shown as such.
    let found = tool(&sandbox, "Glob", serde_json::json!({"pattern": "odd/*"})).await;
    assert!(!found.is_error && found.content.contains("/workspace/odd/case"), "{found:?}");
    let grep = tool(&sandbox, "Grep", serde_json::json!({"pattern": "odd", "output_mode": "count"})).await;
    assert!(!grep.is_error && grep.content.contains("/workspace/odd/-rf"), "{grep:?}");
    let read = tool(&sandbox, "Read", serde_json::json!({"file_path": "odd/new\nline"})).await;
    assert_eq!(read.content, "     1\todd\n");
    stdout(&sandbox, "rm -r odd").await;
}
