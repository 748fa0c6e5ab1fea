//! The certificate that the server makes for itself: made once, for the host's name,
//! and kept in `data_dir`.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::Missing;
use crate::config::{CertificateFiles, Config};
use crate::io::tls::{Pem, self_signed};

const CERTIFICATE: &str = "self-signed.crt";
const KEY: &str = "self-signed.key";

/// Where it is kept.
pub(super) fn files(config: &Config) -> CertificateFiles {
    CertificateFiles {
        names: Vec::new(),
        certificate: config.data_dir.join(CERTIFICATE),
        key: config.data_dir.join(KEY),
        is_only: true,
    }
}

/// The certificate, from its files or made now; what was done is put into `notes`.
///
/// # Errors
/// In words, why there is none.
pub(super) fn certificate(
    config: &Config,
    missing: Missing,
    notes: &mut Vec<String>,
) -> Result<Pem, String> {
    let files = files(config);
    let found = read(&files).map_err(|error| format!("{}: {error}", config.data_dir.display()))?;
    if let Some(pem) = found {
        notes.push(format!("{} is self-signed", files.certificate.display()));
        return Ok(pem);
    }
    let pem = self_signed(&[&config.hostname])?;
    if missing == Missing::Make {
        keep(&files.key, &pem.key).map_err(|e| format!("{}: {e}", files.key.display()))?;
        keep(&files.certificate, &pem.certificate)
            .map_err(|e| format!("{}: {e}", files.certificate.display()))?;
        notes.push(format!("made the self-signed certificate {}", files.certificate.display()));
    } else {
        notes.push("a self-signed certificate is made at the first start".into());
    }
    Ok(pem)
}

/// Both files, if both are there: the certificate is written last.
fn read(files: &CertificateFiles) -> io::Result<Option<Pem>> {
    let certificate = match fs::read(&files.certificate) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read?,
    };
    Ok(Some(Pem { certificate, key: fs::read(&files.key)? }))
}

/// Writes a file that only its owner can read, whole or not at all.
fn keep(path: &Path, text: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let _ = fs::remove_file(&fresh);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}
