//! Rust files as `tidy` looks at them: text, code without comments and
//! literals, the lines that are tests, the functions.
//!
//! This is no parser. It knows enough of Rust to tell code from text, and to
//! match brackets; rustfmt's layout is not relied on.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

/// A file of the repository: its path from the top, with `/`, and its text.
#[derive(Clone, Debug)]
pub struct File {
    pub path: String,
    pub text: String,
}

impl File {
    pub fn new(path: &str, text: &str) -> File {
        File { path: path.into(), text: text.into() }
    }
}

/// Every file below `folders` (or the file itself) whose name ends in `ending`,
/// sorted by path.
pub fn read_files(folders: &[&str], ending: &str) -> Vec<File> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = BTreeMap::new();
    let mut pending: Vec<_> = folders.iter().map(|folder| top.join(folder)).collect();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a folder of the repository can be read");
            pending.extend(entries.map(|entry| entry.expect("an entry can be read").path()));
        } else if path.to_string_lossy().ends_with(ending) {
            let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
            let name = path.strip_prefix(top).expect("it is below the top");
            let name = name.to_str().expect("paths here are UTF-8").to_owned();
            files.insert(name.clone(), File { path: name, text });
        }
    }
    files.into_values().collect()
}

/// The text with comments, texts and characters blanked out. Same length, same
/// lines, so that offsets agree.
pub fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(out).expect("whole characters were blanked")
}

/// The end of the comment or literal that begins at `at`; `at` if none does.
fn literal_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let after_word = at > 0 && is_word(bytes[at - 1]);
    match rest {
        [b'/', b'/', ..] => at + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => at + block_comment_len(rest),
        [b'"', ..] => at + quoted_len(rest, b'"'),
        [b'r' | b'b' | b'c', ..] if !after_word => at + prefixed_len(rest),
        [b'\'', b'\\', ..] => at + quoted_len(rest, b'\''),
        [b'\'', ..] => at + char_len(rest),
        _ => at,
    }
}

fn block_comment_len(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

fn quoted_len(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// Length of a literal with a prefix (`r"`, `b"`, `br#"`, `b'`, ...); 0 if it is
/// a word after all.
fn prefixed_len(rest: &[u8]) -> usize {
    let prefix = rest.iter().take(2).take_while(|b| matches!(b, b'r' | b'b' | b'c')).count();
    let hashes = rest[prefix..].iter().take_while(|b| **b == b'#').count();
    let start = prefix + hashes;
    match rest.get(start) {
        Some(b'"') if rest[..prefix].contains(&b'r') => {
            let end: Vec<u8> =
                std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
            let body = &rest[start + 1..];
            let found = body.windows(end.len()).position(|window| window == end);
            found.map_or(rest.len(), |found| start + 1 + found + end.len())
        }
        Some(b'"') if hashes == 0 => prefix + quoted_len(&rest[prefix..], b'"'),
        Some(b'\'') if hashes == 0 && rest[0] == b'b' => {
            prefix + quoted_len(&rest[prefix..], b'\'')
        }
        _ => 0,
    }
}

/// Length of a character literal without an escape; 0 for a lifetime.
fn char_len(rest: &[u8]) -> usize {
    let width = match rest.get(1) {
        Some(first) => first.leading_ones().max(1) as usize,
        None => return 0,
    };
    if rest.get(1 + width) == Some(&b'\'') { width + 2 } else { 0 }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

/// Where `word` stands in `code` as a word of its own.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = at.checked_sub(1).map(|before| bytes[before]);
        let after = bytes.get(at + word.len()).copied();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// The word that begins at `at`, or nothing.
pub fn word_at(code: &str, at: usize) -> &str {
    let end = code[at..].bytes().position(|byte| !is_word(byte));
    &code[at..end.map_or(code.len(), |end| at + end)]
}

/// The line of an offset, from 1.
pub fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// The offset after the bracket that closes the one at `open`.
fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

/// From `from`, the offset of the first `{` or `;` that stands in no round or
/// square bracket.
fn body_or_end(code: &str, from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        match code.as_bytes().get(at)? {
            b'{' | b';' => return Some(at),
            b'(' | b'[' => at = closing(code, at),
            _ => at += 1,
        }
    }
}

/// Every function with a body: its name, and the bytes from `fn` to its end.
pub fn functions(code: &str) -> Vec<(String, Range<usize>)> {
    let mut found = Vec::new();
    for at in words(code, "fn") {
        let name_at = at + 2 + code[at + 2..].bytes().take_while(u8::is_ascii_whitespace).count();
        let name = word_at(code, name_at);
        let Some(body) = body_or_end(code, name_at) else { continue };
        if !name.is_empty() && code.as_bytes()[body] == b'{' {
            found.push((name.to_owned(), at..closing(code, body)));
        }
    }
    found
}

/// The bytes of constants and statics: tables, when they are long.
pub fn tables(code: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for keyword in ["const", "static"] {
        for at in words(code, keyword) {
            let name_at = at + keyword.len() + 1;
            let is_name = code.as_bytes().get(name_at).is_some_and(u8::is_ascii_uppercase);
            if is_name && let Some(end) = end_of_statement(code, name_at) {
                found.push(at..end);
            }
        }
    }
    found
}

fn end_of_statement(code: &str, from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        match code.as_bytes().get(at)? {
            b';' => return Some(at + 1),
            b'(' | b'[' | b'{' => at = closing(code, at),
            b')' | b']' | b'}' => return None,
            _ => at += 1,
        }
    }
}

/// A module declared in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    pub name: String,
    /// What `#[path]` says, if it stands there.
    pub path: Option<String>,
    /// Whether it is compiled for tests only.
    pub is_test: bool,
    /// The bytes of the module, attributes apart; with its body if it has one.
    pub bytes: Range<usize>,
    /// Whether the body stands here.
    pub is_inline: bool,
}

/// The modules that a file declares.
pub fn modules(text: &str) -> Vec<Module> {
    let code = code(text);
    let mut found = Vec::new();
    for at in words(&code, "mod") {
        let name = word_at(&code, (at + 4).min(code.len()));
        let Some(body) = body_or_end(&code, at) else { continue };
        if name.is_empty() {
            continue;
        }
        let is_inline = code.as_bytes()[body] == b'{';
        let end = if is_inline { closing(&code, body) } else { body + 1 };
        let attributes = attributes_before(&code, text, at);
        let path = attributes.iter().find_map(|attribute| {
            let value = attribute.trim().strip_prefix("#[path")?;
            value.split('"').nth(1).map(str::to_owned)
        });
        let is_test = attributes
            .iter()
            .any(|attribute| attribute.contains("cfg(test)") || attribute.contains("cfg(all(test"));
        found.push(Module { name: name.into(), path, is_test, bytes: at..end, is_inline });
    }
    found
}

/// The attributes of the item whose keyword is at `at`.
fn attributes_before<'a>(code: &str, text: &'a str, at: usize) -> Vec<&'a str> {
    let start = code[..at].rfind([';', '}', '{']).map_or(0, |end| end + 1);
    let mut found = Vec::new();
    let mut from = start;
    while let Some(open) = code[from..at].find("#[") {
        let open = from + open;
        let end = closing(code, open + 1);
        found.push(&text[open..end]);
        from = end;
    }
    found
}

/// The bytes of test modules in a file.
pub fn test_spans(text: &str) -> Vec<Range<usize>> {
    let is_body = |module: &Module| module.is_test && module.is_inline;
    modules(text).into_iter().filter(is_body).map(|module| module.bytes).collect()
}
