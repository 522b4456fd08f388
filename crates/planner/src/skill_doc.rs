//! What a SKILL.md teaches: the build and check commands, the layouts and the themes of a deck skill. The commands
//! are taken from the document and not from the planner's own knowledge.

/// A skill whose document describes a deck spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeckSkill {
    build: Vec<String>,
    check: Vec<String>,
    spec: String,
    deck: String,
    documented: String,
    /// Theme names with what is said of each.
    pub(crate) themes: Vec<(String, String)>,
}

impl DeckSkill {
    /// `None` when the document describes no deck spec that the planner knows how to write.
    pub(crate) fn parse(document: &str) -> Option<Self> {
        if !document.contains("\"slides\"") || !document.contains("\"layout\"") {
            return None;
        }
        let commands = fenced_lines(document);
        let build = commands.iter().find(|words| has(words, "build") && has(words, "-o"))?;
        let spec = build.iter().find(|word| word.ends_with(".json"))?.clone();
        let deck = build.iter().find(|word| word.ends_with(".pptx"))?.clone();
        let check = commands.iter().find(|words| has(words, "check") && words.contains(&deck))?;
        let skill = Self {
            build: build.clone(),
            check: check.clone(),
            spec,
            deck,
            documented: document.to_owned(),
            themes: themes(document),
        };
        (skill.knows("title") && skill.knows("bullets")).then_some(skill)
    }

    /// Whether the document names a layout.
    pub(crate) fn knows(&self, layout: &str) -> bool {
        self.documented.contains(&format!("| `{layout}` |"))
            || self.documented.contains(&format!("\"layout\": \"{layout}\""))
    }

    /// Whether the document names a field of the deck or a slide.
    pub(crate) fn has_field(&self, field: &str) -> bool {
        self.documented.contains(&format!("`{field}`"))
    }

    /// Where the document puts the spec, as a folder.
    pub(crate) fn folder(&self) -> &str {
        self.spec.rsplit_once('/').map_or("/workspace/output", |(folder, _)| folder)
    }

    /// The build command for these files.
    pub(crate) fn build_command(&self, spec: &str, deck: &str) -> String {
        self.with_paths(&self.build, spec, deck)
    }

    /// The check command for this file.
    pub(crate) fn check_command(&self, deck: &str) -> String {
        self.with_paths(&self.check, &self.spec, deck)
    }

    fn with_paths(&self, command: &[String], spec: &str, deck: &str) -> String {
        let swap = |word: &String| match word {
            word if *word == self.spec => crate::text::quoted(spec),
            word if *word == self.deck => crate::text::quoted(deck),
            word => word.clone(),
        };
        command.iter().map(swap).collect::<Vec<_>>().join(" ")
    }
}

fn has(words: &[String], wanted: &str) -> bool {
    words.iter().any(|word| word == wanted)
}

fn fenced_lines(document: &str) -> Vec<Vec<String>> {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in document.lines() {
        // The Read tool numbers lines; a skill may have been shown through it.
        let line = line
            .split_once('\t')
            .filter(|(n, _)| n.trim().parse::<u32>().is_ok())
            .map_or(line, |(_, rest)| rest);
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if inside {
            lines.push(line.split_whitespace().map(str::to_owned).collect());
        }
    }
    lines
}

/// From a row such as "| `theme` | no | `sea` (navy and teal, default), `fire` (red) |".
fn themes(document: &str) -> Vec<(String, String)> {
    let Some(row) = document.lines().find(|line| line.trim_start().starts_with("| `theme`")) else {
        return Vec::new();
    };
    let mut parts = row.split('`').skip(3);
    let mut themes = Vec::new();
    while let (Some(name), Some(rest)) = (parts.next(), parts.next()) {
        let described = rest
            .trim_start()
            .strip_prefix('(')
            .and_then(|rest| rest.split_once(')'))
            .map_or("", |(said, _)| said);
        themes.push((name.to_owned(), described.to_owned()));
    }
    themes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bundled skill's own document: the planner follows it as it stands.
    const BUNDLED: &str = include_str!("../../../skills/pptx-builder/SKILL.md");

    #[test]
    fn the_bundled_skill_is_understood() {
        let skill = DeckSkill::parse(BUNDLED).unwrap();
        let build = skill.build_command("/workspace/output/a.json", "/workspace/output/a b.pptx");
        assert!(
            build.starts_with("python3 /skills/")
                && build.contains(" build /workspace/output/a.json -o '/workspace/output/a b.pptx'"),
            "{build}"
        );
        assert!(skill.check_command("/workspace/x.pptx").ends_with(" check /workspace/x.pptx"));
        for layout in
            ["title", "agenda", "bullets", "two_column", "chart", "table", "kpi", "timeline", "closing"]
        {
            assert!(skill.knows(layout), "{layout}");
        }
        assert!(
            skill.themes.len() >= 2
                && skill.themes.iter().all(|(name, said)| !name.is_empty() && !said.is_empty())
        );
    }

    #[test]
    fn other_documents_are_not() {
        for other in [
            "",
            "# PDF\n```\npython3 make.py build a.json -o a.pdf\n```",
            "\"slides\" \"layout\" but no command",
        ] {
            assert_eq!(DeckSkill::parse(other), None, "{other}");
        }
    }
}
