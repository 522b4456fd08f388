//! An upstream's answer: its head is read as strictly as a request's, but for bytes above ASCII, and written anew. What is not an answer
//! becomes a 502 of ours.

use palisade_protocol::limits::EGRESS_HEADERS_MAX;

use super::head::{Body, Fields};
use crate::{Reason, scrub::Wash};

/// The head of an answer, understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    reason_phrase: String,
    fields: Vec<(String, Vec<u8>)>,
    pub(crate) body: Body,
    /// Whether the connection is not for another request.
    pub(crate) close: bool,
}

/// What the request was, as far as its answer's framing depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Question {
    /// HEAD: the head speaks of a body that does not come.
    pub(crate) head: bool,
    /// Whether a 101 was asked for.
    pub(crate) websocket: bool,
}

/// Reads the whole head of an answer.
pub(crate) fn parse_answer(head: &[u8], question: Question) -> Result<Answer, Reason> {
    let mut slots = [httparse::EMPTY_HEADER; EGRESS_HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut slots);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Reason::AnswerHeadTooLarge),
        _ => return Err(Reason::AnswerMalformed),
    }
    let status = parsed.code.filter(|code| (100..600).contains(code)).ok_or(Reason::AnswerMalformed)?;
    let version_minor = parsed.version.ok_or(Reason::AnswerMalformed)?;
    let fields = Fields(parsed.headers);
    if status == 101 && !question.websocket {
        return Err(Reason::AnswerUpgrade);
    }
    let body = fields.body(version_minor).map_err(|_| Reason::AnswerFraming)?;
    let says_length = fields.values("content-length").next();
    let body = match (status, body) {
        _ if question.head || matches!(status, 100..=199 | 204 | 304) => Body::None,
        (_, Body::None) if says_length.is_none() => Body::ToEnd,
        (_, body) => body,
    };
    let connection = fields.connection().map_err(|_| Reason::AnswerFraming)?;
    let mut kept = fields.end_to_end(&connection);
    // To a HEAD, or with a 304, the length speaks of what a GET would bring.
    if let (Body::None, Some(length), 200..) = (body, says_length, status) {
        kept.push(("Content-Length".into(), length.to_vec()));
    }
    if status == 101 {
        kept.extend(fields.values("upgrade").map(|value| ("Upgrade".into(), value.to_vec())));
    }
    let reason_phrase = parsed.reason.unwrap_or_default().to_owned();
    let close = connection.close || version_minor == 0;
    Ok(Answer { status, reason_phrase, fields: kept, body, close })
}

impl Answer {
    /// Whether another head follows this one.
    pub(crate) fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// The answer's codings, in the order of their fields.
    pub(crate) fn codings(&self) -> Vec<&[u8]> {
        let codings = self.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-encoding"));
        codings.map(|(_, value)| value.as_slice()).collect()
    }

    /// The first field of this name.
    pub(crate) fn field(&self, name: &str) -> Option<&[u8]> {
        let found = self.fields.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_slice())
    }

    /// What becomes of it when secrets are taken out. They are in its fields, too. Where a coding is undone, the length is another one, and
    /// what was said of the coded bytes is not true any more; a tag says from then on that the content is the same, and not each byte.
    pub(crate) fn clear(&mut self, wash: &Wash) {
        const OF_THE_CODED_BYTES: [&str; 7] = [
            "accept-ranges",
            "content-digest",
            "content-encoding",
            "content-length",
            "content-md5",
            "digest",
            "repr-digest",
        ];
        if wash.undoes_a_coding() {
            self.fields
                .retain(|(name, _)| !OF_THE_CODED_BYTES.iter().any(|it| name.eq_ignore_ascii_case(it)));
            for (_, tag) in self.fields.iter_mut().filter(|(name, _)| name.eq_ignore_ascii_case("etag")) {
                if tag.starts_with(b"\"") {
                    tag.splice(..0, *b"W/");
                }
            }
            if self.body != Body::None {
                self.body = Body::Chunked;
            }
        }
        // A name cannot say that something was taken out of it.
        self.fields.retain(|(name, _)| wash.field(name.as_bytes()) == name.as_bytes());
        for (_, value) in &mut self.fields {
            *value = wash.field(value);
        }
        self.reason_phrase = String::from_utf8_lossy(&wash.field(self.reason_phrase.as_bytes())).into_owned();
    }

    /// It is this part of the whole.
    pub(crate) fn is_part(&mut self, content_range: String, length: u64) {
        self.replace("Content-Range", content_range);
        self.body = Body::Length(length);
    }

    /// There is no such part.
    pub(crate) fn is_beyond(&mut self, total: u64) {
        (self.status, self.reason_phrase) = (416, "Range Not Satisfiable".to_owned());
        self.replace("Content-Range", format!("bytes */{total}"));
        self.replace("Content-Length", "0".to_owned());
        self.body = Body::None;
    }

    fn replace(&mut self, name: &str, value: String) {
        self.fields.retain(|(found, _)| !found.eq_ignore_ascii_case(name));
        self.fields.push((name.to_owned(), value.into_bytes()));
    }

    /// The head as it goes to the client.
    pub(crate) fn render(&self, close: bool) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, self.reason_phrase).into_bytes();
        write_fields(&mut head, &self.fields);
        match self.body {
            Body::Length(length) => {
                head.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes())
            }
            Body::Chunked => head.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            Body::None | Body::ToEnd => {}
        }
        head.extend_from_slice(match (self.status, close) {
            (101, _) => b"Connection: Upgrade\r\n\r\n",
            (_, true) => b"Connection: close\r\n\r\n",
            (_, false) => b"\r\n",
        });
        head
    }
}

impl super::head::Forward {
    /// The head as it goes to the upstream: origin form, our `Host`, our framing.
    pub(crate) fn render(&self, keep: bool) -> Vec<u8> {
        let host = self.destination.host_field();
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {host}\r\n", self.method, self.path).into_bytes();
        write_fields(&mut head, &self.fields);
        match self.body {
            Body::Length(length) => {
                head.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes())
            }
            Body::Chunked => head.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            Body::None if matches!(self.method.as_str(), "POST" | "PUT" | "PATCH") => {
                head.extend_from_slice(b"Content-Length: 0\r\n");
            }
            Body::None | Body::ToEnd => {}
        }
        head.extend_from_slice(match self.websocket {
            true => &b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"[..],
            false if keep => b"\r\n",
            false => b"Connection: close\r\n\r\n",
        });
        head
    }
}

fn write_fields(head: &mut Vec<u8>, fields: &[(String, Vec<u8>)]) {
    for (name, value) in fields {
        head.extend_from_slice(name.as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value);
        head.extend_from_slice(b"\r\n");
    }
}
