//! Group D: what a tunnel may begin with.

use palisade_testkit::origin::Manner;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{World, hello, read_to_end, read_until};

/// EG-D1, EG-D5: a server name that is not the tunnel's host.
#[tokio::test]
async fn the_server_name_is_the_host() {
    let world = World::usual(Manner::Echo).await;
    for name in ["example.com", "evil.allowed.test", "llowed.test", "raw.test"] {
        world.ends_tunnel("allowed.test", &hello(name), "sni-mismatch").await;
    }
    assert_eq!(world.refusals()[0]["sni"], "example.com");
    world.stop().await;

    let world = World::usual(Manner::Echo).await;
    let mut stream = world.tunnel("allowed.test").await;
    let first = hello("allowed.test");
    stream.write_all(&first).await.expect("sent");
    let mut echoed = vec![0; first.len()];
    stream.read_exact(&mut echoed).await.expect("it passes");
    assert_eq!(echoed, first, "byte for byte");
    drop(stream);
    let close = &world.wait_for_closes(1).await[0];
    assert_eq!(
        (close["sni"].as_str(), close["bytes_up"].as_u64()),
        (Some("allowed.test"), Some(first.len() as u64))
    );
    world.stop().await;
}

/// EG-D2: hellos without a name that can be read for certain.
#[tokio::test]
async fn a_hello_says_one_name() {
    let world = World::usual(Manner::Echo).await;
    world.ends_tunnel("allowed.test", &hello("127.0.0.1"), "sni-missing").await;
    let whole = hello("allowed.test");
    let at = whole.windows(12).position(|window| window == b"allowed.test").expect("the name");
    for (from, byte) in
        [(at + 11, b'.'), (at + 3, 0), (at + 3, b'_'), (at + 3, 0xff), (at - 3, 1), (0, 23), (5, 2)]
    {
        let mut changed = whole.clone();
        changed[from] = byte;
        let mut stream = world.tunnel("allowed.test").await;
        stream.write_all(&changed).await.expect("sent");
        assert_eq!(read_to_end(&mut stream).await, "", "{from} {byte}");
        world.nothing_arrived("a changed hello");
    }
    world.stop().await;
}

/// EG-D2: a hello in many records and many segments is the same hello.
#[tokio::test]
async fn a_hello_may_come_in_pieces() {
    let world = World::usual(Manner::Echo).await;
    let whole = hello("allowed.test");
    let in_records = |bytes: &[u8]| -> Vec<u8> {
        let records = bytes[5..]
            .chunks(7)
            .map(|part| [&[22, 3, 1, 0, u8::try_from(part.len()).expect("short")][..], part].concat());
        records.collect::<Vec<_>>().concat()
    };
    let mut stream = world.tunnel("allowed.test").await;
    for piece in in_records(&whole).chunks(100) {
        stream.write_all(piece).await.expect("sent");
        stream.flush().await.expect("sent");
        tokio::task::yield_now().await;
    }
    let mut echoed = vec![0; in_records(&whole).len()];
    stream.read_exact(&mut echoed).await.expect("it passes");
    drop(stream);
    world.stop().await;

    let world = World::usual(Manner::Echo).await;
    world.ends_tunnel("allowed.test", &in_records(&hello("example.com")), "sni-mismatch").await;
    let mut endless = vec![22, 3, 1, 0x3f, 0xff, 1, 0, 0xff, 0xff];
    endless.resize(5 + 0x3fff, 0);
    let more = [&[22, 3, 1, 0x3f, 0xff][..], &[0; 0x3fff]].concat();
    let endless = [endless, more.clone(), more].concat();
    let mut stream = world.tunnel("allowed.test").await;
    let _ = stream.write_all(&endless).await;
    read_to_end(&mut stream).await;
    assert_eq!(world.wait_for_refusals(2).await[1]["reason"], "hello-malformed");
    world.nothing_arrived("an endless hello");
    world.stop().await;
}

/// EG-D3: an Encrypted Client Hello hides the name; it passes only where the host says so.
#[tokio::test]
async fn ech_is_refused_unless_the_host_allows_it() {
    let world = World::usual(Manner::Echo).await;
    world.ends_tunnel("allowed.test", &with_ech(&hello("allowed.test")), "ech-refused").await;
    let mut stream = world.tunnel("ech.test").await;
    let first = with_ech(&hello("ech.test"));
    stream.write_all(&first).await.expect("sent");
    let mut echoed = vec![0; first.len()];
    stream.read_exact(&mut echoed).await.expect("it passes");
    drop(stream);
    world.stop().await;
}

/// Appends an extension 0xfe0d to a hello of one record, and mends the four lengths around it.
fn with_ech(hello: &[u8]) -> Vec<u8> {
    let mut bytes = hello.to_vec();
    let extension = [&[0xfe, 0x0d, 0, 8][..], &[0; 8]].concat();
    let session_id = 5 + 4 + 2 + 32;
    let suites = session_id + 1 + usize::from(bytes[session_id]);
    let compression = suites + 2 + usize::from(u16::from_be_bytes([bytes[suites], bytes[suites + 1]]));
    let extensions = compression + 1 + usize::from(bytes[compression]);
    let mut grow = |at: usize| {
        let length =
            u16::from_be_bytes([bytes[at], bytes[at + 1]]) + u16::try_from(extension.len()).expect("short");
        bytes[at..at + 2].copy_from_slice(&length.to_be_bytes());
    };
    grow(3);
    grow(7);
    grow(extensions);
    bytes.extend_from_slice(&extension);
    bytes
}

/// EG-D6: other protocols, and a tunnel within the tunnel (EG-D8's nested CONNECT).
#[tokio::test]
async fn only_tls_passes_unless_the_host_is_raw() {
    let world = World::usual(Manner::Echo).await;
    for bytes in [&b"SSH-2.0-OpenSSH_9\r\n"[..], b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", b"\x00\x01\x02"] {
        world.ends_tunnel("allowed.test", bytes, "not-tls").await;
    }
    // Who speaks HTTP in there is told why, and what would help.
    for bytes in [
        "GET /chat HTTP/1.1\r\nHost: allowed.test\r\nUpgrade: websocket\r\n\r\n",
        "CONNECT evil.test:443 HTTP/1.1\r\n\r\n",
    ] {
        let mut stream = world.tunnel("allowed.test").await;
        stream.write_all(bytes.as_bytes()).await.expect("sent");
        let told = read_to_end(&mut stream).await;
        assert!(
            told.starts_with("HTTP/1.1 400 ") && told.contains("(not-tls)") && told.contains("raw"),
            "{told}"
        );
        world.nothing_arrived(bytes);
    }
    let last = world.refusals().pop().expect("a record");
    assert!(
        last["reason"] == "not-tls" && last["why"].as_str().is_some_and(|why| why.contains("raw")),
        "{last}"
    );
    let mut stream = world.tunnel("raw.test").await;
    stream.write_all(b"SSH-2.0-x\r\n").await.expect("sent");
    assert_eq!(read_until(&mut stream, "\r\n").await, "SSH-2.0-x\r\n");
    drop(stream);
    world.stop().await;

    // A raw protocol may begin with the server.
    let world = World::usual(Manner::Greet(b"220 hello\r\n".to_vec())).await;
    let mut stream = world.tunnel("raw.test").await;
    assert_eq!(read_until(&mut stream, "\r\n").await, "220 hello\r\n");
    drop(stream);
    world.stop().await;
}

/// EG-D9: what is sent before the 200 is held to the same rules, and goes nowhere before them.
#[tokio::test]
async fn early_bytes_are_judged() {
    let world = World::usual(Manner::Echo).await;
    let head = world.fill("CONNECT allowed.test:PORT HTTP/1.1\r\n\r\n").into_bytes();
    let answer = world.ask([&head[..], b"GET / HTTP/1.1\r\n\r\n"].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 400 "), "{answer}");
    assert_eq!(world.wait_for_refusals(1).await[0]["reason"], "not-tls");
    let answer = world.ask([&head[..], &hello("evil.test")].concat()).await;
    assert_eq!(answer, "HTTP/1.1 200 Connection established\r\n\r\n");
    assert_eq!(world.wait_for_refusals(2).await[1]["reason"], "sni-mismatch");
    world.nothing_arrived("early bytes");
    let refused = b"CONNECT denied.test:443 HTTP/1.1\r\n\r\n";
    let answer = world.ask([&refused[..], &hello("denied.test")].concat()).await;
    assert!(answer.contains("egress.not-allowed"), "{answer}");

    let first = hello("allowed.test");
    let mut stream = world.connect().await;
    stream.write_all(&[&head[..], &first].concat()).await.expect("sent");
    read_until(&mut stream, "\r\n\r\n").await;
    let mut echoed = vec![0; first.len()];
    stream.read_exact(&mut echoed).await.expect("it passes");
    assert_eq!(echoed, first);
    drop(stream);
    world.stop().await;
}
