//! Reads from the source what it says to people: log lines and error texts. Parses Rust only as far as needed to find string
//! literals.

use std::path::Path;

use super::markdown::ROOT;

/// The sentences in a source file, without those of its unit tests, with `…` in place of arguments.
pub fn sentences(path: impl AsRef<Path>) -> Vec<String> {
    texts(&code_of(&Path::new(ROOT).join(path)))
}

/// The sentences in all of the source.
pub fn all_sentences() -> Vec<String> {
    files().iter().flat_map(|code| texts(code)).collect()
}

/// The sentences that the log may get as warnings or errors.
pub fn warnings() -> Vec<String> {
    let mut found = Vec::new();
    for code in files() {
        for call in ["warn!(", "error!(", "seldom!("] {
            let calls = code.split(call).skip(1).map(|rest| rest.split_once(");").map_or(rest, |(call, _)| call));
            let others = ["info,", "debug,", "trace,"];
            let calls = calls.filter(|call| !others.iter().any(|level| call.trim_start().starts_with(level)));
            // The message follows the fields, whose texts are short.
            found.extend(calls.filter_map(|call| texts(call).into_iter().max_by_key(String::len)));
        }
    }
    found
}

/// The code of all files.
fn files() -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(ROOT).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of the project").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(code_of(&path));
            }
        }
    }
    found
}

/// A file without comments and unit tests, with each string literal on one line.
fn code_of(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = lines.join("\n");
    let mut parts = code.split("\\\n");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |code, part| code + part.trim_start())
}

/// The string literals of more than one word in a piece of code.
fn texts(code: &str) -> Vec<String> {
    let without_quotes = code.replace("\\\"", "'").replace("'\"'", "");
    let texts = without_quotes.split('"').skip(1).step_by(2).filter(|text| text.contains(' '));
    texts.map(with_ellipses).collect()
}

fn with_ellipses(text: &str) -> String {
    let mut out = String::new();
    let mut is_put_in = false;
    for one in text.chars() {
        match one {
            '{' => {
                is_put_in = true;
                out.push('…');
            }
            '}' => is_put_in = false,
            _ if is_put_in => {}
            one => out.push(one),
        }
    }
    out
}
