//! The policy as tables: who, where, and what is said.

use proptest::prelude::*;

use super::*;

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn endpoints(texts: &[&str]) -> Vec<Endpoint> {
    texts.iter().map(|&text| Endpoint { host_port: text.to_owned(), tls: text.ends_with(":443") }).collect()
}

fn session(tenant: &str) -> Principal {
    Principal::Session {
        tenant: TenantName::parse(tenant).expect("a name"),
        session: SessionId::parse("sess_0123456789ab").expect("an id"),
    }
}

fn tenants(tenants: &[(&str, TenantSpec)]) -> Policy {
    Policy::build(&PolicySpec {
        upstreams: endpoints(&["models.test:443", "127.0.0.1:9911"]),
        services: endpoints(&["login.test:443"]),
        tenants: tenants
            .iter()
            .map(|(name, spec)| (TenantName::parse(name).expect("a name"), spec.clone()))
            .collect(),
        ..PolicySpec::default()
    })
    .expect("a policy")
}

fn listed(allow: &[&str], deny: &[&str]) -> Policy {
    let spec = TenantSpec { allow: Some(strings(allow)), deny: strings(deny), ..TenantSpec::default() };
    tenants(&[("acme", spec)])
}

#[track_caller]
fn says(policy: &Policy, principal: &Principal, at: &str, expected: Result<&str, Reason>) {
    let destination = Destination::from_authority(at).expect("a destination");
    let found = policy.judge(principal, &destination).map(|grant| grant.rule.to_string());
    assert_eq!(found.as_deref().map_err(|reason| *reason), expected, "{at}");
}

/// EG-A9: exact names, suffixes and ports; nothing that only looks alike.
#[test]
fn a_list_lets_through_what_it_names() {
    let policy = listed(&["allowed.test", "*.sub.test", "other.test:8443", "*.wide.test:444"], &[]);
    let acme = session("acme");
    says(&policy, &acme, "allowed.test:443", Ok("allowed.test"));
    says(&policy, &acme, "allowed.test:80", Ok("allowed.test"));
    says(&policy, &acme, "ALLOWED.test.:443", Ok("allowed.test"));
    says(&policy, &acme, "a.sub.test:443", Ok("*.sub.test"));
    says(&policy, &acme, "a.b.sub.test:443", Ok("*.sub.test"));
    says(&policy, &acme, "other.test:8443", Ok("other.test:8443"));
    says(&policy, &acme, "x.wide.test:444", Ok("*.wide.test:444"));
    for at in [
        "allowed.test:8443",
        "evilallowed.test:443",
        "allowed.test.evil.test:443",
        "x.allowed.test:443",
        "sub.test:443",
        "evilsub.test:443",
        "other.test:443",
        "x.wide.test:443",
    ] {
        says(&policy, &acme, at, Err(Reason::NotAllowed));
    }
}

/// EG-H11: what a credential may be bound to.
#[test]
fn a_credential_is_bound_to_names_and_to_none_that_anybody_can_have() {
    for good in [
        "api.example.com",
        "api.example.com:8443",
        "*.example.com",
        "*.example.com:444",
        "B\u{fc}cher.example",
    ] {
        assert!(check_host_pattern(good).is_ok(), "{good}");
    }
    for wrong in [
        "*",
        "*.com",
        "*.co.uk",
        "*.github.io",
        "a.*.com",
        "",
        "a b",
        "https://a.test",
        "a.test/x",
        "10.0.0.1",
        "127.1",
        "[::1]:443",
        "::1",
        "a.test:0",
        "a.test:x",
    ] {
        assert!(check_host_pattern(wrong).is_err(), "{wrong}");
    }
}

/// EG-A12: a pattern below which anybody can have a name is refused, and so is the whole policy with it.
#[test]
fn patterns_that_are_too_wide_are_refused() {
    for pattern in [
        "*",
        "*.",
        "*.com",
        "*.co.uk",
        "*.test",
        "*.github.io",
        "a*b.test",
        "*x.test",
        "*.*.test.com",
        "x.*",
        "",
        ".",
        "*.1.2",
    ] {
        let spec = TenantSpec { allow: Some(strings(&["allowed.test", pattern])), ..TenantSpec::default() };
        let failure = Tenant::build(&spec).expect_err(pattern);
        assert!(failure.to_string().contains(&format!("{pattern:?}")), "{failure}");
    }
    for pattern in
        ["allowed.test:0", "allowed.test:65536", "allowed.test:", "http://allowed.test", "a/b", "u@x.test"]
    {
        let spec = TenantSpec { allow: Some(strings(&[pattern])), ..TenantSpec::default() };
        Tenant::build(&spec).expect_err(pattern);
    }
    let wide_deny = TenantSpec { deny: strings(&["*.com", "*.zip"]), ..TenantSpec::default() };
    Tenant::build(&wide_deny).expect("a deny may be wide");
    for upstream in ["*.models.test:443", "models.test"] {
        let spec = PolicySpec { upstreams: endpoints(&[upstream]), ..PolicySpec::default() };
        Policy::build(&spec).expect_err(upstream);
    }
}

/// EG-A10: a pattern may be international; it is kept as A-labels.
#[test]
fn international_patterns() {
    let policy = listed(&["bücher.test", "*.Straße.test"], &[]);
    says(&policy, &session("acme"), "xn--bcher-kva.test:443", Ok("bücher.test"));
    says(&policy, &session("acme"), "www.xn--strae-oqa.test:443", Ok("*.Straße.test"));
}

/// EG-A4, EG-A8: an address is refused unless that address is listed, and never matches a suffix.
#[test]
fn addresses_are_listed_as_such() {
    let policy = listed(&["127.0.0.2:8000", "[2001:db8::1]:443", "*.allowed.test"], &["10.0.0.1"]);
    let acme = session("acme");
    for at in ["127.0.0.2:8000", "127.2:8000", "0x7f000002:8000", "2130706434:8000"] {
        says(&policy, &acme, at, Ok("127.0.0.2:8000"));
    }
    says(&policy, &acme, "[2001:db8:0::1]:443", Ok("[2001:db8::1]:443"));
    says(&policy, &acme, "127.0.0.2:443", Err(Reason::LiteralRefused));
    says(&policy, &acme, "[::ffff:127.0.0.2]:8000", Err(Reason::LiteralRefused));
    says(&policy, &acme, "10.1:443", Err(Reason::Denied));
    let open = tenants(&[("acme", TenantSpec::default())]);
    says(&open, &acme, "1.1.1.1:443", Err(Reason::LiteralRefused));
    says(&open, &acme, "16843009:443", Err(Reason::LiteralRefused));
}

/// EG-J3, EG-C5: an empty list lets nothing through; no list is open, but not for an offline tenant.
#[test]
fn empty_is_closed() {
    let offline = TenantSpec { offline: true, ..TenantSpec::default() };
    let listed_offline = TenantSpec { allow: Some(strings(&["allowed.test"])), ..offline.clone() };
    let policy = tenants(&[
        ("open", TenantSpec::default()),
        ("empty", TenantSpec { allow: Some(Vec::new()), ..TenantSpec::default() }),
        ("off", offline),
        ("off-listed", listed_offline),
    ]);
    says(&policy, &session("open"), "any.test:8443", Ok("public"));
    says(&policy, &session("empty"), "any.test:443", Err(Reason::NotAllowed));
    says(&policy, &session("off"), "any.test:443", Err(Reason::Offline));
    says(&policy, &session("off"), "1.1.1.1:443", Err(Reason::Offline));
    says(&policy, &session("off-listed"), "allowed.test:443", Ok("allowed.test"));
    says(&policy, &session("off-listed"), "any.test:443", Err(Reason::Offline));
    says(&policy, &session("unknown"), "any.test:443", Err(Reason::NotAllowed));
    says(&tenants(&[]), &session("acme"), "any.test:443", Err(Reason::NotAllowed));
}

/// A deny wins over a list and over an open policy, on all ports unless it names one.
#[test]
fn a_deny_wins() {
    let acme = session("acme");
    let policy = listed(&["*.sub.test", "a.sub.test"], &["a.sub.test", "*.b.sub.test", "c.sub.test:80"]);
    says(&policy, &acme, "a.sub.test:443", Err(Reason::Denied));
    says(&policy, &acme, "x.b.sub.test:443", Err(Reason::Denied));
    says(&policy, &acme, "b.sub.test:443", Ok("*.sub.test"));
    says(&policy, &acme, "c.sub.test:80", Err(Reason::Denied));
    says(&policy, &acme, "c.sub.test:443", Ok("*.sub.test"));
    let open = tenants(&[("acme", TenantSpec { deny: strings(&["*.zip"]), ..TenantSpec::default() })]);
    says(&open, &acme, "x.zip:8443", Err(Reason::Denied));
}

/// Decision 1: upstreams are the router's, and the router's alone; services have their own list.
#[test]
fn each_principal_has_its_own_places() {
    let policy = listed(&["models.test", "login.test", "127.0.0.1:9911"], &[]);
    says(&policy, &Principal::Router, "models.test:443", Ok("models.test:443"));
    says(&policy, &Principal::Router, "127.0.0.1:9911", Ok("127.0.0.1:9911"));
    says(&policy, &Principal::Router, "models.test:80", Err(Reason::NotAllowed));
    says(&policy, &Principal::Router, "login.test:443", Err(Reason::NotAllowed));
    says(&policy, &Principal::Service, "login.test:443", Ok("login.test:443"));
    says(&policy, &Principal::Service, "models.test:443", Err(Reason::NotAllowed));
    says(&policy, &session("acme"), "models.test:443", Err(Reason::RouterOnly));
    says(&policy, &session("acme"), "127.1:9911", Err(Reason::RouterOnly));
    says(&policy, &session("acme"), "login.test:443", Ok("login.test"));
}

/// EG-D3, EG-D6: what a host's tunnel may carry.
#[test]
fn options_belong_to_their_hosts() {
    let spec = TenantSpec {
        hosts: vec![
            HostRule { name: "git.test:22".into(), raw: true, ..HostRule::default() },
            HostRule { name: "*.ech.test".into(), allow_ech: true, ..HostRule::default() },
        ],
        ..TenantSpec::default()
    };
    let policy = tenants(&[("acme", spec)]);
    for (at, raw, ech) in
        [("git.test:22", true, false), ("git.test:443", false, false), ("a.ech.test:443", false, true)]
    {
        let destination = Destination::from_authority(at).expect("a destination");
        let grant = policy.judge(&session("acme"), &destination).expect("open");
        assert_eq!((grant.raw, grant.allow_ech), (raw, ech), "{at}");
    }
}

fn credential(hosts: &[&str]) -> CredentialRule {
    CredentialRule {
        name: palisade_protocol::CredentialName::parse("thing").expect("a name"),
        allowed_hosts: strings(hosts),
        injection: palisade_protocol::Injection::Bearer,
        env: None,
        placeholder: "palisade_credential_0".into(),
    }
}

/// EG-H3, EG-H4, EG-H11: a credential has its hosts, each with a port, over TLS; to those there is no other way.
#[test]
fn credentials_belong_to_their_hosts() {
    let spec = TenantSpec {
        hosts: vec![HostRule { name: "up.test".into(), upgrade: true, ..HostRule::default() }],
        credentials: vec![credential(&["api.test", "*.wide.test", "odd.test:8443", "up.test"])],
        ..TenantSpec::default()
    };
    let policy = tenants(&[("acme", spec), ("other", TenantSpec::default())]);
    let acme = session("acme");
    let judged = |principal: &Principal, at: &str, scheme| {
        let destination = Destination { scheme, ..Destination::from_authority(at).expect("a destination") };
        let destination = policy.outward(principal, destination);
        let grant = policy.judge(principal, &destination)?;
        Ok((destination.to_string(), grant.intercept, grant.credentials.len()))
    };
    for at in ["api.test:443", "x.wide.test:443", "odd.test:8443"] {
        assert_eq!(judged(&acme, at, Scheme::Tunnel), Ok((at.into(), true, 1)));
    }
    assert_eq!(judged(&acme, "up.test:80", Scheme::Http), Ok(("up.test:443".into(), true, 1)));
    for (at, scheme) in [
        ("api.test:80", Scheme::Http),
        ("api.test:443", Scheme::Http),
        ("api.test:8443", Scheme::Tunnel),
        ("odd.test:443", Scheme::Tunnel),
        ("x.wide.test:22", Scheme::Tunnel),
    ] {
        assert_eq!(judged(&acme, at, scheme), Err(Reason::ManagedHost), "{at}");
    }
    for at in ["wide.test:443", "x.api.test:443", "apixtest.test:443"] {
        assert_eq!(judged(&acme, at, Scheme::Tunnel), Ok((at.into(), false, 0)));
    }
    assert_eq!(
        judged(&session("other"), "api.test:443", Scheme::Tunnel),
        Ok(("api.test:443".into(), false, 0))
    );
    assert_eq!(policy.intercepted(&acme), ["api.test", "odd.test", "up.test", "wide.test"]);
    assert!(
        policy.intercepted(&session("other")).is_empty() && policy.intercepted(&Principal::Router).is_empty()
    );
    for wide in ["*", "*.com", "*.co.uk"] {
        let spec = TenantSpec { credentials: vec![credential(&[wide])], ..TenantSpec::default() };
        Tenant::build(&spec).expect_err(wide);
    }
}

/// What a tenant names is called for it where its own sandboxes could go, and never an upstream.
#[test]
fn a_tenants_endpoint_is_no_way_inside() {
    let policy = Policy::build(&PolicySpec {
        upstreams: endpoints(&["models.test:443"]),
        services: endpoints(&["bucket.test:443"]),
        tenant_services: endpoints(&["login.test:443", "models.test:443"]),
        ..PolicySpec::default()
    })
    .expect("a policy");
    let private = std::net::SocketAddr::from(([10, 0, 0, 1], 443));
    let judged = |at: &str| {
        let destination = Destination::from_authority(at).expect("a destination");
        policy.judge(&Principal::Service, &destination).map(|grant| grant.addresses.judge(private, &[]))
    };
    assert_eq!(judged("bucket.test:443"), Ok(Ok(())), "the operator's own may be anywhere");
    assert_eq!(judged("login.test:443"), Ok(Err(Reason::AddressRefused)));
    assert_eq!(judged("models.test:443"), Err(Reason::NotAllowed));
    assert_eq!(judged("other.test:443"), Err(Reason::NotAllowed));
}

/// The server's own calls come in plain, and leave as their endpoint has it.
#[test]
fn endpoints_say_how_they_are_spoken_to() {
    let policy = tenants(&[]);
    let out = |at: &str| {
        let destination =
            Destination { scheme: Scheme::Http, ..Destination::from_authority(at).expect("one") };
        policy.outward(&Principal::Router, destination).scheme
    };
    assert_eq!((out("models.test:443"), out("127.0.0.1:9911")), (Scheme::Https, Scheme::Http));
    assert_eq!(out("login.test:443"), Scheme::Http, "another principal's endpoint");
}

proptest! {
    /// A list lets through exactly its names and what ends in its suffixes at a dot, whatever else is asked.
    #[test]
    fn nothing_else_gets_through(host in "([ab*]{1,3}\\.){0,3}(allowed\\.test|sub\\.test|test)", port in prop_oneof![Just(443u16), Just(80), any::<u16>()]) {
        let policy = listed(&["allowed.test", "*.sub.test"], &["bad.sub.test"]);
        let Ok(destination) = Destination::from_authority(&format!("{host}:{port}")) else { return Ok(()) };
        let web = port == 443 || port == 80;
        let expected = web && host != "bad.sub.test" && (host == "allowed.test" || host.ends_with(".sub.test"));
        prop_assert_eq!(policy.judge(&session("acme"), &destination).is_ok(), expected);
    }
}
