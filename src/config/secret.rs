//! What must not stand in a log or in a printed configuration.

use std::fmt;

/// A text that is not shown by its debug form.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Secret(pub Box<str>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Secret("x".into())), "(secret)");
    }
}
