//! Keeps the repository in the shape that `docs/architecture.md` promises:
//! layers, fences, sizes, no dead files, no dead links, every dependency
//! accounted for. Each rule is a function from files to complaints; the tests
//! below it feed it small samples that are wrong, to prove that it complains.

#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/shape.rs"]
mod shape;
#[path = "tidy/source.rs"]
mod source;

use source::{File, read_files};

const SOURCES: &[&str] = &["src", "tools/src"];

fn demand_none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

fn all_rust() -> Vec<File> {
    let folders = ["src", "tools/src", "tests", "benches", "tools/tests", "tools/benches"];
    let there: Vec<&str> = folders.into_iter().filter(|folder| exists(folder)).collect();
    read_files(&there, ".rs")
}

fn exists(path: &str) -> bool {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists()
}

/// Guards the rules against passing because they look at nothing.
#[test]
fn the_tree_is_seen() {
    let paths: Vec<String> = all_rust().into_iter().map(|file| file.path).collect();
    for path in ["src/lib.rs", "src/config/mod.rs", "tests/tidy.rs", "tools/src/lib.rs"] {
        assert!(paths.iter().any(|seen| seen == path), "{path} is not seen");
    }
    for (folder, _) in layers::LAYERS {
        assert!(
            exists(&format!("src/{folder}")),
            "the layers name src/{folder}, which is not there"
        );
    }
}

#[test]
fn imports_go_down() {
    demand_none(layers::layers(&read_files(SOURCES, ".rs")));
}

#[test]
fn imports_that_go_up_are_noticed() {
    let complaints = |path: &str, text: &str| layers::layers(&[File::new(path, text)]).len();
    for (path, text, count) in [
        ("src/proto/a.rs", "use crate::base::id;", 0),
        ("src/proto/a.rs", "use crate::proto::b;", 0),
        ("src/proto/a.rs", "use crate::io::net;", 1),
        ("src/proto/a.rs", "use crate::mail::date;", 1),
        ("src/proto/a.rs", "fn f() { crate::mail::date::now() }", 1),
        ("src/proto/a.rs", "use crate::{base::id, io::{net, clock}, queue};", 2),
        ("src/proto/a.rs", "use crate::*;", 1),
        ("src/proto/a.rs", "use ringpost::io::net;", 1),
        ("src/proto/a.rs", "// crate::io\nconst T: &str = \"crate::io::net\";", 0),
        ("src/proto/a.rs", "use super::b; mod tests { use super::*; }", 0),
        ("src/proto/a.rs", "use super::super::io::net;", 1),
        ("src/proto/a.rs", "#[cfg(test)] mod tests { use super::super::b; }", 0),
        ("src/proto/a.rs", "#[cfg(test)] mod tests { use crate::io::net; }", 1),
        ("src/proto/a.rs", "#[cfg(test)] mod tests { use super::super::super::io; }", 1),
        ("src/proto/smtp/a.rs", "use super::super::address;", 0),
        ("src/proto/mod.rs", "use super::io::net;", 1),
        ("src/relay/a.rs", "use crate::receive::a;", 1),
        ("src/relay/a.rs", "use crate::queue::a;", 0),
        ("src/novel/a.rs", "use crate::base::id;", 1),
        ("src/main.rs", "use ringpost::admin::cli;", 0),
        ("tools/src/a.rs", "use crate::anything;", 0),
    ] {
        assert_eq!(complaints(path, text), count, "{path}: {text}");
    }
}

#[test]
fn glommio_and_unsafe_stay_behind_their_fences() {
    demand_none(layers::fences(&read_files(SOURCES, ".rs")));
}

#[test]
fn words_outside_of_their_fences_are_noticed() {
    let complaints = |path: &str, text: &str| layers::fences(&[File::new(path, text)]).len();
    assert_eq!(complaints("src/queue/a.rs", "use glommio::io;"), 1);
    assert_eq!(complaints("tools/src/a.rs", "use glommio::io;"), 1);
    assert_eq!(complaints("src/shard/a.rs", "use glommio::io;"), 0);
    assert_eq!(complaints("src/queue/a.rs", "//! glommio\nconst A: &str = r#\"glommio\"#;"), 0);
    assert_eq!(complaints("src/proto/smtp/a.rs", "fn f() { unsafe { g() } }"), 1);
    assert_eq!(complaints("src/proto/scan/a.rs", "fn f() { unsafe { g() } }"), 0);
    assert_eq!(complaints("src/queue/a.rs", "#![deny(unsafe_code)] // unsafe"), 0);
}

#[test]
fn pure_folders_take_time_and_facts_as_arguments() {
    demand_none(layers::purity(&read_files(&["src"], ".rs")));
}

#[test]
fn impure_code_is_noticed() {
    let complaints = |path: &str, text: &str| layers::purity(&[File::new(path, text)]).len();
    for bad in [
        "async fn f() {}",
        "let t = Instant::now();",
        "use std::net::TcpStream;",
        "fn f() { std::fs::read(p) }",
        "fn f() { println!(\"x\") }",
        "fn f() { jiff::Timestamp::now() }",
    ] {
        assert_eq!(complaints("src/policy/a.rs", bad), 1, "{bad}");
        assert_eq!(complaints("src/receive/a.rs", bad), 0, "{bad}");
        let in_tests = format!("#[cfg(test)]\nmod tests {{ {bad} }}");
        assert_eq!(complaints("src/policy/a.rs", &in_tests), 0, "{in_tests}");
    }
    let root = File::new("src/lib.rs", "#[cfg(test)]\nmod policy;");
    let of_tests = File::new("src/policy/mod.rs", "async fn f() {}");
    assert!(layers::purity(&[root, of_tests]).is_empty());
    assert_eq!(complaints("src/mail/a.rs", "use std::time::Instant;"), 0);
    assert_eq!(complaints("src/mail/a.rs", "/// async\nuse std::time::Duration;"), 0);
    let to_memory = "fn f(out: &mut Vec<u8>) { std::io::Write::write_all(out, b\"x\") }";
    assert_eq!(complaints("src/mail/a.rs", to_memory), 0);
}

#[test]
fn files_are_short() {
    demand_none(shape::file_sizes(&all_rust()));
}

#[test]
fn long_files_are_noticed() {
    let sized = |text: String| {
        let root = File::new("src/lib.rs", "mod a;\n#[cfg(test)]\nmod only_tests;\n");
        let rows = "    1,\n".repeat(900);
        let test_file = File::new("src/only_tests.rs", &rows);
        shape::file_sizes(&[root, File::new("src/a.rs", &text), test_file])
    };
    let lines = |count: usize| "fn f() {}\n".repeat(count);
    assert_eq!(sized(lines(600)), Vec::<String>::new());
    assert_eq!(sized(lines(601)), ["src/a.rs: 601 lines, 600 at most"]);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", lines(300));
    assert_eq!(sized(lines(500) + &tests), Vec::<String>::new());
    let table = format!("const T: &[u8] = &[\n{}];\n", "    1,\n".repeat(300));
    assert_eq!(sized(lines(500) + &table), Vec::<String>::new());
    assert_eq!(sized(lines(601) + &table + &tests).len(), 1);
    assert_eq!(sized(format!("mod inner {{\n{}}}\n", lines(600))).len(), 1);
}

#[test]
fn functions_are_short() {
    demand_none(shape::function_sizes(&read_files(SOURCES, ".rs")));
}

#[test]
fn long_functions_are_noticed() {
    let sized = |text: &str| shape::function_sizes(&[File::new("src/lib.rs", text)]).len();
    let body = |count: usize| "    g();\n".repeat(count);
    let function = |count: usize| format!("fn f(a: [u8; 2]) -> [u8; 2] {{\n{}}}\n", body(count));
    assert_eq!(sized(&function(68)), 0);
    assert_eq!(sized(&function(69)), 1);
    assert_eq!(sized(&format!("trait T {{\n fn g(&self);\n{} }}", function(69))), 1);
    assert_eq!(sized(&format!("trait T {{\n fn g(&self);\n{} }}", function(60))), 0);
    assert_eq!(sized(&format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function(99))), 0);
    assert_eq!(sized(&format!("type F = fn(u8);\n{}", body(99))), 0);
    let braces = "    let a = ('{', \"{\", b'{', r#\"\"{\"#); // {\n";
    assert_eq!(sized(&format!("fn f() {{\n{braces}}}\n{}", body(99))), 0);
    let table = format!("    const T: [u8; 80] = [\n{}    ];\n", "        1,\n".repeat(80));
    assert_eq!(sized(&format!("fn f() {{\n{table}{}}}\n", body(60))), 0);
    assert_eq!(sized(&format!("fn f() {{\n{table}{}}}\n", body(69))), 1);
}

#[test]
fn files_say_what_they_are_for() {
    demand_none(shape::opening_comments(&all_rust()));
}

#[test]
fn files_without_a_head_or_a_body_are_noticed() {
    let complaints = |text: &str| shape::opening_comments(&[File::new("src/a.rs", text)]).len();
    assert_eq!(complaints("//! Reads mail from\n//! clients.\nfn f() {}\n"), 0);
    assert_eq!(complaints("fn f() {}\n"), 1);
    assert_eq!(complaints("// Reads mail from clients.\nfn f() {}\n"), 1);
    assert_eq!(complaints("//! mail\nfn f() {}\n"), 1);
    assert_eq!(complaints("//! Reads mail from clients.\n// nothing here\n"), 1);
}

#[test]
fn nothing_is_unfinished() {
    demand_none(shape::unfinished(&all_rust()));
}

#[test]
fn unfinished_work_is_noticed() {
    let complaints = |text: &str| shape::unfinished(&[File::new("src/a.rs", text)]).len();
    for word in ["todo", "unimplemented", "dbg"] {
        assert_eq!(complaints(&format!("fn f() {{ {word}!() }}")), 1, "{word}");
    }
    for word in [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]] {
        assert_eq!(complaints(&format!("// {}: later", word.concat())), 1, "{word:?}");
    }
    assert_eq!(complaints("fn todo() { let methodology = todo(); }"), 0);
}

#[test]
fn every_file_belongs_to_a_crate() {
    demand_none(shape::dead_files(&all_rust()));
}

#[test]
fn dead_files_are_noticed() {
    let dead = |paths_and_texts: &[(&str, &str)]| {
        let file = |(path, text): &(&str, &str)| File::new(path, text);
        shape::dead_files(&paths_and_texts.iter().map(file).collect::<Vec<_>>()).len()
    };
    let root = ("src/lib.rs", "pub mod a;\n#[path = \"odd/place.rs\"]\nmod b;\nmod c { }");
    let parts = [("src/a/mod.rs", "pub(crate) mod d;"), ("src/a/d.rs", "mod e;")];
    let live = [root, parts[0], parts[1], ("src/a/d/e.rs", ""), ("src/odd/place.rs", "")];
    assert_eq!(dead(&live), 0);
    for extra in ["src/a/x.rs", "src/e.rs", "src/a/e.rs", "src/c.rs", "src/b.rs", "tests/x/y.rs"] {
        assert_eq!(dead(&[&live[..], &[(extra, "")]].concat()), 1, "{extra}");
    }
    assert_eq!(dead(&[("src/lib.rs", "// mod a;\nconst M: &str = \"mod a;\";"), parts[0]]), 1);
    assert_eq!(dead(&[("tests/t.rs", ""), ("benches/b.rs", ""), ("tools/src/bin/t.rs", "")]), 0);
}

#[test]
fn fuzz_targets_are_built() {
    if !exists("tools/fuzz") {
        return;
    }
    let manifest = &read_files(&["tools/fuzz/Cargo.toml"], "Cargo.toml")[0].text;
    let targets = read_files(&["tools/fuzz/fuzz_targets"], ".rs");
    let path = |file: &File| file.path.trim_start_matches("tools/fuzz/").to_owned();
    for target in &targets {
        assert!(manifest.contains(&format!("\"{}\"", path(target))), "{}", target.path);
    }
}

fn documents() -> Vec<File> {
    let mut documents = read_files(&["docs"], ".md");
    let top = ["README.md", "CHANGELOG.md"];
    documents.extend(top.iter().filter(|p| exists(p)).flat_map(|p| read_files(&[p], ".md")));
    documents
}

#[test]
fn links_lead_somewhere() {
    demand_none(documents::links(&documents(), exists));
}

#[test]
fn dead_links_are_noticed() {
    let there = ["docs/a.md", "docs/b.md", "docs/sub", "README.md"];
    let complaints = |text: &str| {
        let files = [File::new("docs/a.md", text), File::new("docs/b.md", "# One `Two`, three\n")];
        documents::links(&files, |path| there.contains(&path)).len()
    };
    for good in [
        "[x](b.md) and [y](../README.md), [z](sub/)",
        "[x](https://example.org/none.md) [m](mailto:a@b)",
        "[x](b.md#one-two-three)",
        "# Here\n[x](#here)",
        "```\n[x](none.md)\n```",
    ] {
        assert_eq!(complaints(good), 0, "{good}");
    }
    for bad in ["[x](c.md)", "[x](../b.md)", "[x](b.md#four)", "[x](#here)", "[x](../../b.md)"] {
        assert_eq!(complaints(bad), 1, "{bad}");
    }
}

#[test]
fn dependencies_have_reasons() {
    let manifests = [
        read_files(&["Cargo.toml"], "Cargo.toml").remove(0),
        read_files(&["tools/Cargo.toml"], "Cargo.toml").remove(0),
    ];
    let document = read_files(&["docs/dependencies.md"], ".md").remove(0);
    demand_none(documents::dependencies(&manifests, &document));
}

#[test]
fn dependencies_without_reasons_are_noticed() {
    let manifest = File::new(
        "Cargo.toml",
        "[dependencies]\na = \"1\"\nown = { path = \"..\" }\n[dev-dependencies.b]\nversion = \"1\"\n\
         [target.'cfg(unix)'.dependencies]\nc = \"1\"\n",
    );
    let complaints = |text: &str| {
        documents::dependencies(std::slice::from_ref(&manifest), &File::new("d.md", text)).len()
    };
    assert_eq!(complaints("| `a` | x |\n| `b` | y |\n| `c` | z |\n"), 0);
    assert_eq!(complaints("| `a` | x |\n| `b` | y |\n"), 1);
    assert_eq!(complaints("| `a` | |\n| `b` | y |\n| `c` | z |\n"), 1);
    assert_eq!(complaints("| `a` | x |\n| `b` | y |\n| `c` | z |\n| `d` | z |\n"), 1);
}
