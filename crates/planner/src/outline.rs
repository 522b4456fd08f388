//! A Markdown or plain text file as slides, in the writer's own words.

use crate::table::Table;
use crate::text::{one_line, shorten};

/// A file as slides.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Outline {
    pub(crate) title: Option<String>,
    pub(crate) slides: Vec<Slide>,
    /// Slides beyond the bound that were left out.
    pub(crate) left_out: usize,
}

/// One heading and what stands below it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Slide {
    pub(crate) title: String,
    pub(crate) bullets: Vec<Bullet>,
    pub(crate) table: Option<Table>,
}

/// A bullet and those below it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Bullet {
    pub(crate) text: String,
    pub(crate) sub: Vec<String>,
}

/// Slides made from one file.
const SLIDES_MAX: usize = 40;
/// A line that may be a title without being marked as one, in characters.
const TITLE_CHARS_MAX: usize = 80;
/// A bullet, in characters, as deck specs bound it.
const BULLET_CHARS_MAX: usize = 600;
const SUB_BULLETS_MAX: usize = 20;

/// Reads a file.
pub(crate) fn parse(text: &str) -> Outline {
    let text = text.trim_start_matches('\u{feff}');
    let lines: Vec<&str> =
        without_front_matter(text).lines().filter(|line| !line.trim_start().starts_with("```")).collect();
    let mut outline = Outline::default();
    let marked = lines.iter().any(|line| heading(line).is_some());
    let mut paragraph = String::new();
    let mut rows: Vec<&str> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let is_row = line.trim_start().starts_with('|');
        if !is_row {
            close_table(&mut outline, &mut rows);
        }
        let plain_title = !marked && is_plain_title(&lines, at);
        let bullet = bullet(line);
        if bullet.is_some() || is_row || line.trim().is_empty() || heading(line).is_some() || plain_title {
            close_paragraph(&mut outline, &mut paragraph);
        }
        if let Some((level, title)) = heading(line) {
            open_slide(&mut outline, level, title);
        } else if plain_title {
            let level = if outline.slides.is_empty() { 1 } else { 2 };
            open_slide(&mut outline, level, line.trim().trim_end_matches(':'));
        } else if is_row {
            rows.push(line);
        } else if let Some((indent, text)) = bullet {
            add_bullet(&mut outline, indent, text);
        } else if !line.trim().is_empty() {
            paragraph.push_str(line.trim());
            paragraph.push(' ');
        }
    }
    close_table(&mut outline, &mut rows);
    close_paragraph(&mut outline, &mut paragraph);
    outline.slides.retain(|slide| !slide.bullets.is_empty() || slide.table.is_some());
    outline.left_out = outline.slides.len().saturating_sub(SLIDES_MAX);
    outline.slides.truncate(SLIDES_MAX);
    outline
}

fn without_front_matter(text: &str) -> &str {
    let Some(rest) = text.strip_prefix("---\n") else { return text };
    rest.split_once("\n---").map_or(text, |(_, body)| body.trim_start_matches('-'))
}

fn heading(line: &str) -> Option<(usize, &str)> {
    let title = line.trim_start_matches('#');
    let level = line.len() - title.len();
    let title = title.strip_prefix(' ')?.trim().trim_end_matches('#').trim_end();
    ((1..=6).contains(&level) && !title.is_empty()).then_some((level, title))
}

/// A short line with a list right below it, or the very first line when a blank one follows.
fn is_plain_title(lines: &[&str], at: usize) -> bool {
    let line = lines[at].trim();
    if line.is_empty()
        || line.chars().count() > TITLE_CHARS_MAX
        || bullet(lines[at]).is_some()
        || line.starts_with('|')
    {
        return false;
    }
    match lines.get(at + 1) {
        Some(next) if bullet(next).is_some() => true,
        Some(next) => {
            next.trim().is_empty()
                && (line.ends_with(':') || lines[..at].iter().all(|before| before.trim().is_empty()))
        }
        None => false,
    }
}

fn bullet(line: &str) -> Option<(usize, &str)> {
    let text = line.trim_start();
    let indent = line.len() - text.len();
    let digits = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let rest =
        ["- ", "* ", "+ ", "• ", "– "].iter().find_map(|mark| text.strip_prefix(mark)).or_else(|| {
            let numbered = digits.len() < text.len() && text.len() - digits.len() <= 3;
            numbered.then(|| digits.strip_prefix(". ").or_else(|| digits.strip_prefix(") ")))?
        })?;
    Some((indent, rest.trim()))
}

fn open_slide(outline: &mut Outline, level: usize, title: &str) {
    let title = shorten(&one_line(&title.replace(['*', '`'], "")), 200);
    if level == 1 && outline.title.is_none() && outline.slides.is_empty() {
        outline.title = Some(title);
    } else {
        outline.slides.push(Slide { title, ..Slide::default() });
    }
}

fn current(outline: &mut Outline) -> Option<&mut Slide> {
    if outline.slides.is_empty() {
        outline.slides.push(Slide { title: "Key points".into(), ..Slide::default() });
    }
    outline.slides.last_mut()
}

fn add_bullet(outline: &mut Outline, indent: usize, text: &str) {
    if text.is_empty() {
        return;
    }
    let text = shorten(&text.replace('`', ""), BULLET_CHARS_MAX);
    let Some(slide) = current(outline) else { return };
    match slide.bullets.last_mut() {
        Some(last) if indent >= 2 && last.sub.len() < SUB_BULLETS_MAX => last.sub.push(text),
        _ => slide.bullets.push(Bullet { text, sub: Vec::new() }),
    }
}

fn close_paragraph(outline: &mut Outline, paragraph: &mut String) {
    let text = one_line(&std::mem::take(paragraph));
    let mut sentence = String::new();
    for word in text.split(' ') {
        sentence.push_str(word);
        if word.ends_with(['.', '!', '?']) && word.chars().count() > 3 {
            add_bullet(outline, 0, &std::mem::take(&mut sentence));
        } else {
            sentence.push(' ');
        }
    }
    add_bullet(outline, 0, sentence.trim());
}

fn close_table(outline: &mut Outline, rows: &mut Vec<&str>) {
    let is_rule = |row: &str| row.chars().all(|c| "|-: \t".contains(c));
    let cells = |row: &str| -> Vec<String> {
        row.trim().trim_matches('|').split('|').map(|cell| one_line(&cell.replace(['*', '`'], ""))).collect()
    };
    let mut table: Vec<Vec<String>> = rows.drain(..).filter(|row| !is_rule(row)).map(cells).collect();
    if table.len() < 2 {
        return;
    }
    let columns = table.remove(0);
    for row in &mut table {
        row.resize(columns.len(), String::new());
    }
    if let Some(slide) = current(outline) {
        slide.table = Some(Table { columns, rows: table });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let outline = parse(text);
        let mut lines = vec![outline.title.unwrap_or_default()];
        for slide in outline.slides {
            let bullets: Vec<String> =
                slide.bullets.iter().map(|b| format!("{}{}", b.text, "+".repeat(b.sub.len()))).collect();
            let rows = slide.table.map_or(String::new(), |table| format!(" table {}", table.rows.len()));
            lines.push(format!("{}: {}{rows}", slide.title, bullets.join("; ")));
        }
        lines.join(" / ")
    }

    #[test]
    fn files_become_slides() {
        for (text, expected) in [
            (
                "# T\n\n## A\n- one\n  - sub\n- two\n\n## B\nFirst said. Then more.\n",
                "T / A: one+; two / B: First said.; Then more.",
            ),
            ("---\ntitle: x\n---\n# T\n## A\n1. one\n2) two", "T / A: one; two"),
            (
                "My talk\n\nWhy:\n- one\n- two\n\nA closing thought.",
                "My talk / Why: one; two; A closing thought.",
            ),
            ("Just a sentence here. And one more.", " / Key points: Just a sentence here.; And one more."),
            ("# T\n## Table\n| a | b |\n|---|---|\n| x | 1 |\n", "T / Table:  table 1"),
            ("", ""),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }
}
