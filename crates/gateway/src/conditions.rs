//! The conditional headers of a request (RFC 9110 §13), read into what the workspace judges. A date that is none is no
//! condition, as the standard wants; a tag that cannot be read is an error, because ignoring it would lose data.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::HeaderMap;
use axum::http::header::{self, HeaderName, HeaderValue};
use palisade_runtime::{Conditions, Tag, Tags, Validators};

use crate::error::ApiError;
use crate::extract::malformed;

/// What the request says of the state it expects.
pub(crate) fn conditions(headers: &HeaderMap) -> Result<Conditions, ApiError> {
    Ok(Conditions {
        if_match: tags(headers, &header::IF_MATCH)?,
        if_unmodified_since_s: date(headers, &header::IF_UNMODIFIED_SINCE),
        if_none_match: tags(headers, &header::IF_NONE_MATCH)?,
        if_modified_since_s: date(headers, &header::IF_MODIFIED_SINCE),
    })
}

/// Whether a range may be sent: without `If-Range` always, with it only if the reader has a part of this very content.
pub(crate) fn may_send_part(headers: &HeaderMap, file: &Validators) -> bool {
    let Some(value) = headers.get(header::IF_RANGE) else { return true };
    match (read_tags(value.as_bytes()), date(headers, &header::IF_RANGE)) {
        (_, Some(date)) => file.is_date_strong && file.modified_s == date,
        (Some(Tags::These(tags)), None) => matches!(&tags[..], [tag] if file.has_strongly(tag)),
        _ => false,
    }
}

/// The date for `Last-Modified`: never after now, and none for what lies before 1970.
pub(crate) fn last_modified(file: &Validators) -> Option<HeaderValue> {
    let since = Duration::from_secs(u64::try_from(file.modified_s).ok()?);
    let at = UNIX_EPOCH.checked_add(since)?.min(SystemTime::now());
    HeaderValue::from_str(&httpdate::fmt_http_date(at)).ok()
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<i64> {
    let at = httpdate::parse_http_date(headers.get(name)?.to_str().ok()?.trim()).ok()?;
    i64::try_from(at.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, ApiError> {
    let values: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    if values.is_empty() {
        return Ok(None);
    }
    let message = || format!("{name} must be '*' or a list of tags in quotes, such as \"abc\" or W/\"abc\"");
    read_tags(&values.join(&b","[..])).map(Some).ok_or_else(|| malformed("request.bad_condition", message()))
}

/// `*`, or a list of tags. A tag without quotes, as some clients send it, is taken for what it must mean.
fn read_tags(text: &[u8]) -> Option<Tags> {
    if text.trim_ascii() == b"*" {
        return Some(Tags::Any);
    }
    let (mut tags, mut rest) = (Vec::new(), text);
    loop {
        let starts = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','));
        let Some(at) = starts else { return Some(Tags::These(tags)) };
        rest = &rest[at..];
        let is_weak = rest.starts_with(b"W/");
        let quoted = rest.strip_prefix(b"W/").unwrap_or(rest).strip_prefix(b"\"");
        let (opaque, length, behind) = match quoted {
            Some(inner) => {
                let end = inner.iter().position(|byte| *byte == b'"')?;
                (&inner[..end], end, &inner[end + 1..])
            }
            None if is_weak || rest.contains(&b'"') => return None,
            None => {
                let end =
                    rest.iter().position(|byte| matches!(byte, b' ' | b'\t' | b',')).unwrap_or(rest.len());
                (&rest[..end], end, &rest[end..])
            }
        };
        let is_whole = behind.first().is_none_or(|byte| matches!(byte, b' ' | b'\t' | b','));
        if !is_whole || (quoted.is_none() && (length == 0 || opaque == b"*")) {
            return None;
        }
        tags.push(Tag { opaque: opaque.to_vec(), is_weak });
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_as_clients_send_them() {
        let tag = |opaque: &str, is_weak| Tag { opaque: opaque.into(), is_weak };
        for (text, expected) in [
            ("*", Some(Tags::Any)),
            (" * ", Some(Tags::Any)),
            ("\"a\"", Some(Tags::These(vec![tag("a", false)]))),
            (
                "W/\"a\" , \"b,c\",, \"\"",
                Some(Tags::These(vec![tag("a", true), tag("b,c", false), tag("", false)])),
            ),
            ("abc, d-e", Some(Tags::These(vec![tag("abc", false), tag("d-e", false)]))),
            ("", Some(Tags::These(vec![]))),
            ("\"a", None),
            ("\"a\"b", None),
            ("a\"b\"", None),
            ("W/a", None),
            ("\"a\", *", None),
        ] {
            assert_eq!(read_tags(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn a_part_is_sent_only_to_who_has_the_same_content() {
        let file = |is_weak, is_date_strong| Validators {
            tag: Some(Tag { opaque: "a".into(), is_weak }),
            modified_s: 784_111_777,
            is_date_strong,
        };
        let (same, earlier) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:36 GMT");
        for (value, file, expected) in [
            ("\"a\"", file(false, false), true),
            ("\"a\"", file(true, false), false),
            ("W/\"a\"", file(false, false), false),
            ("\"b\"", file(false, false), false),
            ("*", file(false, true), false),
            ("", file(false, true), false),
            (same, file(true, true), true),
            ("Sunday, 06-Nov-94 08:49:37 GMT", file(true, true), true),
            (same, file(false, false), false),
            (earlier, file(false, true), false),
        ] {
            let headers = HeaderMap::from_iter([(header::IF_RANGE, HeaderValue::from_str(value).unwrap())]);
            assert_eq!(may_send_part(&headers, &file), expected, "{value} of {file:?}");
        }
        assert!(may_send_part(&HeaderMap::new(), &file(true, false)));
        assert_eq!(last_modified(&file(true, true)).unwrap(), same);
        assert_eq!(last_modified(&Validators { modified_s: -1, ..file(true, true) }), None);
        assert!(last_modified(&Validators { modified_s: i64::MAX, ..file(true, true) }).is_some());
    }
}
