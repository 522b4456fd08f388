//! What is wrong with a configuration, on which line, and what to write instead. It must never quote the file: a secret may stand
//! there although it should not. Names of settings are shown, values are not.

/// How alike two names are when one is probably meant by the other.
const ALIKE: f64 = 0.75;

/// The line and what is wrong with it, without the values that stand there. Unknown keys are named.
pub(super) fn describe(error: &toml::de::Error, text: &str) -> String {
    let (before, after) = match error.span().and_then(|span| text.split_at_checked(span.start)) {
        Some(split) => split,
        None => return explained(error.message(), None, ""),
    };
    let line = before.matches('\n').count() + 1;
    let (key, after) = match value_at(text, before.len()) {
        Some((key, value)) => (Some(key), value),
        None => (None, after),
    };
    let said = explained(error.message(), key, after);
    match key {
        Some(key) => format!("line {line}, {key}: {said}"),
        None => format!("line {line}: {said}"),
    }
}

/// The key in whose value this place is, and the value with everything behind it. Only where nothing but a word or a number stands
/// before the place.
fn value_at(text: &str, at: usize) -> Option<(&str, &str)> {
    let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let value = line + text[line..at].rfind('=')? + 1;
    let is_bare = !text[value..at].contains(['"', '\'', '[', '{', ',', '#']);
    let key = key_before(&text[..value]).filter(|_| is_bare)?;
    Some((key, text[value..].trim_start()))
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

/// The parser's words as a sentence for people. `after` is what stands at the place and behind it.
fn explained(message: &str, key: Option<&str>, after: &str) -> String {
    for mistake in ["invalid type: ", "invalid value: "] {
        if let Some(rest) = message.strip_prefix(mistake)
            && let Some((found, expected)) = rest.rsplit_once(", expected ")
        {
            // What was expected is our own text and stands last, so a value that looks like it changes nothing.
            let kind = found.split(['"', '`']).next().unwrap_or_default().trim_end();
            return of_kind(kind, expected, after);
        }
    }
    if let Some(names) = message.strip_prefix("unknown field ") {
        return unknown("there is no setting", names);
    }
    if let Some(names) = message.strip_prefix("unknown variant ") {
        return unknown("there is no choice", names);
    }
    if message.starts_with("missing field ") {
        return format!("{} is missing here", message.trim_start_matches("missing field "));
    }
    if message.starts_with("invalid socket address") {
        return "an address and its port stand in one text, such as \"10.0.0.10:53\"; no name is looked up"
            .to_owned();
    }
    // Where a value begins and is none, it is a word or a number with something behind it.
    if key.is_some() && is_bare_value(message) {
        return bare(after).to_owned();
    }
    let hint = match message {
        _ if message.starts_with("duplicate key") => "; it stands in the file a second time",
        _ if message.starts_with("key with no value") => {
            "; a setting is written NAME = VALUE, with an equals sign"
        }
        _ if message.starts_with("invalid basic string") => {
            "; a text begins and ends with a quote, on one line"
        }
        _ => "",
    };
    format!("{}{hint}", message.trim_end_matches(", expected nothing"))
}

fn is_bare_value(message: &str) -> bool {
    ["string values must be quoted", "invalid ", "unquoted", "extra ", "missing "]
        .iter()
        .any(|it| message.starts_with(it))
        && !message.starts_with("invalid basic string")
        && !message.contains("comma")
}

/// A value without quotes that is none.
fn bare(after: &str) -> &'static str {
    let word = after.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    match word.to_ascii_lowercase().as_str() {
        "yes" | "no" | "on" | "off" | "true" | "false" => {
            "write true or false, in small letters and without quotes"
        }
        _ if after.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) => {
            "a number stands alone, without a unit, and a text stands in quotes: \"…\""
        }
        _ => "a text stands in quotes: \"…\"",
    }
}

fn of_kind(kind: &str, expected: &str, after: &str) -> String {
    let wanted = match expected {
        "u16" | "u32" | "u64" | "usize" => "a whole number from 0 up, without quotes and without a unit",
        "i64" => "a whole number, without quotes and without a unit",
        "f64" => "a number, without quotes and without a unit",
        "a boolean" => "true or false, without quotes",
        "a string" => "a text in quotes",
        "a sequence" if kind == "map" => match after.starts_with('[') {
            true => "one of a list: write its name in two brackets, [[…]]",
            false => "a list: [ … ]",
        },
        "a sequence" => "a list: [\"…\", \"…\"]",
        _ if expected.starts_with("struct ") => "a section or a table of its own: { … }",
        other => other,
    };
    let found = match (kind, expected) {
        ("integer", "u16" | "u32" | "u64" | "usize" | "i64") => "a number that does not fit".to_owned(),
        _ => article(kind),
    };
    format!("this is {found}, and it has to be {wanted}")
}

fn article(kind: &str) -> String {
    match kind {
        "map" => "a table".to_owned(),
        "sequence" => "a list".to_owned(),
        "string" => "a text".to_owned(),
        "floating point" => "a number with a fraction".to_owned(),
        "integer" => "a whole number".to_owned(),
        other => format!("a {other}"),
    }
}

/// From "`x`, expected one of `a`, `b`".
fn unknown(what: &str, names: &str) -> String {
    let mut quoted = names.split('`').skip(1).step_by(2);
    let given = quoted.next().unwrap_or_default();
    let known: Vec<&str> = quoted.collect();
    let alike = known.iter().map(|name| (strsim::jaro_winkler(given, name), *name));
    let nearest = alike.filter(|(alike, _)| *alike >= ALIKE).max_by(|a, b| a.0.total_cmp(&b.0));
    let meant = nearest.map(|(_, name)| format!("; did you mean `{name}`?")).unwrap_or_default();
    format!("{what} `{given}` here{meant} (there are: {})", known.join(", "))
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
