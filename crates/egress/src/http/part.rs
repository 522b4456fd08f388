//! Parts of an answer to a request that carries a secret. A client that could have any part could have a secret in parts too short to be
//! known as one. So more is asked for than the client wants, by the length of the longest form on either side; all that comes is
//! looked through, and what was wanted is cut out of it. What takes a secret's place is as long as it was, so the part is exactly the
//! part of the whole answer.

use super::head::{Body, Forward};
use crate::Reason;

/// Fields by which some part is asked for; the second is Azure's, the third that of very old programs.
const RANGES: [&str; 3] = ["range", "x-ms-range", "request-range"];
/// Digits of a position.
const DIGITS_MAX: usize = 18;
/// More than this on either side is not asked for, in bytes; a part is not to be had then.
const MARGIN_BYTES_MAX: u64 = 1024 * 1024;

/// What a client wants of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All from this byte on.
    From(u64),
    /// From this byte to that one.
    Between(u64, u64),
    /// So many bytes at the end.
    Last(u64),
}

/// A part with what has to be asked for on either side of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    part: Part,
    margin: u64,
}

/// What of an answer is the client's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// So many bytes are left out, and so many are passed on; the field says which they are.
    Part { skip: u64, take: u64, content_range: String },
    /// There is nothing: the whole has only so many bytes.
    Beyond(u64),
}

impl Wanted {
    /// Takes what asks for a part out of the request, and puts in what is to be asked. None: the whole is asked for, as RFC 9110 (14.2)
    /// lets any server decide.
    pub(crate) fn take(request: &mut Forward, form_bytes_max: usize) -> Option<Self> {
        let is_range = |name: &str| RANGES.iter().any(|it| name.eq_ignore_ascii_case(it));
        let asked: Vec<_> = request.fields.extract_if(.., |(name, _)| is_range(name)).collect();
        let wanted = match asked.as_slice() {
            [(name, value)] if name.eq_ignore_ascii_case("range") => {
                Part::parse(value).map(|part| Self { part, margin: form_bytes_max as u64 })
            }
            _ => None,
        };
        let wanted = wanted.filter(|wanted| {
            request.method == "GET" && request.body == Body::None && wanted.margin <= MARGIN_BYTES_MAX
        });
        match &wanted {
            Some(wanted) => request.fields.push(("Range".into(), wanted.field().into_bytes())),
            None => request.fields.retain(|(name, _)| !name.eq_ignore_ascii_case("if-range")),
        }
        wanted
    }

    fn field(&self) -> String {
        match self.part {
            Part::From(first) => format!("bytes={}-", first.saturating_sub(self.margin)),
            Part::Between(first, last) => {
                format!("bytes={}-{}", first.saturating_sub(self.margin), last.saturating_add(self.margin))
            }
            Part::Last(count) => format!("bytes=-{}", count.saturating_add(self.margin)),
        }
    }

    /// What is cut out of a 206 with this `Content-Range`. What was asked for on either side has to be there, unless the whole begins or
    /// ends there.
    pub(crate) fn cut(&self, content_range: &[u8]) -> Result<Cut, Reason> {
        let found = Found::parse(content_range).ok_or(Reason::AnswerPart)?;
        if let (Some(total), Part::From(first) | Part::Between(first, _)) = (found.total, self.part)
            && first >= total
        {
            return Ok(Cut::Beyond(total));
        }
        let is_end = found.total == Some(found.last + 1);
        let clear_first = if found.first == 0 { 0 } else { found.first.saturating_add(self.margin) };
        let clear_last = if is_end { Some(found.last) } else { found.last.checked_sub(self.margin) };
        let clear_last = clear_last.ok_or(Reason::AnswerPart)?;
        let (first, last) = match self.part {
            Part::From(first) => (first, clear_last),
            Part::Between(first, last) => (first, last.min(clear_last)),
            Part::Last(count) => (found.total.ok_or(Reason::AnswerPart)?.saturating_sub(count), clear_last),
        };
        if first < clear_first || first > last {
            return Err(Reason::AnswerPart);
        }
        let total = found.total.map_or("*".to_owned(), |total| total.to_string());
        Ok(Cut::Part {
            skip: first - found.first,
            take: last - first + 1,
            content_range: format!("bytes {first}-{last}/{total}"),
        })
    }
}

impl Part {
    fn parse(field: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(field).ok()?;
        let (unit, range) = text.split_once('=')?;
        let (first, last) = range.trim_matches([' ', '\t']).split_once('-')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        match (first, last) {
            ("", count) => position(count).filter(|count| *count > 0).map(Self::Last),
            (first, "") => position(first).map(Self::From),
            (first, last) => {
                let (first, last) = (position(first)?, position(last)?);
                (first <= last).then_some(Self::Between(first, last))
            }
        }
    }
}

/// What a `Content-Range` says.
struct Found {
    first: u64,
    last: u64,
    total: Option<u64>,
}

impl Found {
    fn parse(field: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(field).ok()?;
        let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last) = (position(first)?, position(last)?);
        let total = if total == "*" { None } else { Some(position(total)?) };
        (first <= last && total.is_none_or(|total| last < total)).then_some(Self { first, last, total })
    }
}

fn position(text: &str) -> Option<u64> {
    let plain = (1..=DIGITS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_read_and_others_ask_for_the_whole() {
        for (field, part) in [
            ("bytes=0-", Some(Part::From(0))),
            ("bytes=5-9", Some(Part::Between(5, 9))),
            ("Bytes= 5-9", Some(Part::Between(5, 9))),
            ("bytes=-7", Some(Part::Last(7))),
            ("bytes=-0", None),
            ("bytes=9-5", None),
            ("bytes=1-2,4-5", None),
            ("bytes=a-", None),
            ("bytes=+1-2", None),
            ("bytes=1-9999999999999999999999", None),
            ("items=1-2", None),
            ("bytes", None),
        ] {
            assert_eq!(Part::parse(field.as_bytes()), part, "{field}");
        }
    }

    #[track_caller]
    fn cut(part: Part, content_range: &str) -> Result<(u64, u64, String), Option<Cut>> {
        match (Wanted { part, margin: 10 }).cut(content_range.as_bytes()) {
            Ok(Cut::Part { skip, take, content_range }) => Ok((skip, take, content_range)),
            Ok(beyond) => Err(Some(beyond)),
            Err(reason) => {
                assert_eq!(reason, Reason::AnswerPart);
                Err(None)
            }
        }
    }

    #[test]
    fn what_was_wanted_is_cut_out_of_what_was_asked_for() {
        let part = |skip, take, range: &str| Ok((skip, take, range.to_owned()));
        assert_eq!(cut(Part::From(50), "bytes 40-99/100"), part(10, 50, "bytes 50-99/100"));
        assert_eq!(cut(Part::From(4), "bytes 0-99/100"), part(4, 96, "bytes 4-99/100"));
        assert_eq!(cut(Part::Between(50, 59), "bytes 40-69/100"), part(10, 10, "bytes 50-59/100"));
        assert_eq!(cut(Part::Between(50, 500), "bytes 40-99/100"), part(10, 50, "bytes 50-99/100"));
        assert_eq!(cut(Part::Last(5), "bytes 85-99/100"), part(10, 5, "bytes 95-99/100"));
        assert_eq!(cut(Part::Last(500), "bytes 0-99/100"), part(0, 100, "bytes 0-99/100"));
        // Its end is not known, so the last bytes of what came are not clear of what may follow them.
        assert_eq!(cut(Part::From(50), "bytes 40-99/*"), part(10, 40, "bytes 50-89/*"));
        assert_eq!(cut(Part::Between(50, 59), "bytes 40-62/100"), part(10, 3, "bytes 50-52/100"));
    }

    #[test]
    fn what_lies_beyond_the_end_is_nothing() {
        assert_eq!(cut(Part::From(100), "bytes 90-99/100"), Err(Some(Cut::Beyond(100))));
        assert_eq!(cut(Part::Between(100, 105), "bytes 90-99/100"), Err(Some(Cut::Beyond(100))));
    }

    /// A server that gives another part than was asked for could hand a secret out in pieces.
    #[test]
    fn another_part_is_refused() {
        for range in [
            "bytes 50-59/100",
            "bytes 41-69/100",
            "bytes 52-69/100",
            "bytes 40-45/100",
            "bytes 40-69/60",
            "bytes 69-40/100",
            "bytes */100",
            "bytes 40-69",
            "items 40-69/100",
            "",
        ] {
            assert_eq!(cut(Part::Between(50, 59), range), Err(None), "{range}");
        }
        assert_eq!(cut(Part::Last(5), "bytes 40-99/*"), Err(None));
    }
}
