//! What must hold for any bytes, whether proptest or a fuzzer makes them up.

use palisade_egress::{Destination, Host, parse_client_hello, read_destination};

/// Reads the bytes as each of the things that clients send.
pub(crate) fn check(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Ok(host) = Host::parse(text) {
            check_host(&host);
        }
        if let Ok(destination) = Destination::from_authority(text) {
            check_destination(&destination);
        }
        if let Ok((destination, path)) = Destination::from_absolute(text) {
            check_destination(&destination);
            assert!(
                path.starts_with('/') && text.ends_with(path.trim_start_matches('/')),
                "{path:?} of {text:?}"
            );
        }
    }
    if let Ok(destination) = read_destination(bytes) {
        check_destination(&destination);
    }
    if let Ok(Some(hello)) = parse_client_hello(bytes)
        && let Some(name) = hello.server_name
    {
        check_host(&Host::Name(name));
    }
}

/// One spelling, and it is plain.
fn check_host(host: &Host) {
    let written = host.to_string();
    assert_eq!(Host::parse(&written).as_ref(), Ok(host), "{written}");
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.:[]".contains(&byte);
    assert!(written.bytes().all(plain) && written.len() <= 253 && !written.ends_with('.'), "{written}");
}

fn check_destination(destination: &Destination) {
    check_host(&destination.host);
    assert_ne!(destination.port, 0);
    let again = Destination::from_authority(&destination.to_string()).map(|again| (again.host, again.port));
    assert_eq!(again, Ok((destination.host.clone(), destination.port)));
}
