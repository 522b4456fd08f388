//! Groups B and C: from a name to the address that is dialled.

use std::net::IpAddr;

use palisade_egress::{Principal, TenantSpec};
use palisade_testkit::{
    origin::Manner,
    resolver::{Data, Reply},
};

use crate::world::{Setup, World, get, ok, strings, usual_tenant};

const TUNNEL: &str = "CONNECT allowed.test:PORT HTTP/1.1\r\n\r\n";

fn address(text: &str) -> Data {
    Data::Address(text.parse::<IpAddr>().expect("an address"))
}

/// EG-B1, EG-B2, EG-B3: what an allowed name may not resolve to, with nothing opened and with everything opened that can be.
#[tokio::test]
async fn names_do_not_lead_inside() {
    let nothing_opened = Setup { allow_addresses: Vec::new(), ..Setup::default() }.start().await;
    let much_opened =
        Setup { allow_addresses: strings(&["10.0.0.0/8", "127.0.0.0/8"]), ..Setup::default() }.start().await;
    let always = [
        "0.0.0.0",
        "169.254.1.1",
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "192.0.0.1",
        "198.18.0.1",
        "::",
        "::1",
        "fe80::1",
        "fc00::1",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fd00:c1::a9fe:a9fe",
        "fd00:42::42",
        "fd00:a9fe:a9fe::1",
        "fd00:100::100:200",
        "::ffff:169.254.169.254",
        "::ffff:127.0.0.1",
        "::169.254.169.254",
        "::ffff:0:a9fe:a9fe",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:a9fe:a9fe::1",
        "2001::1",
        "fec0::1",
        "2a00:1450::5efe:a9fe:a9fe",
        "ff02::1",
        "2001:db8::1",
    ];
    let closed_only = ["127.0.0.1", "127.1.2.3", "10.0.0.1", "10.255.255.255"];
    let both = ["172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "100.127.255.255"];
    for text in always.into_iter().chain(both) {
        for world in [&nothing_opened, &much_opened] {
            world.resolver.set_addresses("allowed.test", &[text]);
            world.refuses(TUNNEL, "address-refused").await;
            let refusals = world.refusals();
            let ips = &refusals[refusals.len() - 1]["ips_refused"];
            let parsed: IpAddr = ips[0].as_str().expect("an address").parse().expect("an address");
            assert_eq!(parsed, text.parse::<IpAddr>().expect("an address"));
        }
    }
    for text in closed_only {
        nothing_opened.resolver.set_addresses("allowed.test", &[text]);
        nothing_opened.refuses(TUNNEL, "address-refused").await;
    }
    nothing_opened.stop().await;
    much_opened.stop().await;
}

/// EG-B4, EG-D8: the proxy's own listener, by name and by address.
#[tokio::test]
async fn the_proxy_is_not_reached_through_itself() {
    fn anything(_port: u16) -> TenantSpec {
        TenantSpec::default()
    }
    let world = Setup { tenant: anything, ..Setup::default() }.start().await;
    let own = world.entrance.port();
    world.resolver.set_addresses("loop.test", &["127.0.0.1"]);
    world.refuses(&format!("CONNECT loop.test:{own} HTTP/1.1\r\n\r\n"), "own-address").await;
    let url = format!("http://loop.test:{own}/");
    world.refuses(&get(&url, &format!("loop.test:{own}")), "own-address").await;
    world.stop().await;
}

/// EG-B5: of a mixed answer only what may be dialled is, and the record says what was left out.
#[tokio::test]
async fn of_a_mixed_answer_the_public_part_is_dialled() {
    let world = World::usual(Manner::Answer(ok("hi"))).await;
    world.resolver.set_addresses("allowed.test", &["192.168.7.7", "127.0.0.1", "169.254.169.254", "::1"]);
    let answer = world.ask_text(&get("http://allowed.test:PORT/", "allowed.test:PORT")).await;
    assert!(answer.ends_with("\r\n\r\nhi"), "{answer}");
    let close = &world.wait_for_closes(1).await[0];
    assert_eq!(close["ip"], "127.0.0.1");
    assert_eq!(close["ips_refused"].as_array().map(Vec::len), Some(3), "{close}");
    world.stop().await;
}

/// EG-B6: one look-up per connection, and what was judged is what is dialled.
#[tokio::test]
async fn a_name_is_looked_up_once_per_connection() {
    let world = World::usual(Manner::Answer(ok("hi"))).await;
    let steps = [["127.0.0.1"], ["169.254.169.254"], ["127.0.0.1"]].map(|step| step.map(address).to_vec());
    world.resolver.set("allowed.test", Reply::Changing(steps.into()));
    // The three requests come on one connection: each is one look-up of its own.
    let request = world.fill("GET http://allowed.test:PORT/ HTTP/1.1\r\nHost: allowed.test:PORT\r\n\r\n");
    let answers = world.ask(request.repeat(3)).await;
    assert_eq!(answers.matches("200 OK").count(), 1, "{answers}");
    assert!(answers.contains("egress.address-refused"), "{answers}");
    assert_eq!(world.resolver.times_asked("allowed.test"), 2);
    assert_eq!(world.origin.seen().len(), 1);
    let answer = world.ask(&request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
    assert!(answer.ends_with("hi"), "{answer}");
    assert_eq!(world.resolver.times_asked("allowed.test"), 3);
    world.stop().await;
}

/// EG-B6: those who ask at the same time share no answer, and nothing is kept for those who ask later.
#[tokio::test]
async fn answers_are_not_shared() {
    let server = palisade_testkit::resolver::FakeResolver::start().await.expect("a name server");
    server.set_addresses("allowed.test", &["127.0.0.1"]);
    let resolver = palisade_egress::Resolver::new(server.address()).expect("a resolver");
    let name = palisade_egress::HostName::parse("allowed.test").expect("a name");
    // All have asked before the name server, which runs on this thread too, sees the first.
    let together = futures_util::future::join_all((0..20).map(|_| resolver.resolve(&name))).await;
    assert!(together.iter().all(Result::is_ok), "{together:?}");
    assert_eq!(server.times_asked("allowed.test"), 20);
    resolver.resolve(&name).await.expect("an answer");
    assert_eq!(server.times_asked("allowed.test"), 21);
}

/// EG-C1, EG-C5: a name that is not allowed is not looked up: not one packet leaves.
#[tokio::test]
async fn a_refused_name_is_not_looked_up() {
    let world = World::usual(Manner::Echo).await;
    for name in ["c2VjcmV0.attacker.test", "data.allowed.test", "allowed.test.attacker.test"] {
        world.refuses(&format!("CONNECT {name}:PORT HTTP/1.1\r\n\r\n"), "not-allowed").await;
        let host = format!("{name}:PORT");
        world.refuses(&get(&format!("http://{name}:PORT/"), &host), "not-allowed").await;
    }
    assert_eq!(world.resolver.questions(), Vec::<String>::new());
    world.stop().await;

    fn offline(_port: u16) -> TenantSpec {
        TenantSpec { offline: true, ..TenantSpec::default() }
    }
    let world = Setup { tenant: offline, ..Setup::default() }.start().await;
    world.refuses(TUNNEL, "offline").await;
    world.refuses(&get("http://allowed.test:PORT/", "allowed.test:PORT"), "offline").await;
    world.refuses("CONNECT 1.1.1.1:443 HTTP/1.1\r\n\r\n", "offline").await;
    assert_eq!(world.resolver.questions(), Vec::<String>::new());
    world.stop().await;
}

/// EG-C2, EG-C3: what the name server may not say; and only whole names are asked for, of it alone.
#[tokio::test]
async fn a_name_server_is_not_believed_everything() {
    let world = World::usual(Manner::Echo).await;
    let here = || vec![address("127.0.0.1")];
    let stray = Data::Stray("other.test".into(), "127.0.0.1".parse().expect("an address"));
    for (reply, reasons) in [
        (Reply::Missing, &["resolve-failed"][..]),
        (Reply::Records(Vec::new()), &["resolve-failed"]),
        (Reply::Silence, &["resolve-timeout"]),
        (Reply::OtherPort(here()), &["resolve-timeout"]),
        (Reply::OtherQuestion(here()), &["resolve-failed", "resolve-timeout"]),
        (Reply::Garbage, &["resolve-failed", "resolve-timeout"]),
        (Reply::Records(vec![stray]), &["resolve-failed"]),
    ] {
        world.resolver.set("allowed.test", reply.clone());
        let answer = world.ask_text(TUNNEL).await;
        assert!(
            reasons.iter().any(|reason| answer.contains(&format!("egress.{reason}"))),
            "{reply:?}: {answer}"
        );
    }
    world.nothing_arrived("none of these");
    assert_eq!(world.origin.seen().len(), 0);
    let questions = world.resolver.questions();
    assert!(questions.iter().all(|name| name == "allowed.test"), "no search list: {questions:?}");
    world.stop().await;
}

/// What does not fit into a datagram comes by a connection, and half a list is not taken for the whole.
#[tokio::test]
async fn a_long_answer_comes_whole() {
    let world = World::usual(Manner::Answer(ok("hi"))).await;
    world.resolver.set("allowed.test", Reply::Truncated(vec![address("127.0.0.1")]));
    let answer = world.ask_text(&get("http://allowed.test:PORT/", "allowed.test:PORT")).await;
    assert!(answer.ends_with("hi"), "{answer}");
    world.stop().await;
}

/// EG-C3: a chain of aliases is judged by where it ends, recorded, and not endless.
#[tokio::test]
async fn aliases_are_judged_by_their_end() {
    let world = World::usual(Manner::Answer(ok("hi"))).await;
    let alias = |name: &str| Data::Alias(name.to_owned());
    world.resolver.set(
        "allowed.test",
        Reply::Records(vec![alias("a.evil.test"), alias("b.evil.test"), address("10.0.0.1")]),
    );
    world.refuses(TUNNEL, "address-refused").await;
    let refusals = world.refusals();
    assert_eq!(refusals[0]["aliases"], serde_json::json!(["a.evil.test", "b.evil.test"]));

    world.resolver.set("allowed.test", Reply::Records(vec![alias("cdn.test"), address("127.0.0.1")]));
    let answer = world.ask_text(&get("http://allowed.test:PORT/", "allowed.test:PORT")).await;
    assert!(answer.ends_with("hi"), "{answer}");
    assert_eq!(world.wait_for_closes(2).await[1]["aliases"], serde_json::json!(["cdn.test"]));

    let mut long: Vec<Data> = (0..9).map(|number| alias(&format!("a{number}.test"))).collect();
    long.push(address("127.0.0.1"));
    world.resolver.set("allowed.test", Reply::Records(long));
    let answer = world.ask_text(TUNNEL).await;
    assert!(answer.contains("egress.cname-chain"), "{answer}");
    world.resolver.set("allowed.test", Reply::Records(vec![alias("allowed.test"), alias("allowed.test")]));
    let answer = world.ask_text(TUNNEL).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    world.stop().await;
}

/// Decision 1: an upstream on a private address is the router's; a session does not reach it even where addresses are opened.
#[tokio::test]
async fn upstreams_are_the_routers() {
    let setup = |principal| Setup {
        principal,
        manner: Manner::Answer(ok("hi")),
        allow_addresses: Vec::new(),
        upstreams: strings(&["allowed.test"]),
        ..Setup::default()
    };
    let world = setup(Principal::Router).start().await;
    let request = get("http://allowed.test:PORT/v1", "allowed.test:PORT");
    let answer = world.ask_text(&request).await;
    assert!(answer.ends_with("hi"), "{answer}");
    assert_eq!(world.of_kind("open")[0]["principal"], "router");
    world.resolver.set_addresses("allowed.test", &["169.254.169.254"]);
    let answer = world.ask_text(&request).await;
    assert!(answer.contains("egress.address-refused"), "not even the router: {answer}");
    world.stop().await;
    for (principal, reason) in
        [(Setup::default().principal, "router-only"), (Principal::Service, "not-allowed")]
    {
        let world = setup(principal).start().await;
        world.refuses(&request, reason).await;
        world.stop().await;
    }
    assert!(
        usual_tenant(1).allow.is_some_and(|allow| allow.contains(&"allowed.test:1".to_owned())),
        "although it is allowed"
    );
}
