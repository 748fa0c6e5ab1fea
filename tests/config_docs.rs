//! `docs/config.md` against the schema in code: every key is documented, with
//! the default and the bounds that hold, and nothing else is; and the examples
//! load.

use std::fs;
use std::path::Path;

use ringpost::config::schema::{Fallback, KEYS, Key, LISTS};
use ringpost::config::{Config, EMBEDDED};

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/config.md");
    fs::read_to_string(path).expect("docs/config.md can be read")
}

/// The table of `key` as the document heads it.
fn heading(key: &Key) -> String {
    match key.path.rsplit_once('.') {
        None => "## Above all tables".into(),
        Some((table, _)) if LISTS.contains(&table) => format!("## `[[{table}]]`"),
        Some((table, _)) => format!("## `[{table}]`"),
    }
}

/// The line that the document must have for `key`.
fn row(key: &Key) -> String {
    let name = key.path.rsplit('.').next().unwrap_or(key.path);
    let default = match key.default {
        Fallback::Value(value) => format!("`{value}`"),
        Fallback::Required => "must be given".into(),
        Fallback::HostName => "the host's name".into(),
        Fallback::Inherited => "as in `[delivery]`".into(),
        Fallback::Nothing => "none".into(),
    };
    let allowed = quoted_as_code(&format!("{:#}", key.kind));
    format!("| `{name}` | {} | {allowed} | {default} |", key.meaning)
}

/// `text` with its quoted words set as code, so that Markdown leaves their
/// asterisks alone.
fn quoted_as_code(text: &str) -> String {
    let mut out = String::new();
    for (index, part) in text.split('"').enumerate() {
        let quote = [r#""`"#, r#"`""#][index % 2];
        out.push_str(if index == 0 { "" } else { quote });
        out.push_str(part);
    }
    out
}

/// Every row about a key, with the heading it stands under.
fn rows(document: &str) -> Vec<(String, String)> {
    let mut heading = String::new();
    let mut rows = Vec::new();
    for line in document.lines() {
        if line.starts_with("## ") {
            heading = line.to_owned();
        } else if line.starts_with("| `") {
            rows.push((heading.clone(), line.to_owned()));
        }
    }
    rows
}

/// What keeps `document` from agreeing with the schema.
fn disagreements(document: &str) -> Vec<String> {
    let found = rows(document);
    let wanted: Vec<(String, String)> = KEYS.iter().map(|key| (heading(key), row(key))).collect();
    let lacking = wanted.iter().filter(|row| !found.contains(row));
    let stale = found.iter().filter(|row| !wanted.contains(row));
    lacking
        .map(|(heading, row)| format!("under {heading}, add:\n{row}"))
        .chain(stale.map(|(heading, row)| format!("under {heading}, no key is so:\n{row}")))
        .collect()
}

#[test]
fn document_and_schema_agree() {
    let disagreements = disagreements(&document());
    assert!(disagreements.is_empty(), "docs/config.md:\n{}", disagreements.join("\n"));
}

#[test]
fn disagreement_is_noticed() {
    let document = document();
    let changed = document.replacen("`\"5d\"`", "`\"6d\"`", 1);
    assert_eq!(disagreements(&changed).len(), 2, "a wrong default");
    let moved = document.replacen("## `[limits]`", "## `[queue]`", 1);
    assert!(!disagreements(&moved).is_empty(), "a wrong table");
    let more = format!("{document}\n| `fancy` | Does nothing. | a path | `1` |\n");
    assert_eq!(disagreements(&more).len(), 1, "a key that does not exist");
}

/// The TOML examples of the document.
fn examples(document: &str) -> Vec<&str> {
    let fences = document.split("```toml\n").skip(1);
    fences.map(|rest| rest.split("```").next().unwrap_or(rest)).collect()
}

#[test]
fn examples_load() {
    let document = document();
    let examples = examples(&document);
    assert!(examples.len() >= 3, "only {} examples", examples.len());
    for example in examples {
        // A copy of the embedded default names a certificate of its own.
        let own = "certificate = \"relay.crt\"\nkey = \"relay.key\"";
        let example = example.replace("certificate = \"self-signed\"", own);
        Config::from_text("example", &example, &[]).unwrap_or_else(|e| panic!("{e}\n{example}"));
    }
}

#[test]
fn document_shows_the_embedded_default() {
    assert!(examples(&document()).contains(&EMBEDDED), "docs/config.md: the embedded default");
}
