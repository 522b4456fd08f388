//! The frames of an event stream, parsed as the bytes come.
//!
//! Linear in what it is given, however it is cut, and bounded: a frame that would grow beyond its limit is an error.

use std::collections::VecDeque;

/// The largest frame taken, in bytes. A file's whole content can stand in `tool_use.executing`, and a model's
/// answer holds 8 MiB at most, which escapes may double.
pub(super) const FRAME_BYTES_MAX: usize = 20 * 1024 * 1024;

/// One event as it stood on the wire.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// The number; none when the line was missing or no number.
    pub id: Option<u64>,
    /// The type, such as `text.delta`.
    pub event: String,
    /// The data, lines joined.
    pub data: String,
}

/// A frame was larger than [`FRAME_BYTES_MAX`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FrameTooLarge;

/// Collects bytes into frames.
#[derive(Debug, Default)]
pub(super) struct FrameParser {
    line: Vec<u8>,
    id: Option<u64>,
    event: String,
    data: Option<String>,
    ready: VecDeque<Frame>,
}

impl FrameParser {
    /// Takes the next bytes of the stream.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), FrameTooLarge> {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.append(&rest[..end])?;
            self.end_line();
            rest = &rest[end + 1..];
        }
        self.append(rest)
    }

    /// The next complete frame.
    pub(super) fn next(&mut self) -> Option<Frame> {
        self.ready.pop_front()
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), FrameTooLarge> {
        let held = self.line.len() + self.data.as_ref().map_or(0, String::len);
        if held + bytes.len() > FRAME_BYTES_MAX {
            return Err(FrameTooLarge);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        let text = text.strip_suffix('\r').unwrap_or(&text);
        if text.is_empty() {
            return self.end_frame();
        }
        let (field, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.id = value.parse().ok(),
            "event" => value.clone_into(&mut self.event),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            // A comment has an empty field name; unknown fields are for newer readers.
            _ => {}
        }
    }

    fn end_frame(&mut self) {
        let (id, event) = (self.id.take(), std::mem::take(&mut self.event));
        if let Some(data) = self.data.take() {
            self.ready.push_back(Frame { id, event, data });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": keep-alive\n\nid: 0\nevent: message.created\ndata: {\"a\":\"é\"}\n\nevent: lost\n\n\
                          id: 1\r\nevent: text.delta\r\ndata: one\r\ndata:two\r\n\r\nid: x\ndata:\n\nid: 2\ndata: cut";

    #[test]
    fn the_same_bytes_parse_alike_wherever_they_are_cut() {
        let frame = |id, event: &str, data: &str| Frame { id, event: event.into(), data: data.into() };
        let expected = [
            frame(Some(0), "message.created", "{\"a\":\"é\"}"),
            frame(Some(1), "text.delta", "one\ntwo"),
            frame(None, "", ""),
        ];
        for step in 1..STREAM.len() {
            let mut parser = FrameParser::default();
            let mut frames = Vec::new();
            for chunk in STREAM.as_bytes().chunks(step) {
                parser.push(chunk).unwrap();
                frames.extend(std::iter::from_fn(|| parser.next()));
            }
            assert_eq!(frames, expected, "cut every {step} bytes");
        }
    }

    #[test]
    fn a_frame_without_end_is_refused() {
        let mut parser = FrameParser::default();
        let chunk = vec![b'x'; 1024 * 1024];
        let whole = FRAME_BYTES_MAX / chunk.len();
        assert!((0..whole).all(|_| parser.push(&chunk).is_ok()));
        assert_eq!(parser.push(&chunk), Err(FrameTooLarge));
    }
}
