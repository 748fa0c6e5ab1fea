//! The end-of-DATA scanner.
