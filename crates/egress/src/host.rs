//! A host in one spelling: a lower-case ASCII name without its root dot, or an address. Whatever could be read in two ways is
//! refused here, so that rule, look-up, server name and record speak of the same thing. It must never mend what a client wrote
//! but for case and one trailing dot.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

use crate::Reason;

const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// A host name in canonical form: letters, digits, hyphens and underscores, lower case, international labels as valid A-labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Box<str>);

/// What a connection is to: a name, or an address that was written as one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name, to be resolved.
    Name(HostName),
    /// An address literal, in whichever spelling it came.
    Ip(IpAddr),
}

impl HostName {
    /// The name, without a trailing dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads a name off the wire. Anything that is, or could be taken for, an address is refused.
    pub fn parse(text: &str) -> Result<Self, Reason> {
        match Host::parse(text)? {
            Host::Name(name) => Ok(name),
            Host::Ip(_) => Err(Reason::HostInvalid),
        }
    }

    /// This name, and every name that it stands below: `a.b.c`, `b.c`, `c`.
    pub(crate) fn with_parents(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(Some(self.as_str()), |name| name.split_once('.').map(|(_, parent)| parent))
    }
}

impl Host {
    /// Reads a host as a client writes it, without port: `name`, `192.0.2.1` in any of its spellings, `[2001:db8::1]`.
    pub fn parse(text: &str) -> Result<Self, Reason> {
        if let Some(rest) = text.strip_prefix('[') {
            // `Ipv6Addr` takes no zone, which must not stand here: it names an interface of ours.
            let inside = rest.strip_suffix(']').ok_or(Reason::HostInvalid)?;
            let address: Ipv6Addr = inside.parse().map_err(|_| Reason::HostInvalid)?;
            return Ok(Self::Ip(IpAddr::V6(address)));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.split('.').all(is_label) {
            return Err(Reason::HostInvalid);
        }
        if ends_in_a_number(&name) {
            let address = parse_loose_ipv4(&name).ok_or(Reason::HostInvalid)?;
            return Ok(Self::Ip(IpAddr::V4(address)));
        }
        if name.split('.').any(|label| label.starts_with("xn--")) && !is_stable_under_idna(&name) {
            return Err(Reason::HostInvalid);
        }
        Ok(Self::Name(HostName(name.into())))
    }

    /// Reads a host as an operator writes it: international names and bare v6 addresses, too.
    pub(crate) fn parse_setting(text: &str) -> Result<Self, Reason> {
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Ok(Self::Ip(IpAddr::V6(address)));
        }
        if text.is_ascii() {
            return Self::parse(text);
        }
        let name = to_ascii(text).ok_or(Reason::HostInvalid)?;
        Self::parse(&name)
    }
}

impl std::fmt::Display for HostName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Ip(IpAddr::V4(address)) => address.fmt(f),
            Self::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

fn is_label(label: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Whether some resolver would take this for an IPv4 address: its last label is a decimal or a hexadecimal number.
fn ends_in_a_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    last.bytes().all(|byte| byte.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// `inet_aton`: one to four parts, each decimal, octal or hexadecimal, the last filling what is left.
fn parse_loose_ipv4(name: &str) -> Option<Ipv4Addr> {
    let parts = name.split('.').map(parse_loose_number).collect::<Option<Vec<u64>>>()?;
    let (last, leading) = parts.split_last()?;
    if leading.len() > 3 || leading.iter().any(|part| *part > 0xff) {
        return None;
    }
    let last_bits = 32 - 8 * u32::try_from(leading.len()).ok()?;
    if *last >= 1u64 << last_bits {
        return None;
    }
    let high = leading.iter().zip([24, 16, 8]).fold(0, |sum, (part, shift)| sum | (part << shift));
    u32::try_from(high | last).ok().map(Ipv4Addr::from)
}

fn parse_loose_number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some("") => Some(0),
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None if text.len() > 1 && text.starts_with('0') => u64::from_str_radix(text, 8).ok(),
        None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        None => None,
    }
}

/// Hyphens in the third and fourth place are common in real names (`r3---sn-…`), so only the ends are looked at.
fn to_ascii(name: &str) -> Option<String> {
    Uts46::new()
        .to_ascii(name.as_bytes(), AsciiDenyList::STD3, Hyphens::CheckFirstLast, DnsLength::Verify)
        .ok()
        .map(std::borrow::Cow::into_owned)
}

/// Whether the A-labels are ones that their own Unicode form would be written as.
fn is_stable_under_idna(name: &str) -> bool {
    // An underscore is for names of servers what a letter is; to these rules it is none.
    let name = &name.replace('_', "x");
    let (unicode, valid) =
        Uts46::new().to_unicode(name.as_bytes(), AsciiDenyList::STD3, Hyphens::CheckFirstLast);
    valid.is_ok() && to_ascii(&unicode).as_deref() == Some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> String {
        match Host::parse(text) {
            Ok(Host::Name(name)) => name.to_string(),
            other => panic!("{text:?} is {other:?}"),
        }
    }

    fn refused(text: &str) {
        assert_eq!(Host::parse(text), Err(Reason::HostInvalid), "{text:?}");
    }

    fn address(text: &str) -> String {
        match Host::parse(text) {
            Ok(Host::Ip(address)) => address.to_string(),
            other => panic!("{text:?} is {other:?}"),
        }
    }

    /// EG-A1, EG-A11: one trailing dot and the case make no difference; a second dot is refused.
    #[test]
    fn one_dot_and_the_case_make_no_difference() {
        assert_eq!(name("allowed.test"), "allowed.test");
        assert_eq!(name("allowed.test."), "allowed.test");
        assert_eq!(name("ALLOWED.Test"), "allowed.test");
        for text in ["allowed.test..", "localhost..", ".", "..", "", ".allowed.test"] {
            refused(text);
        }
    }

    /// EG-A2: brackets stand around a v6 address and nothing else.
    #[test]
    fn brackets_hold_a_v6_address() {
        assert_eq!(address("[2001:db8::1]"), "2001:db8::1");
        for text in ["[denied.test]", "[localhost]", "[127.0.0.1]", "[::1", "::1]", "[]", "[[::1]]", "::1"] {
            refused(text);
        }
    }

    /// EG-A3: NUL and other control bytes, plain or percent-encoded.
    #[test]
    fn control_bytes_are_refused() {
        for text in ["evil.test\0.allowed.test", "evil.test%00.allowed.test", "a\x01.test", "a\x7f.test"] {
            refused(text);
        }
    }

    /// EG-A4: a zone names an interface of ours.
    #[test]
    fn zones_are_refused() {
        for text in ["[::1%25.allowed.test]", "[::1%lo]", "::ffff:1.2.3.4%x.allowed.test", "[fe80::1%25eth0]"]
        {
            refused(text);
        }
    }

    /// EG-A8: every spelling of an address is that address, and what only looks like one is refused.
    #[test]
    fn addresses_in_every_spelling() {
        for text in ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0x7f.1", "127.0.0.1."] {
            assert_eq!(address(text), "127.0.0.1", "{text}");
        }
        assert_eq!(address("0"), "0.0.0.0");
        assert_eq!(address("0X7F.0x0.0.01"), "127.0.0.1");
        assert_eq!(address("[::ffff:127.0.0.1]"), "::ffff:127.0.0.1");
        for text in ["256.1.1.1", "1.2.3.4.5", "4294967296", "08.1.1.1", "a.1", "1.2.3.0xg.0x1", "1..1"] {
            refused(text);
        }
    }

    /// EG-A9: labels and lengths.
    #[test]
    fn labels_have_their_lengths() {
        let label = "a".repeat(63);
        assert_eq!(name(&label), label);
        refused(&"a".repeat(64));
        let long = [label.as_str(); 4].join(".");
        assert_eq!(long.len(), 255);
        refused(&long);
        name(&long[2..]);
        for text in ["a..allowed.test", "*.allowed.test", "-a.test", "a-.test", "a b.test", "a/b"] {
            refused(text);
        }
        // Names of servers have underscores, whatever the rules say.
        for text in ["my_bucket.test", "_dmarc.test", "a_.b", "_", "xn--bcher-kva.my_host.test"] {
            assert_eq!(name(text), text);
        }
        for text in ["1.2.3.4_", "_1.2.3.4", "1_0"] {
            assert!(matches!(Host::parse(text), Ok(Host::Name(_)) | Err(_)), "{text} is no address");
        }
    }

    /// EG-A10: international names come as valid A-labels; anything that a mapping would change is refused.
    #[test]
    fn international_names_are_a_labels() {
        assert_eq!(name("xn--bcher-kva.test"), "xn--bcher-kva.test");
        assert_eq!(name("XN--BCHER-KVA.test"), "xn--bcher-kva.test");
        assert_eq!(name("r3---sn-abc.test"), "r3---sn-abc.test");
        for text in
            ["аllowed.test", "allowed。test", "ﬀ.test", "allo\u{ad}wed.test", "אa.test", "bücher.test"]
        {
            refused(text);
        }
        // A-labels that decode to ASCII, to nothing, to what is not normal, or not at all.
        for text in [
            "xn--allowed-.test",
            "xn--.test",
            "xn--a.test",
            "xn--fa-hia-.test",
            "xn--55qx5d8y0buji4b870u.xn--a",
        ] {
            refused(text);
        }
        let setting = Host::parse_setting("Bücher.test").expect("an operator may write it");
        assert_eq!(setting.to_string(), "xn--bcher-kva.test");
    }

    proptest! {
        /// Whatever is accepted stays as it is when it is read again, and is plain.
        #[test]
        fn canonical_is_canonical(text in "\\PC{0,40}|[a-z0-9._\\-x\\[\\]:%]{0,40}|(xn--)?[a-z0-9-]{1,12}(\\.[a-z0-9-]{1,9}){0,3}\\.?") {
            if let Ok(host) = Host::parse(&text) {
                let written = host.to_string();
                prop_assert_eq!(Host::parse(&written), Ok(host));
                prop_assert!(written.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.:[]".contains(&b)));
                prop_assert!(!written.ends_with('.'));
            }
        }
    }
}
