//! What people and models type first in a new environment, and what has to work there without any set-up.

use palisade_sandbox::{RunExit, Sandbox};

use crate::support::{Bench, PATIENCE_MS, run, stdout, try_run};

/// A slow machine installs packages slowly.
const INSTALL_MS: u64 = 180_000;

async fn installs(sandbox: &Sandbox, command: &str) -> String {
    let (exit, text) = try_run(sandbox, command, INSTALL_MS).await.unwrap();
    assert_eq!(exit, RunExit::Code(0), "{command}: {text}");
    text.trim_end().to_owned()
}

async fn has(sandbox: &Sandbox, program: &str) -> bool {
    let found = run(sandbox, &format!("command -v {program}")).await.0 == RunExit::Code(0);
    if !found {
        println!("SKIPPED: there is no {program}");
    }
    found
}

#[tokio::test]
async fn git_commits_without_any_set_up() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let commit = "git init -q r && cd r && echo a > a && git add -A && git commit -qm first && \
                  git log --format='%an %ae %s' && git symbolic-ref --short HEAD && git diff HEAD && git log | head -1 | cut -c1-6";
    assert_eq!(stdout(&sandbox, commit).await, "Agent agent@localhost first\nmain\ncommit");
    let own = "git config --global user.name Me && git config --global user.email me@example.com && cd r && \
               git commit -q --allow-empty -m own && git log -1 --format='%an %ae'";
    assert_eq!(stdout(&sandbox, own).await, "Me me@example.com");
    // No editor is waited for, and nobody is asked.
    let edited = "cd r && git commit -q --amend --allow-empty && git checkout -qb side && echo b > b && git add b && git commit -qm side && \
                  git checkout -q main && git merge -q --no-ff side && git log -1 --format=%s";
    assert_eq!(stdout(&sandbox, edited).await, "Merge branch 'side'");
    let (exit, text) = run(&sandbox, "cd r && git commit --allow-empty").await;
    assert!(exit == RunExit::Code(1) && text.contains("empty commit message"), "{exit:?} {text}");
    let somebody_elses =
        "git clone -q --bare r r.git && git clone -q r.git other && cd other && git status -s";
    assert_eq!(stdout(&sandbox, somebody_elses).await, "");
    assert_eq!(
        stdout(&sandbox, "git ls-remote --get-url git@github.com:a/b.git").await,
        "https://github.com/a/b.git"
    );
}

#[tokio::test]
async fn python_packages_are_installed_for_oneself() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    assert_eq!(
        stdout(&sandbox, "python -c 'print(1)'; python3 -c 'print(2)'; which python3").await,
        "1\n2\n/usr/bin/python3"
    );
    if !has(&sandbox, "pip").await {
        return;
    }
    bench.put(
        "old/setup.py",
        "from setuptools import setup\nsetup(name='old-way', version='1', py_modules=['old_way'])",
    );
    bench.put("old/old_way.py", "print('old')");
    let project = "[project]\nname='new-way'\nversion='1'\n[project.scripts]\nnew-way='new_way:main'\n\
                   [build-system]\nrequires=['setuptools']\nbuild-backend='setuptools.build_meta'";
    bench.put("new/pyproject.toml", project);
    bench.put("new/new_way/__init__.py", "def main(): print('new')");
    installs(&sandbox, "pip install -q ./old 2>&1").await;
    installs(&sandbox, "pip install -q --user ./new 2>&1").await;
    assert_eq!(stdout(&sandbox, "cd /tmp && python3 -c 'import old_way' && new-way").await, "old\nnew");
    // The home outlives its sandboxes, and with it what was installed.
    sandbox.shutdown().await;
    let sandbox = bench.whole().await;
    assert_eq!(stdout(&sandbox, "new-way").await, "new");
    if has(&sandbox, "/usr/lib/python3.11/ensurepip/__main__.py; test -e /usr/lib/python3.11/ensurepip").await
    {
        let venv = "python -m venv v && . v/bin/activate && pip install -q ./old >/dev/null 2>&1 && python -c 'import old_way, sys; \
                    print(sys.prefix)'";
        assert_eq!(installs(&sandbox, venv).await, "old\n/workspace/v");
    }
}

#[tokio::test]
async fn npm_installs_for_oneself() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    if !has(&sandbox, "npm").await {
        return;
    }
    bench.put(
        "tool/package.json",
        r#"{"name":"tool","version":"1.0.0","bin":{"tool":"cli.js"},"main":"cli.js"}"#,
    );
    bench.put("tool/cli.js", "#!/usr/bin/env node\nconsole.log('tool')");
    installs(&sandbox, "npm install -g ./tool 2>&1").await;
    assert_eq!(stdout(&sandbox, "cd /tmp && tool && node -e \"require('tool')\"").await, "tool\ntool");
    let site = "mkdir site && cd site && npm init >/dev/null && npm pkg set scripts.hello='echo hi' && npm run -s hello";
    assert_eq!(installs(&sandbox, site).await, "hi");
}

#[tokio::test]
async fn what_cannot_be_done_says_what_to_do_instead() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    for (command, instead) in [
        ("sudo apt-get install -y jq", "run the command itself"),
        ("apt-get install -y jq", "pip install"),
        ("apt install jq", "npm install -g"),
        ("systemctl start nginx", "\"background\": true"),
        ("echo '* * * * * true' | crontab -", "\"background\": true"),
        ("ssh -o ConnectTimeout=5 somewhere.example true", "resolve"),
    ] {
        let (exit, text) = run(&sandbox, command).await;
        assert!(exit != RunExit::Code(0) && text.contains(instead), "{command}: {exit:?} {text}");
    }
}

/// Nobody is there to answer, page or edit: what asks gets an end and not a wait.
#[tokio::test]
async fn nothing_waits_for_a_person() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    for (command, expected) in [
        ("read -r line; echo \"[$line]\"", "[]"),
        ("cat", ""),
        ("python3 -c 'input()' 2>&1 | tail -1", "EOFError: EOF when reading a line"),
        ("ssh-keygen -q -t ed25519 -f ~/.ssh/id_ed25519 -N '' && ls ~/.ssh", "id_ed25519\nid_ed25519.pub"),
        ("date +%Z; TZ=Europe/Berlin date -d 2030-01-01T00:00Z +%H", "UTC\n01"),
        ("locale charmap; printf '\\xc3\\xa9' | wc -m", "UTF-8\n1"),
        ("seq 3 | $PAGER; $EDITOR file", "1\n2\n3"),
        ("hostname; whoami; echo ~", "palisade\nagent\n/home/agent"),
    ] {
        let (exit, text) = try_run(&sandbox, command, PATIENCE_MS).await.unwrap();
        assert_eq!((exit, text.trim_end()), (RunExit::Code(0), expected), "{command}");
    }
    if has(&sandbox, "gcc").await {
        bench.put("hi.c", "#include <stdio.h>\nint main(void) { puts(\"hi\"); }");
        assert_eq!(stdout(&sandbox, "gcc -o hi hi.c && ./hi").await, "hi");
    }
}

#[tokio::test]
async fn three_libreoffices_at_once_do_their_work() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    if !has(&sandbox, "soffice").await {
        return;
    }
    for name in ["a", "b", "c"] {
        bench.put(&format!("{name}.txt"), "Hello from the cage.");
    }
    let command = "for name in a b c; do soffice --headless --convert-to pdf $name.txt >$name.log 2>&1 & done; wait; \
                   head -qc 5 a.pdf b.pdf c.pdf; ls ~/.cache/libreoffice/*.lock | wc -l";
    assert_eq!(installs(&sandbox, command).await, "%PDF-%PDF-%PDF-3");
    // One after the other, they use the same profile again.
    let again = "rm a.pdf; libreoffice --headless --convert-to pdf a.txt >a.log 2>&1; head -c 5 a.pdf; ls ~/.cache/libreoffice/*.lock | wc -l";
    assert_eq!(installs(&sandbox, again).await, "%PDF-3");
}
