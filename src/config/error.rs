//! What is wrong with a configuration, so that the operator can put it right
//! without reading anything else: where, which key, what, and what is allowed.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file's path, the `--set` option, or `embedded default`.
    pub source: String,
    /// Line and column, both from 1, the column in characters; `None` when the
    /// fault has no place (something is missing, or the source is an option).
    pub position: Option<(usize, usize)>,
    /// The key with its table, like `limits.recipients`; empty if no key is to
    /// blame.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What is allowed, or what to do; empty if `problem` says it all.
    pub remedy: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if let Some((line, column)) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.problem)?;
        if !self.remedy.is_empty() {
            write!(f, "\n  {}", self.remedy)?;
        }
        Ok(())
    }
}

/// All that is wrong; never empty. Sorted by place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// # Panics
    /// When `errors` is empty: then the configuration is right.
    pub(super) fn new(mut errors: Vec<ConfigError>) -> Self {
        assert!(!errors.is_empty(), "no error to report");
        errors.sort_by(|a, b| (&a.source, a.position).cmp(&(&b.source, b.position)));
        ConfigErrors(errors)
    }

    /// A single fault of `key` that only the running host can tell.
    pub fn of_key(source: &str, key: &str, problem: String, remedy: String) -> Self {
        let (source, key) = (source.into(), key.into());
        ConfigErrors(vec![ConfigError { source, position: None, key, problem, remedy }])
    }

    /// Faults of what keys name, each with its key, that only the running host can
    /// tell.
    ///
    /// # Panics
    /// When there are none.
    pub fn of_keys<'a>(source: &str, faults: impl Iterator<Item = (&'a str, String)>) -> Self {
        let error = |(key, problem): (&str, String)| ConfigError {
            source: source.into(),
            position: None,
            key: key.into(),
            problem,
            remedy: String::new(),
        };
        ConfigErrors::new(faults.map(error).collect())
    }

    /// The errors, in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_place_key_problem_and_remedy() {
        let error = ConfigError {
            source: "relay.toml".into(),
            position: Some((3, 14)),
            key: "limits.recipients".into(),
            problem: "50 is too small".into(),
            remedy: "allowed: 100 to 65535".into(),
        };
        let first = ConfigError { position: None, remedy: String::new(), ..error.clone() };
        let errors = ConfigErrors::new(vec![error, first]);
        assert_eq!(
            errors.to_string(),
            "relay.toml: limits.recipients: 50 is too small\n\
             relay.toml:3:14: limits.recipients: 50 is too small\n  allowed: 100 to 65535"
        );
    }
}
