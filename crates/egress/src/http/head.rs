//! A request's head, read three times: its bytes are scanned, httparse takes it apart, and our own rules say whether it means exactly one
//! thing. What comes out is a request that can be passed on; a client's bytes never are.

use palisade_protocol::limits::{EGRESS_HEAD_BYTES_MAX, EGRESS_HEADERS_MAX};

use std::borrow::Cow;

use super::scan::HeadScan;
use crate::{Destination, Reason};

const METHOD_BYTES_MAX: usize = 32;
/// What is always escaped, beside whatever is not ASCII: nothing that a head may have.
const NOT_ASCII: &percent_encoding::AsciiSet = &percent_encoding::AsciiSet::EMPTY;

/// One request, understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// A tunnel.
    Connect(Destination),
    /// A request to pass on.
    Forward(Box<Forward>),
}

/// A request with an absolute target.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Forward {
    pub(crate) method: String,
    pub(crate) destination: Destination,
    /// Path and query, byte for byte.
    pub(crate) path: String,
    /// What goes on to the upstream, `Host` and framing left out.
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    pub(crate) body: Body,
    /// Whether it asks to become a WebSocket.
    pub(crate) websocket: bool,
    /// Whether the client waits for a 100 before it sends the body.
    pub(crate) expects_continue: bool,
    /// Whether the client wants the connection closed afterwards.
    pub(crate) close: bool,
    /// Whether the client speaks HTTP/1.1, and so understands chunks.
    pub(crate) knows_chunks: bool,
}

/// Where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    None,
    Length(u64),
    Chunked,
    /// At the end of the connection; answers only.
    ToEnd,
}

/// What a head says before anything is made of it: for the record of a refusal, and for who asks.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) target: String,
}

pub(crate) struct Fields<'h>(pub(crate) &'h [httparse::Header<'h>]);

/// Reads a whole head, its blank line included. `asked` is filled as far as it could be read, also when the request is refused.
pub(crate) fn parse_request(head: &[u8], asked: &mut Asked) -> Result<Request, Reason> {
    quote(head, asked);
    let head = &in_ascii(head, asked)?;
    check_request_line(head)?;
    let mut slots = [httparse::EMPTY_HEADER; EGRESS_HEADERS_MAX];
    let (version_minor, fields) = take_apart(head, &mut slots)?;
    match asked.method.as_str() {
        "TRACE" | "TRACK" => Err(Reason::MethodRefused),
        "CONNECT" => connect(&asked.target, version_minor, &fields).map(Request::Connect),
        method => {
            forward(method, &asked.target, version_minor, &fields).map(|it| Request::Forward(Box::new(it)))
        }
    }
}

/// The same for a request within a tunnel that the proxy has opened: in origin form, and for the tunnel's host.
pub(crate) fn parse_inner_request(
    head: &[u8],
    asked: &mut Asked,
    destination: &Destination,
) -> Result<Forward, Reason> {
    quote(head, asked);
    let head = &in_ascii(head, asked)?;
    check_request_line(head)?;
    let mut slots = [httparse::EMPTY_HEADER; EGRESS_HEADERS_MAX];
    let (version_minor, fields) = take_apart(head, &mut slots)?;
    if matches!(asked.method.as_str(), "CONNECT" | "TRACE" | "TRACK") {
        return Err(Reason::MethodRefused);
    }
    // A fragment is none of a server's business, and a backslash is a slash to some.
    if !asked.target.starts_with('/') || asked.target.contains(['#', '\\']) {
        return Err(Reason::TargetRefused);
    }
    check_host(destination, &fields, HostField::needed(version_minor)).map_err(|_| Reason::Misdirected)?;
    rest(&asked.method, destination.clone(), asked.target.clone(), version_minor, &fields)
}

fn take_apart<'h>(
    head: &'h [u8],
    slots: &'h mut [httparse::Header<'h>; EGRESS_HEADERS_MAX],
) -> Result<(u8, Fields<'h>), Reason> {
    let mut parsed = httparse::Request::new(slots);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Reason::HeadTooLarge),
        Err(httparse::Error::Version) => return Err(Reason::VersionRefused),
        _ => return Err(Reason::HeadMalformed),
    }
    let fields = Fields(parsed.headers);
    // UTF-8 can be read in one way. Its own control characters are line ends to some.
    let is_text = |value: &[u8]| {
        std::str::from_utf8(value).is_ok_and(|text| !text.chars().any(|c| matches!(c, '\u{80}'..='\u{9f}')))
    };
    if !fields.0.iter().all(|field| is_text(field.value)) {
        return Err(Reason::HeadMalformed);
    }
    Ok((parsed.version.ok_or(Reason::HeadMalformed)?, fields))
}

/// The head with a target in ASCII: what is written as raw UTF-8 has one reading, its escapes. In a host they have none.
fn in_ascii<'h>(head: &'h [u8], asked: &mut Asked) -> Result<Cow<'h, [u8]>, Reason> {
    let end = head.iter().position(|&byte| byte == b'\r').unwrap_or(head.len());
    let (line, rest) = head.split_at(end);
    if line.is_ascii() {
        return Ok(Cow::Borrowed(head));
    }
    let line = std::str::from_utf8(line).map_err(|_| Reason::HeadMalformed)?;
    let line = percent_encoding::utf8_percent_encode(line, NOT_ASCII).to_string();
    quote(line.as_bytes(), asked);
    Ok(Cow::Owned([line.as_bytes(), rest].concat()))
}

/// Which destination a whole head asks for, by the proxy's own reading of it.
pub fn read_destination(head: &[u8]) -> Result<Destination, Reason> {
    match HeadScan::default().advance(head)? {
        Some(length) if length == head.len() && length <= EGRESS_HEAD_BYTES_MAX => {}
        _ => return Err(Reason::HeadMalformed),
    }
    match parse_request(head, &mut Asked::default())? {
        Request::Connect(destination) => Ok(destination),
        Request::Forward(forward) => Ok(forward.destination),
    }
}

/// Takes method and target as they stand, for the record; of a head that is none, whatever its first line has.
pub(crate) fn quote(head: &[u8], asked: &mut Asked) {
    let line = head.split(|&byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let mut parts =
        line.splitn(3, |&byte| byte == b' ').map(|part| String::from_utf8_lossy(part).into_owned());
    asked.method = parts.next().unwrap_or_default();
    asked.target = parts.next().unwrap_or_default();
}

/// Exactly `METHOD SP target SP version`, the method in capitals. Stands before the parser, which takes more blanks.
fn check_request_line(head: &[u8]) -> Result<(), Reason> {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let parts: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let [method, target, _version] = parts.as_slice() else { return Err(Reason::HeadMalformed) };
    let capitals = (1..=METHOD_BYTES_MAX).contains(&method.len())
        && method.iter().all(|byte| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_'));
    let plain = !target.is_empty() && target.iter().all(u8::is_ascii_graphic);
    if capitals && plain { Ok(()) } else { Err(Reason::HeadMalformed) }
}

fn connect(target: &str, version_minor: u8, fields: &Fields<'_>) -> Result<Destination, Reason> {
    let destination = Destination::from_authority(target)?;
    check_host(&destination, fields, HostField::MayMiss)?;
    match fields.body(version_minor)? {
        Body::None => Ok(destination),
        _ => Err(Reason::FramingAmbiguous),
    }
}

fn forward(method: &str, target: &str, version_minor: u8, fields: &Fields<'_>) -> Result<Forward, Reason> {
    let (destination, path) = Destination::from_absolute(target)?;
    check_host(&destination, fields, HostField::needed(version_minor))?;
    rest(method, destination, path, version_minor, fields)
}

fn rest(
    method: &str,
    destination: Destination,
    path: String,
    version_minor: u8,
    fields: &Fields<'_>,
) -> Result<Forward, Reason> {
    let body = fields.body(version_minor)?;
    // Before HTTP/1.1 such a body could end with the connection.
    if version_minor == 0 && says_no_length(method, fields) {
        return Err(Reason::FramingAmbiguous);
    }
    let connection = fields.connection()?;
    let websocket = version_minor == 1 && connection.upgrade && asks_for_websocket(method, fields, body)?;
    let expect: Vec<&[u8]> = fields.values("expect").collect();
    if expect.iter().any(|value| !value.eq_ignore_ascii_case(b"100-continue")) {
        return Err(Reason::HeadMalformed);
    }
    Ok(Forward {
        method: method.to_owned(),
        destination,
        path,
        fields: fields.end_to_end(&connection),
        body,
        websocket,
        expects_continue: version_minor == 1 && !expect.is_empty() && body != Body::None,
        close: connection.close || version_minor == 0,
        knows_chunks: version_minor == 1,
    })
}

fn says_no_length(method: &str, fields: &Fields<'_>) -> bool {
    matches!(method, "POST" | "PUT" | "PATCH") && fields.values("content-length").next().is_none()
}

enum HostField {
    /// Python before 3.12 opens tunnels with HTTP/1.0 and no `Host`, which that version does not know.
    MayMiss,
    Needed,
}

impl HostField {
    fn needed(version_minor: u8) -> Self {
        if version_minor == 0 { Self::MayMiss } else { Self::Needed }
    }
}

/// The decision never reads `Host`; but a request that says two things is refused.
fn check_host(destination: &Destination, fields: &Fields<'_>, need: HostField) -> Result<(), Reason> {
    let hosts: Vec<&[u8]> = fields.values("host").collect();
    let agrees = |host: &[u8]| std::str::from_utf8(host).is_ok_and(|host| destination.agrees_with(host));
    match (hosts.as_slice(), need) {
        ([], HostField::MayMiss) => Ok(()),
        ([host], _) if agrees(host) => Ok(()),
        _ => Err(Reason::HostMismatch),
    }
}

/// Any other upgrade is left out with its `Connection`, which RFC 9110 lets a proxy do.
fn asks_for_websocket(method: &str, fields: &Fields<'_>, body: Body) -> Result<bool, Reason> {
    let mut upgrades = fields.values("upgrade");
    let websocket = match (upgrades.next(), upgrades.next()) {
        (Some(only), None) => only.eq_ignore_ascii_case(b"websocket"),
        (None, _) => false,
        (Some(_), Some(_)) => return Err(Reason::UpgradeRefused),
    };
    if websocket && (method != "GET" || body != Body::None) {
        return Err(Reason::UpgradeRefused);
    }
    Ok(websocket)
}

/// What `Connection` says.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    pub(crate) close: bool,
    pub(crate) upgrade: bool,
    named: Vec<String>,
}

impl<'h> Fields<'h> {
    pub(crate) fn values(&self, name: &'static str) -> impl Iterator<Item = &'h [u8]> {
        self.0.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// Where the body ends. One Content-Length or `chunked` alone, and never both: CVEs live in what else parsers take.
    pub(crate) fn body(&self, version_minor: u8) -> Result<Body, Reason> {
        let mut lengths = self.values("content-length");
        let mut codings = self.values("transfer-encoding");
        match (lengths.next(), lengths.next(), codings.next(), codings.next()) {
            (None, None, None, None) => Ok(Body::None),
            (Some(length), None, None, None) => match parse_length(length)? {
                0 => Ok(Body::None),
                length => Ok(Body::Length(length)),
            },
            (None, None, Some(coding), None)
                if version_minor == 1 && coding.eq_ignore_ascii_case(b"chunked") =>
            {
                Ok(Body::Chunked)
            }
            _ => Err(Reason::FramingAmbiguous),
        }
    }

    /// Reads `Connection`. Naming a field there that says what the message is would change it for the next reader.
    pub(crate) fn connection(&self) -> Result<Connection, Reason> {
        let mut connection = Connection::default();
        for value in self.values("connection") {
            let value = std::str::from_utf8(value).ok().filter(|value| value.is_ascii());
            let value = value.ok_or(Reason::HeadMalformed)?;
            for token in value.split(',').map(str::trim).filter(|token| !token.is_empty()) {
                match token.to_ascii_lowercase().as_str() {
                    "close" => connection.close = true,
                    "upgrade" => connection.upgrade = true,
                    "host" | "content-length" | "transfer-encoding" => return Err(Reason::FramingAmbiguous),
                    name => connection.named.push(name.to_owned()),
                }
            }
        }
        Ok(connection)
    }

    /// What goes on: all but the fields of this hop, those that `Connection` names, and whatever could be read as the proxy's.
    pub(crate) fn end_to_end(&self, connection: &Connection) -> Vec<(String, Vec<u8>)> {
        let goes_on = |field: &&httparse::Header<'_>| {
            let name = field.name.to_ascii_lowercase();
            !is_of_this_hop(&name) && !connection.named.contains(&name)
        };
        self.0.iter().filter(goes_on).map(|field| (field.name.to_owned(), field.value.to_vec())).collect()
    }
}

/// `Proxy_Authorization` and `proxy.authorization` become `Proxy-Authorization` in some servers' environments.
fn is_of_this_hop(name: &str) -> bool {
    let spelled: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    spelled.starts_with("proxy-")
        || matches!(
            spelled.as_str(),
            "connection"
                | "keep-alive"
                | "te"
                | "trailer"
                | "upgrade"
                | "transfer-encoding"
                | "content-length"
                | "host"
                | "expect"
                | "http2-settings"
                | "x-unix-socket"
        )
}

fn parse_length(value: &[u8]) -> Result<u64, Reason> {
    let plain = (1..=18).contains(&value.len())
        && value.iter().all(u8::is_ascii_digit)
        && (value.len() == 1 || value[0] != b'0');
    let text = std::str::from_utf8(value).map_err(|_| Reason::FramingAmbiguous)?;
    if plain { text.parse().map_err(|_| Reason::FramingAmbiguous) } else { Err(Reason::FramingAmbiguous) }
}
