//! [`Config::load`]: file, options and checks together. Called at start, on
//! reload and by `ringpost check`.

use std::fs;
use std::path::Path;

use super::checks;
use super::error::{ConfigError, ConfigErrors};
use super::passwords;
use super::read::read;
use super::tree::{Tree, position};
use super::types::Config;
use super::values::check_hostname;

/// The configuration that holds when no file is given, as TOML.
pub const EMBEDDED: &str = include_str!("default.toml");
/// What messages call it.
pub const EMBEDDED_NAME: &str = "embedded default";
/// Where the kernel tells the host's name.
const HOST_NAME_FILE: &str = "/proc/sys/kernel/hostname";

impl Config {
    /// Reads the configuration from `file` (the embedded default without one),
    /// lays the `KEY=VALUE` options `set` over it in their order, and checks all.
    ///
    /// # Errors
    /// Everything that is wrong, with its place, in the words of the operator.
    pub fn load(file: Option<&Path>, set: &[String]) -> Result<Config, ConfigErrors> {
        match file {
            None => {
                let tree = Tree::parse(EMBEDDED_NAME, EMBEDDED).map_err(ConfigErrors::new)?;
                Config::from_tree(tree.own(), set)
            }
            Some(path) => {
                let name = path.display().to_string();
                let text =
                    read_file(path, &name).map_err(|error| ConfigErrors::new(vec![error]))?;
                Config::from_text(&name, &text, set)
            }
        }
    }

    /// As [`Config::load`], from a TOML text that messages call `name`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_text(name: &str, text: &str, set: &[String]) -> Result<Config, ConfigErrors> {
        Config::from_tree(Tree::parse(name, text).map_err(ConfigErrors::new)?, set)
    }

    fn from_tree(mut tree: Tree, set: &[String]) -> Result<Config, ConfigErrors> {
        let mut errors: Vec<ConfigError> =
            set.iter().filter_map(|option| tree.set(option).err()).collect();
        let config = match read(&tree, host_name) {
            Ok(mut config) => {
                errors.extend(checks::check(&config, &tree));
                errors.extend(passwords::read(&mut config, &tree));
                Some(config)
            }
            Err(faults) => {
                errors.extend(faults);
                None
            }
        };
        config.filter(|_| errors.is_empty()).ok_or_else(|| ConfigErrors::new(errors))
    }

    /// What is allowed, but the operator should know: a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        checks::warnings(self)
    }
}

fn read_file(path: &Path, name: &str) -> Result<String, ConfigError> {
    let error = |position, problem: String, remedy: &str| ConfigError {
        source: name.into(),
        position,
        key: String::new(),
        problem,
        remedy: remedy.into(),
    };
    let bytes = fs::read(path)
        .map_err(|cause| error(None, format!("cannot read the configuration file: {cause}"), ""))?;
    String::from_utf8(bytes).map_err(|fault| {
        let valid = fault.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&fault.as_bytes()[..valid]).into_owned();
        let place = position(&before, before.len());
        error(Some(place), "not UTF-8 from here on".into(), "save the file as UTF-8")
    })
}

/// What the host calls itself, if that can stand in a greeting.
fn host_name() -> Result<String, String> {
    let text = fs::read_to_string(HOST_NAME_FILE)
        .map_err(|cause| format!("cannot read {HOST_NAME_FILE}: {cause}"))?;
    let name = text.trim();
    check_hostname(name)?;
    Ok(name.to_owned())
}
