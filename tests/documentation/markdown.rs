//! Parses the project's markdown as far as the tests need it: code blocks, tables, links, headings. Not a general parser: it
//! handles what these documents use. Must not read anything outside the project.

use std::path::{Path, PathBuf};

/// The top of the project.
pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// One document.
pub struct Document {
    /// Its path below [`ROOT`].
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// A fenced code block.
pub struct Block {
    /// The text after the opening fence: `sh`, `yaml config`.
    pub info: String,
    /// Its content, without the indentation of the fence.
    pub text: String,
    /// The number of its opening line, from 1.
    pub line: usize,
}

/// A row of a table, with the headings above it.
pub struct Row {
    /// The last heading of the second level.
    pub section: String,
    /// The first cell of the table's header.
    pub title: String,
    /// The cells, without blanks around them.
    pub cells: Vec<String>,
}

/// Every markdown file of the project, except built and installed ones.
pub fn documents() -> Vec<Document> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(ROOT)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the project").flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() && !name.starts_with('.') && !["target", "node_modules", "venv"].contains(&&*name) {
                folders.push(path);
            } else if name.ends_with(".md") {
                let path = path.strip_prefix(ROOT).expect("it is below").to_owned();
                found.push(Document::read(path));
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(found.len() > 5, "where are the documents?");
    found
}

impl Document {
    /// Reads the document at this path below [`ROOT`].
    pub fn read(path: impl Into<PathBuf>) -> Document {
        let path = path.into();
        let text = std::fs::read_to_string(Path::new(ROOT).join(&path));
        Document { text: text.unwrap_or_else(|error| panic!("{}: {error}", path.display())), path }
    }

    /// Its code blocks.
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut indent = None;
        for (index, line) in self.text.lines().enumerate() {
            let text = line.trim_start();
            match (text.strip_prefix("```"), indent) {
                (Some(info), None) => {
                    indent = Some(line.len() - text.len());
                    blocks.push(Block { info: info.trim().to_owned(), text: String::new(), line: index + 1 });
                }
                (Some(_), Some(_)) => indent = None,
                (None, Some(indent)) => {
                    let block = blocks.last_mut().expect("one is open");
                    block.text.push_str(line.get(indent..).unwrap_or_default());
                    block.text.push('\n');
                }
                (None, None) => {}
            }
        }
        assert!(indent.is_none(), "{}: a code block does not end", self.path.display());
        blocks
    }

    /// Its text without code blocks, each line with its number.
    pub fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut is_code = false;
        self.text.lines().enumerate().filter_map(move |(index, line)| {
            let is_fence = line.trim_start().starts_with("```");
            is_code ^= is_fence;
            (!is_code && !is_fence).then_some((index + 1, line))
        })
    }

    /// The rows of its tables, without the headers.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut section = String::new();
        let mut title: Option<String> = None;
        for (_, line) in self.prose() {
            if let Some(heading) = line.strip_prefix("## ") {
                section = heading.to_owned();
            }
            let Some(line) = line.strip_prefix('|') else {
                title = None;
                continue;
            };
            let cells: Vec<String> =
                line.trim_end().trim_end_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
            match &title {
                None => title = Some(cells[0].clone()),
                Some(_) if cells[0].trim_matches([':', '-']).is_empty() && !cells[0].is_empty() => {}
                Some(title) => rows.push(Row { section: section.clone(), title: title.clone(), cells }),
            }
        }
        rows
    }

    /// The anchors that links to it can use, as GitHub makes them from the headings.
    pub fn anchors(&self) -> Vec<String> {
        let headings = self.prose().filter(|(_, line)| line.starts_with('#'));
        let slug = |line: &str| {
            let text = line.trim_start_matches('#').trim().to_lowercase();
            let kept = text.chars().filter(|one| one.is_alphanumeric() || ['-', '_', ' '].contains(one));
            kept.map(|one| if one == ' ' { '-' } else { one }).collect::<String>()
        };
        headings.map(|(_, line)| slug(line)).collect()
    }

    /// The targets of its links, each with its line number. Code in a line is no link.
    pub fn links(&self) -> Vec<(usize, String)> {
        let mut links = Vec::new();
        for (number, line) in self.prose() {
            let without_code: String = line.split('`').step_by(2).collect::<Vec<_>>().join("code");
            for rest in without_code.split("](").skip(1) {
                let (target, _) = rest.split_once(')').unwrap_or_else(|| panic!("{}:{number}", self.path.display()));
                links.push((number, target.to_owned()));
            }
        }
        links
    }

    /// The inline code in its lines, each with its line number.
    pub fn code(&self) -> Vec<(usize, String)> {
        let words = |(number, line): (usize, &str)| {
            line.split('`').skip(1).step_by(2).map(move |code| (number, code.to_owned())).collect::<Vec<_>>()
        };
        self.prose().flat_map(words).collect()
    }
}

/// The single piece of inline code that makes up a cell.
pub fn code_of(cell: &str) -> Option<&str> {
    cell.strip_prefix('`')?.strip_suffix('`').filter(|code| !code.contains('`'))
}
