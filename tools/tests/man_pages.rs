//! The manual pages of the tools name every option that the tool takes, and none
//! that it does not.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory};
use ringpost_tools::{compare, demo, load, segments, sink};

fn options(command: &Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(|argument| argument.get_long());
    let own = own.filter(|name| !["help", "version"].contains(name));
    let mut names: BTreeSet<String> = own.map(|name| format!("--{name}")).collect();
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        names.extend(options(inner));
    }
    names
}

/// What the page of `tool` calls an option: in its table or its synopsis.
fn documented(page: &str) -> BTreeSet<String> {
    let words = page.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    let is_option = |word: &&str| {
        word.strip_prefix("--").is_some_and(|name| name.starts_with(|c: char| c.is_alphabetic()))
    };
    words.filter(is_option).map(String::from).collect()
}

#[test]
fn pages_and_options_agree() {
    for (tool, command) in [
        ("ringpost-load", load::options::Cli::command()),
        ("ringpost-sink", sink::options::Options::command()),
        ("ringpost-demo", demo::options::Options::command()),
        ("ringpost-compare", compare::options::Options::command()),
        ("ringpost-segments", segments::Cli::command()),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/man/{tool}.md"));
        let page = fs::read_to_string(path).unwrap();
        let (taken, named) = (options(&command), documented(&page));
        let missing: Vec<_> = taken.difference(&named).collect();
        assert!(missing.is_empty(), "{tool}: not in its page: {missing:?}");
        // Examples may name options of the other tools.
        let table = page.lines().filter(|line| line.starts_with("| `--"));
        let invented: Vec<_> = table.filter(|line| documented(line).is_disjoint(&taken)).collect();
        assert!(invented.is_empty(), "{tool}: no such options: {invented:?}");
    }
}
