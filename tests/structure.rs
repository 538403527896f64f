//! The modules keep their floor plan: `src` has no import circles, and each module imports only from modules below it.
//!
//! `make check` runs this. An import is a `use`, or a path with `crate::`, `super::` or a module's name in the code. A re-export
//! (`pub use`) counts for the file that defines the item. Unit tests do not count.

#[path = "structure/graph.rs"]
mod graph;
#[path = "structure/source.rs"]
mod source;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use graph::{Imports, circles, imports};

fn src() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The top module of a file.
fn module(file: &str) -> &str {
    file.split('/').next().map_or(file, |name| name.trim_end_matches(".rs"))
}

#[test]
fn there_are_no_import_circles() {
    let imports = imports(&src());
    let mut report = String::new();
    for circle in circles(&imports) {
        let _ = writeln!(report, "a circle of {} files:", circle.len());
        circle.iter().for_each(|file| describe(&mut report, &imports, file, |other| circle.contains(other)));
    }
    assert!(report.is_empty(), "\n{report}");
}

#[test]
fn a_module_imports_only_from_modules_below_it() {
    let imports = imports(&src());
    let map = fs::read_to_string(src().join("lib.rs")).expect("it is there");
    let order = floor_plan(&map);
    let place: BTreeMap<&str, usize> = order.iter().enumerate().map(|(place, module)| (&**module, place)).collect();
    let mut report = String::new();
    for file in imports.keys().filter(|file| *file != "lib.rs") {
        let Some(here) = place.get(module(file)) else {
            let _ = writeln!(report, "{file}: the table in src/lib.rs does not list its module");
            continue;
        };
        describe(&mut report, &imports, file, |other| {
            module(other) != module(file) && place.get(module(other)).is_none_or(|other| other >= here)
        });
    }
    assert!(report.is_empty(), "imports from modules that the table in src/lib.rs lists later:\n{report}");
}

/// What waits for a reply is data (`exchange`), so neither side calls the other.
#[test]
fn the_request_side_and_the_reply_side_do_not_know_each_other() {
    let imports = imports(&src());
    let mut report = String::new();
    for (side, other) in [("proxy", "replies"), ("replies", "proxy")] {
        for file in imports.keys().filter(|file| module(file) == side) {
            describe(&mut report, &imports, file, |imported| module(imported) == other);
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

/// The imports of a file from those other files that are `wanted`.
fn describe(report: &mut String, imports: &Imports, file: &str, wanted: impl Fn(&String) -> bool) {
    for (other, names) in imports[file].iter().filter(|(other, _)| wanted(other)) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let _ = writeln!(report, "  {file} imports from {other}: {}", names.join(", "));
    }
}

/// The modules in the order of the table in `lib.rs`: from the ground up, and within a row from left to right.
fn floor_plan(map: &str) -> Vec<String> {
    let rows = map.lines().filter_map(|line| line.strip_prefix("//! | "));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    // The text between backticks.
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[test]
fn the_table_is_read_from_the_ground_up() {
    let map = "//! | floor | modules | |\n//! | --- | --- | --- |\n//! | 0 words | [`a`], `b` | text `x` |\n//! | | [`c`] | |\n";
    assert_eq!(floor_plan(map), ["a", "b", "c"]);
}

/// A crate in a directory of its own.
fn parse(files: &[(&str, &str)]) -> Imports {
    let root = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
        fs::write(path, text).expect("a file");
    }
    imports(root.path())
}

fn circles_of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    circles(&parse(files)).into_iter().map(|circle| circle.into_iter().collect()).collect()
}

#[test]
fn circles_are_found_however_the_import_is_written() {
    let lib = ("lib.rs", "mod a; mod b;");
    let b = ("b.rs", "pub struct B; fn f() { crate::a::f() }");
    for a in [
        "use crate::b::B; pub fn f() {}",
        "use super::b::B; pub fn f() {}",
        "use crate::{b::{B as C}}; pub fn f() {}",
        "use crate::b; pub fn f() { b::B; }",
        "pub fn f() { let _ = crate::b::B; }",
        "pub fn f() -> Option<crate::b::B> { None }",
        "pub fn f() { println!(\"{}\", crate::b::B) }",
        "pub fn f() { fn g() { use crate::b::B; } }",
        "mod inner { use super::super::b::B; } pub fn f() {}",
        "use crate::b::*; pub fn f() {}",
    ] {
        assert_eq!(circles_of(&[lib, ("a.rs", a), b]), [["a.rs", "b.rs"]], "{a}");
    }
}

#[test]
fn a_re_export_counts_for_the_file_that_defines_it() {
    let files = [
        ("lib.rs", "mod low; mod high;"),
        ("low/mod.rs", "mod one; mod two; pub use one::One; pub use two::Two;"),
        ("low/one.rs", "pub struct One;"),
        ("low/two.rs", "use super::One; pub struct Two;"),
        ("high.rs", "use crate::low::{One, Two}; use std::fmt;"),
    ];
    let imports = parse(&files);
    let from = |file: &str| imports[file].keys().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(from("high.rs"), ["low/one.rs", "low/two.rs"]);
    assert_eq!(from("low/two.rs"), ["low/one.rs"]);
    assert_eq!(circles(&imports), []);
}

#[test]
fn unit_tests_and_documentation_import_nothing() {
    let a =
        "//! [`crate::b`]\npub fn f() {}\n#[cfg(test)]\nmod tests { use crate::b::B; }\n#[cfg(test)]\nuse crate::b::B;";
    let b = "pub struct B; impl B { fn g() { crate::a::f() } #[cfg(test)] fn t() {} }";
    assert_eq!(circles_of(&[("lib.rs", "mod a; mod b;"), ("a.rs", a), ("b.rs", b)]), [[""; 0]; 0]);
}

#[test]
fn items_defined_by_a_macro_are_found() {
    let a = ("a.rs", "bitflags! { /// Bits\n pub struct Flags: u32 { const A = 1; } }");
    let b = ("b.rs", "use crate::a::Flags;");
    assert_eq!(parse(&[("lib.rs", "mod a; mod b;"), a, b])["b.rs"].keys().collect::<Vec<_>>(), ["a.rs"]);
}

#[test]
fn a_macro_of_the_crate_counts_for_the_file_that_defines_it() {
    let files = [
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "#[macro_export] macro_rules! m { () => {} }"),
        ("b.rs", "fn f() { crate::m!() }"),
    ];
    assert_eq!(parse(&files)["b.rs"].keys().collect::<Vec<_>>(), ["a.rs"]);
}
