//! The command line. Exit codes: 0 fine, 1 failed at run time, 2 usage or
//! configuration error. Results go to standard output, everything else to
//! standard error.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::failure::Failure;
use super::{check, queue, route, serve, user};
use crate::config::Config;
use crate::io::process;
use crate::shard::maillog::LogFormat;

/// A durable SMTP relay that gives each core its own share of the work.
#[derive(Debug, Parser)]
#[command(name = "ringpost", version, args_conflicts_with_subcommands = true)]
#[command(after_help = "Without a command, ringpost serves. Exit codes: 0 fine, 1 failed at run \
                        time, 2 usage or configuration error.")]
struct Cli {
    #[command(flatten)]
    serve: ServeArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    #[command(after_help = "Signals: SIGTERM and SIGINT finish what is in flight within \
                            shutdown_grace and end (a second one ends at once; what was \
                            answered 250 stays queued); SIGHUP reads the configuration again. RINGPOST_LOG says \
                            what is logged, for example RINGPOST_LOG=info,mail=off.")]
    Serve(ServeArgs),
    /// Check the configuration and print what is in effect
    Check(CheckArgs),
    /// Look into the queue of the running server, and change it
    Queue(Box<queue::QueueArgs>),
    /// Keep the file of those who may authenticate
    User(user::UserArgs),
    /// Explain what would be done with mail for an address now
    Route(route::RouteArgs),
}

/// Which configuration.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigArgs {
    /// The configuration file; without it an embedded default that relays
    /// loopback:2525 to loopback:2526 with its queue in ./ringpost-data
    #[arg(short, long = "config", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Override a key, dotted, with a TOML value; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl ConfigArgs {
    /// The checked configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its place and its remedy.
    pub fn load(&self) -> Result<Config, Failure> {
        Config::load(self.config.as_deref(), &self.set)
            .map_err(|errors| Failure::usage(errors.to_string()))
    }
}

/// Options of `ringpost serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Which configuration.
    #[command(flatten)]
    pub source: ConfigArgs,
    /// How log lines on standard error look
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub log_format: Format,
}

/// Values of `--log-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Time, level, event, key=value
    Text,
    /// One JSON object a line
    Json,
}

impl From<Format> for LogFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Text => LogFormat::Text,
            Format::Json => LogFormat::Json,
        }
    }
}

/// Options of `ringpost check`.
#[derive(Debug, Args)]
struct CheckArgs {
    #[command(flatten)]
    source: ConfigArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command that `args` (the program's name first) asks for, to its
/// end. For `serve` that is when the server has stopped.
pub fn main_with<I, T>(args: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and versions are no errors and go to standard output.
            let code = if error.use_stderr() { 2 } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let done = match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => serve::run(&args, crate::shard::start),
        Command::Check(args) => run_check(&args),
        Command::User(args) => user::run(&args, &mut std::io::stdout().lock()).map(success),
        Command::Route(args) => route::run(&args, &mut std::io::stdout().lock()),
        Command::Queue(args) => {
            // A list of a million messages is work. Where it is not permitted to
            // leave the server the CPU, the server has to share it.
            let _ = process::step_aside();
            queue::run(&args, &mut std::io::stdout().lock(), &mut std::io::stderr()).map(success)
        }
    };
    match done {
        Ok(code) => code,
        Err(failure) => {
            // A closed standard error leaves the exit code to speak.
            let _ = writeln!(std::io::stderr(), "ringpost: {failure}");
            ExitCode::from(failure.code)
        }
    }
}

/// A wrong configuration as JSON is a result, and goes to standard output.
fn run_check(args: &CheckArgs) -> Result<ExitCode, Failure> {
    let available = available_cpus()?;
    let source = &args.source;
    let report = check::check(source.config.as_deref(), &source.set, &available, args.json);
    let printed = if report.valid || args.json {
        std::io::stdout().write_all(report.text.as_bytes())
    } else {
        std::io::stderr().write_all(report.text.as_bytes())
    };
    match printed {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::runtime(format!("cannot print the result: {error}")))
        }
        _ => Ok(ExitCode::from(if report.valid { 0 } else { 2 })),
    }
}

/// The CPUs that this process may use.
///
/// # Errors
/// The kernel does not say.
pub(super) fn available_cpus() -> Result<Vec<usize>, Failure> {
    process::allowed_cpus()
        .map_err(|e| Failure::runtime(format!("cannot tell the CPUs of this process: {e}")))
}

fn success((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn pages() -> [(&'static str, &'static str); 6] {
        [
            ("ringpost", include_str!("../../docs/man/ringpost.md")),
            ("serve", include_str!("../../docs/man/ringpost-serve.md")),
            ("check", include_str!("../../docs/man/ringpost-check.md")),
            ("queue", include_str!("../../docs/man/ringpost-queue.md")),
            ("user", include_str!("../../docs/man/ringpost-user.md")),
            ("route", include_str!("../../docs/man/ringpost-route.md")),
        ]
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serving_needs_no_command() {
        let cli = Cli::try_parse_from(["ringpost", "-c", "x.toml", "--set", "cores=1"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.serve.source.config, Some("x.toml".into()));
        assert_eq!(cli.serve.source.set, ["cores=1"]);
        assert!(Cli::try_parse_from(["ringpost", "-c", "x", "check"]).is_err());
    }

    /// The options of `command` and of those below it.
    fn options(command: &clap::Command, into: &mut Vec<String>) {
        for option in command.get_arguments().filter_map(clap::Arg::get_long) {
            into.push(format!("--{option}"));
        }
        for below in command.get_subcommands() {
            into.push(below.get_name().to_owned());
            options(below, into);
        }
    }

    #[test]
    fn every_command_and_option_has_its_place_in_the_manual() {
        let root = Cli::command();
        for command in root.get_subcommands() {
            let (_, page) = pages()
                .into_iter()
                .find(|(name, _)| *name == command.get_name())
                .unwrap_or_else(|| panic!("no page for {}", command.get_name()));
            let mut words = Vec::new();
            options(command, &mut words);
            for word in words {
                assert!(page.contains(&format!("`{word}")), "{} lacks {word}", command.get_name());
            }
            let link = format!("(ringpost-{}.md)", command.get_name());
            assert!(pages()[0].1.contains(&link), "ringpost.md lacks {link}");
        }
    }

    #[test]
    fn the_manual_names_no_option_that_is_not_there() {
        let mut known = vec!["--help".to_owned(), "--version".to_owned()];
        options(&Cli::command(), &mut known);
        for (name, page) in pages() {
            for (at, _) in page.match_indices("`--") {
                let word: String = page[at + 1..]
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || *c == '-')
                    .collect();
                assert!(known.contains(&word), "{name} names {word}");
            }
        }
    }
}
