//! Part of groups C and J: deadlines and caps.

use std::time::Duration;

use palisade_egress::{DoorLimits, EgressError, PassKey, ProxyAddress, ProxySettings, RemoteProxy};
use palisade_testkit::{origin::Manner, wait_for};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{Setup, World, get, hello, ok, read_to_end, read_until};

/// Short enough to wait for, long enough to tell from at once.
const SHORT: Duration = Duration::from_millis(200);

/// EG-J5: a head that comes a byte at a time, a connection that says nothing, a hello that does not come.
#[tokio::test]
async fn nobody_is_waited_for_without_end() {
    let settings = ProxySettings {
        head_timeout: SHORT,
        keep_alive_timeout: SHORT,
        hello_timeout: SHORT,
        ..ProxySettings::default()
    };
    let world = Setup { settings, ..Setup::default() }.start().await;
    let mut slow = world.connect().await;
    let dripping = async {
        for byte in b"CONNECT allowed.test:443 HTTP/1.1\r\nHost: ".iter().cycle() {
            if slow.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            let mut told = [0; 64];
            if let Ok(1..) = slow.try_read(&mut told) {
                assert!(told.starts_with(b"HTTP/1.1 408 "), "{}", told.escape_ascii());
                break;
            }
        }
    };
    dripping.await;
    assert_eq!(world.wait_for_refusals(1).await[0]["reason"], "head-timeout");
    let mut silent = world.connect().await;
    assert_eq!(read_to_end(&mut silent).await, "");
    let mut tunnel = world.tunnel("allowed.test").await;
    // On a busy machine the time is over before this is sent.
    let _ = tunnel.write_all(&hello("allowed.test")[..20]).await;
    assert_eq!(read_to_end(&mut tunnel).await, "");
    assert_eq!(world.wait_for_refusals(2).await[1]["reason"], "hello-timeout");
    world.nothing_arrived("half a hello");
    world.stop().await;
}

/// EG-J5: a tunnel in which nothing passes; an upstream that does not answer; a body that does not go on.
#[tokio::test]
async fn silence_ends() {
    let settings = ProxySettings {
        idle_timeout: SHORT,
        answer_timeout: SHORT,
        body_timeout: SHORT,
        ..ProxySettings::default()
    };
    let world = Setup { settings, ..Setup::default() }.start().await;
    let mut tunnel = world.tunnel("allowed.test").await;
    tunnel.write_all(&hello("allowed.test")).await.expect("sent");
    assert_eq!(read_to_end(&mut tunnel).await, "");
    let answer = world.ask_text(&get("http://allowed.test:PORT/", "allowed.test:PORT")).await;
    assert!(answer.starts_with("HTTP/1.1 504 ") && answer.contains("egress.answer-timeout"), "{answer}");
    let unfinished =
        "POST http://allowed.test:PORT/ HTTP/1.1\r\nHost: allowed.test:PORT\r\nContent-Length: 10\r\n\r\nabc";
    let answer = world.ask_text(unfinished).await;
    assert!(
        answer.contains("egress.body-incomplete") || answer.contains("egress.answer-timeout"),
        "{answer}"
    );
    assert_eq!(world.of_kind("close")[0]["reason"], "idle-timeout");
    world.stop().await;
}

/// EG-J5: connections of one session, and of the proxy.
#[tokio::test]
async fn connections_are_counted() {
    let limits = DoorLimits { connections_max: 3, ..DoorLimits::default() };
    let settings = ProxySettings { connections_max: 5, ..ProxySettings::default() };
    let world = Setup { limits, settings, ..Setup::default() }.start().await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(world.tunnel("allowed.test").await);
    }
    world.refuses("CONNECT allowed.test:PORT HTTP/1.1\r\n\r\n", "session-connections").await;
    let other = world.proxy.door(crate::world::session(), limits).expect("a door");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let entrance = listener.local_addr().expect("an address");
    other.listen(listener);
    let mut others = Vec::new();
    for _ in 0..2 {
        others.push(tokio::net::TcpStream::connect(entrance).await.expect("it listens"));
    }
    wait_for("two connections", || async { (other.connections() == 2).then_some(()) }).await;
    let mut third = tokio::net::TcpStream::connect(entrance).await.expect("it listens");
    assert!(read_to_end(&mut third).await.contains("egress.proxy-connections"));
    held.clear();
    wait_for("places to be free", || async { (world.door.connections() == 0).then_some(()) }).await;
    world.tunnel("allowed.test").await;
    other.close();
    world.stop().await;
}

/// EG-J5: connections of one tenant, over all its sessions.
#[tokio::test]
async fn a_tenants_connections_are_counted_together() {
    let settings = ProxySettings { tenant_connections_max: 2, ..ProxySettings::default() };
    let world = Setup { settings, ..Setup::default() }.start().await;
    let first = world.tunnel("allowed.test").await;
    let again = world.proxy.door(crate::world::session(), DoorLimits::default()).expect("a door");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let entrance = listener.local_addr().expect("an address");
    again.listen(listener);
    let _second = tokio::net::TcpStream::connect(entrance).await.expect("it listens");
    wait_for("a connection", || async { (again.connections() == 1).then_some(()) }).await;
    world.refuses("CONNECT allowed.test:PORT HTTP/1.1\r\n\r\n", "tenant-connections").await;
    drop(first);
    wait_for("a place to be free", || async { (world.door.connections() == 0).then_some(()) }).await;
    world.tunnel("allowed.test").await;
    again.close();
    world.stop().await;
}

/// EG-J6: the cap is met to the byte, in a tunnel and in a body; then nothing more is opened.
#[tokio::test]
async fn bytes_are_counted_to_the_last() {
    let first = hello("allowed.test");
    let cap = first.len() + 100_000;
    let limits = DoorLimits { bytes_max: cap as u64, ..DoorLimits::default() };
    let world = Setup { limits, ..Setup::default() }.start().await;
    let mut tunnel = world.tunnel("allowed.test").await;
    tunnel.write_all(&first).await.expect("sent");
    // It is closed while this is sent.
    let _ = tunnel.write_all(&vec![7; 300_000]).await;
    let close = &world.wait_for_closes(1).await[0];
    assert_eq!(
        (close["reason"].as_str(), close["bytes_up"].as_u64()),
        (Some("session-bytes"), Some(cap as u64))
    );
    world.origin.wait_for_ends(1).await;
    assert_eq!(world.origin.bytes().len(), cap);
    let answer = world.ask_text("CONNECT allowed.test:PORT HTTP/1.1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("egress.session-bytes"), "{answer}");
    world.stop().await;
}

/// EG-C4: names that a client makes up under a wildcard.
#[tokio::test]
async fn made_up_names_are_counted() {
    let limits = DoorLimits { wildcard_names_per_minute_max: 5, ..DoorLimits::default() };
    let world = Setup { limits, manner: Manner::Answer(ok("hi")), ..Setup::default() }.start().await;
    for number in 0..5 {
        let answer = world.ask_text(&format!("CONNECT x{number}.wild.test:PORT HTTP/1.1\r\n\r\n")).await;
        assert!(answer.contains("egress.resolve-failed"), "{answer}");
    }
    let asked = world.resolver.questions().len();
    world.refuses("CONNECT x5.wild.test:PORT HTTP/1.1\r\n\r\n", "name-rate").await;
    assert_eq!(world.resolver.questions().len(), asked, "it was not looked up");
    let again = world.ask_text("CONNECT x1.wild.test:PORT HTTP/1.1\r\n\r\n").await;
    assert!(again.contains("egress.resolve-failed"), "a name that was asked for already: {again}");
    let exact = world.ask_text(&get("http://allowed.test:PORT/", "allowed.test:PORT")).await;
    assert!(exact.ends_with("hi"), "exact names do not count: {exact}");
    world.stop().await;
}

/// EG-J1: a server in another process says whose its connections are, and signs it; who guesses is answered and not let in, and
/// holds up nobody else.
#[tokio::test]
async fn passes_say_who_asks() {
    let world = World::usual(Manner::Answer(ok("hi"))).await;
    let key = |text: &str| PassKey::new(&text.repeat(32).into()).expect("long enough");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let entrance = listener.local_addr().expect("an address");
    world.proxy.pass_door(key("k"), DoorLimits::default(), None).listen(listener);
    let socket = world.folder.path().join("egress.sock");
    world.proxy.pass_door(key("k"), DoorLimits::default(), None).listen_at(&socket).expect("a socket");
    let request = world.fill(&get("http://allowed.test:PORT/", "allowed.test:PORT"));
    let ask = async |first: &str| {
        let mut stream = tokio::net::TcpStream::connect(entrance).await.expect("it listens");
        stream.write_all(format!("{first}{request}").as_bytes()).await.expect("sent");
        read_to_end(&mut stream).await
    };
    let forged = "PALISADE/1 session acme sess_0123456789ab 99999999999 connect 00ff\r\n";
    for first in ["", "PALISADE/1 router\r\n", forged, &"x".repeat(2000), "Proxy-Authorization: Bearer k\r\n"]
    {
        let answer = ask(first).await;
        assert!(answer.starts_with("HTTP/1.1 407 ") && answer.contains("egress.token-refused"), "{answer}");
    }
    let mut answer = String::new();
    for _ in 0..30 {
        answer = ask(forged).await;
    }
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    world.nothing_arrived("no pass");
    for address in [ProxyAddress::Tcp(entrance), ProxyAddress::Unix(socket)] {
        let through = RemoteProxy::new(address.clone(), key("k")).door(crate::world::session()).await;
        let through = through.expect("a door");
        assert_eq!(through.trust_anchor(), None);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let inside = listener.local_addr().expect("an address");
        through.listen(listener);
        let mut stream = tokio::net::TcpStream::connect(inside).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("sent");
        assert!(read_to_end(&mut stream).await.ends_with("hi"), "{address}");
        through.close();
    }
    assert_eq!(world.of_kind("open")[0]["session"], "sess_0123456789ab");
    let stranger =
        RemoteProxy::new(ProxyAddress::Tcp(entrance), key("x")).door(crate::world::session()).await;
    assert!(matches!(stranger, Err(EgressError::PassRefused { .. })), "{stranger:?}");
    world.stop().await;
}

/// Many tunnels at once each carry their own bytes; half-closed ones go on in the other direction.
#[tokio::test]
async fn tunnels_do_not_mix() {
    let world = World::usual(Manner::Echo).await;
    let one = |number: u8| {
        let world = &world;
        async move {
            let mut tunnel = world.tunnel("allowed.test").await;
            let first = hello("allowed.test");
            tunnel.write_all(&first).await.expect("sent");
            let mut echoed = vec![0; first.len()];
            tunnel.read_exact(&mut echoed).await.expect("echoed");
            let (mut from, mut to) = tunnel.split();
            let sent = vec![number; 200_000];
            let sending = async {
                to.write_all(&sent).await.expect("sent");
                to.shutdown().await.expect("half-closed");
            };
            let mut back = Vec::new();
            let (read, ()) = tokio::join!(from.read_to_end(&mut back), sending);
            read.expect("an end");
            assert!(back == sent, "{} bytes", back.len());
        }
    };
    futures_util::future::join_all((0..40).map(one)).await;
    let closes = world.wait_for_closes(40).await;
    assert!(
        closes.iter().all(|close| close["reason"] == "done" && close["bytes_up"] == close["bytes_down"]),
        "{closes:#?}"
    );
    world.stop().await;
}

/// An answer that comes before the request's body is passed on, and the connection ends with it.
#[tokio::test]
async fn an_early_answer_is_passed_on() {
    let world = World::usual(Manner::AnswerAndClose(
        b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig".to_vec(),
    ))
    .await;
    let mut stream = world.connect().await;
    let head = "POST http://allowed.test:PORT/ HTTP/1.1\r\nHost: allowed.test:PORT\r\nContent-Length: 1000000\r\n\r\nabc";
    stream.write_all(world.fill(head).as_bytes()).await.expect("sent");
    let told = read_until(&mut stream, "big").await;
    assert!(told.starts_with("HTTP/1.1 413 ") && told.contains("Connection: close"), "{told}");
    assert_eq!(read_to_end(&mut stream).await, "");
    world.stop().await;
}
