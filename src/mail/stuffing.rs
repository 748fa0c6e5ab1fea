//! stuffing
