//! What a message names or holds beside its words: files by their names, and an outline below the request. A name is
//! taken as written; whether there is such a file is for the tools to say.

/// Files that one deck is made from.
const FILES_MAX: usize = 4;

/// The words before an outline in the message, and the outline.
pub(crate) fn split_outline(request: &str) -> (&str, Option<&str>) {
    let mut at = 0;
    for line in request.split_inclusive('\n') {
        let text = line.trim_start();
        if at > 0
            && (text.starts_with("# ")
                || text.starts_with("## ")
                || text.starts_with("- ")
                || text.starts_with("* ")
                || text.starts_with("1. "))
        {
            return (&request[..at], Some(&request[at..]));
        }
        at += line.len();
    }
    (request, None)
}

/// Tokens of a message, with what stands in quotes or backticks kept together.
fn file_tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    for (index, part) in text.split(['`', '"', '“', '”']).enumerate() {
        if index % 2 == 1 && extension(part.trim()).is_some() && !part.contains('\n') {
            tokens.push(part.trim());
        } else {
            tokens.extend(part.split_whitespace().map(|token| {
                token.trim_matches(|c: char| "'‘’,;:()<>[]!?".contains(c)).trim_end_matches('.')
            }));
        }
    }
    tokens
}

fn extension(name: &str) -> Option<&str> {
    let (stem, extension) = name.rsplit_once('.')?;
    let known = [
        "csv", "tsv", "md", "markdown", "txt", "pptx", "xlsx", "xls", "pdf", "docx", "doc", "json", "html",
        "png", "jpg", "jpeg", "parquet",
    ];
    let lower = extension.to_ascii_lowercase();
    (!stem.is_empty() && known.contains(&lower.as_str())).then_some(extension)
}

/// Files to read, files that cannot be read, and where the deck is wanted.
pub(crate) fn files(head: &str) -> (Vec<String>, Vec<String>, Option<String>) {
    let (mut files, mut unreadable, mut output) = (Vec::new(), Vec::new(), None);
    let tokens = file_tokens(head);
    for (at, token) in tokens.iter().enumerate() {
        let Some(extension) = extension(token) else { continue };
        let before = at
            .checked_sub(1)
            .and_then(|at| tokens.get(at))
            .map(|word| word.to_lowercase())
            .unwrap_or_default();
        let is_input = matches!(
            before.as_str(),
            "update" | "edit" | "change" | "use" | "from" | "turn" | "in" | "extend"
        );
        let list = match extension.to_ascii_lowercase().as_str() {
            "csv" | "tsv" | "md" | "markdown" | "txt" => &mut files,
            "pptx" if !is_input && !token.split('/').any(|part| part == "..") => {
                output = Some((*token).to_owned());
                continue;
            }
            _ => &mut unreadable,
        };
        if list.len() < FILES_MAX && !list.iter().any(|known| known == token) {
            list.push((*token).to_owned());
        }
    }
    (files, unreadable, output)
}

/// The words without file names, so that `report.pdf` is no request for a report.
pub(crate) fn without_files(text: &str) -> String {
    let mut text = text.to_owned();
    for token in file_tokens(&text.clone()) {
        if extension(token).is_some() {
            text = text.replace(token, "");
        }
    }
    text
}
