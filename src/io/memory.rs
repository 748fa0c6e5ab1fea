//! [`Store`](super::store::Store) in memory, with crash images for tests.
