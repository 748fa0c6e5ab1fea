//! `ringpost check`: what a configuration amounts to, or all that is wrong with
//! it. The command line prints the [`Report`] and ends with 0 or 2.
//!
//! The text form of a valid configuration is itself a configuration file:
//! everything that is no key stands in comments. Only the certificate of the embedded
//! default must be replaced in it.

use std::path::Path;

use serde_json::json;

use super::tls::Missing;
use super::users;
use crate::base::Durability;
use crate::config::{Config, ConfigErrors, Cores, EMBEDDED_NAME};
use crate::io::clock;
use crate::io::tls::{Client, Version};
use crate::relay::authorities;

/// The outcome of a check, ready to print.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whether the server would start with this configuration.
    pub valid: bool,
    /// What to print, newline included: on stdout if `valid` or JSON was asked
    /// for, on stderr otherwise.
    pub text: String,
}

/// Checks `file` (the embedded default without one) with the `--set` options
/// `set`, for a process that may use the CPUs `available`.
pub fn check(file: Option<&Path>, set: &[String], available: &[usize], json: bool) -> Report {
    let name = file.map_or(EMBEDDED_NAME.into(), |path| path.display().to_string());
    let loaded = Config::load(file, set).and_then(|config| {
        let cpus = resolve_cores(&config, available, &name)?;
        let notes = certificates(&config, &name)?;
        users_can_be_read(&config, &name)?;
        authorities_can_be_read(&config, &name)?;
        Ok((config, cpus, notes))
    });
    let valid = loaded.is_ok();
    let text = match (loaded, json) {
        (Ok((config, cpus, tls)), false) => valid_text(&name, &config, cpus, &tls),
        (Ok((config, cpus, tls)), true) => valid_json(&name, &config, &cpus, &tls),
        (Err(errors), false) => format!("{errors}\n"),
        (Err(errors), true) => invalid_json(&name, &errors),
    };
    Report { valid, text }
}

/// The CPUs that get a shard.
///
/// # Errors
/// When the process may not use those that `cores` asks for; `name` is what the
/// message calls the configuration.
pub fn resolve_cores(
    config: &Config,
    available: &[usize],
    name: &str,
) -> Result<Vec<usize>, ConfigErrors> {
    config.cores.resolve(available).map_err(|problem| {
        let may = Cores::List(available.to_vec());
        let remedy = format!("choose among CPUs {may}, or set cores to \"all\"");
        ConfigErrors::of_key(name, "cores", problem, remedy)
    })
}

/// What there is to say of the certificates: warnings, and what else should be
/// known. None is made.
fn certificates(config: &Config, name: &str) -> Result<[Vec<String>; 2], ConfigErrors> {
    let now = clock::wall().as_secs() as i64;
    let loaded = super::tls::load(config, Missing::Leave, now).map_err(|problems| {
        let told = problems.into_iter().map(|problem| (problem.key, problem.text));
        ConfigErrors::of_keys(name, told)
    })?;
    Ok([loaded.warnings, loaded.notes])
}

/// The users file, if one is named, can be read and is right.
fn users_can_be_read(config: &Config, name: &str) -> Result<(), ConfigErrors> {
    let Some(path) = &config.auth.users else { return Ok(()) };
    let remedy = || "`ringpost user` makes and keeps the file".into();
    users::read(path)
        .map(drop)
        .map_err(|problem| ConfigErrors::of_key(name, "auth.users", problem, remedy()))
}

/// The file with the authorities for certificates of next hops, if one is named, can
/// be read and is right.
pub(super) fn authorities_can_be_read(config: &Config, name: &str) -> Result<(), ConfigErrors> {
    let Some(path) = &config.delivery.tls_ca else { return Ok(()) };
    let roots = authorities(Some(path));
    let remedy = || "name a PEM file of certificates that others are signed with".into();
    Client::new(&roots, Version::Tls12)
        .map(drop)
        .map_err(|problem| ConfigErrors::of_key(name, "delivery.tls_ca", problem, remedy()))
}

/// What is allowed, but should be known to the operator: in the configuration,
/// and in the files that it names.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = config.warnings();
    warnings.extend(config.auth.users.iter().flat_map(|path| users::warnings(path)));
    warnings
}

/// What `durability` promises, in words.
fn promise(durability: Durability) -> &'static str {
    match durability {
        Durability::Sync => "250 is sent once the message is on stable storage",
        Durability::Os => {
            "250 is sent once the operating system has the message; a power failure can lose it"
        }
        Durability::Memory => "250 is sent before the message is written; a crash can lose it",
    }
}

fn valid_text(name: &str, config: &Config, cpus: Vec<usize>, tls: &[Vec<String>; 2]) -> String {
    let durability = config.durability;
    let mut text = format!("# durability: {durability}: {}\n", promise(durability));
    text.push_str(&format!("# {}: valid; everything that holds:\n", one_line(name)));
    let count = cpus.len();
    text.push_str(&format!("# shards here: {count}, on CPUs {}\n", Cores::List(cpus)));
    for warning in warnings(config).iter().chain(&tls[0]) {
        text.push_str(&format!("# warning: {}\n", one_line(warning)));
    }
    for note in &tls[1] {
        text.push_str(&format!("# tls: {}\n", one_line(note)));
    }
    text + "\n" + &config.to_toml()
}

/// Keeps a file name from ending the comment that it stands in.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn valid_json(name: &str, config: &Config, cpus: &[usize], tls: &[Vec<String>; 2]) -> String {
    let warnings: Vec<String> = warnings(config).into_iter().chain(tls[0].clone()).collect();
    pretty(&json!({
        "valid": true,
        "source": name,
        "durability": config.durability.name(),
        "cpus": cpus,
        "warnings": warnings,
        "tls": tls[1],
        "configuration": config.to_json(),
    }))
}

fn invalid_json(name: &str, errors: &ConfigErrors) -> String {
    let errors: Vec<_> = errors
        .iter()
        .map(|error| {
            json!({
                "source": error.source,
                "line": error.position.map(|(line, _)| line),
                "column": error.position.map(|(_, column)| column),
                "key": error.key,
                "problem": error.problem,
                "remedy": error.remedy,
            })
        })
        .collect();
    pretty(&json!({ "valid": false, "source": name, "errors": errors }))
}

fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(set: &[&str]) -> Vec<String> {
        set.iter().map(|option| option.to_string()).collect()
    }

    /// Options that name a certificate, which is made in `dir`.
    fn certificate(dir: &Path) -> Vec<String> {
        let pem = crate::io::tls::self_signed(&["a.example"]).unwrap();
        let files = [("tls.certificate", pem.certificate), ("tls.key", pem.key)];
        let option = |(key, text): (&str, Vec<u8>)| {
            let path = dir.join(key);
            std::fs::write(&path, text).unwrap();
            format!("{key}={:?}", path.display().to_string())
        };
        files.map(option).into()
    }

    #[test]
    fn text_of_a_valid_configuration_loads_to_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let set = ["hostname=a.example", "durability=os", "cores=1", "queue.expire=1h30m"];
        let set = [&options(&set)[..], &certificate(dir.path())].concat();
        let report = check(None, &set, &[3, 4], false);
        assert!(report.valid);
        assert!(report.text.starts_with("# durability: os: "), "{}", report.text);
        assert!(report.text.contains("# shards here: 1, on CPUs 3\n"), "{}", report.text);
        assert!(report.text.contains("# warning: durability"), "{}", report.text);
        let again = Config::from_text("printed", &report.text, &[]).unwrap();
        assert_eq!(again, Config::load(None, &set).unwrap());
    }

    #[test]
    fn json_of_a_valid_configuration() {
        let report = check(None, &options(&["hostname=a.example"]), &[0, 1], true);
        let json: serde_json::Value = serde_json::from_str(&report.text).unwrap();
        assert!(report.valid);
        assert_eq!(json["valid"], true);
        assert_eq!(json["durability"], "sync");
        assert_eq!(json["cpus"], json!([0, 1]));
        assert_eq!(json["source"], "embedded default");
        assert_eq!(json["configuration"]["listener"][0]["address"][0], "127.0.0.1:2525");
        assert_eq!(json["configuration"]["limits"]["recipients"], 1000);
    }

    #[test]
    fn errors_in_both_forms() {
        let set = options(&["hostname=a.example", "limits.recipients=5", "durability=x"]);
        let text = check(None, &set, &[0], false);
        assert!(!text.valid);
        assert!(text.text.contains("--set limits.recipients=5: limits.recipients: 5 is too small"));
        let report = check(None, &set, &[0], true);
        let json: serde_json::Value = serde_json::from_str(&report.text).unwrap();
        assert!(!report.valid);
        assert_eq!(json["valid"], false);
        assert_eq!(json["errors"].as_array().unwrap().len(), 2, "{}", report.text);
        assert_eq!(json["errors"][0]["key"], "durability");
        assert_eq!(json["errors"][0]["line"], serde_json::Value::Null);
    }

    #[test]
    fn cores_that_are_not_there() {
        let report = check(None, &options(&["hostname=a.example", "cores=0-3"]), &[0, 1], false);
        assert!(!report.valid);
        assert!(report.text.contains("cores: names CPU 2-3"), "{}", report.text);
        assert!(report.text.contains("choose among CPUs 0-1"), "{}", report.text);
    }

    #[test]
    fn names_cannot_leave_their_comment() {
        let dir = tempfile::tempdir().unwrap();
        let set = [&options(&["hostname=a.example"])[..], &certificate(dir.path())].concat();
        let config = Config::load(None, &set).unwrap();
        let text = valid_text("x\nlimits = 1", &config, vec![0], &[vec![], vec![]]);
        assert_eq!(Config::from_text("printed", &text, &[]).unwrap(), config);
    }
}
