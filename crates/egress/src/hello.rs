//! The ClientHello at the head of a tunnel: the server name in it, read from however many records and segments it comes in. It must
//! never guess: what cannot be read for certain is malformed. It sees no key and decrypts nothing.

use crate::{HostName, Reason};

const RECORD_HEADER_BYTES: usize = 5;
const RECORD_HANDSHAKE: u8 = 22;
const RECORD_BYTES_MAX: usize = 16_384;
const HANDSHAKE_HEADER_BYTES: usize = 4;
const HANDSHAKE_CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
/// RFC 9849, and the draft before it.
const EXTENSIONS_ECH: [u16; 2] = [0xfe0d, 0xffce];

/// What a ClientHello says about where it is going.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// The one server name, canonical; none if the extension is missing.
    pub server_name: Option<HostName>,
    /// Whether there is an Encrypted Client Hello, greased ones too: they cannot be told apart.
    pub ech: bool,
}

/// Reads the hello at the front of these bytes. `None` while it is not all there.
pub fn parse_client_hello(bytes: &[u8]) -> Result<Option<ClientHello>, Reason> {
    let Some(message) = gather(bytes)? else { return Ok(None) };
    let mut body = Reader(&message[HANDSHAKE_HEADER_BYTES..]);
    read_hello(&mut body).ok_or(Reason::HelloMalformed)?.map(Some)
}

/// Puts the handshake message together from its records, headers off.
fn gather(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, Reason> {
    let mut message = Vec::new();
    loop {
        match bytes {
            [] => return Ok(None),
            [kind, ..] if *kind != RECORD_HANDSHAKE => return Err(not_tls(&message)),
            [_, major, ..] if *major != 3 => return Err(not_tls(&message)),
            _ => {}
        }
        let Some((header, rest)) = bytes.split_at_checked(RECORD_HEADER_BYTES) else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length == 0 || length > RECORD_BYTES_MAX {
            return Err(Reason::HelloMalformed);
        }
        message.extend_from_slice(&rest[..length.min(rest.len())]);
        if message.first().is_some_and(|kind| *kind != HANDSHAKE_CLIENT_HELLO) {
            return Err(Reason::HelloMalformed);
        }
        if let Some([_, high, middle, low]) = message.first_chunk() {
            let expected = HANDSHAKE_HEADER_BYTES + u32::from_be_bytes([0, *high, *middle, *low]) as usize;
            // The hello ends its record; what else is in there would be read by others as part of it.
            let ends = rest.len() >= length && message.len() == expected;
            if message.len() > expected {
                return Err(Reason::HelloMalformed);
            }
            if ends {
                return Ok(Some(message));
            }
        }
        let Some(next) = rest.get(length..) else { return Ok(None) };
        bytes = next;
    }
}

fn not_tls(message: &[u8]) -> Reason {
    if message.is_empty() { Reason::NotTls } else { Reason::HelloMalformed }
}

/// `None`: not a hello by its lengths. The inner error: one that says something we do not let through.
fn read_hello(body: &mut Reader<'_>) -> Option<Result<ClientHello, Reason>> {
    let version = body.take(2)?;
    body.take(32)?; // random
    let session_id = body.vector8()?;
    let suites = body.vector16()?;
    let compression = body.vector8()?;
    if version[0] != 3 || session_id.0.len() > 32 || suites.0.is_empty() || suites.0.len() % 2 != 0 {
        return None;
    }
    if compression.0.is_empty() {
        return None;
    }
    let mut hello = ClientHello { server_name: None, ech: false };
    if body.0.is_empty() {
        return Some(Ok(hello)); // TLS 1.2 without extensions
    }
    let mut extensions = body.vector16()?;
    if !body.0.is_empty() {
        return None;
    }
    let mut seen = Vec::new();
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let content = extensions.vector16()?;
        if seen.contains(&kind) {
            return None;
        }
        seen.push(kind);
        if kind == EXTENSION_SERVER_NAME {
            match read_server_name(content)? {
                Ok(name) => hello.server_name = Some(name),
                Err(reason) => return Some(Err(reason)),
            }
        }
        hello.ech |= EXTENSIONS_ECH.contains(&kind);
    }
    Some(Ok(hello))
}

/// Exactly one entry, a host name in plain form; an address or a root dot may not stand there (RFC 6066).
fn read_server_name(mut content: Reader<'_>) -> Option<Result<HostName, Reason>> {
    let mut entries = content.vector16()?;
    let kind = entries.take(1)?[0];
    let name = entries.vector16()?;
    if !content.0.is_empty() || !entries.0.is_empty() || kind != 0 {
        return None;
    }
    let name = std::str::from_utf8(name.0).ok().filter(|name| !name.ends_with('.'))?;
    Some(HostName::parse(name).map_err(|_| Reason::HelloMalformed))
}

struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        let bytes = self.take(2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector8(&mut self) -> Option<Reader<'b>> {
        let length = usize::from(self.take(1)?[0]);
        self.take(length).map(Reader)
    }

    fn vector16(&mut self) -> Option<Reader<'b>> {
        let length = usize::from(self.u16()?);
        self.take(length).map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vector16(content: &[u8]) -> Vec<u8> {
        [&u16::try_from(content.len()).expect("short").to_be_bytes()[..], content].concat()
    }

    fn sni(entries: &[(u8, &[u8])]) -> (u16, Vec<u8>) {
        let entries: Vec<u8> =
            entries.iter().flat_map(|(kind, name)| [vec![*kind], vector16(name)].concat()).collect();
        (EXTENSION_SERVER_NAME, vector16(&entries))
    }

    fn message(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let extensions: Vec<u8> = extensions
            .iter()
            .flat_map(|(kind, content)| [kind.to_be_bytes().to_vec(), vector16(content)].concat())
            .collect();
        let body =
            [&[3, 3][..], &[7; 32], &[0], &vector16(&[0x13, 1]), &[1, 0], &vector16(&extensions)].concat();
        let length = u32::try_from(body.len()).expect("short").to_be_bytes();
        [&[1], &length[1..], &body].concat()
    }

    fn records(message: &[u8], record_bytes: usize) -> Vec<u8> {
        message.chunks(record_bytes).flat_map(|part| [&[22, 3, 1][..], &vector16(part)].concat()).collect()
    }

    fn hello(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        records(&message(extensions), RECORD_BYTES_MAX)
    }

    fn name(bytes: &[u8]) -> Result<Option<String>, Reason> {
        let hello = parse_client_hello(bytes)?.expect("whole");
        Ok(hello.server_name.map(|name| name.to_string()))
    }

    /// EG-D2: however it is cut into records and segments, it is the same hello.
    #[test]
    fn every_cut_keeps_the_name() {
        let message = message(&[(10, vec![0; 8]), sni(&[(0, b"Allowed.Test")]), (16, vec![1; 9])]);
        for record_bytes in 1..=message.len() {
            let bytes = records(&message, record_bytes);
            assert_eq!(name(&bytes), Ok(Some("allowed.test".into())), "{record_bytes}");
            for end in 0..bytes.len() {
                assert_eq!(parse_client_hello(&bytes[..end]), Ok(None), "{record_bytes} {end}");
            }
        }
    }

    /// EG-D2: what a hello may not say.
    #[test]
    fn names_that_are_refused() {
        for entries in [
            &[(0, &b"allowed.test"[..]), (0, b"evil.test")][..],
            &[(0, b"allowed.test"), (1, b"x")],
            &[(1, b"allowed.test")],
            &[],
            &[(0, b"")],
            &[(0, b"127.0.0.1")],
            &[(0, b"2130706433")],
            &[(0, b"[::1]")],
            &[(0, b"allowed.test.")],
            &[(0, b"allowed.test\0")],
            &[(0, b"evil.test\0.allowed.test")],
            &[(0, b"*.allowed.test")],
            &[(0, b"\xff.test")],
        ] {
            assert_eq!(name(&hello(&[sni(entries)])), Err(Reason::HelloMalformed), "{entries:?}");
        }
        let twice = [sni(&[(0, b"allowed.test")]), sni(&[(0, b"evil.test")])];
        assert_eq!(name(&hello(&twice)), Err(Reason::HelloMalformed));
        assert_eq!(name(&hello(&[])), Ok(None));
        let (kind, mut content) = sni(&[(0, b"allowed.test")]);
        content.push(0);
        assert_eq!(name(&hello(&[(kind, content)])), Err(Reason::HelloMalformed));
    }

    /// EG-D2: a hello padded to 16 KiB and over is read.
    #[test]
    fn a_padded_hello_is_read() {
        let padded = hello(&[(21, vec![0; 20_000]), sni(&[(0, b"allowed.test")])]);
        assert_eq!(name(&padded), Ok(Some("allowed.test".into())));
    }

    /// EG-D3: ECH is seen.
    #[test]
    fn ech_is_seen() {
        for kind in EXTENSIONS_ECH {
            let bytes = hello(&[sni(&[(0, b"allowed.test")]), (kind, vec![0; 40])]);
            assert!(parse_client_hello(&bytes).expect("a hello").expect("whole").ech);
        }
        assert!(!parse_client_hello(&hello(&[])).expect("a hello").expect("whole").ech);
    }

    /// EG-D6: what is not TLS is known by its first bytes.
    #[test]
    fn other_protocols_are_not_tls() {
        for bytes in [
            &b"SSH-2.0-x\r\n"[..],
            b"G",
            b"PROXY TCP4 ",
            b"\x80\x2e\x01",
            b"\x16\x02",
            b"\x00",
            b"\x17\x03\x03",
        ] {
            assert_eq!(parse_client_hello(bytes), Err(Reason::NotTls), "{}", bytes.escape_ascii());
        }
        let mut other = hello(&[]);
        other[5] = 2;
        assert_eq!(parse_client_hello(&other), Err(Reason::HelloMalformed), "not a ClientHello");
        let mut longer = message(&[]);
        longer.push(0);
        assert_eq!(
            parse_client_hello(&records(&longer, 999)),
            Err(Reason::HelloMalformed),
            "more in its record"
        );
        assert_eq!(parse_client_hello(&[22, 3, 1, 0, 0]), Err(Reason::HelloMalformed), "an empty record");
        assert_eq!(parse_client_hello(&[22, 3, 1, 0xff, 0xff]), Err(Reason::HelloMalformed));
    }

    /// A hello as a real library writes it.
    #[test]
    fn a_real_hello_is_read() {
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let server = "real.allowed.test".try_into().expect("a name");
        let mut client = rustls::ClientConnection::new(config.into(), server).expect("a client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("a hello");
        let hello = parse_client_hello(&bytes).expect("a hello").expect("whole");
        assert_eq!(hello.server_name.expect("a name").as_str(), "real.allowed.test");
        assert!(!hello.ech);
        bytes.extend_from_slice(b"\x17\x03\x03early data");
        assert!(parse_client_hello(&bytes).expect("a hello").is_some(), "what follows is not looked at");
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_client_hello(&bytes);
            let framed = records(&[&[1, 0, 0, u8::try_from(bytes.len()).unwrap_or(0)][..], &bytes].concat(), 50);
            let _ = parse_client_hello(&framed);
        }

        /// One wrong byte never yields another name than those that are in there.
        #[test]
        fn one_wrong_byte(at in 0usize..80, byte: u8) {
            let mut bytes = hello(&[sni(&[(0, b"allowed.test")])]);
            if let Some(slot) = bytes.get_mut(at) {
                *slot = byte;
            }
            if let Ok(Some(ClientHello { server_name: Some(name), .. })) = parse_client_hello(&bytes) {
                prop_assert_eq!(name.as_str().len(), "allowed.test".len());
            }
        }
    }
}
