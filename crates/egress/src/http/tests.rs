//! Heads as tables: what a client or an upstream sends, and what it is taken for.

use proptest::prelude::*;

use super::{
    answer::{Question, parse_answer},
    head::{Asked, Body, Forward, Request, parse_request},
    scan::HeadScan,
};
use crate::Reason;

/// The two looks that the proxy takes, one after the other.
fn read(head: &[u8]) -> Result<Request, Reason> {
    let end = HeadScan::default().advance(head)?.ok_or(Reason::HeadTimeout)?;
    parse_request(&head[..end], &mut Asked::default())
}

#[track_caller]
fn refused(head: &str, reason: Reason) {
    assert_eq!(read(head.as_bytes()), Err(reason), "{}", head.escape_debug());
}

#[track_caller]
fn connect(head: &str, to: &str) {
    match read(head.as_bytes()) {
        Ok(Request::Connect(destination)) => assert_eq!(destination.to_string(), to),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn forward(head: &str) -> Forward {
    match read(head.as_bytes()) {
        Ok(Request::Forward(forward)) => *forward,
        other => panic!("{}: {other:?}", head.escape_debug()),
    }
}

fn get(fields: &str) -> String {
    format!("GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\n{fields}\r\n")
}

fn post(fields: &str) -> String {
    get(fields).replacen("GET", "POST", 1)
}

#[test]
fn tunnels_are_read() {
    connect("CONNECT allowed.test:443 HTTP/1.1\r\nHost: allowed.test:443\r\n\r\n", "allowed.test:443");
    connect(
        "CONNECT allowed.test:443 HTTP/1.1\r\nHost: Allowed.Test.\r\nUser-Agent: x\r\n\r\n",
        "allowed.test:443",
    );
    connect("CONNECT allowed.test:443 HTTP/1.0\r\n\r\n", "allowed.test:443");
}

/// EG-A3: control bytes in a head, in whichever place.
#[test]
fn control_bytes_in_a_head() {
    refused("CONNECT evil.test\0.allowed.test:443 HTTP/1.1\r\n\r\n", Reason::HeadMalformed);
    refused("CONNECT evil.test%00.allowed.test:443 HTTP/1.1\r\n\r\n", Reason::HostInvalid);
    refused("GET http://evil.test\x01.allowed.test/ HTTP/1.1\r\nHost: x\r\n\r\n", Reason::HeadMalformed);
    refused("CONNECT allowed.test:443 HTTP/1.1\r\nHost: allowed.test\x7f:443\r\n\r\n", Reason::HeadMalformed);
}

/// EG-A7: blanks around the target.
#[test]
fn a_request_line_has_single_spaces() {
    for line in [
        "CONNECT allowed.test:443  HTTP/1.1",
        "CONNECT  allowed.test:443 HTTP/1.1",
        "CONNECT\tallowed.test:443 HTTP/1.1",
        " CONNECT allowed.test:443 HTTP/1.1",
        "CONNECT allowed.test:443 HTTP/1.1 ",
        "CONNECT allowed.test: 443 HTTP/1.1",
        "CONNECT allowed.test:443",
        "CONNECT",
        "get http://allowed.test/ HTTP/1.1",
        "GE(T http://allowed.test/ HTTP/1.1",
    ] {
        let found = read(format!("{line}\r\nHost: allowed.test:443\r\n\r\n").as_bytes());
        assert_eq!(found, Err(Reason::HeadMalformed), "{line:?}");
    }
    for line in [
        "CONNECT allowed.test:443 HTTP/2.0",
        "CONNECT allowed.test:443 http/1.1",
        "GET http://allowed.test/ HTTP/1.2",
    ] {
        let found = read(format!("{line}\r\nHost: allowed.test:443\r\n\r\n").as_bytes());
        assert!(matches!(found, Err(Reason::VersionRefused | Reason::HeadMalformed)), "{line:?} {found:?}");
    }
}

/// EG-A13, EG-A14: a Host that says something else, twice, or not at all.
#[test]
fn host_and_target_agree() {
    for hosts in [
        "Host: evil.test\r\n",
        "Host: allowed.test\r\nHost: allowed.test\r\n",
        "Host: allowed.test:80\r\n",
        "Host:\r\n",
    ] {
        refused(&format!("CONNECT allowed.test:443 HTTP/1.1\r\n{hosts}\r\n"), Reason::HostMismatch);
    }
    for hosts in [
        "Host: evil.test\r\n",
        "Host: allowed.test\r\nhOST: evil.test\r\n",
        "",
        "Host: allowed.test, evil.test\r\n",
    ] {
        refused(&format!("GET http://allowed.test/ HTTP/1.1\r\n{hosts}\r\n"), Reason::HostMismatch);
    }
}

/// EG-A15, EG-G2: targets of another form, other schemes, methods that are not passed on.
#[test]
fn targets_and_methods_that_are_refused() {
    for (line, reason) in [
        ("OPTIONS *", Reason::TargetRefused),
        ("GET /", Reason::TargetRefused),
        ("GET allowed.test:80", Reason::TargetRefused),
        ("GET https://allowed.test/", Reason::SchemeRefused),
        ("GET ftp://allowed.test/", Reason::SchemeRefused),
        ("GET urn:x", Reason::TargetRefused),
        ("CONNECT http://allowed.test/", Reason::PortInvalid),
        ("CONNECT /", Reason::HostInvalid),
        ("TRACE http://allowed.test/", Reason::MethodRefused),
        ("TRACK http://allowed.test/", Reason::MethodRefused),
    ] {
        let found = read(format!("{line} HTTP/1.1\r\nHost: allowed.test\r\n\r\n").as_bytes());
        match found {
            Err(found) => assert!(found == reason || line == "CONNECT /", "{line}: {found}"),
            Ok(found) => panic!("{line}: {found:?}"),
        }
    }
}

/// EG-E1, EG-E2, EG-E3, EG-E5, EG-E6: framing that two readers would read in two ways.
#[test]
fn framing_says_one_thing() {
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: +\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 05\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length:\r\n",
        "Content-Length: 18446744073709551621\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: Chunked, Chunked\r\n",
        "Transfer-Encoding: Chunked,\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: Chunked;q=1\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: Chunke\u{212a}d\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: Chunked\r\n",
        "Transfer-Encoding: CHUNKED\r\nTransfer-Encoding: Chunked\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding:\r\n",
        "Connection: content-length\r\nContent-Length: 5\r\n",
        "Connection: close, Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n",
        "Connection: host\r\n",
    ] {
        refused(&post(fields), Reason::FramingAmbiguous);
    }
    refused(&post("Transfer-Encoding: chunked\x0b\r\n"), Reason::HeadMalformed);
    refused(
        "POST http://allowed.test/ HTTP/1.0\r\nHost: allowed.test\r\nTransfer-Encoding: chunked\r\n\r\n",
        Reason::FramingAmbiguous,
    );
    refused(
        "CONNECT allowed.test:443 HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        Reason::FramingAmbiguous,
    );
    refused("CONNECT allowed.test:443 HTTP/1.1\r\nContent-Length: 5\r\n\r\n", Reason::FramingAmbiguous);
    assert_eq!(forward(&post("Content-Length: 5\r\n")).body, Body::Length(5));
    for chunked in ["chunked", "Chunked", "CHUNKED"] {
        let request = forward(&post(&format!("Transfer-Encoding: {chunked}\r\n")));
        assert_eq!(request.body, Body::Chunked);
        let rendered = String::from_utf8(request.render(false)).expect("ASCII");
        assert!(rendered.contains("\r\nTransfer-Encoding: chunked\r\n"), "{rendered}");
    }
    assert_eq!(forward(&get("Content-Length: 5\r\n")).body, Body::Length(5));
    assert_eq!(forward(&get("")).body, Body::None);
}

/// EG-E6: field lines that parsers mend.
#[test]
fn field_lines_are_exact() {
    for fields in [
        ": empty\r\n",
        "X-A : b\r\n",
        "X-A: b\r\n c\r\n",
        " X-A: b\r\n",
        "X-A: b\n",
        "X-A: b\rX-B: c\r\n",
        "X A: b\r\n",
        "no colon\r\n",
        "X-A: \0\r\n",
        "X-Ä: b\r\n",
        "X(A: b\r\n",
    ] {
        refused(&get(fields), Reason::HeadMalformed);
    }
    let blank = read(b"GET http://allowed.test/a b HTTP/1.1\r\nHost: allowed.test\r\n\r\n");
    assert!(matches!(blank, Err(Reason::HeadMalformed | Reason::VersionRefused)), "{blank:?}");
    let many = "X: y\r\n".repeat(100);
    refused(&get(&many), Reason::HeadTooLarge);
    assert_eq!(forward(&get(&"X: y\r\n".repeat(99))).fields.len(), 99);
}

/// EG-F4: bytes above ASCII are text or nothing, and where something depends on a field they are no match.
#[test]
fn bytes_above_ascii_are_text_or_refused() {
    for value in
        [&b"\xff"[..], b"caf\xe9", b"\xc0\xaf", b"\xed\xa0\x80", b"\xc2\x85", b"\xc2\x9b31m", b"\xe2\x80"]
    {
        let head = [get("X-A: ").trim_end().as_bytes(), b" ", value, b"\r\n\r\n"].concat();
        assert_eq!(read(&head), Err(Reason::HeadMalformed), "{}", value.escape_ascii());
        let head = [b"GET http://allowed.test/", value, b" HTTP/1.1\r\nHost: allowed.test\r\n\r\n"].concat();
        let is_text = std::str::from_utf8(value).is_ok();
        assert_eq!(read(&head).is_ok(), is_text, "{}", value.escape_ascii());
    }
    for (fields, reason) in [
        ("Connection: \u{212a}eep-alive\r\n", Reason::HeadMalformed),
        ("Expect: 100-continu\u{435}\r\n", Reason::HeadMalformed),
        ("Content-Length: \u{663}\r\n", Reason::FramingAmbiguous),
    ] {
        refused(&get(fields), reason);
    }
    refused("GET http://allowed.test/ HTTP/1.1\r\nHost: \u{430}llowed.test\r\n\r\n", Reason::HostMismatch);
    refused("GET http://\u{430}llowed.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n", Reason::HostInvalid);
    refused("CONNECT \u{430}llowed.test:443 HTTP/1.1\r\n\r\n", Reason::HostInvalid);
    let request = forward(
        "GET http://allowed.test/caf\u{e9}?q=\u{6771} HTTP/1.1\r\nHost: allowed.test\r\nX-A: \u{e9}\r\n\r\n",
    );
    let rendered = String::from_utf8(request.render(false)).expect("text");
    assert!(rendered.starts_with("GET /caf%C3%A9?q=%E6%9D%B1 HTTP/1.1\r\n"), "{rendered}");
    assert!(rendered.contains("\r\nX-A: \u{e9}\r\n"), "{rendered}");
}

/// EG-E5: an older client is understood where its request has one reading, and is given no chunks.
#[test]
fn http_1_0_is_understood() {
    let plain = forward("GET http://allowed.test/ HTTP/1.0\r\n\r\n");
    assert!(plain.close && !plain.knows_chunks);
    assert!(plain.render(false).starts_with(b"GET / HTTP/1.1\r\nHost: allowed.test\r\n"));
    let kept = forward(
        "POST http://allowed.test/ HTTP/1.0\r\nHost: allowed.test\r\nConnection: keep-alive\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n",
    );
    assert!(kept.close && !kept.expects_continue && kept.body == Body::Length(3));
    assert!(
        !forward("GET http://allowed.test/ HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            .websocket
    );
    for (head, reason) in [
        ("GET http://allowed.test/ HTTP/1.0\r\nHost: evil.test\r\n\r\n", Reason::HostMismatch),
        (
            "GET http://allowed.test/ HTTP/1.0\r\nHost: allowed.test\r\nHost: allowed.test\r\n\r\n",
            Reason::HostMismatch,
        ),
        ("GET / HTTP/1.0\r\nHost: allowed.test\r\n\r\n", Reason::TargetRefused),
        ("POST http://allowed.test/ HTTP/1.0\r\n\r\n", Reason::FramingAmbiguous),
        (
            "POST http://allowed.test/ HTTP/1.0\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            Reason::FramingAmbiguous,
        ),
        ("GET http://allowed.test/\r\n\r\n", Reason::HeadMalformed),
        ("GET http://allowed.test/ HTTP/0.9\r\n\r\n", Reason::VersionRefused),
    ] {
        refused(head, reason);
    }
}

/// EG-A16, EG-F1, EG-F2: what is of this hop, what the client nominates, and what is the proxy's in any spelling stays here.
#[test]
fn fields_of_this_hop_stay_here() {
    let request = forward(&get(concat!(
        "Connection: keep-alive, Authorization, x-api-key\r\nAuthorization: theirs\r\nX-Api-Key: theirs\r\n",
        "Proxy-Authorization: Basic x\r\nproxy_authorization: y\r\nPROXY.Authorization: z\r\nProxy-Connection: keep-alive\r\n",
        "Keep-Alive: 5\r\nTE: trailers\r\nTrailer: x\r\nX-Unix-Socket: /var/run/docker.sock\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n",
        "Accept: text/html\r\nX-Kept: yes\r\nX-Kept: twice\r\n",
    )));
    let rendered = String::from_utf8(request.render(false)).expect("ASCII");
    assert_eq!(
        rendered,
        "GET / HTTP/1.1\r\nHost: allowed.test\r\nAccept: text/html\r\nX-Kept: yes\r\nX-Kept: twice\r\nConnection: close\r\n\r\n"
    );
}

/// EG-D10: only a WebSocket is an upgrade, by a GET without a body.
#[test]
fn upgrades_are_websockets() {
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n";
    assert!(forward(&get(upgrade)).websocket);
    assert!(!forward(&get("Upgrade: websocket\r\n")).websocket, "not nominated");
    assert!(!forward(&get("Connection: Upgrade\r\nUpgrade: h2c\r\n")).websocket);
    refused(&post(upgrade), Reason::UpgradeRefused);
    refused(&get(&format!("{upgrade}Content-Length: 3\r\n")), Reason::UpgradeRefused);
    refused(&get(&format!("{upgrade}Upgrade: h2c\r\n")), Reason::UpgradeRefused);
}

#[test]
fn a_continue_is_ours_to_give() {
    assert!(forward(&post("Expect: 100-continue\r\nContent-Length: 3\r\n")).expects_continue);
    assert!(!forward(&get("Expect: 100-continue\r\n")).expects_continue);
    refused(&post("Expect: 200-maybe\r\nContent-Length: 3\r\n"), Reason::HeadMalformed);
}

const QUESTION: Question = Question { head: false, websocket: false };

/// EG-I3: what is not an answer.
#[test]
fn answers_are_read_strictly() {
    for (head, reason) in [
        ("HTTP/1.1 099 x\r\n\r\n", Reason::AnswerMalformed),
        ("HTTP/1.1 600 x\r\n\r\n", Reason::AnswerMalformed),
        ("HTTP/1.1 20 x\r\n\r\n", Reason::AnswerMalformed),
        ("HTTP/1.1 2000 x\r\n\r\n", Reason::AnswerMalformed),
        ("HTTP/2 200 x\r\n\r\n", Reason::AnswerMalformed),
        ("HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n", Reason::AnswerUpgrade),
        ("HTTP/1.1 200 x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", Reason::AnswerFraming),
        ("HTTP/1.1 200 x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", Reason::AnswerFraming),
        ("HTTP/1.1 200 x\r\nTransfer-Encoding: gzip\r\n\r\n", Reason::AnswerFraming),
        ("HTTP/1.1 200 x\r\nX-A : b\r\n\r\n", Reason::AnswerMalformed),
        ("SSH-2.0-OpenSSH\r\n\r\n", Reason::AnswerMalformed),
    ] {
        assert_eq!(parse_answer(head.as_bytes(), QUESTION), Err(reason), "{head:?}");
    }
    let many = format!("HTTP/1.1 200 x\r\n{}\r\n", "X: y\r\n".repeat(101));
    assert_eq!(parse_answer(many.as_bytes(), QUESTION), Err(Reason::AnswerHeadTooLarge));
}

#[test]
fn an_answer_ends_where_it_says() {
    let body = |head: &str, question| parse_answer(head.as_bytes(), question).expect("an answer").body;
    let head = Question { head: true, ..QUESTION };
    assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", QUESTION), Body::Length(5));
    assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", QUESTION), Body::None);
    assert_eq!(body("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", QUESTION), Body::Chunked);
    assert_eq!(body("HTTP/1.1 200 OK\r\n\r\n", QUESTION), Body::ToEnd);
    assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", head), Body::None);
    assert_eq!(body("HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n", QUESTION), Body::None);
    assert_eq!(body("HTTP/1.1 204 x\r\n\r\n", QUESTION), Body::None);
    let rendered = parse_answer(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x-b\r\nX-B: 1\r\nX-C: \xe4\r\n\r\n",
        head,
    )
    .expect("an answer")
    .render(false);
    assert_eq!(rendered, b"HTTP/1.1 200 OK\r\nX-C: \xe4\r\nContent-Length: 5\r\n\r\n");
    let empty = parse_answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", QUESTION)
        .expect("an answer")
        .render(true);
    assert_eq!(empty, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}

proptest! {
    /// Whatever goes on to an upstream is itself one request, to the same place.
    #[test]
    fn what_goes_on_is_one_request(path in "[!-~]{0,12}", fields in "(X-[A-Za-z]{1,5}: [ -~]{0,8}\r\n|Connection: [a-z, -]{0,9}\r\n){0,4}") {
        let head = format!("GET http://allowed.test/{path} HTTP/1.1\r\nHost: allowed.test\r\n{fields}\r\n");
        if let Ok(Request::Forward(request)) = read(head.as_bytes()) {
            let rendered = request.render(false);
            let end = HeadScan::default().advance(&rendered);
            prop_assert_eq!(end, Ok(Some(rendered.len())));
            let mut slots = [httparse::EMPTY_HEADER; 64];
            let mut parsed = httparse::Request::new(&mut slots);
            prop_assert!(parsed.parse(&rendered).is_ok_and(|status| status.is_complete()));
            let expected = format!("/{path}");
            prop_assert_eq!(parsed.path, Some(expected.as_str()));
            prop_assert_eq!(parsed.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("host")).count(), 1);
        }
    }

    /// No bytes make the reader panic.
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&bytes);
        let _ = parse_answer(&bytes, QUESTION);
    }
}
