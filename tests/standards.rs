//! The matrix of standards names, for each demand, the tests that show it. Each
//! of those tests must be there under that name.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// One row of a table in `docs/standards.md`.
struct Row {
    line: usize,
    level: String,
    shown_by: String,
}

/// The rows of all tables, their heads left out.
fn rows(text: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let Some(inner) = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) else {
            continue;
        };
        let cells: Vec<&str> = inner.split(" | ").map(str::trim).collect();
        let is_rule = inner.chars().all(|c| matches!(c, '-' | '|' | ' ' | ':'));
        if is_rule || cells[0] == "section" {
            continue;
        }
        assert_eq!(cells.len(), 4, "docs/standards.md:{}: four columns", index + 1);
        rows.push(Row { line: index + 1, level: cells[1].into(), shown_by: cells[3].into() });
    }
    rows
}

/// What stands in backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// What is wrong with the name of a test: `path::function`, or the path of a
/// dialog.
fn fault(root: &Path, name: &str) -> Option<String> {
    let (path, function) = match name.split_once("::") {
        Some((path, function)) => (path, Some(function)),
        None => (name, None),
    };
    let Ok(text) = fs::read_to_string(root.join(path)) else {
        return Some(format!("there is no file {path}"));
    };
    match function {
        Some(function) if !text.contains(&format!("fn {function}(")) => {
            Some(format!("{path} has no test {function}"))
        }
        None if !path.ends_with(".dialog") => Some(format!("{path}: name a test in it")),
        _ => None,
    }
}

#[test]
fn every_test_that_the_matrix_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/standards.md")).expect("the matrix");
    let rows = rows(&text);
    assert!(rows.len() > 80, "only {} rows", rows.len());
    let levels = BTreeSet::from(["MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "MAY"]);
    let mut faults = Vec::new();
    for row in &rows {
        if !levels.contains(&*row.level) {
            faults.push(format!("{}: no level: {:?}", row.line, row.level));
        }
        let names = quoted(&row.shown_by);
        if names.is_empty() {
            faults.push(format!("{}: names no test", row.line));
        }
        let missing = names.iter().filter_map(|name| fault(root, name));
        faults.extend(missing.map(|fault| format!("{}: {fault}", row.line)));
    }
    assert!(faults.is_empty(), "docs/standards.md:\n{}", faults.join("\n"));
}

#[test]
fn a_name_that_is_wrong_is_found() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert_eq!(fault(root, "tests/standards.rs::a_name_that_is_wrong_is_found"), None);
    assert_eq!(fault(root, "tests/dialogs/rset.dialog"), None);
    for wrong in [
        "tests/standards.rs::no_such_test",
        "tests/nowhere.rs::x",
        "tests/standards.rs",
        "tests/dialogs/none.dialog",
    ] {
        assert!(fault(root, wrong).is_some(), "{wrong}");
    }
    let table = "| section | level | demand | shown by |\n|---|---|---|---|\n\
                 | 4.1 | MUST | a \\| b | `x::y`, `z` |\n";
    let rows = rows(table);
    assert_eq!((rows.len(), &*rows[0].level), (1, "MUST"));
    assert_eq!(quoted(&rows[0].shown_by), ["x::y", "z"]);
}
