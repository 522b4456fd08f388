//! What kind of address this is, and whether a principal may have it dialled. Prefixes that carry another address inside are refused
//! whole, never decoded; metadata services are refused to everybody, whatever configuration says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{EgressError, Reason};

/// The kinds that rules tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressKind {
    /// Routed on the public internet.
    Public,
    /// 127/8 and `::1`.
    Loopback,
    /// RFC 1918 and unique local addresses.
    Private,
    /// 100.64/10, between a carrier and its customers.
    Shared,
    /// A cloud's metadata or credential service, or a link-local address, where most of them live.
    Metadata,
    /// A v6 prefix that means some v4 address: mapped, compatible, translated, 6to4, Teredo, ISATAP.
    Transition,
    /// Multicast and broadcast.
    Multicast,
    /// Everything else that is not a place on the internet.
    Reserved,
}

/// Which addresses a connection may go to.
#[derive(Debug, Clone)]
pub(crate) enum AddressRule {
    /// Public ones, and those within networks that an operator opened to sandboxes.
    PublicAnd(std::sync::Arc<OpenNetworks>),
    /// Whatever an operator's own endpoint resolves to, but for metadata services.
    Operators,
}

/// The networks of `allow_addresses`.
#[derive(Debug, Default)]
pub(crate) struct OpenNetworks(Vec<IpNet>);

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(segments: [u16; 8], length: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), length)
}

// Metadata stands first: 100.100.100.200 is within the shared range, and fd00:ec2::/32 within the private one.
const V4: &[(Ipv4Net, AddressKind)] = &[
    (v4(169, 254, 0, 0, 16), AddressKind::Metadata),
    (v4(168, 63, 129, 16, 32), AddressKind::Metadata),
    (v4(100, 100, 100, 200, 32), AddressKind::Metadata),
    (v4(192, 0, 0, 192, 32), AddressKind::Metadata),
    (v4(127, 0, 0, 0, 8), AddressKind::Loopback),
    (v4(10, 0, 0, 0, 8), AddressKind::Private),
    (v4(172, 16, 0, 0, 12), AddressKind::Private),
    (v4(192, 168, 0, 0, 16), AddressKind::Private),
    (v4(100, 64, 0, 0, 10), AddressKind::Shared),
    (v4(224, 0, 0, 0, 4), AddressKind::Multicast),
    (v4(255, 255, 255, 255, 32), AddressKind::Multicast),
    (v4(0, 0, 0, 0, 8), AddressKind::Reserved),
    (v4(192, 0, 0, 0, 24), AddressKind::Reserved),
    (v4(192, 0, 2, 0, 24), AddressKind::Reserved),
    (v4(192, 88, 99, 0, 24), AddressKind::Reserved),
    (v4(198, 18, 0, 0, 15), AddressKind::Reserved),
    (v4(198, 51, 100, 0, 24), AddressKind::Reserved),
    (v4(203, 0, 113, 0, 24), AddressKind::Reserved),
    (v4(240, 0, 0, 0, 4), AddressKind::Reserved),
];

const V6: &[(Ipv6Net, AddressKind)] = &[
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), AddressKind::Metadata),
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32), AddressKind::Metadata),
    (v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0], 32), AddressKind::Metadata),
    (v6([0xfd00, 0xc1, 0, 0, 0, 0, 0, 0], 32), AddressKind::Metadata),
    (v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0], 32), AddressKind::Metadata),
    (v6([0xfd00, 0xa9fe, 0, 0, 0, 0, 0, 0], 32), AddressKind::Metadata),
    (v6([0xfd00, 0x100, 0, 0, 0, 0, 0, 0], 32), AddressKind::Metadata),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), AddressKind::Loopback),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), AddressKind::Reserved),
    // Mapped, translated (SIIT) and compatible addresses, all within the first 64 zero bits.
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 64), AddressKind::Transition),
    (v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96), AddressKind::Transition),
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), AddressKind::Transition),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32), AddressKind::Transition),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), AddressKind::Transition),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), AddressKind::Private),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), AddressKind::Multicast),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), AddressKind::Reserved),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), AddressKind::Reserved),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), AddressKind::Reserved),
];

/// The only v6 space that is handed out for the public internet.
const V6_PUBLIC: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

impl AddressKind {
    /// The kind of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => {
                let listed = V4.iter().find(|(network, _)| network.contains(&address));
                listed.map_or(Self::Public, |(_, kind)| *kind)
            }
            IpAddr::V6(address) => {
                let listed = V6.iter().find(|(network, _)| network.contains(&address));
                match listed {
                    Some((_, kind @ (Self::Metadata | Self::Loopback))) => *kind,
                    _ if is_isatap(address) => Self::Transition,
                    Some((_, kind)) => *kind,
                    None if V6_PUBLIC.contains(&address) => Self::Public,
                    None => Self::Reserved,
                }
            }
        }
    }
}

/// `…:0:5efe:a.b.c.d` and `…:200:5efe:a.b.c.d`, below any prefix.
fn is_isatap(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    matches!(segments[4], 0 | 0x200) && segments[5] == 0x5efe
}

impl OpenNetworks {
    /// Reads `allow_addresses`. What touches a metadata service fails here.
    pub(crate) fn parse(networks: &[String]) -> Result<Self, EgressError> {
        let mut open = Vec::with_capacity(networks.len());
        for text in networks {
            let wrong = |why| EgressError::PolicyNetwork { network: text.clone(), why };
            let network: IpNet = text
                .parse()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                .map_err(|_| wrong("it is not a network like 10.20.0.0/16"))?;
            let listed_v4 = V4.iter().map(|(listed, kind)| (IpNet::V4(*listed), *kind));
            let listed_v6 = V6.iter().map(|(listed, kind)| (IpNet::V6(*listed), *kind));
            let metadata = |(listed, kind): (IpNet, AddressKind)| {
                kind == AddressKind::Metadata && (listed.contains(&network) || network.contains(&listed))
            };
            if listed_v4.chain(listed_v6).any(metadata) {
                return Err(wrong("a metadata service is in it, which no sandbox may reach"));
            }
            if matches!(AddressKind::of(network.network()), AddressKind::Transition | AddressKind::Multicast)
            {
                return Err(wrong("it is no network of hosts"));
            }
            open.push(network);
        }
        Ok(Self(open))
    }
}

impl AddressRule {
    /// Whether this address may be dialled.
    pub(crate) fn judge(&self, at: SocketAddr, own_listeners: &[SocketAddr]) -> Result<(), Reason> {
        let kind = AddressKind::of(at.ip());
        let networks = match (self, kind) {
            (_, AddressKind::Metadata | AddressKind::Transition | AddressKind::Multicast) => {
                return Err(Reason::AddressRefused);
            }
            (Self::Operators, _) => {
                return if at.ip().is_unspecified() { Err(Reason::AddressRefused) } else { Ok(()) };
            }
            (Self::PublicAnd(networks), _) => networks,
        };
        let opened = networks.0.iter().filter(|network| network.contains(&at.ip()));
        let longest = opened.map(IpNet::prefix_len).max();
        if at.ip().is_unspecified() || (kind != AddressKind::Public && longest.is_none()) {
            return Err(Reason::AddressRefused);
        }
        // A network that is opened is one of other machines; this one must be named in full, and the proxy itself never is.
        let named_in_full = longest == Some(if at.is_ipv4() { 32 } else { 128 });
        let own = kind != AddressKind::Loopback && is_own(at.ip());
        let listener = own_listeners.iter().any(|listener| {
            listener.port() == at.port()
                && (listener.ip() == at.ip()
                    || (listener.ip().is_unspecified() && (own || kind == AddressKind::Loopback)))
        });
        if listener || (own && !named_in_full) {
            return Err(Reason::OwnAddress);
        }
        Ok(())
    }
}

/// Whether this host has the address. The kernel answers: only an address of one's own can be bound.
fn is_own(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[track_caller]
    fn kinds(expected: AddressKind, addresses: &[&str]) {
        for text in addresses {
            let address = text.parse().expect("an address");
            assert_eq!(AddressKind::of(address), expected, "{text}");
        }
    }

    fn rule(networks: &[&str]) -> AddressRule {
        let networks: Vec<String> = networks.iter().map(|&network| network.to_owned()).collect();
        AddressRule::PublicAnd(Arc::new(OpenNetworks::parse(&networks).expect("networks")))
    }

    fn judge(rule: &AddressRule, address: &str) -> Result<(), Reason> {
        rule.judge(SocketAddr::new(address.parse().expect("an address"), 443), &[])
    }

    /// EG-B1: what is not the public internet, at the first and last address of each range.
    #[test]
    fn ranges_that_are_not_public() {
        kinds(
            AddressKind::Public,
            &["1.1.1.1", "8.8.8.8", "11.0.0.0", "172.32.0.0", "100.128.0.0", "169.253.255.255"],
        );
        kinds(AddressKind::Public, &["2606:4700::1111", "2001:4860:4860::8888", "2a00:1450::1"]);
        kinds(AddressKind::Loopback, &["127.0.0.1", "127.255.255.255", "::1"]);
        kinds(
            AddressKind::Private,
            &["10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.1"],
        );
        kinds(AddressKind::Private, &["fc00::1", "fdff::1"]);
        kinds(AddressKind::Shared, &["100.64.0.0", "100.127.255.255"]);
        kinds(AddressKind::Multicast, &["224.0.0.1", "239.255.255.255", "255.255.255.255", "ff02::1"]);
        kinds(
            AddressKind::Reserved,
            &["0.0.0.0", "0.1.2.3", "192.0.0.1", "198.18.0.1", "198.19.255.255", "240.0.0.1"],
        );
        kinds(
            AddressKind::Reserved,
            &["::", "2001:db8::1", "3fff::1", "100::1", "5f00::1", "fec0::1", "4000::1"],
        );
    }

    /// EG-B2: metadata services, wherever they hide.
    #[test]
    fn metadata_services() {
        kinds(
            AddressKind::Metadata,
            &[
                "169.254.169.254",
                "169.254.170.2",
                "169.254.170.23",
                "168.63.129.16",
                "100.100.100.200",
                "192.0.0.192",
                "fd00:ec2::254",
                "fd00:ec2:1::1",
                "fd20:ce::254",
                "fd00:c1::a9fe:a9fe",
                "fd00:42::42",
                "fd00:a9fe:a9fe::1",
                "fd00:100::100:200",
                "fe80::1",
            ],
        );
    }

    /// EG-B3: addresses within addresses.
    #[test]
    fn transition_prefixes() {
        kinds(
            AddressKind::Transition,
            &[
                "::ffff:169.254.169.254",
                "::ffff:8.8.8.8",
                "::169.254.169.254",
                "::ffff:0:a9fe:a9fe",
                "64:ff9b::a9fe:a9fe",
                "64:ff9b:1::1",
                "2002:a9fe:a9fe::1",
                "2001::1",
                "2a00:1450::5efe:a9fe:a9fe",
                "2a00:1450::200:5efe:808:808",
            ],
        );
        kinds(AddressKind::Reserved, &["fec0::1"]);
    }

    /// EG-B2: no configuration opens a metadata service: not at load, not as an operator's endpoint.
    #[test]
    fn metadata_cannot_be_opened() {
        for network in [
            "169.254.0.0/16",
            "169.254.169.254",
            "0.0.0.0/0",
            "100.64.0.0/10",
            "fd00::/8",
            "::/0",
            "fe80::/10",
        ] {
            let failure = OpenNetworks::parse(&[network.to_owned()]).expect_err(network);
            assert!(failure.to_string().contains("metadata"), "{failure}");
        }
        for network in ["224.0.0.0/4", "64:ff9b::/96", "2002::/16", "::ffff:10.0.0.0/104", "ff00::/8"] {
            OpenNetworks::parse(&[network.to_owned()]).expect_err(network);
        }
        OpenNetworks::parse(&["nonsense".into()]).expect_err("no network");
        for address in ["169.254.169.254", "100.100.100.200", "::ffff:10.0.0.1", "0.0.0.0", "224.0.0.1"] {
            assert_eq!(judge(&AddressRule::Operators, address), Err(Reason::AddressRefused), "{address}");
            assert_eq!(judge(&rule(&["10.0.0.0/8"]), address), Err(Reason::AddressRefused), "{address}");
        }
    }

    #[test]
    fn a_network_is_opened_to_its_addresses_alone() {
        let opened = rule(&["10.20.0.0/16", "127.0.0.1", "::1/128"]);
        for address in ["10.20.3.4", "127.0.0.1", "::1", "8.8.8.8"] {
            assert_eq!(judge(&opened, address), Ok(()), "{address}");
        }
        for address in ["10.21.0.1", "127.0.0.2", "192.168.0.1"] {
            assert_eq!(judge(&opened, address), Err(Reason::AddressRefused), "{address}");
        }
        assert_eq!(judge(&AddressRule::Operators, "10.1.2.3"), Ok(()));
    }

    /// EG-B4: an address of this host, and the proxy's own listener.
    #[test]
    fn this_host_is_not_reached_through_a_network() {
        let listener: SocketAddr = "0.0.0.0:3128".parse().expect("an address");
        let at = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 3128);
        assert_eq!(rule(&["127.0.0.0/8"]).judge(at, &[listener]), Err(Reason::OwnAddress));
        assert_eq!(rule(&["127.0.0.0/8"]).judge(at, &[at]), Err(Reason::OwnAddress));
        assert!(is_own(Ipv4Addr::LOCALHOST.into()));
        assert!(!is_own("192.0.2.1".parse().expect("an address")));
        // Without sending anything: which address of ours would packets to the internet have?
        let probe = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        if probe.connect("192.0.2.1:9").is_err() {
            println!("not checked here: this host has no address but loopback");
            return;
        }
        let own = probe.local_addr().expect("an address").ip();
        if AddressKind::of(own) == AddressKind::Private {
            let network = format!("{own}/8");
            assert_eq!(judge(&rule(&[&network]), &own.to_string()), Err(Reason::OwnAddress));
            assert_eq!(judge(&rule(&[&own.to_string()]), &own.to_string()), Ok(()), "named in full");
        }
    }
}
