//! The shape of files: sizes, opening comments, words that mean unfinished work,
//! and files that nothing refers to.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::source::{File, code, functions, line_of, modules, tables, test_spans, words};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
/// A constant of more lines is a table, and apart from both.
const TABLE_LINES_MIN: usize = 6;

fn lines(text: &str, bytes: &Range<usize>) -> usize {
    text[bytes.clone()].lines().count()
}

/// Lines of those `spans` within `whole` that lie in no other.
fn lines_apart(text: &str, whole: &Range<usize>, spans: &[Range<usize>]) -> usize {
    let inside = |a: &Range<usize>, b: &Range<usize>| b.start <= a.start && a.end <= b.end;
    let outermost = spans.iter().enumerate().filter(|(index, span)| {
        let in_another = |(other, range): (usize, &Range<usize>)| {
            other != *index && inside(span, range) && (range != *span || other < *index)
        };
        inside(span, whole) && !spans.iter().enumerate().any(in_another)
    });
    outermost.map(|(_, span)| lines(text, span)).sum()
}

fn long_tables(text: &str) -> Vec<Range<usize>> {
    let mut found = tables(&code(text));
    found.retain(|table| lines(text, table) >= TABLE_LINES_MIN);
    found
}

/// Files that are too long; test modules and tables do not count.
pub fn file_sizes(files: &[File]) -> Vec<String> {
    let tests = test_files(files);
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| !tests.contains(&file.path)) {
        let whole = 0..file.text.len();
        let mut apart = test_spans(&file.text);
        apart.extend(long_tables(&file.text));
        let count = lines(&file.text, &whole) - lines_apart(&file.text, &whole, &apart);
        if count > FILE_LINES_MAX {
            complaints.push(format!("{}: {count} lines, {FILE_LINES_MAX} at most", file.path));
        }
    }
    complaints
}

/// Functions that are too long; those of tests do not count, nor do tables in
/// them.
pub fn function_sizes(files: &[File]) -> Vec<String> {
    let test_files = test_files(files);
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| !test_files.contains(&file.path)) {
        let tests = test_spans(&file.text);
        let tables = long_tables(&file.text);
        for (name, bytes) in functions(&code(&file.text)) {
            if tests.iter().any(|span| span.contains(&bytes.start)) {
                continue;
            }
            let count = lines(&file.text, &bytes) - lines_apart(&file.text, &bytes, &tables);
            if count > FUNCTION_LINES_MAX {
                let line = line_of(&file.text, bytes.start);
                complaints.push(format!(
                    "{}:{line}: `{name}` has {count} lines, {FUNCTION_LINES_MAX} at most",
                    file.path
                ));
            }
        }
    }
    complaints
}

/// Files that do not begin with a comment of their own, or hold nothing else.
pub fn opening_comments(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        let opening = file.text.lines().take_while(|line| line.starts_with("//!"));
        let said: usize = opening.map(|line| line.split_whitespace().count() - 1).sum();
        if said < 3 {
            complaints.push(format!("{}: does not say at its head what it is for", file.path));
        }
        if code(&file.text).trim().is_empty() {
            complaints.push(format!("{}: holds no code", file.path));
        }
    }
    complaints
}

/// Calls and words that mean unfinished work.
pub fn unfinished(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut note = |file: &File, at: usize, what: &str| {
        complaints.push(format!("{}:{}: `{what}`", file.path, line_of(&file.text, at)));
    };
    for file in files {
        let code = code(&file.text);
        for word in ["todo", "unimplemented", "dbg"] {
            for at in words(&code, word).filter(|at| code[at + word.len()..].starts_with('!')) {
                note(file, at, &format!("{word}!"));
            }
        }
        // Spelled in two halves, so that this file may be looked at as well.
        for word in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")] {
            for at in words(&file.text, word) {
                note(file, at, word);
            }
        }
    }
    complaints
}

/// Whether a file is the root of a crate: nothing declares it.
fn is_root(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    matches!(
        parts[..],
        ["src" | "tests" | "benches", _] if parts[0] != "src" || ["lib.rs", "main.rs"].contains(&parts[1])
    ) || matches!(parts[..], ["tools", "src", "lib.rs"] | ["tools", "src", "bin", _])
        || matches!(parts[..], ["tools", "benches" | "tests", _])
}

/// Every file that a root leads to, and whether for tests only.
fn reached(files: &[File]) -> BTreeMap<String, bool> {
    let texts: BTreeMap<&str, &str> = files.iter().map(|f| (&*f.path, &*f.text)).collect();
    let mut reached = BTreeMap::new();
    let mut pending: Vec<(String, bool)> =
        files.iter().filter(|f| is_root(&f.path)).map(|f| (f.path.clone(), false)).collect();
    while let Some((path, is_test)) = pending.pop() {
        let Some(text) = texts.get(&*path) else { continue };
        // A file reached both ways is no test.
        if reached.get(&path).is_some_and(|known| *known <= is_test) {
            continue;
        }
        reached.insert(path.clone(), is_test);
        let (parent, file) = path.rsplit_once('/').unwrap_or(("", &path));
        let own = match file {
            "mod.rs" => parent.to_owned(),
            _ if is_root(&path) => parent.to_owned(),
            _ => path.trim_end_matches(".rs").to_owned(),
        };
        for module in modules(text).into_iter().filter(|module| !module.is_inline) {
            let is_test = is_test || module.is_test;
            if let Some(given) = module.path {
                pending.push((format!("{parent}/{given}"), is_test));
                continue;
            }
            pending.push((format!("{own}/{}.rs", module.name), is_test));
            pending.push((format!("{own}/{}/mod.rs", module.name), is_test));
        }
    }
    reached
}

/// The files that are compiled for tests only.
pub fn test_files(files: &[File]) -> BTreeSet<String> {
    reached(files).into_iter().filter(|(_, is_test)| *is_test).map(|(path, _)| path).collect()
}

/// Rust files that belong to no crate.
pub fn dead_files(files: &[File]) -> Vec<String> {
    let reached = reached(files);
    let dead = files.iter().filter(|file| !reached.contains_key(&file.path));
    dead.map(|file| format!("{}: no module declares it", file.path)).collect()
}
