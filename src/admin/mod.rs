//! Layer 6, the cold side: the command line, starting and stopping, logs,
//! metrics, and the questions operators ask. One thread, no mail on it.
//!
//! | file | does |
//! |---|---|
//! | `cli` | the command line and exit codes |
//! | `check` | what a configuration amounts to |
//! | `serve` | one page of wiring: builds everything in order, and takes it down |
//! | `datadir`, `bind` | claims the data directory; makes the listening sockets |
//! | `control` | what the control thread knows: phase, configuration, shards |
//! | `fleet` | asks shards and waits for answers, never for ever |
//! | `logging` | the thread that owns standard error, `tracing` on top of it |
//! | `signals`, `reload` | what ends or changes a running server |
//! | `tls` | certificates: read, watched, made |
//! | `health`, `metrics`, `http`, `bounded` | `/healthz`, `/metrics` |
//! | `wire`, `view`, `filter`, `socket` | the admin socket: its words, its server |
//! | `answers`, `pages`, `who` | what it answers, page by page, and to whom |
//! | `queue`, `client`, `print` | `ringpost queue`: asks there, prints for people |
//! | `route` | `ringpost route`: what would be done with an address |
//! | `user` | `ringpost user`: keeps the users file |
//! | `users` | the users file of a running server |
//! | `notify` | the service manager's readiness protocol |
//! | `hint` | the first message, for who runs ringpost without a configuration |

pub mod check;
pub mod cli;

mod answers;
mod bind;
mod bounded;
mod client;
mod control;
mod datadir;
mod failure;
mod filter;
mod fleet;
mod health;
mod hint;
mod http;
mod logging;
mod metrics;
mod notify;
mod pages;
mod print;
mod queue;
mod reload;
mod route;
mod serve;
mod signals;
mod socket;
mod terms;
mod tls;
mod user;
mod users;
mod view;
mod who;
mod wire;

#[cfg(test)]
mod fake;
