//! Documents: links that lead somewhere, dependencies that are accounted for.

use std::collections::BTreeSet;

use super::source::File;

/// Relative links that lead to no file, or to no heading of it. `exists` tells
/// whether a path from the top is there.
pub fn links(documents: &[File], exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut complaints = Vec::new();
    for document in documents {
        for (line, target) in targets(&document.text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let path = resolve(&document.path, path);
            let is_there = path.as_deref().is_some_and(&exists);
            let other = documents.iter().find(|other| Some(&other.path) == path.as_ref());
            let lacks_anchor = !anchor.is_empty()
                && other.is_some_and(|other| !anchors(&other.text).contains(anchor));
            if !is_there || lacks_anchor {
                complaints.push(format!("{}:{line}: `{target}` leads nowhere", document.path));
            }
        }
    }
    complaints
}

/// The lines of a document that are no code block, from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
            return None;
        }
        (!in_code).then_some((index + 1, line))
    })
}

/// The targets of `[text](target)`, with their lines.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let mut rest = line;
        while let Some(at) = rest.find("](") {
            rest = &rest[at + 2..];
            let end = rest.find([')', ' ']).unwrap_or(rest.len());
            found.push((number, rest[..end].to_owned()));
        }
    }
    found
}

/// `target` as seen from the document `from`; `None` if it leaves the top.
fn resolve(from: &str, target: &str) -> Option<String> {
    if target.is_empty() {
        return Some(from.to_owned());
    }
    let mut steps: Vec<&str> = from.split('/').collect();
    steps.pop();
    for step in target.trim_end_matches('/').split('/') {
        match step {
            "." => {}
            ".." => drop(steps.pop()?),
            step => steps.push(step),
        }
    }
    Some(steps.join("/"))
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|(_, line)| line.starts_with('#'));
    let anchor = |(_, line): (usize, &str)| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// Crates that a manifest names but `document` does not give a reason for, and
/// the other way round. A reason is a table row that begins with the crate.
pub fn dependencies(manifests: &[File], document: &File) -> Vec<String> {
    let mut named = BTreeSet::new();
    for manifest in manifests {
        let table: toml::Table = manifest.text.parse().expect("a manifest is TOML");
        collect_dependencies(&table, &mut named);
    }
    let row = |line: &str| {
        let (name, reason) = line.strip_prefix("| `")?.split_once("` |")?;
        let reason = reason.trim_matches(['|', ' ']);
        (!reason.is_empty()).then(|| name.to_owned())
    };
    let reasoned: BTreeSet<String> = document.text.lines().filter_map(row).collect();
    let lacking = named.difference(&reasoned);
    let stale = reasoned.difference(&named);
    let path = &document.path;
    lacking
        .map(|name| format!("{path}: no reason for `{name}`"))
        .chain(stale.map(|name| format!("{path}: `{name}` is not used")))
        .collect()
}

fn collect_dependencies(table: &toml::Table, named: &mut BTreeSet<String>) {
    for (key, value) in table {
        let Some(inner) = value.as_table() else { continue };
        match key.as_str() {
            "dependencies" | "dev-dependencies" | "build-dependencies" => {
                let of_others = |(_, value): &(&String, &toml::Value)| value.get("path").is_none();
                named.extend(inner.iter().filter(of_others).map(|(name, _)| name.clone()));
            }
            // Tables by target, and the workspace's own.
            _ => collect_dependencies(inner, named),
        }
    }
}
