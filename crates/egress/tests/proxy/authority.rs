//! Group A: how a host and a port may be written.

use palisade_testkit::origin::Manner;
use tokio::io::AsyncWriteExt;

use crate::world::{World, get, hello, ok};

fn connect(authority: &str) -> String {
    format!("CONNECT {authority} HTTP/1.1\r\n\r\n")
}

/// EG-A1, EG-A11: a trailing dot and capitals get the same verdict and the same dial; two dots are no host.
#[tokio::test]
async fn a_dot_and_capitals_change_nothing() {
    let world = World::usual(Manner::Echo).await;
    for name in ["allowed.test", "allowed.test.", "ALLOWED.Test"] {
        let mut stream = world.tunnel(name).await;
        stream.write_all(&hello("Allowed.TEST")).await.expect("sent");
        world.origin.wait_for_text("Allowed.TEST").await;
    }
    for record in world.of_kind("open") {
        assert_eq!(record["host"], "allowed.test");
    }
    assert_eq!(world.resolver.times_asked("allowed.test"), 3);
    drop(world);

    let world = World::usual(Manner::Echo).await;
    world.refuses(&connect("denied.test:PORT"), "not-allowed").await;
    world.refuses(&connect("denied.test.:PORT"), "not-allowed").await;
    world.refuses(&connect("allowed.test..:PORT"), "host-invalid").await;
    world.stop().await;
}

/// EG-A2 to EG-A10: one table of authorities, each with the reason of its refusal.
#[tokio::test]
async fn authorities_that_are_refused() {
    let world = World::usual(Manner::Echo).await;
    for (authority, reason) in [
        ("[denied.test]:PORT", "host-invalid"),
        ("[allowed.test]:PORT", "host-invalid"),
        ("evil.test\0.allowed.test:PORT", "head-malformed"),
        ("evil.test%00.allowed.test:PORT", "host-invalid"),
        ("evil.test\x01.allowed.test:PORT", "head-malformed"),
        ("evil.test\x7f.allowed.test:PORT", "head-malformed"),
        ("[::1%25.allowed.test]:PORT", "host-invalid"),
        ("::ffff:1.2.3.4%x.allowed.test:PORT", "port-invalid"),
        ("x@allowed.test:PORT", "userinfo-refused"),
        ("allowed.test:65979", "port-invalid"),
        ("allowed.test:+PORT", "port-invalid"),
        ("allowed.test:0PORT", "port-invalid"),
        ("allowed.test:", "port-invalid"),
        ("allowed.test", "port-invalid"),
        ("allowed.test:0", "port-invalid"),
        ("allowed.test:PORT:PORT", "port-invalid"),
        ("allowed.test:４４３", "port-invalid"),
        ("127.1:PORT", "literal-refused"),
        ("127.0.0.1:PORT", "literal-refused"),
        ("2130706433:PORT", "literal-refused"),
        ("0x7f000001:PORT", "literal-refused"),
        ("0177.0.0.1:PORT", "literal-refused"),
        ("0:PORT", "literal-refused"),
        ("0x7f.1:PORT", "literal-refused"),
        ("[::1]:PORT", "literal-refused"),
        ("[::ffff:127.0.0.1]:PORT", "literal-refused"),
        ("evilallowed.test:PORT", "not-allowed"),
        ("allowed.test.evil.test:PORT", "not-allowed"),
        ("wild.test:PORT", "not-allowed"),
        ("*.wild.test:PORT", "host-invalid"),
        ("a..wild.test:PORT", "host-invalid"),
        ("allowed_test:PORT", "not-allowed"),
        ("_allowed.test:PORT", "not-allowed"),
        ("allowed.test_:PORT", "not-allowed"),
        ("127.0.0.1_:PORT", "not-allowed"),
        ("аllowed.test:PORT", "host-invalid"),
        ("xn--allowed-.test:PORT", "host-invalid"),
        ("allowed.test:1", "not-allowed"),
    ] {
        world.refuses(&connect(authority), reason).await;
    }
    let long_label = format!("{}.wild.test:PORT", "a".repeat(64));
    world.refuses(&connect(&long_label), "host-invalid").await;
    let long_name = format!("{}wild.test:PORT", "a.".repeat(130));
    world.refuses(&connect(&long_name), "host-invalid").await;
    assert_eq!(world.resolver.questions(), Vec::<String>::new(), "no name was looked up");
    world.stop().await;
}

/// EG-A8: an address that is listed is reached in each of its spellings, and recorded in one.
#[tokio::test]
async fn a_listed_address_has_many_spellings() {
    let world = World::usual(Manner::Echo).await;
    for spelling in ["127.0.0.5", "127.5", "2130706437", "0x7f.0.0.5", "0177.0.0.05"] {
        let reply = world.ask_text(&connect(&format!("{spelling}:PORT"))).await;
        // Listed, judged, and dialled: nobody listens at that address.
        assert!(reply.contains("egress.dial-failed"), "{spelling}: {reply}");
    }
    assert!(world.of_kind("open").iter().all(|record| record["host"] == "127.0.0.5"));
    world.stop().await;
}

/// EG-A13: Host and target of a CONNECT.
#[tokio::test]
async fn host_fields_of_a_tunnel() {
    let world = World::usual(Manner::Echo).await;
    for (target, hosts) in [
        ("allowed.test:PORT", "Host: evil.test\r\n"),
        ("evil.test:PORT", "Host: allowed.test:PORT\r\n"),
        ("allowed.test:PORT", "Host: allowed.test:PORT\r\nHost: allowed.test:PORT\r\n"),
        ("allowed.test:PORT", "Host: allowed.test:PORT\r\nhost: evil.test\r\n"),
        ("allowed.test:PORT", "Host: allowed.test:1\r\n"),
        ("allowed.test:PORT", "Host: \r\n"),
    ] {
        world.refuses(&format!("CONNECT {target} HTTP/1.1\r\n{hosts}\r\n"), "host-mismatch").await;
    }
    world.stop().await;
}

/// EG-A5, EG-A14, EG-A15: absolute targets.
#[tokio::test]
async fn targets_that_are_refused() {
    let world = World::usual(Manner::Answer(ok("hi"))).await;
    for (target, reason) in [
        ("http://allowed.test@evil.test:PORT/", "userinfo-refused"),
        ("http://evil.test#@allowed.test:PORT/", "target-refused"),
        ("http://allowed.test:PORT\\@evil.test/", "target-refused"),
        ("http://%61llowed.test:PORT/", "host-invalid"),
        ("http://evil.test\0.allowed.test:PORT/", "head-malformed"),
        ("ftp://allowed.test:PORT/", "scheme-refused"),
        ("file:///etc/passwd", "scheme-refused"),
        ("gopher://allowed.test:PORT/", "scheme-refused"),
        ("https://allowed.test:PORT/", "scheme-refused"),
        ("urn:allowed.test", "target-refused"),
        ("/", "target-refused"),
        ("*", "target-refused"),
        ("allowed.test:PORT", "target-refused"),
    ] {
        world.refuses(&get(target, "allowed.test:PORT"), reason).await;
    }
    world.refuses(&get("http://allowed.test:PORT/", "evil.test"), "host-mismatch").await;
    world.refuses(&get("http://allowed.test:PORT/", "allowed.test"), "host-mismatch").await;
    world.refuses("OPTIONS * HTTP/1.1\r\nHost: allowed.test:PORT\r\n\r\n", "target-refused").await;
    assert_eq!(world.resolver.questions(), Vec::<String>::new());
    world.stop().await;
}
