//! The imports between files of `src`, and the circles among them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::source::{Segments, Source};

/// A module of the crate.
struct Module {
    /// Relative to `src`.
    file: String,
    parent: usize,
    children: BTreeMap<String, usize>,
    source: Source,
}

/// All modules of the crate; the first is its root.
struct Modules(Vec<Module>);

/// The target of a path.
enum Found {
    /// An item, in this file.
    Item(String),
    Module(usize),
    /// An item of another crate.
    Nothing,
}

/// From each file to the files from which it imports, with the imported names.
pub type Imports = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// Parses the crate below this directory.
pub fn imports(src: &Path) -> Imports {
    let mut modules = Modules(Vec::new());
    modules.read(src, "lib.rs".to_owned(), String::new(), 0);
    let mut imports = Imports::new();
    for at in 0..modules.0.len() {
        let module = &modules.0[at];
        let from = imports.entry(module.file.clone()).or_default();
        let Source { uses, globs, paths, .. } = &module.source;
        let mut add = |file: &String, path: &Segments| {
            if *file != module.file {
                from.entry(file.clone()).or_default().insert(path.join("::"));
            }
        };
        for path in uses.iter().map(|(_, path)| path).chain(paths) {
            // A module alone is no import; the paths that begin with it are.
            if let Found::Item(file) = modules.find(at, path, 0) {
                add(&file, path);
            }
        }
        for path in globs {
            if let Found::Module(other) = modules.find(at, path, 0) {
                add(&modules.0[other].file, path);
            }
        }
    }
    imports
}

impl Modules {
    /// `directory` is that of the module's children.
    fn read(&mut self, src: &Path, file: String, directory: String, parent: usize) {
        let text = fs::read_to_string(src.join(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let source = Source::parse(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        self.add(src, file, directory, parent, source);
    }

    fn add(&mut self, src: &Path, file: String, directory: String, parent: usize, mut source: Source) {
        let at = self.0.len();
        let inline = std::mem::take(&mut source.inline);
        let children = source.children.clone();
        self.0.push(Module { file: file.clone(), parent, children: BTreeMap::new(), source });
        for name in children {
            let here = format!("{directory}{name}.rs");
            let below = format!("{directory}{name}/");
            let child = self.0.len();
            let file = if src.join(&here).exists() { here } else { format!("{below}mod.rs") };
            self.read(src, file, below, at);
            self.0[at].children.insert(name, child);
        }
        for (name, source) in inline {
            let child = self.0.len();
            self.add(src, file.clone(), format!("{directory}{name}/"), at, source);
            self.0[at].children.insert(name, child);
        }
    }

    /// The meaning of `path` in this module. `depth` counts the imports followed.
    fn find(&self, from: usize, path: &Segments, depth: usize) -> Found {
        let mut at = from;
        let mut rest = &path[..];
        match rest.first().map(String::as_str) {
            Some("crate") => (at, rest) = (0, &rest[1..]),
            Some("self") => rest = &rest[1..],
            Some("super") => {}
            // At this depth only names that this module knows can begin a path.
            Some(name) if !self.knows(at, name) => return Found::Nothing,
            _ => {}
        }
        while let Some((name, after)) = rest.split_first() {
            let module = &self.0[at];
            if name == "super" {
                at = module.parent;
            } else if let Some(child) = module.children.get(name) {
                at = *child;
            } else if module.source.items.contains(name) {
                return Found::Item(module.file.clone());
            } else if let Some((_, path)) = module.source.uses.iter().find(|(known, _)| known == name) {
                // A name of another crate may equal the name under which it is imported.
                if depth > 16 || (path.len() == 1 && path[0] == *name) {
                    return Found::Nothing;
                }
                let whole = [path, after].concat();
                return self.find(at, &whole, depth + 1);
            } else {
                return self.find_in_globs(at, rest, depth);
            }
            rest = after;
        }
        Found::Module(at)
    }

    fn find_in_globs(&self, at: usize, rest: &[String], depth: usize) -> Found {
        if at == 0
            && let Some(module) = self.0.iter().find(|module| module.source.exported_macros.contains(&rest[0]))
        {
            return Found::Item(module.file.clone());
        }
        let globs = self.0[at].source.globs.iter().filter(|_| depth <= 16);
        let found = globs.map(|glob| self.find(at, &[glob, rest].concat(), depth + 1));
        found.into_iter().find(|found| !matches!(found, Found::Nothing)).unwrap_or(Found::Nothing)
    }

    fn knows(&self, at: usize, name: &str) -> bool {
        let module = &self.0[at];
        module.children.contains_key(name)
            || module.source.items.iter().any(|known| known == name)
            || module.source.uses.iter().any(|(known, _)| known == name)
    }
}

/// The circles: sets of files each of which imports, directly or through others, every other one.
pub fn circles(imports: &Imports) -> Vec<BTreeSet<String>> {
    let reach: BTreeMap<&String, BTreeSet<&String>> =
        imports.keys().map(|file| (file, reachable(imports, file))).collect();
    let mut circles = BTreeSet::new();
    for file in imports.keys().filter(|file| reach[file].contains(file)) {
        let circle = reach[file].iter().filter(|other| reach[**other].contains(file));
        circles.insert(circle.map(|other| (*other).clone()).collect::<BTreeSet<String>>());
    }
    circles.into_iter().collect()
}

fn reachable<'a>(imports: &'a Imports, from: &String) -> BTreeSet<&'a String> {
    let mut seen = BTreeSet::new();
    let mut next = vec![from];
    while let Some(file) = next.pop() {
        let found = imports.get(file).into_iter().flat_map(BTreeMap::keys);
        next.extend(found.filter(|file| seen.insert(*file)).collect::<Vec<_>>());
    }
    seen
}
