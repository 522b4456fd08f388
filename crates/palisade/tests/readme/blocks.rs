//! The fenced blocks of a page, and the commands of those that show a terminal.

/// What stands between two fences.
pub(crate) struct Block {
    pub(crate) language: String,
    pub(crate) text: String,
    /// Of its first fence, from 1.
    pub(crate) line: usize,
}

/// A command, and what stands below it.
pub(crate) struct Step {
    pub(crate) command: String,
    pub(crate) printed: String,
}

/// All blocks of a page, those within lists too.
pub(crate) fn read(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut indent = None;
    for (at, line) in page.lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        match (fence, indent, blocks.last_mut()) {
            (Some(language), None, _) => {
                indent = Some(line.len() - line.trim_start().len());
                blocks.push(Block { language: language.to_owned(), text: String::new(), line: at + 1 });
            }
            (Some(_), Some(_), _) => indent = None,
            (None, Some(indent), Some(block)) => {
                block.text.push_str(line.get(indent..).unwrap_or_default());
                block.text.push('\n');
            }
            _ => {}
        }
    }
    blocks
}

impl Block {
    /// A line that begins with `$` is a command; a comment behind two blanks belongs to the reader.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        for line in self.text.lines() {
            match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => {
                    let command = command.split("  #").next().unwrap_or(command).trim_end().to_owned();
                    steps.push(Step { command, printed: String::new() });
                }
                (None, Some(step)) => {
                    step.printed.push_str(line);
                    step.printed.push('\n');
                }
                (None, None) => panic!("a console block begins with its command: {line}"),
            }
        }
        steps
    }
}
