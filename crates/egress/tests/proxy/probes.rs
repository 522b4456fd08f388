//! The probes of the scoreboard, which sends them to other proxies too: here none gets through.

use palisade_egress::{
    AuditLog, AuditSettings, DoorLimits, PolicySpec, Proxy, ProxySettings, Resolver, TenantSpec,
};
use palisade_protocol::id::TenantName;
use palisade_testkit::{
    probes::{CONTROLS, HOST, Origins, Outcome, PROBES, send},
    resolver::FakeResolver,
};
use tokio::net::TcpListener;

use crate::world::{parts, session, strings};

#[tokio::test]
async fn no_probe_gets_through() {
    let origins = Origins::start().await.expect("origins");
    let resolver = FakeResolver::start().await.expect("a name server");
    // Whatever got past the policy would find its way.
    for name in [HOST, "evil.test", "evillocalhost", "localhost.evil.test"] {
        resolver.set_addresses(name, &["127.0.0.1"]);
    }
    let tenant = TenantSpec {
        allow: Some(vec![format!("{HOST}:{}", origins.allowed.port())]),
        ..TenantSpec::default()
    };
    let spec = PolicySpec {
        allow_addresses: strings(&["127.0.0.0/8"]),
        tenants: vec![(TenantName::parse("acme").expect("a name"), tenant)],
        ..PolicySpec::default()
    };
    let folder = tempfile::tempdir().expect("a folder");
    let proxy = Proxy::new(parts(
        spec,
        Resolver::new(resolver.address()).expect("a resolver"),
        AuditLog::open(folder.path(), AuditSettings::default()).expect("a log"),
        ProxySettings::default(),
    ))
    .expect("a proxy");
    let door = proxy.door(session(), DoorLimits::default()).expect("a door");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let entrance = listener.local_addr().expect("an address");
    door.listen(listener);

    for control in &CONTROLS {
        let outcome = send(entrance, &origins, control).await.expect("the proxy listens");
        assert_eq!(outcome, Outcome::LetThrough, "{}", control.sends);
    }
    let mut outcomes = Vec::new();
    for probe in &PROBES {
        outcomes.push((probe, send(entrance, &origins, probe).await.expect("the proxy listens")));
    }
    for (probe, outcome) in outcomes {
        // A credential for the proxy is no reason to refuse the request that it came with.
        let expected = if probe.case == "EG-F2" { Outcome::Normalised } else { Outcome::Refused };
        assert_eq!(outcome, expected, "{}: {}", probe.case, probe.sends);
    }
}
