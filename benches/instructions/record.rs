//! The counts on record, and what a new count is held against: growth past a
//! bound fails. Counts of another compiler say less, and have a wider bound.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use serde::Deserialize;

/// How to say that a growth is meant.
const COMMAND: &str = "cargo bench --bench instructions -- --write";

/// The counts on record.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The compiler that they are of.
    rustc: String,
    /// By how many percent a count may exceed its record.
    growth_percent: u64,
    /// The same when another compiler made the program.
    growth_percent_other_rustc: u64,
    /// Instructions an operation, by name.
    instructions: BTreeMap<String, u64>,
}

/// What came of a comparison.
#[derive(Debug, Default)]
pub struct Judged {
    /// A line for each count, and what else there is to say.
    pub lines: Vec<String>,
    /// What is wrong.
    pub failures: Vec<String>,
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/record/instructions.toml")
}

impl Record {
    /// Reads the file.
    pub fn read() -> Result<Self, String> {
        let path = path();
        let text = std::fs::read_to_string(&path);
        let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
        Self::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Reads a file's text.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// Takes new counts over; `whole` if they are all there are.
    ///
    /// Counts of two compilers do not go into one record.
    pub fn take(
        &mut self,
        rustc: &str,
        counts: BTreeMap<String, u64>,
        whole: bool,
    ) -> Result<(), String> {
        if whole {
            self.instructions.clear();
        } else if self.rustc != rustc {
            let theirs = &self.rustc;
            return Err(format!("the record is of {theirs}, this is {rustc}: write it whole"));
        }
        rustc.clone_into(&mut self.rustc);
        self.instructions.extend(counts);
        Ok(())
    }

    /// Writes the file.
    pub fn write(&self) -> Result<(), String> {
        let path = path();
        std::fs::write(&path, self.text())
            .map_err(|error| format!("{}: {error}", path.display()))?;
        println!("written to {}", path.display());
        Ok(())
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let Record { rustc, growth_percent, growth_percent_other_rustc, instructions } = self;
        let mut text = format!(
            "# Instructions an operation, and by how many percent a count may exceed them.\n\
             # Written by `{COMMAND}`.\n\
             rustc = {rustc:?}\n\
             growth_percent = {growth_percent}\n\
             growth_percent_other_rustc = {growth_percent_other_rustc}\n\n\
             [instructions]\n"
        );
        for (name, count) in instructions {
            writeln!(text, "{name:?} = {count}").expect("a string takes everything");
        }
        text
    }

    /// Holds counts against the record; `whole` if they are all there are.
    pub fn judge(&self, rustc: &str, counts: &BTreeMap<String, u64>, whole: bool) -> Judged {
        let mut judged = Judged::default();
        let same = self.rustc == rustc;
        let bound = if same { self.growth_percent } else { self.growth_percent_other_rustc };
        if !same {
            judged.lines.push(format!(
                "this is {rustc}, the record is of {}: up to {bound} % more is let pass, not {} %; \
                 new counts are written by `{COMMAND}`",
                self.rustc, self.growth_percent
            ));
        }
        for (name, &now) in counts {
            let Some(&before) = self.instructions.get(name) else {
                judged.failures.push(format!(
                    "{name}: {now} instructions, none on record; write them: `{COMMAND}`"
                ));
                continue;
            };
            let percent = (now as f64 / before as f64 - 1.0) * 100.0;
            judged.lines.push(format!("{name:34} {now:>9} ({percent:+.1} % of {before})"));
            if now * 100 > before * (100 + bound) {
                judged.failures.push(format!(
                    "{name}: {now} instructions, {before} on record: {percent:.1} % more, and \
                     {bound} % is the bound. If it is meant: `{COMMAND}`"
                ));
            } else if same && now * 100 < before * (100 - self.growth_percent) {
                judged.lines.push(format!("{name}: fewer; so that it stays: `{COMMAND}`"));
            }
        }
        if whole {
            let gone = self.instructions.keys().filter(|name| !counts.contains_key(*name));
            judged.failures.extend(
                gone.map(|name| format!("{name}: on record, and not counted: `{COMMAND}`")),
            );
        }
        judged
    }
}
