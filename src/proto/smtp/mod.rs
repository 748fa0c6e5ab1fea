//! SMTP (RFC 5321): the engines of both sides.

pub mod asks;
pub mod client;
pub mod command;
pub mod reply;
pub mod server;
