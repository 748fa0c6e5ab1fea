//! Mail addresses and paths (RFC 5321, 4.1.2).
