//! Every way a model call fails. `Display` is the public sentence: it names the upstream and what happened, and
//! never holds a key or the text of our request; causes are in the source chain, for the log.

use std::fmt;

use crate::TransportError;

/// Why there is no answer, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum InferenceError {
    /// The catalog has no such model.
    #[error("there is no model named {model:?}")]
    UnknownModel {
        /// As asked for.
        model: String,
    },
    /// The configuration of an upstream makes a call impossible.
    #[error("the upstream {upstream:?} {source}")]
    Misconfigured {
        /// Which.
        upstream: String,
        /// What the transport says.
        #[source]
        source: TransportError,
    },
    /// No connection, or it broke before an answer.
    #[error("the upstream {upstream:?} {source}")]
    Unreachable {
        /// Which.
        upstream: String,
        /// What the transport says.
        #[source]
        source: TransportError,
    },
    /// 401 or 403. The upstream's words are left out: they tend to quote the key.
    #[error("the upstream {upstream:?} refused our credentials with status {status}; check its api_key")]
    Refused {
        /// Which.
        upstream: String,
        /// 401 or 403.
        status: u16,
    },
    /// 429.
    #[error("the upstream {upstream:?} limits our rate")]
    RateLimited {
        /// Which.
        upstream: String,
        /// When it wants us back.
        retry_after_s: Option<u64>,
    },
    /// It said that it failed, by status or within the stream.
    #[error("the upstream {upstream:?} answered with an error{}: {message}", Status(*.status))]
    Upstream {
        /// Which.
        upstream: String,
        /// Its status, where it gave one.
        status: Option<u16>,
        /// Its words: shortened, and without anything that looks like a key.
        message: String,
    },
    /// Something came back that is no model's answer.
    #[error("the upstream {upstream:?} {what}")]
    BadAnswer {
        /// Which.
        upstream: String,
        /// What it did.
        what: String,
    },
    /// The answer is over one of our limits.
    #[error("the upstream {upstream:?} sent {what} beyond the limit of {max}")]
    OverLimit {
        /// Which.
        upstream: String,
        /// What there was too much of.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// The stream ended before the answer did.
    #[error("the upstream {upstream:?} ended its stream before the answer was complete")]
    Truncated {
        /// Which.
        upstream: String,
        /// What the transport says, if it failed rather than ended.
        #[source]
        source: Option<TransportError>,
    },
    /// It was silent, or went on, for too long.
    #[error("the upstream {upstream:?} took too long: {waited_for} did not come within {limit_ms} ms")]
    Timeout {
        /// Which.
        upstream: String,
        /// For what.
        waited_for: WaitedFor,
        /// For how long.
        limit_ms: u64,
    },
    /// Everything that could be tried was.
    #[error("no upstream answered for the model {model:?}: {}", Sentences(.tried))]
    Exhausted {
        /// What was asked for.
        model: String,
        /// What became of each upstream, in order.
        tried: Vec<Tried>,
    },
}

/// What became of one upstream.
#[derive(Debug)]
pub struct Tried {
    /// How often it was asked.
    pub attempts: u32,
    /// How the last attempt failed.
    pub failure: InferenceError,
}

/// What a timeout was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WaitedFor {
    /// The head of the answer.
    #[error("the start of an answer")]
    Head,
    /// More of the stream.
    #[error("the next piece of the answer")]
    Chunk,
    /// The whole answer.
    #[error("the end of the answer")]
    End,
}

impl InferenceError {
    /// A stable code for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownModel { .. } => "model.unknown",
            Self::Misconfigured { .. } => "upstream.misconfigured",
            Self::Unreachable { .. } => "upstream.unreachable",
            Self::Refused { .. } => "upstream.refused",
            Self::RateLimited { .. } => "upstream.rate_limited",
            Self::Upstream { .. } => "upstream.error",
            Self::BadAnswer { .. } | Self::OverLimit { .. } => "upstream.bad_answer",
            Self::Truncated { .. } => "upstream.truncated",
            Self::Timeout { .. } => "upstream.timeout",
            Self::Exhausted { tried, .. } => {
                tried.last().map_or("upstream.error", |last| last.failure.code())
            }
        }
    }

    /// When the upstream wants us back, where it said so.
    pub fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::RateLimited { retry_after_s, .. } => *retry_after_s,
            Self::Exhausted { tried, .. } => tried.last().and_then(|last| last.failure.retry_after_s()),
            _ => None,
        }
    }
}

struct Status(Option<u16>);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |status| write!(f, " (status {status})"))
    }
}

struct Sentences<'a>(&'a [Tried]);

impl fmt::Display for Sentences<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, Tried { attempts, failure }) in self.0.iter().enumerate() {
            let separator = if place == 0 { "" } else { "; " };
            let times = if *attempts == 1 { "once".to_owned() } else { format!("{attempts} times") };
            write!(f, "{separator}{failure} (tried {times})")?;
        }
        Ok(())
    }
}

/// An upstream's own words, made fit to be shown: one line, no key-like word, shortened.
pub(crate) fn presentable(message: &str) -> String {
    const CHARS_MAX: usize = 300;
    let words = message.split_whitespace().map(|word| if is_key_like(word) { "…" } else { word });
    let line = words.collect::<Vec<_>>().join(" ");
    if line.is_empty() {
        return "(no message)".into();
    }
    match line.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Keys are long runs of token characters with digits in them, or begin as keys do.
fn is_key_like(word: &str) -> bool {
    word.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '*'))).any(|run| {
        run.starts_with("sk-")
            || run.starts_with("pk_")
            || (run.len() >= 20 && run.bytes().any(|byte| byte.is_ascii_digit()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstreams_words_are_shown_without_keys_and_not_at_length() {
        assert_eq!(presentable("model overloaded,\n try\tlater"), "model overloaded, try later");
        assert_eq!(
            presentable("Incorrect API key provided: sk-abc***xyz. See docs"),
            "Incorrect API key provided: … See docs"
        );
        assert_eq!(presentable("token=AbCdEf0123456789AbCdEf0123456789 bad"), "… bad");
        assert_eq!(presentable("  "), "(no message)");
        assert_eq!(presentable(&"ü".repeat(400)).chars().count(), 301);
    }

    #[test]
    fn what_was_tried_is_told_in_order_and_the_last_failure_gives_the_code() {
        let error = InferenceError::Exhausted {
            model: "m".into(),
            tried: vec![
                Tried {
                    attempts: 3,
                    failure: InferenceError::Upstream {
                        upstream: "a".into(),
                        status: Some(503),
                        message: "overloaded".into(),
                    },
                },
                Tried {
                    attempts: 1,
                    failure: InferenceError::RateLimited { upstream: "b".into(), retry_after_s: Some(60) },
                },
            ],
        };
        assert_eq!(
            error.to_string(),
            "no upstream answered for the model \"m\": the upstream \"a\" answered with an error (status 503): \
             overloaded (tried 3 times); the upstream \"b\" limits our rate (tried once)"
        );
        assert_eq!(error.code(), "upstream.rate_limited");
        assert_eq!(error.retry_after_s(), Some(60));
    }
}
