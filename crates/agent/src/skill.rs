//! What a SKILL.md says of itself: the YAML frontmatter of the Agent Skills format. Lenient on load, as the
//! format's implementers' guide asks: a skill without a readable description is skipped with a diagnosis.

use serde::Deserialize;

/// The frontmatter's fields that the catalog needs, and the text after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkillFile<'a> {
    /// The name it gives itself, if any; the folder's name is what counts.
    pub name: Option<String>,
    /// What it does and when to use it.
    pub description: String,
    /// The instructions.
    pub body: &'a str,
}

/// Longest description that joins the catalog, in characters (the format's own limit).
const DESCRIPTION_CHARS_MAX: usize = 1024;
/// Longest frontmatter that is parsed, in bytes.
const FRONTMATTER_BYTES_MAX: usize = 64 * 1024;

#[derive(Deserialize)]
struct Frontmatter {
    name: Option<String>,
    description: Option<String>,
}

/// Reads a SKILL.md, or says in one sentence why it cannot be offered.
pub fn parse(text: &str) -> Result<SkillFile<'_>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (frontmatter, body) =
        split(text).ok_or("SKILL.md does not begin with a frontmatter between two '---' lines")?;
    if frontmatter.len() > FRONTMATTER_BYTES_MAX {
        return Err(format!("the frontmatter is longer than {FRONTMATTER_BYTES_MAX} bytes"));
    }
    let fields: Frontmatter = serde_saphyr::from_str(frontmatter)
        // The commonest mistake in the wild is an unquoted colon in the description.
        .or_else(|error| serde_saphyr::from_str(&quote_values(frontmatter)).map_err(|_| error))
        .map_err(|error| format!("the frontmatter is not YAML: {}", first_line(&error.to_string())))?;
    let description = fields.description.map(|d| d.trim().to_owned()).filter(|d| !d.is_empty());
    let description = description.ok_or("the frontmatter has no description")?;
    let description = description.chars().take(DESCRIPTION_CHARS_MAX).collect();
    Ok(SkillFile { name: fields.name, description, body })
}

fn split(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix("---")?.trim_start_matches([' ', '\t']);
    let rest = rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix('\n'))?;
    let mut at = 0;
    for line in rest.split_inclusive('\n') {
        if line.trim_end() == "---" {
            return Some((&rest[..at], rest[at + line.len()..].trim_start_matches(['\r', '\n'])));
        }
        at += line.len();
    }
    None
}

/// Quotes the value of every top-level `key: value` line that is not already quoted.
fn quote_values(frontmatter: &str) -> String {
    let quote = |line: &str| match line.split_once(": ") {
        Some((key, value))
            if !line.starts_with([' ', '\t', '-']) && !value.starts_with(['"', '\'', '|', '>', '[', '{']) =>
        {
            format!("{key}: {}\n", serde_json::Value::from(value.trim()))
        }
        _ => format!("{line}\n"),
    };
    frontmatter.lines().map(quote).collect()
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_that_are_met() {
        for (name, text, description) in [
            ("plain", "---\nname: a\ndescription: Does it.\n---\nBody\n", "Does it."),
            ("folded", "---\ndescription: >\n  Does\n  it.\n---\nBody\n", "Does it."),
            (
                "an unquoted colon",
                "---\nname: a\ndescription: Use when: asked\n---\nBody\n",
                "Use when: asked",
            ),
            ("CRLF and BOM", "\u{feff}---\r\ndescription: Does it.\r\n---\r\nBody\n", "Does it."),
            (
                "more fields",
                "---\ndescription: D\nmetadata:\n  version: \"1\"\nlicense: Apache-2.0\n---\nBody\n",
                "D",
            ),
        ] {
            let skill = parse(text).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!((skill.description.as_str(), skill.body), (description, "Body\n"), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_offered_says_why() {
        for text in [
            "",
            "# no frontmatter",
            "---\nname: a\n---\n",
            "---\ndescription: \"\"\n---\n",
            "---\ndescription: a\n",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
