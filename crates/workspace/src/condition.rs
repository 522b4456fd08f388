//! Conditions on what stands at a path (RFC 9110 §13), as rules without HTTP, and the tags and dates that they ask for.
//! A tag that is called strong stands for one content and no other; where that is not known, it is called weak.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use palisade_beneath::{Kind, Metadata};

/// How long ago a file must have changed for its times to tell it from the file of a moment later, in nanoseconds: file
/// systems count in steps of some milliseconds (decision 58).
const SETTLED_NS: i128 = 1_000_000_000;
const SECOND_NS: i128 = 1_000_000_000;

/// An entity tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// What stands between the quotes.
    pub opaque: Vec<u8>,
    /// Whether the same tag may stand for contents that differ.
    pub is_weak: bool,
}

/// What a condition names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tags {
    /// `*`: whatever there is.
    Any,
    /// One of these.
    These(Vec<Tag>),
}

/// What a request says of the state it expects. Without any, everything is met.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// There is something, with one of these tags, compared strongly.
    pub if_match: Option<Tags>,
    /// It has not changed after this, in Unix seconds. Asked only without `if_match`.
    pub if_unmodified_since_s: Option<i64>,
    /// There is nothing, or nothing with one of these tags, compared weakly.
    pub if_none_match: Option<Tags>,
    /// It has changed after this, in Unix seconds. Asked only of a read without `if_none_match`.
    pub if_modified_since_s: Option<i64>,
}

/// What conditions came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Met,
    /// The reader has what there is.
    NotModified,
    /// Do nothing.
    Failed,
}

/// By what a file is told from what was there before or will be later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validators {
    /// Of a file; a directory has none.
    pub tag: Option<Tag>,
    /// Whole Unix seconds.
    pub modified_s: i64,
    /// Whether the date alone tells this content from any other: nothing about the file changed after that second, and
    /// the second is over.
    pub is_date_strong: bool,
}

impl Tag {
    fn is_strongly(&self, other: &Self) -> bool {
        !self.is_weak && !other.is_weak && self.opaque == other.opaque
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weak = if self.is_weak { "W/" } else { "" };
        write!(f, "{weak}\"{}\"", String::from_utf8_lossy(&self.opaque))
    }
}

impl Validators {
    /// Of what was found. `is_written` says that what has this state was put in its place as a whole by this server.
    pub(crate) fn of(found: &Metadata, is_written: impl Fn() -> bool) -> Self {
        let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as i128);
        let is_settled = now_ns - found.changed_ns > SETTLED_NS;
        // The change time is part of it, because a writer can set the modification time back.
        let tag = || Tag {
            opaque: format!(
                "{:x}-{:x}-{:x}-{:x}",
                found.inode, found.size, found.modified_ns, found.changed_ns
            )
            .into_bytes(),
            is_weak: !is_settled && !is_written(),
        };
        let second = |ns: i128| i64::try_from(ns.div_euclid(SECOND_NS)).unwrap_or(0);
        Self {
            tag: (found.kind == Kind::File).then(tag),
            modified_s: second(found.modified_ns),
            is_date_strong: is_settled && second(found.modified_ns) == second(found.changed_ns),
        }
    }

    /// Whether a strong tag of a reader's says that it has a part of this very content.
    pub fn has_strongly(&self, tag: &Tag) -> bool {
        self.tag.as_ref().is_some_and(|own| own.is_strongly(tag))
    }

    fn matches(&self, tags: &Tags, is_same: impl Fn(&Tag, &Tag) -> bool) -> bool {
        match tags {
            Tags::Any => true,
            Tags::These(tags) => {
                self.tag.as_ref().is_some_and(|own| tags.iter().any(|tag| is_same(own, tag)))
            }
        }
    }
}

impl Conditions {
    /// Whether nothing is to be there yet.
    pub(crate) fn wants_nothing(&self) -> bool {
        self.if_none_match == Some(Tags::Any)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Judges what was found, in the order of RFC 9110 §13.2.2.
    pub fn judge(&self, found: Option<&Validators>, is_read: bool) -> Verdict {
        let has = |tags: &Tags, is_same: fn(&Tag, &Tag) -> bool| {
            found.is_some_and(|found| found.matches(tags, is_same))
        };
        let changed_after = |since: i64| found.is_some_and(|found| found.modified_s > since);
        match (&self.if_match, self.if_unmodified_since_s) {
            (Some(tags), _) if !has(tags, Tag::is_strongly) => return Verdict::Failed,
            (None, Some(since)) if changed_after(since) => return Verdict::Failed,
            _ => {}
        }
        let is_known = match (&self.if_none_match, self.if_modified_since_s) {
            // Weakly, so that a proxy's `W/` does no harm.
            (Some(tags), _) => has(tags, |own, tag| own.opaque == tag.opaque),
            (None, Some(since)) if is_read => found.is_some() && !changed_after(since),
            _ => false,
        };
        match (is_known, is_read) {
            (false, _) => Verdict::Met,
            (true, true) => Verdict::NotModified,
            (true, false) => Verdict::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(opaque: &str, is_weak: bool) -> Tag {
        Tag { opaque: opaque.into(), is_weak }
    }

    fn these(tags: &[(&str, bool)]) -> Option<Tags> {
        Some(Tags::These(tags.iter().map(|(opaque, is_weak)| tag(opaque, *is_weak)).collect()))
    }

    #[test]
    fn conditions_are_judged_in_the_order_of_the_standard() {
        let found =
            |is_weak| Validators { tag: Some(tag("a", is_weak)), modified_s: 100, is_date_strong: true };
        let directory = Validators { tag: None, modified_s: 100, is_date_strong: false };
        let (strong, weak) = (found(false), found(true));
        let none = Conditions::default();
        let if_match = |tags| Conditions { if_match: tags, ..none.clone() };
        let if_none_match = |tags| Conditions { if_none_match: tags, ..none.clone() };
        let unmodified = |since| Conditions { if_unmodified_since_s: Some(since), ..none.clone() };
        let modified = |since| Conditions { if_modified_since_s: Some(since), ..none.clone() };
        use Verdict::{Failed, Met, NotModified};
        // Conditions, what is there, and what a read and a write are told.
        for (conditions, there, read, write) in [
            (none.clone(), Some(&strong), Met, Met),
            (none.clone(), None, Met, Met),
            (if_match(Some(Tags::Any)), Some(&weak), Met, Met),
            (if_match(Some(Tags::Any)), Some(&directory), Met, Met),
            (if_match(Some(Tags::Any)), None, Failed, Failed),
            (if_match(these(&[("b", false), ("a", false)])), Some(&strong), Met, Met),
            (if_match(these(&[("b", false)])), Some(&strong), Failed, Failed),
            (if_match(these(&[])), Some(&strong), Failed, Failed),
            (if_match(these(&[("a", true)])), Some(&strong), Failed, Failed),
            (if_match(these(&[("a", false)])), Some(&weak), Failed, Failed),
            (if_match(these(&[("a", false)])), Some(&directory), Failed, Failed),
            (if_match(these(&[("a", false)])), None, Failed, Failed),
            (if_none_match(Some(Tags::Any)), Some(&strong), NotModified, Failed),
            (if_none_match(Some(Tags::Any)), None, Met, Met),
            (if_none_match(these(&[("a", true)])), Some(&strong), NotModified, Failed),
            (if_none_match(these(&[("a", false)])), Some(&weak), NotModified, Failed),
            (if_none_match(these(&[("b", false)])), Some(&strong), Met, Met),
            (unmodified(100), Some(&strong), Met, Met),
            (unmodified(99), Some(&strong), Failed, Failed),
            (unmodified(99), None, Met, Met),
            (modified(100), Some(&strong), NotModified, Met),
            (modified(101), Some(&strong), NotModified, Met),
            (modified(99), Some(&strong), Met, Met),
            (Conditions { if_match: these(&[("a", false)]), ..unmodified(1) }, Some(&strong), Met, Met),
            (Conditions { if_none_match: these(&[("b", false)]), ..modified(100) }, Some(&strong), Met, Met),
            (
                Conditions { if_none_match: Some(Tags::Any), ..if_match(these(&[("b", false)])) },
                Some(&strong),
                Failed,
                Failed,
            ),
        ] {
            assert_eq!(conditions.judge(there, true), read, "read: {conditions:?} of {there:?}");
            assert_eq!(conditions.judge(there, false), write, "write: {conditions:?} of {there:?}");
        }
        // A file that changed just now may change again before its times show it.
        let changed = |changed_ns| Metadata {
            kind: Kind::File,
            size: 1,
            allocated_bytes: 1,
            mode: 0o644,
            links: 1,
            device: 1,
            inode: 1,
            modified_ns: 5_999_999_999,
            changed_ns,
        };
        let future_ns = 1_000_000_000_000 * SECOND_NS;
        for (metadata, is_written, is_weak, is_date_strong) in [
            (changed(5_000_000_000), false, false, true),
            (changed(6_000_000_000), false, false, false),
            (changed(future_ns), false, true, false),
            (changed(future_ns), true, false, false),
        ] {
            let of = Validators::of(&metadata, || is_written);
            assert_eq!(
                (of.tag.unwrap().is_weak, of.is_date_strong, of.modified_s),
                (is_weak, is_date_strong, 5)
            );
        }
        assert_eq!(
            (strong.tag.unwrap().to_string(), weak.tag.unwrap().to_string()),
            ("\"a\"".into(), "W/\"a\"".into())
        );
    }
}
