//! The server's certificates, from the files that `[tls]` names to what the shards
//! do handshakes with. They are read at the start, by `ringpost check`, at a reload,
//! and when a look at the files, every few seconds, shows that one has changed. New
//! ones that cannot be used are said in the log, and the old ones stay.
//!
//! Connections that are open keep what their handshake was done with.

mod keeper;
mod own;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::{CertificateFiles, Certificates, ClientCertificates, Config};
use crate::io::tls::{Identity, Pem, Server, Setup, Visitors};
use crate::proto::x509::Certificate;

pub use keeper::Keeper;

/// Days before its end that the operator is told of.
const ENDS_SOON_DAYS: i64 = 14;

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key that names it.
    pub key: &'static str,
    /// Which file, and what is wrong with it.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.text)
    }
}

/// What the files held.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Texts {
    config: crate::config::ServerTls,
    /// Certificate and key, of each.
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
    client_ca: Option<Vec<u8>>,
}

/// What came of reading the files.
pub struct Loaded {
    /// What handshakes are done with; nothing where TLS is not used.
    pub server: Option<Server>,
    /// What is allowed, but should be known to the operator.
    pub warnings: Vec<String>,
    /// What is right, and should be known too.
    pub notes: Vec<String>,
    texts: Texts,
}

/// Whether a certificate that is missing may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It is made, in `data_dir`.
    Make,
    /// It is made and kept nowhere: only the rest is checked.
    Leave,
}

/// Reads the files and checks them; `now` is in seconds since 1970.
///
/// # Errors
/// Everything that is wrong with them.
pub fn load(config: &Config, missing: Missing, now: i64) -> Result<Loaded, Vec<Problem>> {
    let tls = &config.tls;
    let mut reader = Reader { now, problems: Vec::new(), warnings: Vec::new(), notes: Vec::new() };
    let mut identities = Vec::new();
    let mut pairs = Vec::new();
    match &tls.certificates {
        Certificates::None => {}
        Certificates::SelfSigned => match own::certificate(config, missing, &mut reader.notes) {
            Ok(pem) => {
                identities.extend(reader.identity(&own::files(config), &pem));
                pairs.push((pem.certificate, pem.key));
            }
            Err(text) => reader.problems.push(Problem { key: "tls.certificate", text }),
        },
        Certificates::Files(files) => {
            for files in files {
                let Some(pem) = reader.pair(files) else { continue };
                let identity = reader.identity(files, &pem);
                reader
                    .problems
                    .extend(identity.iter().filter_map(|own| never_shown(files, own, &identities)));
                identities.extend(identity);
                pairs.push((pem.certificate, pem.key));
            }
        }
    }
    let client_ca = tls.client_ca.as_deref().and_then(|path| reader.file("tls.client_ca", path));
    let visitors = match (tls.client_certificates, &client_ca) {
        (ClientCertificates::Off, _) => Visitors::Unasked,
        (ClientCertificates::Request, ca) => Visitors::Asked(ca.clone()),
        (ClientCertificates::Require, ca) => Visitors::Required(ca.clone().unwrap_or_default()),
    };
    let Reader { mut problems, warnings, notes, .. } = reader;
    let mut server = None;
    if !identities.is_empty() && problems.is_empty() {
        let made = Server::new(Setup { min_version: tls.min_version, identities, visitors });
        server = made.map_err(|reason| problems.push(client_ca_problem(config, &reason))).ok();
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Loaded { server, warnings, notes, texts: Texts { config: tls.clone(), pairs, client_ca } })
}

/// Why clients would never be shown the certificate `own` of `files`, or not for a name
/// that it is given, if so: those `before` it come first.
fn never_shown(files: &CertificateFiles, own: &Identity, before: &[Identity]) -> Option<Problem> {
    let path = files.certificate.display();
    let kind = own.kind();
    let same = || before.iter().filter(|other| other.kind() == kind);
    let is_taken = |name: &&String| {
        same().any(|other| other.names().iter().any(|taken| taken.eq_ignore_ascii_case(name)))
    };
    let taken = own.names().iter().find(is_taken);
    let (key, text) = if let (Some(name), false) = (taken, files.names.is_empty()) {
        let text = format!("{name} has a certificate with a key of the same kind ({kind}) already");
        ("tls.certificate.names", text)
    } else if own.names().is_empty() && !before.is_empty() {
        let text = "is never used, for it holds no name of a host; give it names".to_owned();
        ("tls.certificate.certificate", text)
    } else if taken.is_some() && own.names().iter().all(|name| is_taken(&name)) {
        let text = format!(
            "is never used, for each of its names has a certificate with a key of the same kind \
             ({kind}) already"
        );
        ("tls.certificate.certificate", text)
    } else {
        return None;
    };
    Some(Problem { key, text: format!("{path}: {text}") })
}

fn client_ca_problem(config: &Config, reason: &str) -> Problem {
    let path = config.tls.client_ca.as_deref().unwrap_or(Path::new("")).display();
    Problem { key: "tls.client_ca", text: format!("{path}: {reason}") }
}

/// The files that are watched.
fn files(config: &Config) -> Vec<PathBuf> {
    let listed = config.tls.certificates.files().iter();
    let named = listed.flat_map(|files| [files.certificate.clone(), files.key.clone()]);
    named.chain(config.tls.client_ca.clone()).collect()
}

struct Reader {
    now: i64,
    problems: Vec<Problem>,
    warnings: Vec<String>,
    notes: Vec<String>,
}

impl Reader {
    fn file(&mut self, key: &'static str, path: &Path) -> Option<Vec<u8>> {
        fs::read(path)
            .map_err(|error| {
                let text = format!("cannot read {}: {error}", path.display());
                self.problems.push(Problem { key, text });
            })
            .ok()
    }

    fn pair(&mut self, files: &CertificateFiles) -> Option<Pem> {
        let certificate = self.file(certificate_key(files), &files.certificate);
        let key = self.file(key_key(files), &files.key);
        // Who may read a key may pretend to be this server.
        if let Ok(about) = fs::metadata(&files.key)
            && about.mode() & 0o004 != 0
        {
            let path = files.key.display();
            self.warnings.push(format!("{path} can be read by everybody on this host; chmod o-r"));
        }
        Some(Pem { certificate: certificate?, key: key? })
    }

    /// The certificate with its key, if it is right.
    fn identity(&mut self, files: &CertificateFiles, pem: &Pem) -> Option<Identity> {
        let names: Vec<String> = files.names.iter().map(|name| name.to_string()).collect();
        let made = Identity::new(names, pem).map_err(|(is_key, reason)| {
            let (key, path) = match is_key {
                true => (key_key(files), &files.key),
                false => (certificate_key(files), &files.certificate),
            };
            self.problems.push(Problem { key, text: format!("{}: {reason}", path.display()) });
        });
        let identity = made.ok()?;
        let path = files.certificate.display();
        if let Some(end) = Certificate::parse(identity.certificate()).and_then(|c| c.not_after()) {
            let days = (end - self.now).div_euclid(86400);
            if end < self.now {
                self.warnings.push(format!("{path}: the certificate has expired"));
            } else if days < ENDS_SOON_DAYS {
                self.warnings.push(format!("{path}: the certificate expires in {days} days"));
            }
        }
        Some(identity)
    }
}

fn certificate_key(files: &CertificateFiles) -> &'static str {
    if files.is_only { "tls.certificate" } else { "tls.certificate.certificate" }
}

fn key_key(files: &CertificateFiles) -> &'static str {
    if files.is_only { "tls.key" } else { "tls.certificate.key" }
}
