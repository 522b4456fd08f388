//! Cutting what a tool printed to what a model may be shown: the head and the tail stay, a marker says how much
//! went between them.

/// Keeps head and tail of `text` so that the result is at most `bytes_max` bytes and valid UTF-8.
pub fn cut_middle(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    // The marker's own length is bounded by the length of a number.
    let room = bytes_max.saturating_sub(64);
    let head = floor_boundary(text, room / 2);
    let tail = ceil_boundary(text, text.len() - room / 2);
    format!("{}\n[… {} bytes cut …]\n{}", &text[..head], tail - head, &text[tail..])
}

fn floor_boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn ceil_boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at += 1;
    }
    at
}

/// Collects a stream of bytes of any length, keeping only as much of its head and tail as will be shown.
#[derive(Debug)]
pub struct HeadTail {
    head: Vec<u8>,
    tail: std::collections::VecDeque<u8>,
    half_max: usize,
    seen: usize,
}

impl HeadTail {
    /// Keeps at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { head: Vec::new(), tail: std::collections::VecDeque::new(), half_max: bytes_max / 2, seen: 0 }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, mut bytes: &[u8]) {
        self.seen += bytes.len();
        let room = self.half_max - self.head.len();
        if room > 0 {
            let (first, rest) = bytes.split_at(room.min(bytes.len()));
            self.head.extend_from_slice(first);
            bytes = rest;
        }
        // Only the end of a long chunk can stay.
        let bytes = &bytes[bytes.len().saturating_sub(self.half_max)..];
        let overflow = (self.tail.len() + bytes.len()).saturating_sub(self.half_max);
        self.tail.drain(..overflow);
        self.tail.extend(bytes);
    }

    /// How many bytes went between head and tail.
    pub fn cut(&self) -> usize {
        self.seen - self.head.len() - self.tail.len()
    }

    /// The text for the model; bytes that are not UTF-8 are replaced, and a character that the cut parts goes as a whole.
    pub fn into_text(self) -> String {
        let cut = self.cut();
        let tail: Vec<u8> = self.tail.into();
        if cut == 0 {
            return String::from_utf8_lossy(&[self.head, tail].concat()).into_owned();
        }
        let is_inside = |byte: &u8| (0x80..0xc0).contains(byte);
        let begun = tail.iter().take(3).take_while(|byte| is_inside(byte)).count();
        let head = match std::str::from_utf8(&self.head) {
            Err(error) if error.error_len().is_none() => &self.head[..error.valid_up_to()],
            _ => &self.head,
        };
        let parted = begun + self.head.len() - head.len();
        let (head, tail) = (String::from_utf8_lossy(head), String::from_utf8_lossy(&tail[begun..]));
        format!("{head}\n[… {} bytes cut …]\n{tail}", cut + parted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_text_is_untouched() {
        assert_eq!(cut_middle("abc", 3), "abc");
        let mut kept = HeadTail::new(6);
        kept.push(b"abc");
        kept.push(b"def");
        assert_eq!(kept.into_text(), "abcdef");
    }

    #[test]
    fn a_flood_keeps_head_and_tail() {
        let mut kept = HeadTail::new(4);
        for chunk in [&b"ab"[..], b"cdefgh", b"ij"] {
            kept.push(chunk);
        }
        assert_eq!(kept.into_text(), "ab\n[… 6 bytes cut …]\nij");
    }

    #[test]
    fn a_cut_parts_no_character() {
        let mut kept = HeadTail::new(8);
        kept.push("aéé😀éb".as_bytes());
        assert_eq!(kept.into_text(), "aé\n[… 6 bytes cut …]\néb");
    }

    proptest! {
        #[test]
        fn a_cut_is_bounded_and_says_so(text in "\\PC{0,400}", max in 80..200usize) {
            let cut = cut_middle(&text, max);
            prop_assert!(cut.len() <= max.max(text.len().min(max)));
            prop_assert_eq!(cut != text, text.len() > max);
        }

        #[test]
        fn how_it_arrives_does_not_matter(text in "[a-z]{0,80}", at in 0..80usize, max in 2..40usize) {
            let at = at.min(text.len());
            let (mut whole, mut parts) = (HeadTail::new(max), HeadTail::new(max));
            whole.push(text.as_bytes());
            parts.push(&text.as_bytes()[..at]);
            parts.push(&text.as_bytes()[at..]);
            prop_assert_eq!(whole.into_text(), parts.into_text());
        }
    }
}
