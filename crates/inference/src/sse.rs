//! Server-sent events out of bytes, however they are cut: BOM, CR, LF, CRLF, comments, data of many lines.
//!
//! Our own few lines rather than a stream adaptor, because the bound must hold for a line and an event that are
//! still growing, and because a parser that is fed by hand can be tested at every cut. It must never look at a
//! byte twice, nor hold more than one event.

/// One event with data. Events without any are not events.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SseEvent {
    /// The `event:` field; mostly empty.
    pub(crate) name: String,
    /// The `data:` lines, joined by line feeds.
    pub(crate) data: String,
}

/// An event grew beyond the bound.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EventTooLong;

/// The state between two pieces of a stream.
#[derive(Debug)]
pub(crate) struct SseDecoder {
    event_bytes_max: usize,
    line: Vec<u8>,
    name: Vec<u8>,
    data: Option<Vec<u8>>,
    is_first_line: bool,
    ended_in_cr: bool,
}

impl SseDecoder {
    pub(crate) fn new(event_bytes_max: usize) -> Self {
        Self {
            event_bytes_max,
            line: Vec::new(),
            name: Vec::new(),
            data: None,
            is_first_line: true,
            ended_in_cr: false,
        }
    }

    /// Takes in the next piece and returns what it completes.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<Vec<SseEvent>, EventTooLong> {
        let mut events = Vec::new();
        while let Some(first) = bytes.first() {
            if std::mem::take(&mut self.ended_in_cr) && *first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                self.grow_line(bytes)?;
                break;
            };
            self.grow_line(&bytes[..end])?;
            self.ended_in_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            events.extend(self.end_line()?);
        }
        Ok(events)
    }

    /// The stream is over: what stands without its line end or blank line is taken as it is. The caller sees
    /// from the data whether it was whole.
    pub(crate) fn finish(&mut self) -> Result<Option<SseEvent>, EventTooLong> {
        if !self.line.is_empty() {
            self.end_line()?;
        }
        Ok(self.end_event())
    }

    fn grow_line(&mut self, bytes: &[u8]) -> Result<(), EventTooLong> {
        let held = self.data.as_ref().map_or(0, Vec::len);
        if held + self.line.len() + bytes.len() > self.event_bytes_max {
            return Err(EventTooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self) -> Result<Option<SseEvent>, EventTooLong> {
        let mut line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.is_first_line) && line.starts_with(b"\xEF\xBB\xBF") {
            line.drain(..3);
        }
        if line.is_empty() {
            return Ok(self.end_event());
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => {
                (&line[..colon], line[colon + 1..].strip_prefix(b" ").unwrap_or(&line[colon + 1..]))
            }
            None => (line.as_slice(), &[][..]),
        };
        match field {
            b"data" => match &mut self.data {
                None => self.data = Some(value.to_vec()),
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
            },
            b"event" => self.name = value.to_vec(),
            // A comment has an empty field name; ids and retry times are nothing to us.
            _ => {}
        }
        line.clear();
        self.line = line;
        Ok(None)
    }

    fn end_event(&mut self) -> Option<SseEvent> {
        let name = std::mem::take(&mut self.name);
        let data = self.data.take()?;
        Some(SseEvent { name: into_text(name), data: into_text(data) })
    }
}

/// Only whole events are decoded, so that a character cut in two by the network is whole again by then.
fn into_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: &str) -> SseEvent {
        SseEvent { name: name.into(), data: data.into() }
    }

    fn decode(pieces: &[&[u8]]) -> Vec<SseEvent> {
        let mut decoder = SseDecoder::new(1024);
        let mut events: Vec<_> =
            pieces.iter().flat_map(|piece| decoder.feed(piece).expect("short events")).collect();
        events.extend(decoder.finish().expect("a short event"));
        events
    }

    #[test]
    fn every_line_end_at_every_cut() {
        let text = "\u{feff}data: ü1\n: keep-alive\nid: 7\nretry: 1\n\nevent: error\ndata:2\ndata: 3\ndata\n\n\n\nevent: alone\n\ndata:  4";
        let expected = [event("", "ü1"), event("error", "2\n3\n"), event("", " 4")];
        for end in ["\n", "\r", "\r\n"] {
            let bytes = text.replace('\n', end).into_bytes();
            assert_eq!(decode(&[&bytes]), expected, "{end:?}");
            for cut in 0..=bytes.len() {
                assert_eq!(decode(&[&bytes[..cut], &bytes[cut..]]), expected, "{end:?} cut at {cut}");
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(decode(&single), expected, "{end:?} byte by byte");
        }
    }

    #[test]
    fn the_bound_holds_for_a_line_and_for_an_event_of_many_lines() {
        let mut decoder = SseDecoder::new(16);
        assert_eq!(decoder.feed(b"data: 0123456789\n\n").expect("exactly 16"), [event("", "0123456789")]);
        assert_eq!(decoder.feed(b"data: 01234567890"), Err(EventTooLong));
        let mut decoder = SseDecoder::new(16);
        let outcome: Vec<_> = (0..9).map(|_| decoder.feed(b"data:12\n").is_ok()).collect();
        assert!(outcome[0] && !outcome[8], "{outcome:?}");
        let mut decoder = SseDecoder::new(16);
        for _ in 0..100 {
            assert_eq!(decoder.feed(b": comment\n").expect("comments are not kept"), []);
        }
    }
}
