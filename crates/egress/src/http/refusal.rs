//! What a client is told when its request is refused: the code and a fixed sentence, also in the status line, which is all that most
//! programs show of the answer to a CONNECT. Nothing that it or anybody else sent stands in it, no address, no name.

use http::HeaderName;

use crate::Reason;

/// Which proxy answered, and why (RFC 9209). The proxy's own answers have it, and what is passed on does not.
pub(crate) const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// The whole answer; the connection is closed behind it.
pub(crate) fn render(reason: Reason) -> Vec<u8> {
    let status = reason.status();
    let phrase = match status {
        400 => "Bad Request",
        403 => "Forbidden",
        405 => "Method Not Allowed",
        407 => "Proxy Authentication Required",
        421 => "Misdirected Request",
        408 => "Request Timeout",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Service Unavailable",
    };
    let (code, why) = (reason.code(), reason.why());
    let body = format!(
        "{{\"error\":\"{phrase}\",\"message\":\"The egress proxy refused this ({code}): {why}.\",\"code\":\"egress.{code}\"}}\n"
    );
    let challenge = if status == 407 { "Proxy-Authenticate: Palisade\r\n" } else { "" };
    format!(
        "HTTP/1.1 {status} {phrase} by the egress proxy ({code}): {why}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nProxy-Status: palisade; details=\"{code}: {why}\"\r\n{challenge}Connection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
