//! What a session has before mail: TLS, and who sends it. The options, and what is
//! worked out from them once for all connections.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use ringpost::base::Mechanism;
use ringpost::io::tls::{Client, Roots, Verify, Version};
use ringpost::proto::sasl::client::Credentials;

use crate::values::TlsStart;

/// Options of a run about TLS and authentication.
#[derive(Clone, Debug, Default, Args)]
pub struct Security {
    /// Send over TLS, begun with STARTTLS or with the first octet
    #[arg(long, value_name = "HOW")]
    pub tls: Option<TlsStart>,
    /// Trust the certificates of this PEM file, not those that the system trusts
    #[arg(long, value_name = "FILE", requires = "tls", conflicts_with = "insecure")]
    pub tls_ca: Option<PathBuf>,
    /// Take any certificate
    #[arg(long, requires = "tls")]
    pub insecure: bool,
    /// Name that is asked for, and that the certificate is to be for [default: the
    /// host of --target]
    #[arg(long, value_name = "NAME", requires = "tls")]
    pub tls_name: Option<String>,
    /// Resume TLS sessions, as clients do that come again; otherwise each handshake
    /// is a whole one
    #[arg(long, requires = "tls")]
    pub tls_resume: bool,
    /// Write the distribution of handshake times for HdrHistogram plotters
    #[arg(long, value_name = "FILE", requires = "tls")]
    pub tls_hgrm: Option<PathBuf>,
    /// Authenticate as this user
    #[arg(long, value_name = "USER", requires_all = ["tls", "auth_password_file"])]
    pub auth: Option<String>,
    /// File whose first line is the password
    #[arg(long, value_name = "FILE", requires = "auth")]
    pub auth_password_file: Option<PathBuf>,
    /// PLAIN, LOGIN, SCRAM-SHA-256 or SCRAM-SHA-256-PLUS [default: the best that is
    /// offered]
    #[arg(long, value_name = "NAME", requires = "auth", value_parser = mechanism)]
    pub auth_mechanism: Option<Mechanism>,
}

fn mechanism(name: &str) -> Result<Mechanism, String> {
    let known = Mechanism::parse(name.as_bytes()).filter(|it| *it != Mechanism::External);
    known.ok_or_else(|| {
        format!("\"{name}\": a mechanism is PLAIN, LOGIN, SCRAM-SHA-256 or SCRAM-SHA-256-PLUS")
    })
}

/// How connections are secured.
pub struct Tls {
    /// How it begins.
    pub start: TlsStart,
    /// The name that is asked for.
    pub name: String,
    is_verified: bool,
    resumes: bool,
    client: Client,
}

impl Tls {
    /// The client's side, for one worker.
    pub fn client(&self) -> Client {
        if self.resumes { self.client.apart() } else { self.client.without_resumption() }
    }

    /// Whether `names`, which hold [`Tls::name`], have to be shown.
    pub fn verify<'n>(&self, names: &'n [&'n str]) -> Verify<'n> {
        if self.is_verified { Verify::Names(names) } else { Verify::Nothing }
    }
}

/// Who sends the mail.
pub struct Login {
    /// The name and its password.
    pub credentials: Credentials,
    /// The only mechanism that will do, if there is one.
    pub mechanism: Option<Mechanism>,
}

impl Security {
    /// How connections to `target` are secured, if at all.
    ///
    /// # Errors
    /// The authorities cannot be read.
    pub fn of_connections(&self, target: &str) -> io::Result<Option<Tls>> {
        let Some(start) = self.tls else { return Ok(None) };
        let roots = match &self.tls_ca {
            Some(path) => Roots::File(path.clone()),
            None if self.insecure => Roots::None,
            None => Roots::System,
        };
        let failed = |why: String| io::Error::other(format!("--tls: {why}"));
        let client = Client::new(&roots, Version::Tls12).map_err(failed)?;
        let host = target.rsplit_once(':').map_or(target, |(host, _)| host);
        let host = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host);
        Ok(Some(Tls {
            start,
            name: self.tls_name.clone().unwrap_or_else(|| host.to_owned()),
            is_verified: !self.insecure,
            resumes: self.tls_resume,
            client,
        }))
    }

    /// Who sends the mail, if someone is to be named.
    ///
    /// # Errors
    /// The password cannot be read or sent.
    pub fn login(&self) -> io::Result<Option<Arc<Login>>> {
        let (Some(user), Some(path)) = (&self.auth, &self.auth_password_file) else {
            return Ok(None);
        };
        let password = first_line(path)?;
        let credentials = Credentials::new(user, &password)
            .map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, format!("--auth: {why}")))?;
        Ok(Some(Arc::new(Login { credentials, mechanism: self.auth_mechanism })))
    }
}

fn first_line(path: &Path) -> io::Result<String> {
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("--auth-password-file {}: {error}", path.display()))
    };
    let text = fs::read_to_string(path).map_err(named)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::options::Cli;
    use clap::Parser;

    fn options(arguments: &str) -> Result<Security, clap::Error> {
        let given = std::iter::once("ringpost-load").chain(arguments.split_whitespace());
        Cli::try_parse_from(given).map(|cli| cli.options.security)
    }

    #[test]
    fn a_password_is_for_tls_only_and_comes_from_a_file() {
        for bad in [
            "--auth u --auth-password-file f",
            "--tls starttls --auth u",
            "--tls starttls --auth-password-file f",
            "--tls starttls --auth u --auth-password-file f --auth-mechanism EXTERNAL",
            "--insecure",
            "--tls-ca f",
            "--tls starttls --tls-ca f --insecure",
        ] {
            assert!(options(bad).is_err(), "{bad}");
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        fs::write(&file, "secret\r\nmore\n").unwrap();
        let given = options(&format!(
            "--tls starttls --auth u --auth-password-file {} --auth-mechanism scram-sha-256",
            file.display()
        ));
        let login = given.unwrap().login().unwrap().unwrap();
        assert_eq!(login.credentials, Credentials::new("u", "secret").unwrap());
        assert_eq!(login.mechanism, Some(Mechanism::ScramSha256));
    }

    #[test]
    fn the_name_is_that_of_the_target_unless_given() {
        let name = |arguments: &str, target: &str| {
            let security = options(arguments).unwrap();
            security.of_connections(target).unwrap().map(|tls| tls.name)
        };
        let insecure = "--tls implicit --insecure";
        assert_eq!(name(insecure, "mx.example:465").as_deref(), Some("mx.example"));
        assert_eq!(name(insecure, "[::1]:465").as_deref(), Some("::1"));
        let given = "--tls implicit --insecure --tls-name a.example";
        assert_eq!(name(given, "127.0.0.1:25").as_deref(), Some("a.example"));
        assert_eq!(name("", "127.0.0.1:25"), None);
        let missing = options("--tls implicit --tls-ca /nonexistent").unwrap();
        assert!(missing.of_connections("x:1").is_err());
    }
}
