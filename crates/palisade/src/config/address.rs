//! Addresses as people write them. What has one meaning is taken; what has none, or two, is told with what to write instead. No name is
//! looked up, because the answer would be another one tomorrow.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize as _, Deserializer};

/// Where to listen.
pub(crate) fn parse(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Some(("localhost", port)) = text.rsplit_once(':')
        && let Ok(port) = port.parse::<u16>()
    {
        return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    let port = text.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
    Err(match port {
        Some(port) if text == port.to_string() || text.starts_with(':') || text.starts_with("*:") => format!(
            "write 127.0.0.1:{port} for this machine alone, or 0.0.0.0:{port} for every address that it has"
        ),
        _ if text.contains("://") => "write an address and a port alone, such as 127.0.0.1:8080, without http://".to_owned(),
        _ if text == "localhost" || text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() => {
            "the port is missing: write 127.0.0.1:8080, or [::1]:8080".to_owned()
        }
        _ => "write an address and a port, such as 127.0.0.1:8080 or 0.0.0.0:8080; host names are not looked up".to_owned(),
    })
}

/// The same, in the configuration.
pub(super) fn listen<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    parse(&String::deserialize(from)?).map_err(serde::de::Error::custom)
}

/// The same, where it may be absent.
pub(super) fn listen_maybe<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    listen(from).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_one_meaning_is_taken_and_the_rest_is_told_what_to_write() {
        for taken in ["127.0.0.1:80", "localhost:80", " 127.0.0.1:80 "] {
            assert_eq!(parse(taken), Ok(SocketAddr::from(([127, 0, 0, 1], 80))), "{taken}");
        }
        for (wrong, told) in [
            ("8080", "0.0.0.0:8080"),
            (":8080", "127.0.0.1:8080"),
            ("*:8080", "0.0.0.0:8080"),
            ("http://127.0.0.1:8080", "without http://"),
            ("0.0.0.0", "port is missing"),
            ("[::1]", "port is missing"),
            ("localhost", "port is missing"),
            ("palisade.example:8080", "not looked up"),
            ("127.0.0.1:99999", "such as"),
            ("", "such as"),
        ] {
            let said = parse(wrong).unwrap_err();
            assert!(said.contains(told), "{wrong}: {said}");
        }
    }
}
