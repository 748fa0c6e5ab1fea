//! The configuration as a tree of values that know where they were written:
//! TOML texts and `--set` options laid over one another. `read` turns it into
//! typed values; nothing here knows which keys exist.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::ConfigError;

/// Where a value was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    source: usize,
    offset: usize,
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: At,
    pub(super) value: Value,
}

/// A value of one of the kinds that a key can have.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Flag(bool),
    List(Vec<Node>),
    Table(Vec<Entry>),
    /// A kind that no key has, by its name.
    Other(&'static str),
}

/// A key, the place where it was written, and its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) at: At,
    pub(super) node: Node,
}

impl Value {
    /// The kind in words, with its article.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a text",
            Value::Integer(_) => "an integer",
            Value::Flag(_) => "true or false",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Other(kind) => kind,
        }
    }

    /// The entries of a table; none for any other kind.
    pub(super) fn entries(&self) -> &[Entry] {
        match self {
            Value::Table(entries) => entries,
            _ => &[],
        }
    }
}

struct Source {
    name: String,
    text: String,
    has_lines: bool,
    is_own: bool,
}

/// All sources, and the tree they make together.
pub(super) struct Tree {
    sources: Vec<Source>,
    pub(super) root: Node,
}

impl Tree {
    /// Reads a TOML document called `name`.
    ///
    /// # Errors
    /// Every fault of syntax in it.
    pub(super) fn parse(name: &str, text: &str) -> Result<Tree, Vec<ConfigError>> {
        let source =
            Source { name: name.into(), text: text.into(), has_lines: true, is_own: false };
        let (table, faults) = DeTable::parse_recoverable(text);
        let value = table_value(0, table.into_inner());
        let root = Node { at: At { source: 0, offset: 0 }, value };
        let tree = Tree { sources: vec![source], root };
        if faults.is_empty() {
            return Ok(tree);
        }
        let report = |fault: toml::de::Error| {
            let at = fault.span().map(|span| At { source: 0, offset: span.start });
            tree.error(at, "", format!("not valid TOML: {}", fault.message()), String::new())
        };
        Err(faults.into_iter().map(report).collect())
    }

    /// This tree, its text being the server's own and not an operator's.
    pub(super) fn own(mut self) -> Tree {
        self.sources[0].is_own = true;
        self
    }

    /// Whether the server's own text says what stands `at`.
    pub(super) fn is_own(&self, at: At) -> bool {
        self.sources[at.source].is_own
    }

    /// Lays a `KEY=VALUE` option over the tree.
    ///
    /// # Errors
    /// When it has not that form, or the key leads through something that is no
    /// table.
    pub(super) fn set(&mut self, option: &str) -> Result<(), ConfigError> {
        let source = self.sources.len();
        let name = format!("--set {option}");
        self.sources.push(Source { name, text: option.into(), has_lines: false, is_own: false });
        let at = At { source, offset: 0 };
        let Some((key, text)) = option.split_once('=') else {
            let remedy = "write --set KEY=VALUE, like --set limits.recipients=500";
            return Err(self.error(Some(at), "", "has no `=`".into(), remedy.into()));
        };
        let key = key.trim();
        let value = self.option_value(at, key, text.trim())?;
        let Err(parent) = place(&mut self.root, key, Node { at, value }) else { return Ok(()) };
        let (problem, remedy) = if parent.is_empty() {
            ("the key has an empty part".into(), String::new())
        } else {
            let remedy = format!("give the whole of it: --set '{parent}=...' with a TOML value");
            (format!("`{parent}` is not a table that a key could be set in"), remedy)
        };
        Err(self.error(Some(at), key, problem, remedy))
    }

    /// A TOML value, or a text without its quotes. What begins like a text, a
    /// list or an inline table has to be one.
    fn option_value(&self, at: At, key: &str, text: &str) -> Result<Value, ConfigError> {
        match DeValue::parse(text) {
            Ok(value) => Ok(convert(at.source, value).value),
            Err(fault) if text.starts_with(['"', '\'', '[', '{']) => {
                let problem = format!("not a valid TOML value: {}", fault.message());
                Err(self.error(Some(at), key, problem, String::new()))
            }
            Err(_) => Ok(Value::Text(text.into())),
        }
    }

    /// The place of the value that `steps` lead to, indices of lists as digits;
    /// the place of the last one found, if they lead nowhere; `None` for the
    /// root.
    pub(super) fn locate(&self, steps: &[&str]) -> Option<At> {
        let mut node = &self.root;
        let mut at = None;
        for step in steps {
            let next = match &node.value {
                Value::List(items) => step.parse::<usize>().ok().and_then(|index| items.get(index)),
                value => value.entries().iter().find(|entry| entry.key == *step).map(|e| &e.node),
            };
            let Some(next) = next else { break };
            (node, at) = (next, Some(next.at));
        }
        at
    }

    /// The line that `at` is in, from 1; 0 when its source has no lines.
    pub(super) fn line(&self, at: At) -> u32 {
        let source = &self.sources[at.source];
        let line = if source.has_lines { position(&source.text, at.offset).0 } else { 0 };
        u32::try_from(line).unwrap_or(u32::MAX)
    }

    /// An error with the place spelled out; that of the first source for `None`.
    pub(super) fn error(
        &self,
        at: Option<At>,
        key: &str,
        problem: String,
        remedy: String,
    ) -> ConfigError {
        let source = &self.sources[at.map_or(0, |at| at.source)];
        let position = at.filter(|_| source.has_lines).map(|at| position(&source.text, at.offset));
        ConfigError { source: source.name.clone(), position, key: key.into(), problem, remedy }
    }
}

/// Line and column of a byte offset, both from 1.
pub(super) fn position(text: &str, offset: usize) -> (usize, usize) {
    let whole = |at: &usize| text.is_char_boundary(*at);
    let before = &text[..(0..=offset).rev().find(whole).unwrap_or(0)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// Puts `node` at the dotted `key`, making tables on the way. The error is the
/// part of the key that is no table; empty when the key has an empty part.
fn place(root: &mut Node, key: &str, node: Node) -> Result<(), String> {
    let parts: Vec<&str> = key.split('.').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(String::new());
    }
    let (last, tables) = parts.split_last().expect("split gives at least one part");
    let at = node.at;
    let mut table = root;
    for (depth, part) in tables.iter().enumerate() {
        let empty = Node { at, value: Value::Table(Vec::new()) };
        let not_a_table = |_| parts[..depth].join(".");
        table = entry(table, part, empty).map_err(not_a_table)?;
    }
    let slot = entry(table, last, node.clone()).map_err(|()| tables.join("."))?;
    *slot = node;
    Ok(())
}

/// The value of `key` in `table`, put there if it is missing.
fn entry<'a>(table: &'a mut Node, key: &str, missing: Node) -> Result<&'a mut Node, ()> {
    let Value::Table(entries) = &mut table.value else { return Err(()) };
    let index = match entries.iter().position(|entry| entry.key == key) {
        Some(index) => index,
        None => {
            entries.push(Entry { key: key.into(), at: missing.at, node: missing });
            entries.len() - 1
        }
    };
    Ok(&mut entries[index].node)
}

fn convert(source: usize, spanned: Spanned<DeValue<'_>>) -> Node {
    let at = At { source, offset: spanned.span().start };
    let value = match spanned.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Value::Other("an integer of more than 64 bits"), Value::Integer),
        DeValue::Array(items) => {
            Value::List(items.into_iter().map(|item| convert(source, item)).collect())
        }
        DeValue::Table(table) => table_value(source, table),
        DeValue::Float(_) => Value::Other("a fraction"),
        DeValue::Boolean(flag) => Value::Flag(flag),
        DeValue::Datetime(_) => Value::Other("a date"),
    };
    Node { at, value }
}

fn table_value(source: usize, table: DeTable<'_>) -> Value {
    let entry = |(key, value): (Spanned<std::borrow::Cow<'_, str>>, Spanned<DeValue<'_>>)| Entry {
        at: At { source, offset: key.span().start },
        key: key.into_inner().into_owned(),
        node: convert(source, value),
    };
    Value::Table(table.into_iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_at<'a>(tree: &'a Tree, key: &str) -> &'a Value {
        let mut node = &tree.root;
        for part in key.split('.') {
            let found = node.value.entries().iter().find(|entry| entry.key == part);
            node = &found.unwrap_or_else(|| panic!("{key} is missing")).node;
        }
        &node.value
    }

    #[test]
    fn options_lie_over_the_text() {
        let mut tree = Tree::parse("t", "a = 1\n[b]\nc = \"x\"\n").unwrap();
        for option in ["a=2", "b.c = 5m", "b.d=[1, 2]", "e.f.g=\"q\"", "h=", "i=0-3"] {
            tree.set(option).unwrap();
        }
        assert!(matches!(text_at(&tree, "a"), Value::Integer(2)));
        assert!(matches!(text_at(&tree, "b.c"), Value::Text(text) if text == "5m"));
        assert!(matches!(text_at(&tree, "b.d"), Value::List(items) if items.len() == 2));
        assert!(matches!(text_at(&tree, "e.f.g"), Value::Text(text) if text == "q"));
        assert!(matches!(text_at(&tree, "h"), Value::Text(text) if text.is_empty()));
        assert!(matches!(text_at(&tree, "i"), Value::Text(text) if text == "0-3"));
    }

    #[test]
    fn options_that_cannot_be_laid_over_say_why() {
        let mut tree = Tree::parse("t", "a = 1\n[[b]]\nc = 1\n").unwrap();
        for (option, want) in [
            ("a", "has no `=`"),
            ("a.b=1", "`a` is not a table"),
            ("b.c=1", "`b` is not a table"),
            ("b.c.d=1", "`b` is not a table"),
            (".a=1", "empty part"),
            ("a..b=1", "empty part"),
            ("=1", "empty part"),
            ("a=[1", "not a valid TOML value"),
            ("a=\"x", "not a valid TOML value"),
        ] {
            let error = tree.set(option).unwrap_err();
            assert!(error.problem.contains(want), "{option}: {error}");
            assert_eq!((error.source, error.position), (format!("--set {option}"), None));
        }
    }

    #[test]
    fn faults_of_syntax_have_places() {
        let errors = Tree::parse("t", "a = 1\nb = \nc = 2\na = 3\n").err().unwrap();
        let places: Vec<_> = errors.iter().map(|error| error.position.unwrap().0).collect();
        assert!(places.contains(&2) && places.contains(&4), "{errors:?}");
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(position("aé", 2), (1, 2), "within a character");
        assert_eq!(position("é = 1\nüü x", "é = 1\nüü ".len()), (2, 4));
        assert_eq!(position("", 0), (1, 1));
        assert_eq!(position("a\n", 2), (2, 1));
    }

    #[test]
    fn locates_as_deep_as_it_can() {
        let tree = Tree::parse("t", "[[l]]\na = [\"x\", \"y\"]\n").unwrap();
        let line_column = |steps: &[&str]| {
            tree.locate(steps).map(|at| tree.error(Some(at), "", "".into(), "".into()).position)
        };
        assert_eq!(line_column(&["l", "0", "a", "1"]), Some(Some((2, 11))));
        assert_eq!(line_column(&["l", "0", "zz"]), line_column(&["l", "0"]));
        assert_eq!(line_column(&["zz"]), None);
    }
}
