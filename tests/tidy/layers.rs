//! Who may name whom: the layers, the fences around glommio and `unsafe`, and
//! the folders that have neither I/O nor a clock.

use super::shape::test_files;
use super::source::{File, code, line_of, test_spans, word_at, words};

/// The folders of `src` and their layers. A file imports from lower layers and
/// from its own folder.
pub const LAYERS: &[(&str, u8)] = &[
    ("base", 0),
    ("config", 1),
    ("proto", 1),
    ("mail", 1),
    ("policy", 2),
    ("io", 2),
    ("queue", 3),
    ("receive", 4),
    ("relay", 4),
    ("shard", 5),
    ("admin", 6),
];
const TOP_LAYER: u8 = 7;

/// Words that may be named in some folders only.
const FENCES: &[(&str, &[&str])] =
    &[("glommio", &["src/io/", "src/shard/"]), ("unsafe", &["src/io/", "src/proto/scan/"])];

/// Folders that take time and facts as arguments, and what they may not name.
const PURE_FOLDERS: &[&str] = &["src/base/", "src/proto/", "src/mail/", "src/policy/"];
const IMPURE: &[&str] = &[
    "async",
    "await",
    "SystemTime",
    "Instant::now",
    "Timestamp::now",
    "Zoned::now",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "std::fs",
    "stdin",
    "stdout",
    "stderr",
    "println",
    "eprintln",
    "std::env",
    "std::thread",
    "std::process",
    "RandomState",
    "getrandom",
    "rand",
    "tokio",
    "libc",
    "socket2",
];

fn layer(folder: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == folder).map(|(_, layer)| *layer)
}

/// The folder of a file below `src`; nothing for `lib.rs` and `main.rs`.
fn folder(path: &str) -> Option<&str> {
    path.strip_prefix("src/")?.split_once('/').map(|(folder, _)| folder)
}

/// Imports that do not go down.
pub fn layers(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with("src/")) {
        let own = folder(&file.path);
        let own_layer = match own {
            None => TOP_LAYER,
            Some(folder) => match layer(folder) {
                Some(layer) => layer,
                None => {
                    complaints.push(format!("{}: `{folder}` has no layer", file.path));
                    continue;
                }
            },
        };
        for (at, target) in imports(&file.path, &file.text) {
            let is_own = own == Some(target.as_str());
            let goes_down = layer(&target).is_some_and(|layer| layer < own_layer);
            if !is_own && !goes_down {
                let (path, line) = (&file.path, line_of(&file.text, at));
                complaints.push(format!("{path}:{line}: may not import `{target}`"));
            }
        }
    }
    complaints
}

/// What a file names of the crate: offset and the first step of each path.
fn imports(path: &str, text: &str) -> Vec<(usize, String)> {
    let code = code(text);
    let mut found = Vec::new();
    for root in ["crate", "ringpost"] {
        for at in words(&code, root) {
            if let Some(rest) = code[at + root.len()..].strip_prefix("::") {
                let start = code.len() - rest.len();
                found.extend(first_steps(&code, start).into_iter().map(|step| (at, step)));
            }
        }
    }
    let depth = module_depth(path);
    let tests = test_spans(text);
    for at in words(&code, "super").filter(|&at| !code[..at].ends_with("super::")) {
        let mut start = at;
        let mut climbed = 0;
        while let Some(rest) = code[start..].strip_prefix("super::") {
            start = code.len() - rest.len();
            climbed += 1;
        }
        let depth = depth + usize::from(tests.iter().any(|span| span.contains(&at)));
        if climbed >= depth && climbed > 0 {
            found.extend(first_steps(&code, start).into_iter().map(|step| (at, step)));
        }
    }
    found
}

/// How many `super` lead from a file's module to the crate's root.
fn module_depth(path: &str) -> usize {
    let steps = path.trim_start_matches("src/").trim_end_matches(".rs").split('/');
    steps.filter(|step| !["mod", "lib", "main"].contains(step)).count()
}

/// The first step of a path at `start`; several for `{a::b, c}`.
fn first_steps(code: &str, start: usize) -> Vec<String> {
    if code.as_bytes().get(start) != Some(&b'{') {
        let step = word_at(code, start);
        return if step.is_empty() { vec!["*".into()] } else { vec![step.into()] };
    }
    let mut steps = Vec::new();
    let (mut depth, mut expects) = (0, true);
    for (at, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => break,
            b'}' => depth -= 1,
            b',' if depth == 1 => expects = true,
            byte if depth == 1 && expects && !byte.is_ascii_whitespace() => {
                steps.push(word_at(code, at).to_owned());
                expects = false;
            }
            _ => {}
        }
    }
    steps
}

/// Words outside of their fences.
pub fn fences(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        let code = code(&file.text);
        for (word, allowed) in FENCES {
            if allowed.iter().any(|folder| file.path.starts_with(folder)) {
                continue;
            }
            for at in words(&code, word) {
                let (path, line) = (&file.path, line_of(&code, at));
                complaints
                    .push(format!("{path}:{line}: `{word}` belongs in {}", allowed.join(", ")));
            }
        }
    }
    complaints
}

/// Clocks, sockets, tasks and randomness where only arguments may come in.
/// Tests may use them.
pub fn purity(files: &[File]) -> Vec<String> {
    let is_pure = |file: &&File| PURE_FOLDERS.iter().any(|folder| file.path.starts_with(folder));
    let tests_only = test_files(files);
    let mut complaints = Vec::new();
    for file in files.iter().filter(is_pure).filter(|file| !tests_only.contains(&file.path)) {
        let code = code(&file.text);
        let tests = test_spans(&file.text);
        for word in IMPURE {
            for at in words(&code, word).filter(|at| !tests.iter().any(|span| span.contains(at))) {
                let (path, line) = (&file.path, line_of(&code, at));
                complaints.push(format!("{path}:{line}: `{word}` has no place here"));
            }
        }
    }
    complaints
}
