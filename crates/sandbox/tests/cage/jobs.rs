//! Everyday jobs from beginning to end, as a model does them: a list of calls through the real tools, with the names that
//! models use, and what each of them must answer.

use palisade_agent::tools::{Action, action};
use palisade_protocol::ToolCall;
use palisade_sandbox::{RunExit, RunRequest, Sandbox};
use serde_json::{Value, json};

use crate::support::{Bench, tool};

/// One call, and a part of its answer.
type Call = (&'static str, Value, &'static str);

fn sh(command: &str, answer: &'static str) -> Call {
    ("Bash", json!({"command": command, "description": "a step of the job"}), answer)
}

/// Makes the calls in order, each in a sandbox that lives on.
async fn job(calls: Vec<Call>) {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    for (name, arguments, expected) in calls {
        let answer = match name {
            "Bash" => bash(&sandbox, &arguments).await,
            _ => tool(&sandbox, name, arguments.clone()).await.content,
        };
        assert!(answer.contains(expected), "{name} {arguments}\nanswers: {answer}\nnot: {expected}");
    }
}

/// Output and the end, in the words of a test.
async fn bash(sandbox: &Sandbox, arguments: &Value) -> String {
    let call = ToolCall { id: "call_1".into(), name: "Bash".into(), arguments: arguments.to_string() };
    let Action::Bash(bash) = action(&call) else { panic!("{arguments} is no command") };
    let request =
        RunRequest { command: bash.command, timeout_ms: bash.timeout_ms, background: bash.background };
    let mut output = Vec::new();
    let exit = sandbox.run(request, |bytes| output.extend_from_slice(bytes)).await.unwrap();
    let output = String::from_utf8_lossy(&output);
    match exit {
        RunExit::Background { log, .. } => format!("in the background: {log}"),
        RunExit::Code(0) => format!("{output}\n[ok]"),
        other => format!("{output}\n[{other:?}]"),
    }
}

#[tokio::test]
async fn a_repository_is_cloned_patched_and_pushed() {
    job(vec![
        sh(
            "git init -q --bare -b main srv/app.git && git clone -q srv/app.git seed 2>/dev/null && cd seed && \
             printf 'def total(items):\\n    return sum(items) - 1\\n' > app.py && git add . && \
             git -c user.name=A -c user.email=a@b.c commit -qm first && git push -q origin HEAD:main && cd .. && rm -rf seed",
            "[ok]",
        ),
        (
            "Bash",
            json!({"command": "exec git daemon --base-path=/workspace/srv --export-all --enable=receive-pack --listen=127.0.0.1 \
                               --port=9418 --reuseaddr", "run_in_background": true}),
            "in the background",
        ),
        sh("until git clone -q git://127.0.0.1/app.git app 2>/dev/null; do sleep 0.05; done; ls app", "app.py"),
        ("Grep", json!({"pattern": "sum\\(items\\)", "path": "app", "-n": true}), "app/app.py:2:    return sum(items) - 1"),
        ("Read", json!({"path": "app/app.py"}), "     2\t    return sum(items) - 1"),
        (
            "Edit",
            json!({"path": "app/app.py", "old_str": "sum(items) - 1", "new_str": "sum(items)"}),
            "Replaced 1 occurrence",
        ),
        sh("cd app && git diff --stat && python3 -c 'import app; assert app.total([1, 2]) == 3'", "app.py | 2 +-"),
        sh(
            "cd app && git -c user.name=A -c user.email=a@b.c commit -qam 'Sum them all' && git push -q && \
             git -C ../srv/app.git log --oneline main",
            "Sum them all",
        ),
        // What git keeps for itself is no part of a search, and that is said.
        ("Grep", json!({"pattern": "nowhere to be found"}), "searched only when"),
    ])
    .await;
}

#[tokio::test]
async fn a_table_is_cleaned() {
    job(vec![
        // As an office program saves it: a mark, CR LF, and a number with a comma.
        sh("printf '\\xef\\xbb\\xbfname;amount\\r\\nZo\\xc3\\xab;1,5\\r\\n;\\r\\nBob;n/a\\r\\n' > in.csv", "[ok]"),
        ("Read", json!({"file_path": "in.csv"}), "     1\tname;amount\n     2\tZoë;1,5\n     3\t;\n     4\tBob;n/a\n"),
        ("Grep", json!({"pattern": ";n/a$", "output_mode": "content"}), "in.csv:4:Bob;n/a"),
        (
            "Write",
            json!({"path": "clean.py", "contents": "import csv\nrows = csv.DictReader(open('in.csv', encoding='utf-8-sig'), delimiter=';')\n\
                kept = [r for r in rows if r['name']]\nout = csv.writer(open('out.csv', 'w', newline=''))\nout.writerow(['name', 'amount'])\n\
                for r in kept:\n    amount = r['amount'].replace(',', '.')\n    out.writerow([r['name'], amount if amount != 'n/a' else ''])\n\
                print(len(kept), 'rows')\n"}),
            "Wrote /workspace/clean.py",
        ),
        sh("python3 clean.py", "2 rows"),
        ("Read", json!({"file_path": "out.csv"}), "     2\tZoë,1.5\n     3\tBob,\n"),
        ("Edit", json!({"file_path": "in.csv", "old_string": "Bob;n/a\n", "new_string": "Bob;0\nEve;2\n"}), "Replaced 1"),
        sh("tail -c 14 in.csv | od -c | head -1", "B   o   b   ;   0  \\r  \\n"),
    ])
    .await;
}

#[tokio::test]
async fn a_site_is_built_with_npm() {
    job(vec![
        ("Write", json!({"file_path": "lib/package.json", "content": "{\"name\": \"greet\", \"version\": \"1.0.0\"}\n"}), "was made"),
        ("Write", json!({"file_path": "lib/index.js", "content": "module.exports = (name) => `<h1>Hello ${name}</h1>`;\n"}), "Wrote"),
        (
            "Write",
            json!({"file_path": "site/package.json", "content": "{\"name\": \"site\", \"version\": \"1.0.0\", \"private\": true, \
                   \"scripts\": {\"build\": \"node build.js\"}}\n"}),
            "Wrote",
        ),
        (
            "Write",
            json!({"file_path": "site/build.js", "content": "const fs = require('fs');\nfs.mkdirSync('dist', {recursive: true});\n\
                   fs.writeFileSync('dist/index.html', require('greet')('npm') + '\\n');\n"}),
            "Wrote",
        ),
        (
            "Bash",
            json!({"command": "npm install --offline --no-audit --no-fund ../lib && npm run build", "workdir": "site", "timeout": 120}),
            "[ok]",
        ),
        ("Read", json!({"path": "site/dist/index.html"}), "<h1>Hello npm</h1>"),
        ("Glob", json!({"pattern": "site/**/*.{js,html}"}), "/workspace/site/build.js\n"),
        ("Grep", json!({"pattern": "Hello", "path": "site", "glob": "!node_modules"}), "/workspace/site/dist/index.html"),
    ])
    .await;
}

#[tokio::test]
async fn a_package_is_written_and_tested() {
    job(vec![
        ("Write", json!({"file_path": "pkg/slug/__init__.py", "content": "def slug(text):\n\treturn text.lower().replace(' ', '_')\n"}), "Wrote"),
        (
            "Write",
            json!({"file_path": "pkg/tests/test_slug.py", "content": "import unittest\nfrom slug import slug\n\n\n\
                   class SlugTest(unittest.TestCase):\n    def test_words(self):\n        self.assertEqual(slug('Two Words'), 'two-words')\n"}),
            "Wrote",
        ),
        sh("cd pkg && python3 -m unittest discover tests 2>&1", "AssertionError: 'two_words' != 'two-words'"),
        // The model writes blanks where the file has a tab, and is told so.
        (
            "Edit",
            json!({"file_path": "pkg/slug/__init__.py", "old_string": "    return text.lower().replace(' ', '_')", "new_string": "    x"}),
            "the file has",
        ),
        ("Edit", json!({"file_path": "pkg/slug/__init__.py", "old_string": "' ', '_'", "new_string": "' ', '-'"}), "Replaced 1"),
        ("Bash", json!({"command": ["bash", "-lc", "python3 -m unittest discover tests 2>&1"], "cwd": "pkg"}), "OK"),
    ])
    .await;
}

#[tokio::test]
async fn documents_are_converted() {
    if !std::path::Path::new("/usr/bin/pandoc").exists() {
        println!("SKIPPED: pandoc is not installed");
        return;
    }
    job(vec![
        (
            "Write",
            json!({"file_path": "report.md", "content": "# Größe\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"}),
            "Wrote",
        ),
        sh("pandoc report.md -o report.docx && pandoc report.docx -t plain -o report.txt", "[ok]"),
        ("Read", json!({"file_path": "report.docx"}), "a Word document (docx)"),
        ("Read", json!({"file_path": "report.txt"}), "Größe"),
        ("Grep", json!({"pattern": "Größe", "glob": "*.docx"}), "compressed file or document"),
        // The name with its accent in two characters, as some systems write it.
        sh("mv report.txt $'Gro\\u0308\\u00dfe.txt'", "[ok]"),
        ("Read", json!({"file_path": "Gr\u{f6}\u{df}e.txt"}), "coded in other characters"),
    ])
    .await;
}

#[tokio::test]
async fn pages_of_a_server_are_scraped_while_it_runs() {
    job(vec![
        sh("mkdir www && for n in 1 2 3; do echo \"<html><title>Page $n</title><a href='/$((n % 3 + 1)).html'>next</a>\" > www/$n.html; done", "[ok]"),
        (
            "Bash",
            json!({"command": "exec python3 -m http.server --bind 127.0.0.1 --directory www 8000", "is_background": true}),
            "in the background",
        ),
        sh("curl -sS --noproxy '*' --retry 50 --retry-connrefused --retry-delay 0 --retry-max-time 20 http://127.0.0.1:8000/1.html", "Page 1"),
        (
            "Write",
            json!({"path": "scrape.py", "file_text": "import re, urllib.request\n\
                opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))\nurl, titles = '/1.html', []\n\
                while len(titles) < 3:\n    page = opener.open('http://127.0.0.1:8000' + url).read().decode()\n\
                \x20   titles.append(re.search('<title>(.*?)</title>', page)[1])\n    url = re.search(\"href='(.*?)'\", page)[1]\n\
                open('titles.txt', 'w').write('\\n'.join(titles) + '\\n')\n"}),
            "Wrote",
        ),
        sh("python3 scrape.py", "[ok]"),
        ("Read", json!({"path": "titles.txt", "view_range": [2, -1]}), "     2\tPage 2\n     3\tPage 3\n"),
        sh("pkill -f 'http[.]server'; while curl -s --noproxy '*' http://127.0.0.1:8000/ > left; do sleep 0.05; done; curl -sS --noproxy '*' http://127.0.0.1:8000/ 2>&1", "Failed to connect"),
    ])
    .await;
}

#[tokio::test]
async fn a_long_build_shows_its_error_and_its_log() {
    job(vec![
        (
            "Write",
            json!({"file_path": "build.sh", "content": "#!/bin/bash\nfor n in $(seq 1 20000); do printf 'step %d of 20000\\r' $n; \
                   [ $n = 9000 ] && printf '\\nerror: missing symbol in part_9000.o\\n' >&2; done\nprintf '\\ndone with errors\\n'; exit 3\n"}),
            "Wrote",
        ),
        sh("bash build.sh > build.log 2>&1; echo \"exit $?\"", "exit 3"),
        ("Grep", json!({"pattern": "^error:", "path": "build.log", "-C": 0}), "build.log:2:error: missing symbol in part_9000.o"),
        ("Grep", json!({"pattern": "step 8999 ", "path": "build.log", "output_mode": "content"}), "[cut: from column "),
        ("Read", json!({"file_path": "build.log", "offset": -2}), "done with errors"),
        ("Read", json!({"file_path": "build.log", "limit": 1, "column": 100000}), "step"),
    ])
    .await;
}

#[tokio::test]
async fn a_database_is_dumped_and_restored() {
    job(vec![
        (
            "Write",
            json!({"file_path": "make.py", "content": "import sqlite3\ndb = sqlite3.connect('shop.db')\n\
                   db.execute('create table orders (id integer primary key, who text)')\n\
                   db.executemany('insert into orders (who) values (?)', [(f'customer {n}',) for n in range(5000)])\ndb.commit()\n\
                   open('dump.sql', 'w').write('\\n'.join(db.iterdump()))\n"}),
            "Wrote",
        ),
        sh("python3 make.py", "[ok]"),
        ("Read", json!({"file_path": "shop.db"}), "SQLite"),
        ("Grep", json!({"pattern": "create table", "-i": true, "path": "dump.sql", "output_mode": "content"}), "dump.sql:2:CREATE TABLE orders"),
        ("Grep", json!({"pattern": "INSERT", "path": "dump.sql", "output_mode": "count"}), "dump.sql:5000"),
        (
            "Grep",
            json!({"pattern": "customer 4[0-9]{3}'", "path": "dump.sql", "output_mode": "content", "head_limit": 2, "offset": 998}),
            "[lines 999 to 1000 of 1000]",
        ),
        sh("python3 -c \"import sqlite3; db = sqlite3.connect('again.db'); db.executescript(open('dump.sql').read()); print(db.execute('select count(*) from orders').fetchone())\"", "(5000,)"),
    ])
    .await;
}

#[tokio::test]
async fn ten_thousand_files_are_packed_and_found() {
    job(vec![
        sh("python3 -c \"import os\nfor n in range(100): os.makedirs(f'many/{n}')\nfor n in range(10000):\n    open(f'many/{n % 100}/{n}.txt', 'w').write(f'number {n}')\"", "[ok]"),
        ("Glob", json!({"pattern": "many/**/*.txt", "head_limit": 100}), "[files 1 to 100 of 10000; go on with offset=100"),
        ("Grep", json!({"pattern": "number 7777$"}), "/workspace/many/77/7777.txt"),
        ("Grep", json!({"pattern": "number", "type": "txt", "limit": 5}), "[files 1 to 5 of 10000;"),
        sh("python3 -c \"import shutil; print(shutil.make_archive('many', 'zip', 'many'))\"", "many.zip"),
        ("Read", json!({"file_path": "many.zip"}), "a ZIP archive"),
        sh("python3 -c \"import zipfile; print(sum(n.endswith('.txt') for n in zipfile.ZipFile('many.zip').namelist()))\"", "10000"),
    ])
    .await;
}

#[tokio::test]
async fn a_server_in_the_background_answers_its_client() {
    job(vec![
        sh("printf 'import socketserver\\nclass Echo(socketserver.StreamRequestHandler):\\n    def handle(self):\\n        for line in self.rfile: self.wfile.write(b\"said \" + line)\\nsocketserver.ThreadingTCPServer((\"localhost\", 7007), Echo).serve_forever()\\n' > server.py", "[ok]"),
        ("Bash", json!({"command": "exec python3 server.py", "run_in_background": "true"}), "in the background"),
        sh(
            "python3 - <<'END'\nimport socket, time\nfor _ in range(400):\n    try:\n        s = socket.create_connection(('localhost', 7007)); break\n    \
             except OSError: time.sleep(0.05)\ns.sendall('grüß\\n'.encode()); print(s.makefile(encoding='utf-8').readline().strip())\nEND",
            "said grüß",
        ),
    ])
    .await;
}
