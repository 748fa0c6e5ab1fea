//! What the load generator sends: one generated message of a given size, the
//! messages of a folder, or the corpus that ships with the tools
//! (`tools/corpus/`), which has one of each kind that has broken mail servers:
//! stuffed dots, lines of 998 octets, eight bits, headers without a body, a
//! body without an end, attachments, and a message of a mebibyte.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::message::Template;

/// The files of `tools/corpus/`, built in so that the tools need no folder.
const SHIPPED: [(&str, &[u8]); 11] = [
    ("plain", include_bytes!("../corpus/plain.eml")),
    ("reply-folded", include_bytes!("../corpus/reply-folded.eml")),
    ("mime-attachment", include_bytes!("../corpus/mime-attachment.eml")),
    ("eight-bit", include_bytes!("../corpus/eight-bit.eml")),
    ("long-lines", include_bytes!("../corpus/long-lines.eml")),
    ("dots", include_bytes!("../corpus/dots.eml")),
    ("empty-body", include_bytes!("../corpus/empty-body.eml")),
    ("headers-only", include_bytes!("../corpus/headers-only.eml")),
    ("no-final-newline", include_bytes!("../corpus/no-final-newline.eml")),
    ("newsletter", include_bytes!("../corpus/newsletter.eml")),
    ("invoice", include_bytes!("../corpus/invoice.eml")),
];

/// How often the rounds through the shipped files come by for each message of
/// a mebibyte, so that it does not drown the rest.
const ROUNDS_PER_LARGE: usize = 20;

/// Size of the large message of the corpus, in bytes.
const LARGE: u64 = 1 << 20;

/// The shipped messages, in the order in which they are sent.
pub fn shipped(from: &str, to: &str) -> Vec<Template> {
    let mut templates: Vec<Template> = Vec::new();
    for _ in 0..ROUNDS_PER_LARGE {
        templates.extend(SHIPPED.iter().map(|(_, content)| Template::from_file(content)));
    }
    templates.push(Template::generated(LARGE, from, to));
    templates
}

/// The messages of a folder: its `.eml` files, in the order of their names.
///
/// # Errors
/// Those of reading; `NotFound` when the folder has no `.eml` file.
pub fn folder(dir: &Path) -> io::Result<Vec<Template>> {
    let named = |error: io::Error, path: &Path| {
        io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    };
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| named(error, dir))? {
        let path = entry.map_err(|error| named(error, dir))?.path();
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("eml")) {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() {
        let text = format!("{}: holds no .eml file", dir.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    let read = |path: &PathBuf| match fs::read(path) {
        Ok(content) => Ok(Template::from_file(&content)),
        Err(error) => Err(named(error, path)),
    };
    paths.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_files_are_what_they_are_named_for() {
        let wire = |name: &str| {
            let (_, content) = SHIPPED.iter().find(|(known, _)| *known == name).unwrap();
            Template::from_file(content)
        };
        let longest =
            wire("long-lines").wire.split(|&b| b == b'\n').map(|line| line.len() + 1).max();
        assert_eq!(longest, Some(1001), "998, CRLF and the stuffing dot, which does not count");
        assert!(memchr::memmem::find(&wire("dots").wire, b"\r\n..\r\n").is_some());
        assert!(wire("eight-bit").eight_bit);
        assert!(wire("empty-body").wire.ends_with(b"\r\n\r\n.\r\n"));
        assert!(memchr::memmem::find(&wire("headers-only").wire, b"\r\n\r\n").is_none());
        assert!(!SHIPPED.iter().any(|(_, content)| content.contains(&b'\r')));
        let all = shipped("a@example.org", "b@example.org");
        assert_eq!(all.len(), 221);
        assert_eq!(all.iter().map(Template::size).max(), Some(LARGE));
    }

    #[test]
    fn a_folder_is_read_in_order_of_names() {
        let dir = tempfile::tempdir().unwrap();
        assert!(folder(dir.path()).is_err());
        fs::write(dir.path().join("b.eml"), "B: 2\n").unwrap();
        fs::write(dir.path().join("a.EML"), "A: 1\n").unwrap();
        fs::write(dir.path().join("notes.txt"), "no mail\n").unwrap();
        let read = folder(dir.path()).unwrap();
        let wires: Vec<&[u8]> = read.iter().map(|template| &*template.wire).collect();
        assert_eq!(wires, [b"A: 1\r\n.\r\n", b"B: 2\r\n.\r\n"]);
    }
}
