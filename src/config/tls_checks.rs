//! Checks of `[tls]` against itself and against the listeners. Whether the files are
//! what they should be is looked at when they are read (`admin::tls`).

use super::error::ConfigError;
use super::pattern::DomainPattern;
use super::tls::{Certificates, ClientCertificates, SELF_SIGNED};
use super::tree::{At, Tree};
use super::types::{Config, ListenerKind, ListenerTls};

/// Everything that does not fit together.
pub(super) fn check(config: &Config, tree: &Tree) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    let mut note = |at: Option<At>, key: &str, problem: &str, remedy: &str| {
        errors.push(tree.error(at, key, problem.into(), remedy.into()));
    };
    for (index, listener) in config.listeners.iter().enumerate() {
        let at = || {
            let steps = ["listener", &index.to_string(), "tls"];
            tree.locate(&steps).or_else(|| tree.locate(&steps[..2]))
        };
        if listener.tls != ListenerTls::Off && config.tls.certificates == Certificates::None {
            let problem = "TLS is used, but the server has no certificate";
            note(at(), "listener.tls", problem, "set tls.certificate and tls.key");
        }
        let is_implicit = listener.tls == ListenerTls::Implicit;
        if listener.kind == ListenerKind::Submissions && !is_implicit {
            let problem = "\"submissions\" is TLS from the first octet on";
            let remedy = "leave `tls` out, or set kind to \"submission\"";
            note(at(), "listener.tls", problem, remedy);
        }
    }
    if let Certificates::Files(files) = &config.tls.certificates
        && files.iter().any(|files| files.key.as_os_str().is_empty())
    {
        let at = tree.locate(&["tls", "certificate"]);
        note(at, "tls.key", "is missing", "name the file with the key of tls.certificate");
    }
    errors.extend(self_signed_is_our_own(config, tree));
    errors.extend(names_are_hosts(config, tree));
    errors.extend(clients_are_asked(config, tree));
    errors
}

/// Only the embedded default has the certificate that the server makes for itself: it
/// is for a first look. Who writes a configuration chooses a certificate.
fn self_signed_is_our_own(config: &Config, tree: &Tree) -> Option<ConfigError> {
    let at = tree.locate(&["tls", "certificate"])?;
    if config.tls.certificates != Certificates::SelfSigned || tree.is_own(at) {
        return None;
    }
    let problem = format!("\"{SELF_SIGNED}\" is for the embedded default alone");
    let name = &config.hostname;
    let remedy = format!(
        "name the files of a certificate in tls.certificate and tls.key; this makes one for a \
         trial, that no client can verify: openssl req -x509 -newkey ec -pkeyopt \
         ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=trial -addext \
         subjectAltName=DNS:{name} -keyout trial.key -out trial.crt"
    );
    Some(tree.error(Some(at), "tls.certificate", problem, remedy))
}

fn names_are_hosts(config: &Config, tree: &Tree) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    for (index, files) in config.tls.certificates.files().iter().enumerate() {
        for item in (0..files.names.len()).filter(|item| files.names[*item] == DomainPattern::Any) {
            let (index, item) = (index.to_string(), item.to_string());
            let at = tree.locate(&["tls", "certificate", &index, "names", &item]);
            let problem =
                "\"*\" is no name of a host; the first certificate is for all other names";
            let remedy = "name hosts, or leave it out for the names in the certificate".to_owned();
            errors.push(tree.error(at, "tls.certificate.names", problem.into(), remedy));
        }
    }
    errors
}

fn clients_are_asked(config: &Config, tree: &Tree) -> Option<ConfigError> {
    let at = |key| tree.locate(&["tls", key]);
    let (place, key, problem, remedy) =
        match (config.tls.client_certificates, &config.tls.client_ca) {
            (ClientCertificates::Require, None) => (
                at("client_certificates"),
                "tls.client_certificates",
                "certificates are required, but of no authority",
                "set tls.client_ca",
            ),
            (ClientCertificates::Off, Some(_)) => (
                at("client_ca"),
                "tls.client_ca",
                "never used: clients are not asked for certificates",
                "set tls.client_certificates to \"request\" or \"require\"",
            ),
            _ => return None,
        };
    Some(tree.error(place, key, problem.into(), remedy.into()))
}

#[cfg(test)]
mod tests {
    use crate::config::tls::Certificates;
    use crate::config::{Config, EMBEDDED, EMBEDDED_NAME};

    /// What is wrong with a listener that has `listener` and a server that has `tls`.
    fn fault(listener: &str, tls: &str) -> String {
        let text = format!(
            "hostname = \"x.test\"\n[[listener]]\naddress = \"127.0.0.1:25\"\n{listener}\n[tls]\n{tls}\n"
        );
        Config::from_text("t.toml", &text, &[]).err().map_or_else(String::new, |e| e.to_string())
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        let files = "certificate = \"a\"\nkey = \"b\"";
        assert_eq!(fault("tls = \"optional\"", files), "");
        assert_eq!(fault("", ""), "");
        let ask = "client_certificates = \"require\"";
        let two = "[[tls.certificate]]\ncertificate = \"a\"\nkey = \"b\"\nnames = [\"x.test\"]\n";
        let any = two.replace("x.test", "*");
        // That depends on their keys.
        assert_eq!(fault("", &two.repeat(2)), "");
        for (listener, tls, wanted) in [
            ("tls = \"required\"", "", "t.toml:4:7: listener.tls: TLS is used, but"),
            ("kind = \"submissions\"", "", "listener.tls: TLS is used, but"),
            (
                "kind = \"submissions\"\ntls = \"optional\"",
                files,
                "t.toml:5:7: listener.tls: \"submi",
            ),
            ("", "certificate = \"a\"", "t.toml:6:15: tls.key: is missing"),
            ("", "key = \"b\"", "tls.key: is a key without its certificate"),
            ("", "certificate = \"self-signed\"\nkey = \"b\"", "tls.key: is a key without"),
            (
                "",
                "certificate = \"self-signed\"",
                "t.toml:6:15: tls.certificate: \"self-signed\" is for",
            ),
            ("", ask, "t.toml:6:23: tls.client_certificates: certificates are required, but"),
            ("", "client_ca = \"c\"", "t.toml:6:13: tls.client_ca: never used"),
            ("", &any, "tls.certificate.names: \"*\" is no name of a host"),
        ] {
            let said = fault(listener, tls);
            assert!(said.contains(wanted), "{listener} {tls}: {said}");
        }
    }

    #[test]
    fn only_the_embedded_default_signs_for_itself() {
        let with = |set: &[&str]| {
            let set: Vec<String> = set.iter().map(|option| (*option).to_owned()).collect();
            Config::load(None, &set)
        };
        // What else is set, it stays.
        let config = with(&["hostname=x.test", "tls.min_version=\"1.3\""]).unwrap();
        assert_eq!(config.tls.certificates, Certificates::SelfSigned);
        for option in ["tls.certificate=self-signed", "tls={certificate=\"self-signed\"}"] {
            let said = with(&["hostname=x.test", option]).unwrap_err().to_string();
            let start =
                format!("--set {option}: tls.certificate: \"self-signed\" is for the embed");
            assert!(said.starts_with(&start), "{said}");
            assert!(said.contains("-addext subjectAltName=DNS:x.test -keyout"), "{said}");
        }
        // Nor is a copy of its text the embedded default.
        let copy = Config::from_text(EMBEDDED_NAME, EMBEDDED, &["hostname=x.test".into()]);
        assert!(copy.unwrap_err().to_string().contains("tls.certificate: \"self-signed\" is"));
    }
}
