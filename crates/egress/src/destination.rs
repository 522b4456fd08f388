//! Where a connection is to go, built once from the client's words by a strict parser. Every later step (rule, look-up, dial, server
//! name, record) takes this type; none may go back to the text.

use crate::{Host, Reason};

/// How the client asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// By CONNECT: an opaque tunnel.
    Tunnel,
    /// By a request with an absolute `http` target.
    Http,
    /// By a request that goes on over TLS, whichever way it came here.
    Https,
}

/// One host, one port, one way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The host in its canonical form.
    pub host: Host,
    /// The port, never 0.
    pub port: u16,
    /// How the client asked.
    pub scheme: Scheme,
}

impl Destination {
    /// From the target of a CONNECT: host and port, both there.
    pub fn from_authority(authority: &str) -> Result<Self, Reason> {
        let (host, port) = split_authority(authority)?;
        let port = port.ok_or(Reason::PortInvalid)?;
        Ok(Self { host, port, scheme: Scheme::Tunnel })
    }

    /// From an absolute `http` target; what is left is the path with its query, as it was written.
    pub fn from_absolute(target: &str) -> Result<(Self, String), Reason> {
        // Bytes that readers of URLs disagree about: where the authority ends must not depend on who reads.
        if target.bytes().any(|byte| !byte.is_ascii_graphic() || matches!(byte, b'#' | b'\\')) {
            return Err(Reason::TargetRefused);
        }
        let (scheme, rest) = target.split_once("://").ok_or(Reason::TargetRefused)?;
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(Reason::SchemeRefused);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (host, port) = split_authority(authority)?;
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok((Self { host, port: port.unwrap_or(80), scheme: Scheme::Http }, path))
    }

    /// Whether a `Host` field says the same: the same host, and the same port if it names one. Without one it is the scheme's
    /// own, which for a tunnel is whatever was asked for.
    pub(crate) fn agrees_with(&self, host_field: &str) -> bool {
        let Ok((host, port)) = split_authority(host_field) else { return false };
        let implied = match self.scheme {
            Scheme::Tunnel => self.port,
            Scheme::Http => 80,
            Scheme::Https => 443,
        };
        host == self.host && port.unwrap_or(implied) == self.port
    }

    /// As the `Host` field of a request that is passed on.
    pub(crate) fn host_field(&self) -> String {
        match (self.scheme, self.port) {
            (Scheme::Http, 80) | (Scheme::Https, 443) => self.host.to_string(),
            _ => self.to_string(),
        }
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn split_authority(authority: &str) -> Result<(Host, Option<u16>), Reason> {
    if authority.contains('@') {
        return Err(Reason::UserinfoRefused);
    }
    let host_end = match authority.find(']') {
        Some(bracket) => bracket + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(host_end);
    let port = match rest.strip_prefix(':') {
        Some(port) => Some(parse_port(port)?),
        None if rest.is_empty() => None,
        None => return Err(Reason::HostInvalid),
    };
    Ok((Host::parse(host)?, port))
}

/// A port in its one spelling: no sign, no leading zero, nothing over 65,535.
pub(crate) fn parse_port(text: &str) -> Result<u16, Reason> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    if !plain {
        return Err(Reason::PortInvalid);
    }
    text.parse().map_err(|_| Reason::PortInvalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn tunnel(text: &str, expected: Result<&str, Reason>) {
        let found = Destination::from_authority(text).map(|destination| destination.to_string());
        assert_eq!(found.as_deref().map_err(|reason| *reason), expected, "{text:?}");
    }

    #[test]
    fn a_tunnel_has_a_host_and_a_port() {
        tunnel("allowed.test:443", Ok("allowed.test:443"));
        tunnel("ALLOWED.test.:443", Ok("allowed.test:443"));
        tunnel("[2001:DB8::1]:443", Ok("[2001:db8::1]:443"));
        tunnel("127.1:443", Ok("127.0.0.1:443"));
    }

    /// EG-A6: 443 + 65,536.
    #[test]
    fn a_port_does_not_overflow() {
        for port in ["65979", "65536", "99999", "4294967739", "18446744073709551617"] {
            tunnel(&format!("allowed.test:{port}"), Err(Reason::PortInvalid));
        }
        tunnel("allowed.test:65535", Ok("allowed.test:65535"));
    }

    /// EG-A7: spellings of a port.
    #[test]
    fn a_port_has_one_spelling() {
        for port in ["+443", "0443", "443 ", " 443", "", "0", "443:443", "４４３", "-1", "0x1bb", "443/"] {
            tunnel(&format!("allowed.test:{port}"), Err(Reason::PortInvalid));
        }
        tunnel("allowed.test", Err(Reason::PortInvalid));
    }

    /// EG-A2, EG-A5: brackets and userinfo.
    #[test]
    fn nothing_stands_around_a_host() {
        tunnel("[denied.test]:443", Err(Reason::HostInvalid));
        tunnel("[::1]x:443", Err(Reason::HostInvalid));
        tunnel("x@allowed.test:443", Err(Reason::UserinfoRefused));
        tunnel("allowed.test:443@evil.test:443", Err(Reason::UserinfoRefused));
        tunnel("http://allowed.test:443", Err(Reason::PortInvalid));
        tunnel("allowed.test:443/", Err(Reason::PortInvalid));
    }

    #[track_caller]
    fn absolute(text: &str, expected: Result<(&str, &str), Reason>) {
        let found = Destination::from_absolute(text).map(|(at, path)| (at.to_string(), path));
        let found = found.as_ref().map(|(at, path)| (at.as_str(), path.as_str())).map_err(|reason| *reason);
        assert_eq!(found, expected, "{text:?}");
    }

    /// EG-A5, EG-A15, EG-G1: absolute targets; paths go on byte for byte.
    #[test]
    fn an_absolute_target_is_read_in_one_way() {
        absolute("http://allowed.test/a?b=c", Ok(("allowed.test:80", "/a?b=c")));
        absolute("HTTP://Allowed.Test.:8080", Ok(("allowed.test:8080", "/")));
        absolute("http://allowed.test?q", Ok(("allowed.test:80", "/?q")));
        absolute("http://allowed.test/%2e%2e//;.;/%2F", Ok(("allowed.test:80", "/%2e%2e//;.;/%2F")));
        absolute("http://allowed.test/@x", Ok(("allowed.test:80", "/@x")));
        absolute("http://allowed.test@evil.test/", Err(Reason::UserinfoRefused));
        absolute("http://evil.test#@allowed.test/", Err(Reason::TargetRefused));
        absolute("http://allowed.test\\@evil.test/", Err(Reason::TargetRefused));
        absolute("http://evil%2etest/", Err(Reason::HostInvalid));
        absolute("http:///", Err(Reason::HostInvalid));
        absolute("http://", Err(Reason::HostInvalid));
        absolute("http:/allowed.test/", Err(Reason::TargetRefused));
        for scheme in ["ftp", "file", "gopher", "https", "unix", ""] {
            absolute(&format!("{scheme}://allowed.test/"), Err(Reason::SchemeRefused));
        }
        for target in ["*", "/", "/path", "allowed.test:80", "urn:x", "http:allowed.test"] {
            absolute(target, Err(Reason::TargetRefused));
        }
    }

    /// EG-A13, EG-A14: what `Host` may say beside the target.
    #[test]
    fn a_host_field_agrees_or_not() {
        let tunnel = Destination::from_authority("allowed.test:8443").expect("valid");
        let (http, _) = Destination::from_absolute("http://allowed.test/").expect("valid");
        for (at, field, agrees) in [
            (&tunnel, "allowed.test:8443", true),
            (&tunnel, "Allowed.Test", true),
            (&tunnel, "allowed.test:443", false),
            (&tunnel, "evil.test", false),
            (&tunnel, "", false),
            (&http, "allowed.test", true),
            (&http, "allowed.test:80", true),
            (&http, "allowed.test:81", false),
            (&http, "x@allowed.test", false),
        ] {
            assert_eq!(at.agrees_with(field), agrees, "{at} {field:?}");
        }
    }
}
