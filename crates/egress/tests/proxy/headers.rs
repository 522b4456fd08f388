//! Groups F, G and part of I and J: what of a request goes on, and what is said of it.

use palisade_testkit::origin::Manner;

use crate::world::{World, get, ok};

/// EG-A16, EG-F1, EG-F2, EG-G1: fields of this hop stay, everything else and the path arrive byte for byte.
#[tokio::test]
async fn a_request_arrives_in_our_words() {
    let world = World::usual(Manner::Answer(ok("hi"))).await;
    let request = concat!(
        "GET http://Allowed.TEST.:PORT/a/%2e%2e//b;.;/%2F?q=%00&x=[1] HTTP/1.1\r\nHost: ALLOWED.test:PORT\r\n",
        "Connection: close, authorization, X-Api-Key\r\nAuthorization: Bearer theirs\r\nx-api-key: theirs\r\n",
        "Proxy-Authorization: Basic c2Vzc2lvbg==\r\nProxy_Authorization: y\r\nproxy.authorization: z\r\nProxy-Connection: x\r\n",
        "X-Unix-Socket: /var/run/docker.sock\r\nTE: trailers\r\nKeep-Alive: 1\r\nX-Case-Kept: Yes\r\n\r\n"
    );
    let answer = world.ask_text(request).await;
    assert!(answer.ends_with("hi"), "{answer}");
    let expected = "GET /a/%2e%2e//b;.;/%2F?q=%00&x=[1] HTTP/1.1\r\nHost: allowed.test:PORT\r\nX-Case-Kept: Yes\r\nConnection: close\r\n\r\n";
    assert_eq!(String::from_utf8_lossy(&world.origin.bytes()), world.fill(expected));
    let log = std::fs::read_to_string(world.folder.path().join("current.jsonl")).expect("a log");
    assert!(!log.contains("c2Vzc2lvbg") && !log.contains("theirs") && !log.contains("q=%00"), "{log}");
    world.stop().await;
}

/// EG-G2: methods.
#[tokio::test]
async fn methods_that_do_not_pass() {
    let world = World::usual(Manner::Answer(ok("hi"))).await;
    for (method, reason) in [
        ("TRACE", "method-refused"),
        ("TRACK", "method-refused"),
        ("get", "head-malformed"),
        ("G\tT", "head-malformed"),
    ] {
        let request =
            format!("{method} http://allowed.test:PORT/ HTTP/1.1\r\nHost: allowed.test:PORT\r\n\r\n");
        world.refuses(&request, reason).await;
    }
    world.stop().await;
}

/// EG-I2: our own answers say nothing of what was sent or found.
#[tokio::test]
async fn a_refusal_says_nothing_else() {
    let world = World::usual(Manner::Silent).await;
    world.resolver.set_addresses("allowed.test", &["10.9.8.7"]);
    for (target, host) in [
        ("http://allowed.test:PORT/sekret", "allowed.test:PORT"),
        ("http://denied-sekret.test/", "denied-sekret.test"),
        ("http://x:sekret@allowed.test/", "allowed.test"),
    ] {
        let request =
            get(target, host).replace("\r\n\r\n", "\r\nAuthorization: sekret\r\nCookie: sekret\r\n\r\n");
        let answer = world.ask_text(&request).await;
        assert!(
            !answer.contains("sekret") && !answer.contains("10.9.8.7") && !answer.contains("allowed.test"),
            "{answer}"
        );
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    world.stop().await;
}

/// EG-J8: whatever is sent is one valid line of the log.
#[tokio::test]
async fn a_log_line_is_one_line() {
    let world = World::usual(Manner::Silent).await;
    for bytes in [
        &b"GET http://x.test/\x1b[31m HTTP/1.1\r\n\r\n"[..],
        b"GET http://x.test/\xff\xfe HTTP/1.1\r\n\r\n",
        b"GET http://x.test/{\"seq\":9}\n{\"seq\":10} HTTP/1.1\r\n\r\n",
        b"CONNECT u:pass-sekret@x.test:443 HTTP/1.1\r\n\r\n",
        b"GET http://u:pass-sekret@x.test/?sekret HTTP/1.1\r\nHost: x.test\r\n\r\n",
        &[b"GET http://x.test/".to_vec(), vec![b'a'; 1_000_000]].concat(),
    ] {
        let before = world.records().len();
        world.ask(bytes).await;
        assert_eq!(world.records().len(), before + 1);
    }
    let log = std::fs::read(world.folder.path().join("current.jsonl")).expect("a log");
    assert!(
        log.iter().all(|&byte| byte == b'\n' || byte >= b' ') && log.is_ascii()
            || std::str::from_utf8(&log).is_ok()
    );
    assert!(!String::from_utf8_lossy(&log).contains("sekret"));
    let last = world.records().pop().expect("a record");
    assert_eq!(last["truncated"], true);
    world.stop().await;
}
