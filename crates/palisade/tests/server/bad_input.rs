//! Whatever a client sends: a clear error in the contract's shape, nothing changed, the session usable.

use palisade_testkit::Server;
use palisade_testkit::upstream::{Answer, ScriptedUpstream};
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::start;

async fn is_usable(server: &Server, upstream: &ScriptedUpstream, session: &str) {
    upstream.push(Answer::text("still here"));
    let events = server.send(session, "are you there?").await.rest().await;
    assert_eq!(events.last().unwrap().kind, "message.completed");
}

#[tokio::test]
async fn sessions_that_cannot_be() {
    let (server, _upstream) = start().await;
    for (body, status, code) in [
        ("{", 400, "request.malformed"),
        ("[]", 400, "request.malformed"),
        ("null", 400, "request.malformed"),
        (r#"{"ttl": "long"}"#, 400, "request.malformed"),
        (r#"{"ttl": 0}"#, 400, "session.bad_ttl"),
        (r#"{"ttl": -1}"#, 400, "request.malformed"),
        (r#"{"persistent": "yes"}"#, 400, "request.malformed"),
        (r#"{"metadata": []}"#, 400, "request.malformed"),
        (r#"{"file_access": {"read": ["../x"]}}"#, 400, "session.bad_scope"),
        (r#"{"file_access": {"read": ["/etc"]}}"#, 400, "session.bad_scope"),
        (r#"{"file_access": {"write": ["a/../../b"]}}"#, 400, "session.bad_scope"),
        (r#"{"file_access": {"write": ["a\u0000b"]}}"#, 400, "session.bad_scope"),
        (r#"{"file_access": {"reed": [""]}}"#, 400, "request.unknown_field"),
        (r#"{"file_access": {"read": "a"}}"#, 400, "request.malformed"),
        (r#"{"model": "no-such-model"}"#, 400, "model.unknown"),
        (r#"{"tools": [{"type": "function"}]}"#, 400, "tools.invalid"),
    ] {
        let request = server.request(Method::POST, "/v1/sessions").body(body);
        assert_eq!(server.refused(request).await, (status, code.to_owned()), "{body}");
    }
    let metadata = json!({"metadata": {"long": "x".repeat(17 * 1024)}});
    let request = server.request(Method::POST, "/v1/sessions").json(&metadata);
    assert_eq!(server.refused(request).await, (400, "session.metadata_too_large".to_owned()));
    assert_eq!(server.get("/v1/sessions").await, json!([]), "nothing was created");
}

/// A wish that nobody fulfils would look fulfilled: every body and query of ours is refused with the field's name, and every
/// wrong value with the field and what it must be.
#[tokio::test]
async fn a_refusal_names_the_field_and_what_it_must_be() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    let (create, at) = ("/v1/sessions", |rest: &str| format!("/v1/sessions/{id}/{rest}"));
    let (messages, results, vault) = (at("messages"), at("tool_results"), "/v1/vault/github");
    let credential = |more: serde_json::Value| {
        let mut body =
            json!({"value": "v", "allowed_hosts": ["api.example.com"], "injection": {"type": "bearer"}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let unknown = "request.unknown_field";
    for (method, path, body, code, sentence) in [
        (
            "POST",
            create,
            json!({"file_acess": {"read": []}}),
            unknown,
            "there is no field 'file_acess'; did you mean 'file_access'?",
        ),
        (
            "POST",
            create,
            json!({"fileAccess": {}}),
            unknown,
            "there is no field 'fileAccess'; did you mean 'file_access'?",
        ),
        ("POST", create, json!({"budget": {"credits": 1}}), unknown, "there is no field 'budget'; "),
        (
            "POST",
            create,
            json!({"file_access": {"reed": []}}),
            unknown,
            "there is no field 'reed' in 'file_access'; did you mean 'read'?",
        ),
        ("POST", create, json!({"ttl": "long"}), "request.malformed", "'ttl' must be a number, not a string"),
        (
            "POST",
            create,
            json!({"ttl": 1.5}),
            "request.malformed",
            "'ttl': it must be a whole number of seconds",
        ),
        (
            "POST",
            create,
            json!({"file_access": [["a"], ["b"]]}),
            "request.malformed",
            "'file_access' must be an object, not an array",
        ),
        (
            "POST",
            create,
            json!({"file_access": {"write": ["a", 5]}}),
            "request.malformed",
            "'file_access.write[1]' must be a string, not a number",
        ),
        (
            "POST",
            create,
            json!({"tools": {}}),
            "request.malformed",
            "'tools' must be an array, not an object",
        ),
        (
            "POST",
            &messages,
            json!({"message": "hi", "when_busy": "queue"}),
            unknown,
            "there is no field 'when_busy'; there are: message",
        ),
        (
            "POST",
            &messages,
            json!({"massage": "hi"}),
            unknown,
            "there is no field 'massage'; did you mean 'message'?",
        ),
        (
            "POST",
            &messages,
            json!({"message": ["hi"]}),
            "request.malformed",
            "'message' must be a string, not an array",
        ),
        (
            "POST",
            &messages,
            json!({"message": null}),
            "request.malformed",
            "'message' must be a string, not null",
        ),
        ("POST", &messages, json!({}), "request.malformed", "the field 'message' is missing"),
        (
            "POST",
            &results,
            json!({"call_id": "call_1", "output": {"a": 1}}),
            "request.malformed",
            "'output' must be a string, not an object",
        ),
        (
            "POST",
            &results,
            json!({"call_id": "call_1"}),
            "request.malformed",
            "the field 'output' is missing; it must be a string",
        ),
        (
            "POST",
            &results,
            json!({"results": [{"call_id": "call_1", "output": 5}]}),
            "request.malformed",
            "'results[0].output' must be a string, not a number",
        ),
        (
            "POST",
            &results,
            json!({"results": {}}),
            "request.malformed",
            "'results' must be an array, not an object",
        ),
        (
            "POST",
            &results,
            json!({"call_id": "c", "output": "x", "is_eror": true}),
            unknown,
            "there is no field 'is_eror'; did you mean 'is_error'?",
        ),
        ("POST", &results, json!({}), "request.malformed", "give 'call_id' and 'output', or 'results'"),
        (
            "PUT",
            vault,
            credential(json!({"alowed_hosts": []})),
            unknown,
            "there is no field 'alowed_hosts'; did you mean 'allowed_hosts'?",
        ),
        (
            "PUT",
            vault,
            credential(json!({"allowed_hosts": "api.example.com"})),
            "request.malformed",
            "'allowed_hosts' must be an array, not a string",
        ),
        (
            "PUT",
            vault,
            credential(json!({"injection": {"type": "cookie"}})),
            "request.malformed",
            "'injection.type' must be one of: bearer, ",
        ),
        (
            "PUT",
            vault,
            credential(json!({"injection": {"type": "header"}})),
            "request.malformed",
            "the field 'name' is missing in 'injection'",
        ),
        (
            "GET",
            &at("messages?limit=ten"),
            json!({}),
            "request.bad_query",
            "'limit' must be a whole number from 0 on, not this string",
        ),
        (
            "GET",
            &at("messages?limt=1"),
            json!({}),
            "request.bad_query",
            "there is no parameter 'limt'; did you mean 'limit'?",
        ),
        (
            "GET",
            &at("messages?limit=1&limit=2"),
            json!({}),
            "request.bad_query",
            "a parameter stands twice in the query",
        ),
    ] {
        let request = server.request(Method::from_bytes(method.as_bytes()).unwrap(), path);
        let answer = request.body(body.to_string()).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{path} {body}");
        let answer: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(answer["code"], code, "{body}: {answer}");
        assert!(answer["message"].as_str().unwrap().starts_with(sentence), "{body}: {answer}");
    }
    let twice = server.request(Method::POST, create).body(r#"{"ttl": 60, "ttl": 600}"#);
    assert_eq!(server.refused(twice).await, (400, "request.malformed".to_owned()));
    for (method, path) in [(Method::POST, create), (Method::POST, &messages), (Method::PUT, vault)] {
        let packed = server.request(method, path).header("Content-Encoding", "gzip").body("{}");
        let answer = packed.send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["accept-encoding"]),
            (415, &"identity".parse().unwrap())
        );
    }
    assert_eq!(server.get(create).await.as_array().unwrap().len(), 1, "nothing was created");
    assert!(upstream.requests().is_empty(), "no model was asked");
    let others =
        json!({"tools": [{"type": "function", "function": {"name": "f", "x": 1}, "cache_control": {}}]});
    server.json(server.request(Method::POST, create).json(&others)).await;
}

#[tokio::test]
async fn null_is_absent_and_a_whole_float_is_a_number() {
    let (server, _upstream) = start().await;
    let body = json!({"persistent": null, "ttl": 600.0, "metadata": null, "file_access": null, "model": null, "tools": null});
    let record = server.json(server.request(Method::POST, "/v1/sessions").json(&body)).await;
    assert_eq!((&record["ttl"], &record["persistent"]), (&json!(600), &json!(false)));
    assert_eq!(record["metadata"], json!({}));
}

#[tokio::test]
async fn a_misspelt_parameter_is_refused_and_does_nothing() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    let file = format!("/v1/sessions/{id}/files/folder/file");
    server.json(server.request(Method::PUT, &file).body("x")).await;
    upstream.push(Answer::text("hi"));
    let mut stream = server.send(&id, "hi").await;
    stream.rest().await;
    for (method, path) in [
        (Method::DELETE, "/v1/sessions?older-than=1h".to_owned()),
        (Method::DELETE, "/v1/sessions?status=idle&olderthan=1h".to_owned()),
        (Method::DELETE, format!("/v1/sessions/{id}/files/folder/file?recursiv=true")),
        (Method::GET, format!("/v1/sessions/{id}/files?pth=folder")),
        (Method::GET, format!("/v1/sessions/{id}/files/folder?archiv=zip")),
        (Method::GET, format!("/v1/sessions/{id}/messages?limt=1")),
        (Method::GET, format!("/v1/sessions/{id}/responses/{}/events?last_event=1", stream.turn)),
    ] {
        let refused = server.refused(server.request(method, &path)).await;
        assert_eq!(refused, (400, "request.bad_query".to_owned()), "{path}");
    }
    assert_eq!(server.get("/v1/sessions").await[0]["id"], id, "it is still there");
    assert_eq!(server.request(Method::GET, &file).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_file_is_no_scope() {
    let (server, _upstream) = start().await;
    let id = server.session(json!({})).await;
    server.json(server.request(Method::PUT, &format!("/v1/sessions/{id}/files/plain.txt")).body("x")).await;
    let request =
        server.request(Method::POST, "/v1/sessions").json(&json!({"file_access": {"read": ["plain.txt"]}}));
    assert_eq!(server.refused(request).await, (400, "scope.not_directory".to_owned()));
}

#[tokio::test]
async fn messages_that_cannot_be() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    let path = format!("/v1/sessions/{id}/messages");
    for (body, status, code) in [
        (String::new(), 400, "request.malformed"),
        ("{}".to_owned(), 400, "request.malformed"),
        (json!({"message": 5}).to_string(), 400, "request.malformed"),
        (json!({"message": ""}).to_string(), 400, "message.empty"),
        (json!({"message": " \n "}).to_string(), 400, "message.empty"),
        (json!({"message": "x".repeat(1024 * 1024 + 1)}).to_string(), 413, "message.too_large"),
        (json!({"message": "x".repeat(10 * 1024 * 1024)}).to_string(), 413, "request.too_large"),
    ] {
        let request = server.request(Method::POST, &path).body(body);
        assert_eq!(server.refused(request).await, (status, code.to_owned()));
    }
    let not_utf8 = server.request(Method::POST, &path).body(b"{\"message\": \"\xff\"}".to_vec());
    assert_eq!(server.refused(not_utf8).await.0, 400);
    for key in ["", &"k".repeat(256)] {
        let request = server.request(Method::POST, &path).header("Idempotency-Key", key);
        assert_eq!(server.refused(request.json(&json!({"message": "hi"}))).await.0, 400, "{key}");
    }
    assert!(upstream.requests().is_empty(), "no model was asked");
    upstream.push(Answer::text("long"));
    let longest = "x".repeat(1024 * 1024);
    server.send(&id, &longest).await.until("message.completed").await;
    is_usable(&server, &upstream, &id).await;
}

#[tokio::test]
async fn sessions_that_are_not_there() {
    let (server, _upstream) = start().await;
    for id in ["sess_000000000000", "sess_", "x", "sess_00000000000G", "..", "%00", "sess_000000000000%2f"] {
        let message = server
            .request(Method::POST, &format!("/v1/sessions/{id}/messages"))
            .json(&json!({"message": "hi"}));
        let status = server.refused(message).await.0;
        assert!(status == 404, "{id}: {status}");
    }
}

/// As bytes, because clients tidy paths up before they send them.
async fn raw(server: &Server, method: &str, path: &[u8]) -> String {
    let address = server.url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let key = palisade_testkit::server::KEY;
    let head = format!(
        " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(&[method.as_bytes(), b" ", path, head.as_bytes()].concat()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn paths_that_leave_or_make_no_sense() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    for (path, status) in [
        ("../../../etc/passwd", 403),
        ("a/../../b", 403),
        ("%2e%2e/x", 403),
        ("a/%2e%2e/%2E%2E/x", 403),
        ("/etc/passwd", 403),
        ("%2fetc%2fpasswd", 403),
        ("a%00b", 400),
        ("a%zzb", 400),
        ("a%2", 400),
        ("%252e%252e/x", 404),
        ("..%5c..%5cx", 404),
        ("missing", 404),
        ("./x/./y", 404),
    ] {
        for method in ["GET", "DELETE"] {
            let target = format!("/v1/sessions/{id}/files/{path}");
            let answer = raw(&server, method, target.as_bytes()).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {answer}");
            assert!(
                answer.contains("\"error\":") && answer.contains("\"message\":"),
                "{method} {path}: {answer}"
            );
        }
    }
    let long = format!("/v1/sessions/{id}/files/{}", "x/".repeat(2100));
    assert!(raw(&server, "PUT", long.as_bytes()).await.starts_with("HTTP/1.1 400 "));
    let name = format!("/v1/sessions/{id}/files/{}", "x".repeat(256));
    assert!(raw(&server, "PUT", name.as_bytes()).await.starts_with("HTTP/1.1 400 "));
    // Any other bytes are a name like another.
    let odd = format!("/v1/sessions/{id}/files/odd-%ff%0a-name");
    assert!(raw(&server, "PUT", odd.as_bytes()).await.starts_with("HTTP/1.1 201 "));
    let listed = server.get(&format!("/v1/sessions/{id}/files")).await;
    let entry =
        listed.as_array().unwrap().iter().find(|entry| entry["name_percent"].is_string()).unwrap().clone();
    assert_eq!(entry["name_percent"], "odd-%FF%0A-name");
    is_usable(&server, &upstream, &id).await;
}
