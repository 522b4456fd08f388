//! A scoped session sees exactly its scope, from inside and from outside (contract §3).

use palisade_testkit::upstream::{Answer, Call};
use reqwest::Method;
use serde_json::{Value, json};

use crate::start;
use crate::usage::start_as;

#[tokio::test]
async fn both_layers_agree() {
    let (server, upstream) = start().await;
    let all = server.session(json!({})).await;
    for name in [
        "projects/p1/in.txt",
        "projects/p1/output/old.txt",
        "projects/p2/secret.txt",
        "shared/templates/t.txt",
        "shared/other.txt",
    ] {
        server.json(server.request(Method::PUT, &format!("/v1/sessions/{all}/files/{name}")).body("x")).await;
    }
    let scope = json!({"read": ["projects/p1", "shared/templates"], "write": ["projects/p1/output"]});
    let id = server.session(json!({"file_access": scope})).await;
    let bash = |command: &str| Call::new("Bash", json!({"command": command}));
    upstream.push(Answer::calls([
        bash("find . -path ./.sessions -prune -o -path ./.memory -prune -o -type f -print | sort"),
        bash("cat projects/p2/secret.txt"),
        bash("echo no > projects/p1/in.txt"),
        bash("echo yes > projects/p1/output/new.txt && cat projects/p1/output/new.txt"),
        bash("ls projects shared"),
        Call::new("Read", json!({"file_path": "projects/p2/secret.txt"})),
        Call::new("Write", json!({"file_path": "shared/new.txt", "content": "no"})),
    ]));
    upstream.push(Answer::text("done"));
    let events = server.send(&id, "look around").await.rest().await;
    let results: Vec<&Value> = events.iter().filter(|e| e.kind == "tool_result").map(|e| &e.data).collect();
    let said = |at: usize| results[at]["content"].as_str().unwrap();
    assert_eq!(said(0), "./projects/p1/in.txt\n./projects/p1/output/old.txt\n./shared/templates/t.txt\n");
    assert!(said(1).contains("No such file or directory"), "{}", said(1));
    assert!(said(2).contains("Read-only file system"), "{}", said(2));
    assert_eq!(said(3), "yes\n");
    assert_eq!(said(4), "projects:\np1\n\nshared:\ntemplates\n");
    assert_eq!((&results[5]["is_error"], &results[6]["is_error"]), (&json!(true), &json!(true)));

    let outside =
        |method: Method, path: &str| server.request(method, &format!("/v1/sessions/{id}/files/{path}"));
    for path in ["projects/p2/secret.txt", "projects/p2/absent.txt", "shared/other.txt", "elsewhere"] {
        let response = outside(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), 403, "{path}: whether or not it exists");
        let body: Value = response.json().await.unwrap();
        assert_eq!(
            (&body["error"], &body["message"]),
            (&json!("Forbidden"), &json!(format!("'{path}' not in session scope")))
        );
    }
    assert_eq!(server.refused(outside(Method::PUT, "projects/p1/in.txt").body("no")).await.0, 403);
    assert_eq!(server.refused(outside(Method::GET, "projects/p1/absent.txt")).await.0, 404);
    assert_eq!(
        outside(Method::GET, "projects/p1/output/new.txt").send().await.unwrap().text().await.unwrap(),
        "yes\n"
    );
    let listed = server.get(&format!("/v1/sessions/{id}/files?path=shared")).await;
    assert_eq!(listed.as_array().unwrap().len(), 1, "a listing shows only what leads to the scope: {listed}");
}

#[tokio::test]
async fn nothing_of_the_server_is_inside() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    upstream.push(Answer::tool_call("Bash", json!({"command":
        "env; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'; cat /proc/*/cmdline | tr '\\0' ' '; echo; id -u; ls /proc/self/fd; ls /; ls /workspace/..; cat /etc/passwd; (exec 3<>/dev/tcp/127.0.0.1/1) 2>&1; ls /tmp"})));
    upstream.push(Answer::text("done"));
    let events = server.send(&id, "look around").await.rest().await;
    let seen =
        events.iter().find(|e| e.kind == "tool_result").unwrap().data["content"].as_str().unwrap().to_owned();
    for absent in
        ["SERVER_SECRET", "never-inside-a-sandbox", "ACME_KEY", "pk_acme_", "palisade-test-", "games:"]
    {
        assert!(!seen.contains(absent), "{absent} is inside: {seen}");
    }
    assert!(seen.contains("HOME=/home/agent\n") && seen.contains("\n1000\n"), "{seen}");
}

#[tokio::test]
async fn a_home_is_its_sessions_own_and_goes_with_it() {
    let (server, upstream) = start().await;
    let (one, other) = (server.session(json!({})).await, server.session(json!({})).await);
    let ask = async |id: &str, command: &str| {
        upstream.push(Answer::tool_call("Bash", json!({"command": command})));
        upstream.push(Answer::text("done"));
        let events = server.send(id, "go on").await.rest().await;
        let result = events.iter().find(|e| e.kind == "tool_result").unwrap();
        result.data["content"].as_str().unwrap().to_owned()
    };
    ask(&one, "echo the-key > ~/.netrc; echo usercustom > $TMPDIR/t").await;
    let home = |id: &str| server.workspace().with_file_name("home").join(id);
    assert_eq!(std::fs::read_to_string(home(&one).join(".netrc")).unwrap(), "the-key\n");
    let sweep = "git init -q . && git add -A && git ls-files | grep -v '^beside$'; grep -rls the-key /workspace /home /tmp; ls -A ~";
    assert_eq!(ask(&other, sweep).await, ".tmp\n");
    assert_eq!(ask(&one, "cat ~/.netrc; ls $TMPDIR").await, "the-key\nt\n");
    let deleted = server.request(Method::DELETE, &format!("/v1/sessions/{one}")).send().await.unwrap();
    assert_eq!((deleted.status().as_u16(), home(&one).exists(), home(&other).exists()), (204, false, true));
}

#[tokio::test]
async fn what_later_sessions_are_told_is_locked_unless_a_session_asks_for_it() {
    let (server, upstream) = start().await;
    let locked = async |access: Value| {
        let id = server.session(json!({"file_access": access})).await;
        (server.get(&format!("/v1/sessions/{id}")).await["locked"].clone(), id)
    };
    let write = "for f in .pokee/a.md skills/own/SKILL.md skills/x .agents/a; do echo x > $f && echo wrote $f; done 2>/dev/null; true";
    for (access, expected, wrote) in [
        (json!({"write": [""]}), json!([".pokee", "skills", ".agents"]), "(no output)"),
        (
            json!({"write": ["", "skills/own"]}),
            json!([".pokee", "skills", ".agents"]),
            "wrote skills/own/SKILL.md\n",
        ),
        (json!({"write": ["", ".pokee"]}), json!(["skills", ".agents"]), "wrote .pokee/a.md\n"),
        (
            json!({"write": ["skills"]}),
            json!([".pokee", ".agents"]),
            "wrote skills/own/SKILL.md\nwrote skills/x\n",
        ),
    ] {
        let (shown, id) = locked(access.clone()).await;
        assert_eq!(shown, expected, "{access}");
        upstream.push(Answer::tool_call("Bash", json!({"command": write})));
        upstream.push(Answer::text("done"));
        let events = server.send(&id, "write").await.rest().await;
        let result = events.iter().find(|e| e.kind == "tool_result").unwrap();
        assert_eq!(result.data["content"], wrote, "{access}");
    }
}

#[tokio::test]
async fn memory_outlives_sessions_and_is_there_whatever_the_scope() {
    let (server, upstream) = start().await;
    for (scope, expected) in [(json!({"read": ["a"]}), "fact\n"), (json!({"write": ["b"]}), "fact\nfact\n")] {
        let id = server.session(json!({"file_access": scope})).await;
        upstream.push(Answer::tool_call(
            "Bash",
            json!({"command": "echo fact >> .memory/MEMORY.md; cat .memory/MEMORY.md"}),
        ));
        upstream.push(Answer::text("done"));
        let events = server.send(&id, "remember").await.rest().await;
        assert_eq!(events.iter().find(|e| e.kind == "tool_result").unwrap().data["content"], expected);
        server.request(Method::DELETE, &format!("/v1/sessions/{id}")).send().await.unwrap();
    }
}

#[tokio::test]
async fn what_is_locked_is_the_file_apis_to_write_and_the_sandboxes_to_read() {
    let (server, upstream) = start_as(r#"locked = [".pokee", "skills", "rules"]"#, "").await;
    let session = server.session(json!({})).await;
    let file =
        |method: Method, path: &str| server.request(method, &format!("/v1/sessions/{session}/files/{path}"));
    server.json(file(Method::PUT, ".pokee/AGENTS.md").body("from outside")).await;
    upstream.push(Answer::calls([
        Call::new("Bash", json!({"command": "cat .pokee/AGENTS.md; echo x >> .pokee/AGENTS.md"})),
        Call::new("Bash", json!({"command": "touch beside && ln -s . here && mv rules away"})),
        Call::new("Write", json!({"file_path": "skills/mine/SKILL.md", "content": "---"})),
        // Tries for as long as it is let.
        Call::new(
            "Bash",
            json!({"command": "until mkdir rules/x || mv rules away || touch rules/y; do :; done 2>/dev/null", "background": true}),
        ),
    ]));
    upstream.push(Answer::text("done"));
    let events = server.send(&session, "try").await.rest().await;
    let results: Vec<&Value> = events.iter().filter(|e| e.kind == "tool_result").map(|e| &e.data).collect();
    let said = |at: usize| results[at]["content"].as_str().unwrap();
    assert!(said(0).starts_with("from outside") && said(0).contains("Read-only file system"), "{}", said(0));
    assert!(said(1).contains("Device or resource busy"), "{}", said(1));
    assert!(said(2).contains("read-only"), "{}", said(2));
    // While that goes on: files in it come and go from outside, the folder itself stays, by whatever name.
    for round in 0..20 {
        server.json(file(Method::PUT, "rules/d/f").body(round.to_string())).await;
        for path in ["rules", "rules?recursive=true", "here/rules?recursive=true"] {
            let refused = server.refused(file(Method::DELETE, path)).await;
            assert_eq!(refused, (409, "directory.held".to_owned()), "{path}");
        }
        let deleted = file(Method::DELETE, "rules/d?recursive=true").send().await.unwrap();
        assert_eq!(deleted.status(), 204);
    }
    let names = |folder: &str| std::fs::read_dir(server.workspace().join(folder)).unwrap().count();
    assert_eq!((names("rules"), names("skills")), (0, 0));
    assert!(server.workspace().join("beside").exists() && !server.workspace().join("away").exists());
}
