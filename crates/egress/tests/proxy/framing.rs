//! Groups E and I: where requests, answers and their bodies end.

use palisade_testkit::origin::Manner;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{World, get, ok, read_until};

fn post(fields: &str, body: &str) -> String {
    format!("POST http://allowed.test:PORT/ HTTP/1.1\r\nHost: allowed.test:PORT\r\n{fields}\r\n{body}")
}

/// EG-E1 to EG-E6: bodies and fields that two readers would read in two ways.
#[tokio::test]
async fn ambiguous_requests_are_refused() {
    let world = World::usual(Manner::Answer(ok("hi"))).await;
    let smuggled = "GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n";
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: +3\r\n",
        "Content-Length: +\r\n",
        "Content-Length: \r\n",
        "Content-Length: 5\r\nTransfer-Encoding: CHUNKED\r\n",
        "Transfer-Encoding: Chunked, Chunked\r\n",
        "Transfer-Encoding: Chunked;x\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    ] {
        world.refuses(&post(fields, smuggled), "framing-ambiguous").await;
    }
    for fields in [
        "Transfer-Encoding: chunked\x0b\r\n",
        ": x\r\n",
        "X-A : b\r\n",
        "X-A: b\r\n folded\r\n",
        "X-A: b\nX-B: c\r\n",
        "X-A: b\rX-B: c\r\n",
        "X-A: \0\r\n",
        "X-A: \u{85}\r\n",
        "Connection: ä\r\n",
    ] {
        world.refuses(&post(fields, ""), "head-malformed").await;
    }
    world
        .refuses(
            "POST http://allowed.test:PORT/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "framing-ambiguous",
        )
        .await;
    world.refuses("POST http://allowed.test:PORT/ HTTP/1.0\r\n\r\nto the end", "framing-ambiguous").await;
    world
        .refuses(
            "GET http://allowed.test:PORT/a b HTTP/1.1\r\nHost: allowed.test:PORT\r\n\r\n",
            "head-malformed",
        )
        .await;
    world.stop().await;
}

/// EG-E4: chunks that are not exactly chunks.
#[tokio::test]
async fn malformed_chunks_are_refused() {
    let world = World::usual(Manner::Answer(ok("hi"))).await;
    for body in [
        "0x5\r\nhello\r\n",
        "5 ;\r\nhello\r\n",
        "5;\nx\r\nhello",
        "00000000000000005\r\nhello",
        "5\nhello\n",
        "+5\r\n",
        "\r\n",
    ] {
        world.refuses(&post("Transfer-Encoding: chunked\r\n", body), "chunk-malformed").await;
    }
    world.stop().await;
    // What is wrong later on breaks the request off: the origin never sees its end.
    let world = World::usual(Manner::Silent).await;
    let request = world.fill(&post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\nX\r\n"));
    let answer = world.ask(request).await;
    assert!(answer.contains("egress.chunk-malformed"), "{answer}");
    world.origin.wait_for_ends(1).await;
    let seen = &world.origin.seen()[0];
    assert!(seen.broken && !seen.bytes.ends_with(b"0\r\n\r\n"), "{seen:?}");
    world.stop().await;
}

/// EG-E6, EG-E7: heads that are too large.
#[tokio::test]
async fn heads_have_a_size() {
    let world = World::usual(Manner::Answer(ok("hi"))).await;
    world.refuses(&post(&"X: y\r\n".repeat(100), ""), "head-too-large").await;
    let long = format!("X: {}\r\n", "y".repeat(17_000));
    world.refuses(&post(&long, ""), "head-too-large").await;
    world.refuses(&"A".repeat(20_000), "head-too-large").await;
    let just = format!("X: {}\r\nConnection: close\r\n", "y".repeat(16_000));
    let answer = world.ask_text(&post(&just, "")).await;
    assert!(answer.ends_with("hi"), "{answer}");
    world.stop().await;
}

/// EG-E7, EG-E8: each request on a connection is judged by itself; what is left of one is never another.
#[tokio::test]
async fn pipelined_requests_are_judged_one_by_one() {
    let world = World::usual(Manner::Answer(ok("hi"))).await;
    let allowed = "GET http://allowed.test:PORT/1 HTTP/1.1\r\nHost: allowed.test:PORT\r\n\r\n";
    let denied = "GET http://denied.test:PORT/2 HTTP/1.1\r\nHost: denied.test:PORT\r\n\r\n";
    let answers = world.ask_text(&[allowed, denied, allowed].concat()).await;
    assert_eq!(answers.matches("200 OK").count(), 1, "{answers}");
    assert!(answers.contains("egress.not-allowed"), "{answers}");
    assert_eq!(world.origin.seen().len(), 1);
    // A body is a body, whatever it looks like.
    let within = format!(
        "GET http://allowed.test:PORT/3 HTTP/1.1\r\nHost: allowed.test:PORT\r\nContent-Length: {}\r\n\r\n{}",
        world.fill(denied).len(),
        denied
    );
    let answers = world
        .ask_text(&[&within, &get("http://allowed.test:PORT/4", "allowed.test:PORT")[..]].concat())
        .await;
    assert_eq!(answers.matches("200 OK").count(), 2, "{answers}");
    let seen = world.origin.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen[1].bytes.ends_with(world.fill(denied).as_bytes()));
    world.stop().await;
}

/// EG-E7: bodies of both framings arrive whole; a client that waits for a 100 gets it.
#[tokio::test]
async fn bodies_arrive_whole() {
    let world = World::usual(Manner::Silent).await;
    let mut stream = world.connect().await;
    stream
        .write_all(world.fill(&post("Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n", "")).as_bytes())
        .await
        .expect("sent");
    assert_eq!(read_until(&mut stream, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    for piece in ["3\r", "\nabc\r\n", "2;".trim_end_matches(';'), "\r\nde\r\n0\r\nX-Trailer: dropped\r\n\r\n"]
    {
        stream.write_all(piece.as_bytes()).await.expect("sent");
        stream.flush().await.expect("sent");
    }
    world.origin.wait_for_text("0\r\n\r\n").await;
    let arrived = String::from_utf8(world.origin.bytes()).expect("text");
    let (head, body) = arrived.split_once("\r\n\r\n").expect("a head");
    assert!(!head.to_ascii_lowercase().contains("expect"), "{head}");
    let data: String = body.split("\r\n").skip(1).step_by(2).collect();
    assert_eq!(data, "abcde", "{body:?}");
    assert!(!body.contains("Trailer"));
    drop(stream);
    world.stop().await;
}

/// EG-D10: an upgrade that is answered with 200 stays HTTP, and the next request is judged.
#[tokio::test]
async fn a_refused_upgrade_stays_http() {
    let upgrade = "GET http://allowed.test:PORT/ HTTP/1.1\r\nHost: allowed.test:PORT\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";
    let denied = "GET http://denied.test:PORT/ HTTP/1.1\r\nHost: denied.test:PORT\r\n\r\n";
    let world = World::usual(Manner::Answer(ok("no"))).await;
    let answers = world.ask_text(&[upgrade, denied].concat()).await;
    assert!(answers.contains("200 OK") && answers.contains("egress.not-allowed"), "{answers}");
    assert!(!String::from_utf8_lossy(&world.origin.bytes()).contains("denied.test"));
    world.stop().await;
    // 101 without having been asked.
    let world =
        World::usual(Manner::Answer(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nraw".to_vec()))
            .await;
    let answer = world.ask_text(&get("http://allowed.test:PORT/", "allowed.test:PORT")).await;
    assert!(answer.contains("egress.answer-upgrade") && !answer.ends_with("raw"), "{answer}");
    world.stop().await;
}

/// A WebSocket passes both ways; what the client sent with its request comes after the 101.
#[tokio::test]
async fn a_websocket_passes() {
    let world = World::usual(Manner::Answer(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: y\r\n\r\nfirst".to_vec())).await;
    let mut stream = world.connect().await;
    let upgrade = "GET http://allowed.test:PORT/chat HTTP/1.1\r\nHost: allowed.test:PORT\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\nearly";
    stream.write_all(world.fill(upgrade).as_bytes()).await.expect("sent");
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("Sec-WebSocket-Accept: y"), "{head}");
    let mut first = [0; 5];
    stream.read_exact(&mut first).await.expect("a frame");
    assert_eq!(&first, b"first");
    stream.write_all(b" frames").await.expect("sent");
    world.origin.wait_for_text("early frames").await;
    drop(stream);
    let close = &world.wait_for_closes(1).await[0];
    assert_eq!((close["status"].as_u64(), close["path"].as_str()), (Some(101), Some("/chat")));
    world.stop().await;
}

/// EG-I3, EG-I4: answers that are none become a 502 of ours, and the proxy goes on.
#[tokio::test]
async fn answers_that_are_none() {
    let endless = [b"HTTP/1.1 200 OK\r\n".to_vec(), b"X: y\r\n".repeat(5_000)].concat();
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(17_000));
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(10);
    for (answer, reason) in [
        (&b"HTTP/1.1 099 x\r\n\r\n"[..], "answer-malformed"),
        (b"SSH-2.0-x\r\n\r\n", "answer-malformed"),
        (b"HTTP/1.1 200 OK\r\nX-A : b\r\n\r\n", "answer-malformed"),
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi", "answer-malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi", "answer-framing"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", "answer-framing"),
        (&endless, "answer-head-too-large"),
        (long.as_bytes(), "answer-head-too-large"),
        (interim.as_bytes(), "answer-interim"),
    ] {
        let shown = answer[..answer.len().min(80)].escape_ascii();
        let world = World::usual(Manner::AnswerAndClose(answer.into())).await;
        let told = world.ask_text(&get("http://allowed.test:PORT/", "allowed.test:PORT")).await;
        let line = format!("HTTP/1.1 502 Bad Gateway by the egress proxy ({reason}): ");
        assert!(told.starts_with(&line) && told.contains(&format!("egress.{reason}")), "{shown}: {told}");
        let close = &world.wait_for_closes(1).await[0];
        assert!(close["reason"] == reason && told.contains(close["why"].as_str().expect("words")), "{close}");
        world.stop().await;
    }
}

/// EG-I3, EG-I4: an answer that ends early is not passed off as whole; what comes after one is not passed on.
#[tokio::test]
async fn an_answer_is_exactly_as_long_as_it_says() {
    let world =
        World::usual(Manner::AnswerAndClose(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc".to_vec()))
            .await;
    let mut stream = world.connect().await;
    stream
        .write_all(world.fill(&get("http://allowed.test:PORT/", "allowed.test:PORT")).as_bytes())
        .await
        .expect("sent");
    let mut told = Vec::new();
    let end = stream.read_to_end(&mut told).await;
    assert!(end.is_err() && !told.ends_with(b"abcde"), "a reset: {end:?}");
    assert_eq!(world.wait_for_closes(1).await[0]["reason"], "answer-truncated");
    world.stop().await;
    let torn = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nX\r\n".to_vec();
    let world = World::usual(Manner::AnswerAndClose(torn)).await;
    let told = world.ask_text(&get("http://allowed.test:PORT/", "allowed.test:PORT")).await;
    assert!(!told.ends_with("0\r\n\r\n"), "{told}");
    assert_eq!(world.wait_for_closes(1).await[0]["reason"], "answer-chunk-malformed");
    world.stop().await;

    let two = [ok("one"), ok("two")].concat();
    let world = World::usual(Manner::Answer(two)).await;
    let request = "GET http://allowed.test:PORT/ HTTP/1.1\r\nHost: allowed.test:PORT\r\n\r\n";
    let last = get("http://allowed.test:PORT/", "allowed.test:PORT");
    let told = world.ask_text(&[request, &last].concat()).await;
    assert_eq!((told.matches("one").count(), told.matches("two").count()), (2, 0), "{told}");
    world.stop().await;
}

/// EG-E5: an HTTP/1.0 client is understood, given no chunks, and its connection ends with the answer: what it sent behind its request is
/// nobody's.
#[tokio::test]
async fn older_clients_are_served() {
    let chunks =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n".to_vec();
    let world = World::usual(Manner::Answer(chunks)).await;
    for fields in ["", "Host: allowed.test:PORT\r\nConnection: keep-alive\r\n"] {
        let request = format!("GET http://allowed.test:PORT/1 HTTP/1.0\r\n{fields}\r\n");
        let behind = "GET http://denied.test:PORT/2 HTTP/1.0\r\n\r\n";
        let told = world.ask_text(&[&request[..], behind].concat()).await;
        let (head, body) = told.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("Connection: close"), "{told}");
        assert_eq!(body, "abcde");
    }
    assert_eq!((world.origin.seen().len(), world.refusals().len()), (2, 0));
    assert!(
        world
            .origin
            .bytes()
            .starts_with(world.fill("GET /1 HTTP/1.1\r\nHost: allowed.test:PORT\r\n").as_bytes())
    );
    let tunnel = world.ask_text("CONNECT denied.test:PORT HTTP/1.0\r\n\r\n").await;
    assert!(tunnel.starts_with("HTTP/1.1 403 Forbidden by the egress proxy (not-allowed): "), "{tunnel}");
    world.stop().await;
}

/// Answers of every framing come back as they are; redirects too (EG-H5: none is followed).
#[tokio::test]
async fn answers_come_back() {
    for (answer, body) in [
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n",
            "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        ),
        ("HTTP/1.0 200 OK\r\n\r\nto the end", "to the end"),
        ("HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "hi"),
        ("HTTP/1.1 302 Found\r\nLocation: http://evil.test/\r\nContent-Length: 0\r\n\r\n", ""),
        ("HTTP/1.1 204 No Content\r\n\r\n", ""),
    ] {
        let world = World::usual(Manner::AnswerAndClose(answer.into())).await;
        let told = world.ask_text(&get("http://allowed.test:PORT/", "allowed.test:PORT")).await;
        let (_, told_body) = told.split_once("\r\n\r\n").expect("a head");
        assert_eq!(told_body, body, "{answer:?}");
        assert_eq!(world.origin.seen().len(), 1);
        assert_eq!(world.wait_for_closes(1).await[0]["reason"], "done");
        world.stop().await;
    }
}
