//! What is wrong with a configuration, and on which line. It must never quote the file: a secret may stand there
//! although it should not.

/// The line and what is wrong with it, without the values that stand there. Unknown keys are named.
pub(super) fn describe(error: &toml::de::Error, text: &str) -> String {
    let said = without_values(error.message());
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else { return said };
    let line = before.matches('\n').count() + 1;
    match key_before(before) {
        Some(key) => format!("line {line}, {key}: {said}"),
        None => format!("line {line}: {said}"),
    }
}

/// The key whose value begins here. Only where a key can stand, since anything else may be a value.
fn key_before(text: &str) -> Option<&str> {
    let line = text.rsplit('\n').next()?.trim_end().strip_suffix('=')?.trim_end();
    let is_of_a_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let rest = line.trim_end_matches(is_of_a_key);
    let key = &line[rest.len()..];
    let may_be_one = matches!(rest.trim_end().chars().next_back(), None | Some('{' | ','));
    (may_be_one && !key.is_empty()).then_some(key)
}

/// Of `invalid type: string "…", expected …` the value is left out. What was expected is our own text and stands
/// last, so a value that looks like it changes nothing.
fn without_values(message: &str) -> String {
    for mistake in ["invalid type: ", "invalid value: "] {
        if let Some(rest) = message.strip_prefix(mistake)
            && let Some((found, expected)) = rest.rsplit_once(", expected ")
        {
            let kind = found.split(['"', '`']).next().unwrap_or_default().trim_end();
            return format!("{mistake}{kind}, expected {expected}");
        }
    }
    message.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_only_where_one_can_stand() {
        for (text, key) in [
            ("a = 1\nlisten = ", Some("listen")),
            ("tokens = [{ id = \"t\", key =", Some("key")),
            ("tokens = [{ id = ", Some("id")),
            ("key = pk_secret =", None),
            ("key = \"pk_secret =", None),
            ("key = \"x\" # pk_secret =", None),
            ("listen", None),
            ("", None),
        ] {
            assert_eq!(key_before(text), key, "{text}");
        }
    }
}
