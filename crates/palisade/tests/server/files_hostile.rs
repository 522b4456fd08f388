//! What an agent leaves in its workspace, seen through the file API: made by a real agent in a real sandbox, so that
//! both sides are as they are in use (cases D01 to D16 and A17 to A21).

use std::time::{Duration, Instant};

use palisade_testkit::Server;
use palisade_testkit::upstream::{Answer, Call, ScriptedUpstream};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{is_long, start};

struct Agent {
    server: Server,
    upstream: ScriptedUpstream,
    session: String,
}

impl Agent {
    async fn new() -> Self {
        let (server, upstream) = start().await;
        let session = server.session(json!({})).await;
        Self { server, upstream, session }
    }

    /// Runs commands in one turn; what they said.
    async fn run<const N: usize>(&self, commands: [&str; N]) -> [String; N] {
        self.run_in(&self.session, commands).await
    }

    async fn run_in<const N: usize>(&self, session: &str, commands: [&str; N]) -> [String; N] {
        let calls = commands.map(|command| Call::new("Bash", json!({"command": command})));
        self.upstream.push(Answer::calls(calls));
        self.upstream.push(Answer::text("done"));
        let events = self.server.send(session, "go").await.rest().await;
        let mut results = events.iter().filter(|event| event.kind == "tool_result");
        commands.map(|_| results.next().unwrap().data["content"].as_str().unwrap().to_owned())
    }

    async fn background(&self, command: &str) {
        let call = Call::new("Bash", json!({"command": command, "background": true}));
        self.upstream.push(Answer::calls([call]));
        self.upstream.push(Answer::text("done"));
        self.server.send(&self.session, "go").await.rest().await;
    }

    fn path(&self, path: &str) -> String {
        format!("/v1/sessions/{}/files{path}", self.session)
    }

    /// The status and what the API says: a file's text, or an error's code.
    async fn ask(&self, method: Method, path: &str) -> (u16, String) {
        let request = self.server.request(method, &self.path(path));
        let response = request.body("from outside").send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        if status < 300 {
            return (status, text);
        }
        let body: Value = serde_json::from_str(&text).unwrap();
        (status, body["code"].as_str().unwrap().to_owned())
    }
}

#[tokio::test]
async fn what_is_no_file_is_refused_at_once() {
    let agent = Agent::new().await;
    let [said] = agent
        .run(["mkfifo fifo; ln -s fifo to-fifo; mkdir dir; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"socket\")'; ls | sort | tr '\\n' ' '"])
        .await;
    assert_eq!(said, "dir fifo skills socket to-fifo ");
    for path in ["/fifo", "/to-fifo", "/socket"] {
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            if (path, &method) == ("/to-fifo", &Method::DELETE) {
                continue;
            }
            let began = Instant::now();
            let (status, code) = agent.ask(method.clone(), path).await;
            assert_eq!((status, code.as_str()), (404, "file.not_regular"), "{method} {path}");
            assert!(began.elapsed() < Duration::from_secs(10), "{method} {path}: {:?}", began.elapsed());
        }
    }
    let listed = agent.server.get(&agent.path("")).await;
    let names: Vec<_> =
        listed.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(names, [".agents", ".memory", ".pokee", ".sessions", "dir", "skills"]);
    assert_eq!(agent.ask(Method::PUT, "/dir").await, (409, "file.is_directory".to_owned()));
}

/// Cases D12 and D14: nothing that an agent may do to its own file keeps the API from deleting it.
#[tokio::test]
async fn rights_flags_and_attributes_keep_nothing() {
    let agent = Agent::new().await;
    let [said] = agent
        .run([r#"python3 - <<'END'
import array, fcntl, os, struct
os.makedirs("d/locked/sub"); open("d/locked/sub/f", "w").close(); open("d/f", "w").write("x")
def flags(path, value):
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, 0x40086602, array.array("l", [value]))
        print("set")
    except OSError as error:
        print(error.strerror)
flags("d/f", 0x10)   # immutable
flags("d/f", 0x20)   # append only
flags("d", 0x10)
fd = os.open("d/f", os.O_RDONLY)
try:
    # struct fsxattr: xflags, extsize, nextents, projid, cowextsize, pad
    fcntl.ioctl(fd, 0x401c5820, struct.pack("IIIII8x", 0, 0, 0, 4711, 0))
    print("project set")
except OSError as error:
    print("no project")
for number in range(100):
    try: os.setxattr("d/f", f"user.n{number}", b"v" * 1000)
    except OSError: break
# An access list that names somebody else and gives nobody anything.
entry = lambda tag, perm, who: struct.pack("HHI", tag, perm, who)
acl = struct.pack("I", 2) + entry(1, 0, 0xffffffff) + entry(2, 7, 12345) + entry(4, 0, 0xffffffff) + entry(16, 7, 0xffffffff) + entry(32, 0, 0xffffffff)
for name in ["system.posix_acl_access", "system.posix_acl_default"]:
    try: os.setxattr("d/locked", name, acl)
    except OSError: pass
os.chmod("d/locked/sub", 0); os.chmod("d/locked", 0); os.chmod("d/f", 0)
END"#])
        .await;
    for line in said.lines() {
        assert!(
            line == "Operation not permitted" || line == "no project" || line.contains("not supported"),
            "{said}"
        );
    }
    assert_eq!(agent.ask(Method::GET, "/d/f").await, (403, "file.permissions".to_owned()));
    assert_eq!(agent.ask(Method::GET, "/d/locked").await, (403, "file.permissions".to_owned()));
    assert_eq!(agent.ask(Method::DELETE, "/d/f").await.0, 204);
    assert_eq!(agent.ask(Method::DELETE, "/d/locked?recursive=true").await.0, 204);
    assert_eq!(agent.ask(Method::DELETE, "/d").await.0, 204);
}

/// Cases D02 and D03 end to end: the agent swaps a folder and a link while a client reads and writes through it.
#[tokio::test]
async fn an_agent_that_swaps_folders_for_links_gains_nothing() {
    let agent = Agent::new().await;
    let other = agent.server.json(agent.server.as_other(Method::POST, "/v1/sessions").json(&json!({}))).await;
    let secret = format!("/v1/sessions/{}/files/secret", other["id"].as_str().unwrap());
    agent.server.json(agent.server.as_other(Method::PUT, &secret).body("OTHER TENANT")).await;
    agent.run(["mkdir dir; echo -n inside > dir/secret; ln -s ../../other/workspace link"]).await;
    agent
        .background(
            r#"python3 - <<'END'
import ctypes
libc = ctypes.CDLL(None)
while True: libc.renameat2(-100, b"dir", -100, b"link", 2)
END"#,
        )
        .await;
    let others = agent.server.folder.path().join("data/tenants/other/workspace");
    let before = std::fs::read_dir(&others).unwrap().count();
    let rounds = if is_long() { 100_000 } else { 2_000 };
    let (mut through, mut refused) = (0, 0);
    let mut round = 0;
    let until = Instant::now() + Duration::from_secs(1_200);
    while round < rounds || through == 0 || refused == 0 {
        round += 1;
        assert!(Instant::now() < until, "{through} through and {refused} refused: no race");
        let answer = match round % 4 {
            0 => agent.ask(Method::PUT, &format!("/dir/new{}", round % 8)).await,
            1 => agent.ask(Method::DELETE, &format!("/dir/new{}", round % 8)).await,
            _ => agent.ask(Method::GET, "/dir/secret").await,
        };
        match (answer.0, answer.1.as_str()) {
            (200, text) => {
                assert_eq!(text, "inside");
                through += 1;
            }
            (201 | 204, _) => {}
            (404, "file.not_found") | (409, "file.changing") => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(std::fs::read_dir(&others).unwrap().count(), before, "something landed with the other tenant");
    assert_eq!(std::fs::read_to_string(others.join("secret")).unwrap(), "OTHER TENANT");
    println!("{through} through, {refused} refused");
}

/// Case D16: inside, too, a file is the old one or the new one.
#[tokio::test]
async fn an_upload_is_never_half_seen_inside() {
    let agent = Agent::new().await;
    let put = |letter: char| {
        let body = letter.to_string().repeat(200_000);
        agent.server.request(Method::PUT, &agent.path("/file")).body(body)
    };
    agent.server.json(put('a')).await;
    // Says what it saw once it has seen it: whole files of one letter, and of more than one letter in the end.
    agent
        .background(
            r#"python3 - <<'END'
import os
seen, wrong = set(), 0
while not os.path.exists("stop"):
    text = open("file").read()
    wrong += len(text) != 200000 or len(set(text)) != 1
    seen.add(text[:1])
    hidden = [name for name in os.listdir(".") if name.startswith(".palisade-upload-")]
    for name in hidden:
        try: wrong += os.path.getsize(name) < 0
        except FileNotFoundError: pass  # it has got its name
open("seen", "w").write(f"{len(seen)} {wrong}")
END"#,
        )
        .await;
    for round in 0..200 {
        agent.server.json(put(char::from(b'a' + round % 26))).await;
    }
    agent.server.json(agent.server.request(Method::PUT, &agent.path("/stop")).body("")).await;
    let until = Instant::now() + Duration::from_secs(30);
    let said = loop {
        match agent.ask(Method::GET, "/seen").await {
            (200, text) if !text.is_empty() => break text,
            _ => assert!(Instant::now() < until, "it saw nothing"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let (seen, wrong) = said.split_once(' ').unwrap();
    assert!(seen.parse::<u32>().unwrap() > 2 && wrong == "0", "{seen} different ones, {wrong} wrong");
}

/// Case A21: every name an agent can give can be read, shown and taken back by its bytes.
#[tokio::test]
async fn names_of_any_bytes() {
    let agent = Agent::new().await;
    agent
        .run([r#"mkdir d && cd d && python3 - <<'END'
import os
for name in [b"A", b"a", b"\xc3\xa4", b"a\xcc\x88", b"new\nline", b"\x1b[31m", b"\xe2\x80\xae.exe", b"-rf", b"\xff\xfe",
             b"q?x=1#y", b"a b+c", b"100%", b"%2e%2e", b"x" * 255, b"\xf0" * 255, b"...", b"back\\slash"]:
    open(name, "wb").write(name)
END"#])
        .await;
    let listed = agent.server.get(&agent.path("?path=d")).await;
    let entries = listed.as_array().unwrap();
    assert_eq!(entries.len(), 17);
    for entry in entries {
        let plain = entry["name"].as_str().unwrap();
        let encoded = entry["name_percent"].as_str().map_or_else(
            || {
                percent_encoding::percent_encode(plain.as_bytes(), percent_encoding::NON_ALPHANUMERIC)
                    .to_string()
            },
            str::to_owned,
        );
        let path = agent.path(&format!("/d/{encoded}"));
        let read = agent.server.request(Method::GET, &path).send().await.unwrap();
        assert_eq!(read.status(), 200, "{plain:?}");
        assert_eq!(
            read.bytes().await.unwrap(),
            percent_encoding::percent_decode_str(&encoded).collect::<Vec<u8>>(),
            "{plain:?}: a file holds its own name"
        );
        let page = agent.server.get(&agent.path(&format!("?path=d&limit=1&after={encoded}"))).await;
        assert!(page.as_array().unwrap().iter().all(|next| next != entry), "{plain:?}: the page behind it");
        assert_eq!(agent.server.request(Method::DELETE, &path).send().await.unwrap().status(), 204);
    }
    assert_eq!(agent.server.get(&agent.path("?path=d")).await, json!([]));
}

#[tokio::test]
async fn a_long_listing_comes_in_pages() {
    let agent = Agent::new().await;
    agent.run(["mkdir d && cd d && seq -w 0 249 | xargs touch"]).await;
    let (mut after, mut names) = (String::new(), Vec::new());
    loop {
        let page = agent.path(&format!("/d?limit=100&after={after}"));
        let answer = agent.server.request(Method::GET, &page).send().await.unwrap();
        let next = answer.headers().get("x-next-after").map(|next| next.to_str().unwrap().to_owned());
        assert_eq!(answer.headers().contains_key("x-truncated"), next.is_some());
        let entries: Vec<Value> = answer.json().await.unwrap();
        names.extend(entries.into_iter().map(|entry| entry["name"].as_str().unwrap().to_owned()));
        match next {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(names, (0..250).map(|number| format!("{number:03}")).collect::<Vec<_>>());
    for query in ["limit=0", "limit=100001", "limit=x", "after=%zz", "limit=1&limit=2"] {
        let request = agent.server.request(Method::GET, &agent.path(&format!("?{query}")));
        assert_eq!(agent.server.refused(request).await.0, 400, "{query}");
    }
}

/// Cases A17 and A18: a scope root that is moved or removed from outside is never written to any more.
#[tokio::test]
async fn a_scope_root_that_goes_takes_its_rights_along() {
    let agent = Agent::new().await;
    let scope = json!({"file_access": {"read": [], "write": ["a/mine"]}});
    let scoped = agent.server.session(scope).await;
    let [said] = agent.run_in(&scoped, ["echo one > a/mine/file && ls a/mine"]).await;
    assert_eq!(said, "file\n");
    let own =
        agent.server.request(Method::DELETE, &format!("/v1/sessions/{scoped}/files/a/mine?recursive=true"));
    assert_eq!(agent.server.refused(own).await, (409, "directory.held".to_owned()));
    // Another session, whose scope is the whole workspace, moves it away and puts another in its place.
    agent.run(["mv a/mine a/theirs && mkdir a/mine && echo new > a/mine/new"]).await;
    let [said] = agent.run_in(&scoped, ["ls a a/mine; echo two > a/mine/file"]).await;
    assert_eq!(said, "a:\nmine\n\na/mine:\nnew\n");
    assert_eq!(
        agent.ask(Method::GET, "/a/theirs/file").await,
        (200, "one\n".to_owned()),
        "what was moved is not theirs"
    );
    assert_eq!(agent.ask(Method::GET, "/a/mine/file").await, (200, "two\n".to_owned()));
    // And the API removes it whole.
    assert_eq!(agent.ask(Method::DELETE, "/a?recursive=true").await.0, 204);
    let [said] = agent.run_in(&scoped, ["ls a/mine; echo three > a/mine/file; cat a/mine/file"]).await;
    assert_eq!(said, "three\n");
    assert_eq!(agent.ask(Method::GET, "/a/mine/file").await, (200, "three\n".to_owned()));
}
