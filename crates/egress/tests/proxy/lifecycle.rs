//! The rest of group J: policies that change, logs that fail, and the end.

use std::time::{Duration, Instant};

use palisade_egress::{PolicySpec, TenantSpec, verify};
use palisade_testkit::origin::Manner;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{Setup, World, get, hello, ok, read_to_end, usual_tenant};

/// EG-J4, EG-C5: a new policy ends what it does not allow within a second, and nothing else; a bad one changes nothing.
#[tokio::test]
async fn a_new_policy_ends_what_it_does_not_allow() {
    fn without_raw(port: u16) -> TenantSpec {
        let mut tenant = usual_tenant(port);
        tenant.deny = vec!["raw.test".into()];
        tenant
    }
    let world = World::usual(Manner::Echo).await;
    let port = world.origin.port();
    let (mut kept, mut removed) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let mut tunnel = world.tunnel("allowed.test").await;
        tunnel.write_all(&hello("allowed.test")).await.expect("sent");
        kept.push(tunnel);
        removed.push(world.tunnel("raw.test").await);
    }
    let bad = PolicySpec { allow_addresses: vec!["169.254.0.0/16".into()], ..Setup::default().spec(port) };
    world.proxy.reload(bad).expect_err("refused");
    assert_eq!(world.proxy.open_connections(), 40);

    let began = Instant::now();
    let ended =
        world.proxy.reload(Setup { tenant: without_raw, ..Setup::default() }.spec(port)).expect("good");
    assert_eq!(ended, 20);
    for tunnel in &mut removed {
        read_to_end(tunnel).await;
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    for tunnel in &mut kept {
        tunnel.write_all(b"still here").await.expect("sent");
    }
    for tunnel in &mut kept {
        let mut back = vec![0; hello("allowed.test").len() + 10];
        tunnel.read_exact(&mut back).await.expect("undisturbed");
        assert!(back.ends_with(b"still here"));
    }
    world.refuses_again("CONNECT raw.test:PORT HTTP/1.1\r\n\r\n", "denied").await;
    let closes = world.wait_for_closes(20).await;
    assert!(closes.iter().all(|close| close["reason"] == "policy-changed"), "{closes:#?}");

    fn offline(_port: u16) -> TenantSpec {
        TenantSpec { offline: true, ..TenantSpec::default() }
    }
    world.proxy.reload(Setup { tenant: offline, ..Setup::default() }.spec(port)).expect("good");
    for tunnel in &mut kept {
        read_to_end(tunnel).await;
    }
    drop(kept);
    world.stop().await;
}

impl World {
    /// As `refuses`, where the origin has seen other things already.
    async fn refuses_again(&self, text: &str, reason: &str) {
        let answer = self.ask_text(text).await;
        assert!(answer.contains(&format!("egress.{reason}")), "{answer}");
    }
}

/// EG-J4: many reloads, good and bad, while tunnels live.
#[tokio::test]
async fn a_storm_of_reloads_disturbs_nobody() {
    let world = World::usual(Manner::Echo).await;
    let port = world.origin.port();
    let mut tunnel = world.tunnel("raw.test").await;
    for number in 0..300 {
        let spec = Setup::default().spec(port);
        if number % 3 == 0 {
            let wrong = palisade_egress::Endpoint { host_port: "*".into(), tls: false };
            let bad = PolicySpec { upstreams: vec![wrong], ..spec };
            world.proxy.reload(bad).expect_err("refused");
        } else {
            assert_eq!(world.proxy.reload(spec).expect("good"), 0);
        }
        if number % 30 == 0 {
            tunnel.write_all(b"x").await.expect("sent");
            assert_eq!(tunnel.read_u8().await.expect("echoed"), b'x');
        }
    }
    drop(tunnel);
    world.stop().await;
}

/// EG-J7: open is recorded before anything is dialled, with the same id as its close.
#[tokio::test]
async fn open_is_recorded_before_the_dial() {
    let world = World::usual(Manner::Silent).await;
    let tunnel = world.tunnel("allowed.test").await;
    let open = world.of_kind("open");
    assert_eq!(open.len(), 1);
    assert_eq!(
        (open[0]["host"].as_str(), open[0]["rule_id"].as_str()),
        (Some("allowed.test"), Some(&*world.fill("allowed.test:PORT")))
    );
    assert_eq!(
        (open[0]["tenant"].as_str(), open[0]["session"].as_str()),
        (Some("acme"), Some("sess_0123456789ab"))
    );
    assert!(world.of_kind("close").is_empty(), "it is still open");
    drop(tunnel);
    let close = &world.wait_for_closes(1).await[0];
    assert_eq!((&close["conn"], close["ip"].as_str()), (&open[0]["conn"], Some("127.0.0.1")));
    world.stop().await;
}

/// A client that has nothing more to ask, and one that goes away within its tunnel.
#[tokio::test]
async fn ends_are_recorded_for_what_they_are() {
    let world = World::usual(Manner::Reset).await;
    let mut tunnel = world.tunnel("raw.test").await;
    tunnel.write_all(b"x").await.expect("sent");
    let mut nothing = Vec::new();
    tunnel.read_to_end(&mut nothing).await.expect_err("a reset is passed on as one");
    assert_eq!(world.wait_for_closes(1).await[0]["reason"], "upstream-broke");
    let tunnel = world.tunnel("raw.test").await;
    tunnel.set_zero_linger().expect("a reset");
    drop(tunnel);
    assert_eq!(world.wait_for_closes(2).await[1]["reason"], "client-broke");
    drop(world.connect().await);
    assert_eq!(world.records().len(), 4, "a connection without a request is none");
    world.stop().await;
}

/// Closing a door ends what came through it; others go on. Stopping gives them time, then ends them, and records it.
#[tokio::test]
async fn doors_close_and_the_proxy_stops() {
    let world = World::usual(Manner::Echo).await;
    let other = world.proxy.door(crate::world::session(), palisade_egress::DoorLimits::default());
    let other = other.expect("a door");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let entrance = listener.local_addr().expect("an address");
    other.listen(listener);
    let mut first = world.tunnel("raw.test").await;
    let mut second = tokio::net::TcpStream::connect(entrance).await.expect("it listens");
    second.write_all(world.fill("CONNECT raw.test:PORT HTTP/1.1\r\n\r\n").as_bytes()).await.expect("sent");
    crate::world::read_until(&mut second, "\r\n\r\n").await;
    world.door.close();
    read_to_end(&mut first).await;
    second.write_all(b"x").await.expect("sent");
    assert_eq!(second.read_u8().await.expect("it goes on"), b'x');

    let stopping = world.proxy.shutdown(Duration::from_millis(300));
    let (answer, ()) = tokio::join!(read_to_end(&mut second), stopping);
    assert_eq!(answer, "");
    tokio::net::TcpStream::connect(entrance).await.expect_err("nobody listens");
    let reasons: Vec<String> =
        world.of_kind("close").iter().map(|close| close["reason"].to_string()).collect();
    assert_eq!(reasons, ["\"door-closed\"", "\"shutdown\""]);
    drop(other);
    let folder = world.stop().await;
    assert_eq!(verify(folder.path()).expect("whole").last_seq, 4);
}

/// EG-E8: a request in absolute form is held to the same list as a tunnel.
#[tokio::test]
async fn both_ways_have_one_policy() {
    let world = World::usual(Manner::Answer(ok("hi"))).await;
    for name in ["denied.test", "evilallowed.test", "10.0.0.1", "sub.allowed.test"] {
        let reason = if name.starts_with("10") { "literal-refused" } else { "not-allowed" };
        world.refuses(&format!("CONNECT {name}:PORT HTTP/1.1\r\n\r\n"), reason).await;
        world.refuses(&get(&format!("http://{name}:PORT/"), &format!("{name}:PORT")), reason).await;
    }
    world.stop().await;
}
