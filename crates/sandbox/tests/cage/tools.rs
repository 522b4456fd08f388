//! What the programs of the system need inside.

use palisade_sandbox::SandboxError;

use crate::support::{Bench, PATIENCE_MS, python, refused, stdout, tool, try_run};

#[tokio::test]
async fn python_finds_its_user_its_home_and_a_place_to_write() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let program = "import os, pwd, tempfile, sys, locale, multiprocessing\n\
                   user = pwd.getpwuid(os.getuid())\n\
                   assert user.pw_name == 'agent' and user.pw_dir == os.environ['HOME'], user\n\
                   open(os.path.expanduser('~/x'), 'w').write('x')\n\
                   tempfile.NamedTemporaryFile().write(b'x')\n\
                   assert os.getcwd() == '/workspace'\n\
                   assert sys.stdout.encoding.lower() == 'utf-8', sys.stdout.encoding\n\
                   multiprocessing.Queue()\n\
                   print('ü', os.path.exists('/etc/localtime'), os.openpty() is not None)";
    assert_eq!(python(&sandbox, program).await, "ü True True");
}

#[tokio::test]
async fn the_hosts_own_tools_are_hidden_and_given_packages_are_found() {
    let bench = Bench::new();
    let packages = bench.outside.join("packages");
    std::fs::create_dir_all(packages.join("given_package")).unwrap();
    std::fs::write(packages.join("given_package/__init__.py"), "ANSWER = 42").unwrap();
    let factory = bench.factory_with_packages(&packages);
    let sandbox = factory.start(bench.spec(&[""], &[""])).await.unwrap();
    assert_eq!(stdout(&sandbox, "which python3; ls /usr/local").await, "/usr/bin/python3\nbin\nlib\nlibexec");
    let version = python(&sandbox, "import sys; print('%d.%d' % sys.version_info[:2])").await;
    if version == "3.11" {
        assert_eq!(python(&sandbox, "import given_package; print(given_package.ANSWER)").await, "42");
    } else {
        println!("SKIPPED: the packages' place is for Python 3.11, and this system has {version}");
    }
    refused(&sandbox, "touch /usr/local/lib/python3.11/dist-packages/x", "Read-only file system").await;
}

#[tokio::test]
async fn skills_are_there_read_only_in_every_scope() {
    let bench = Bench::new();
    let skill = bench.outside.join("deck-skill");
    std::fs::create_dir_all(skill.join("scripts")).unwrap();
    std::fs::write(skill.join("SKILL.md"), "how to").unwrap();
    let mut spec = bench.spec(&[], &["p"]);
    spec.skills = vec![("pptx-builder".into(), skill)];
    let sandbox = bench.factory.start(spec).await.unwrap();
    assert_eq!(
        stdout(&sandbox, "LC_ALL=C ls /skills /skills/pptx-builder; cat /skills/*/SKILL.md").await,
        "/skills:\npptx-builder\n\n/skills/pptx-builder:\nSKILL.md\nscripts\nhow to"
    );
    refused(&sandbox, "touch /skills/pptx-builder/x", "Read-only file system").await;
}

#[tokio::test]
async fn another_root_file_system_is_shown_instead_of_the_hosts() {
    let bench = Bench::new();
    let root = tempfile::Builder::new().prefix("palisade-rootfs-").tempdir_in("/var/tmp").unwrap();
    std::fs::create_dir_all(root.path().join("etc/fonts")).unwrap();
    std::fs::write(root.path().join("etc/fonts/fonts.conf"), "its own").unwrap();
    std::fs::create_dir(root.path().join("usr")).unwrap();
    // A bare root has no shell: that the start is ready and the command is not found is what can be seen of it.
    std::fs::create_dir(root.path().join("usr/local")).unwrap();
    std::os::unix::fs::symlink("usr/bin", root.path().join("bin")).unwrap();
    let sandbox = bench.factory_with_rootfs(root.path()).start(bench.spec(&[""], &[""])).await.unwrap();
    let error = try_run(&sandbox, "true", PATIENCE_MS).await.unwrap_err();
    assert!(matches!(&error, SandboxError::Refused(message) if message.contains("No such file")), "{error}");
    let read = tool(&sandbox, "Read", serde_json::json!({"file_path": "/etc/fonts/fonts.conf"})).await;
    assert_eq!(read.content, "     1\tits own\n");
}

#[tokio::test]
async fn a_skills_name_cannot_lead_elsewhere() {
    let bench = Bench::new();
    for name in ["../etc", "a/b", "..", ""] {
        let mut spec = bench.spec(&[""], &[""]);
        spec.skills = vec![(name.into(), bench.outside.clone())];
        assert!(bench.factory.start(spec).await.is_err(), "{name:?}");
    }
}

#[tokio::test]
async fn libreoffice_converts_where_it_is_installed() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    if stdout(&sandbox, "command -v soffice || true").await.is_empty() {
        println!("SKIPPED: LibreOffice is not installed");
        return;
    }
    bench.put("text.txt", "Hello from the cage.");
    let command = "soffice --headless --convert-to pdf text.txt 2>&1; head -c 5 text.pdf";
    let mut text = Vec::new();
    let request =
        palisade_sandbox::RunRequest { command: command.into(), timeout_ms: 120_000, background: false };
    sandbox.run(request, |bytes| text.extend_from_slice(bytes)).await.unwrap();
    assert!(text.ends_with(b"%PDF-"), "{}", String::from_utf8_lossy(&text));
}
