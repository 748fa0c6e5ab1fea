//! Files that are right, wrong, and changed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::io::tls::self_signed;

/// A certificate's files in `dir`.
fn write(dir: &Path, name: &str) -> CertificateFiles {
    let pem = self_signed(&[name]).unwrap();
    let files = CertificateFiles {
        names: Vec::new(),
        certificate: dir.join(format!("{name}.crt")),
        key: dir.join(format!("{name}.key")),
        is_only: true,
    };
    fs::write(&files.certificate, &pem.certificate).unwrap();
    fs::write(&files.key, &pem.key).unwrap();
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o640)).unwrap();
    files
}

fn config(dir: &Path, files: Vec<CertificateFiles>) -> Config {
    let mut config = Config { data_dir: dir.to_owned(), ..Config::default() };
    config.tls.certificates = Certificates::Files(files);
    config
}

/// What is wrong with `config`.
fn problems(config: &Config) -> Vec<String> {
    let problems = load(config, Missing::Make, 0).err().unwrap_or_default();
    problems.iter().map(Problem::to_string).collect()
}

#[test]
fn each_fault_names_its_file_and_its_kind() {
    let dir = tempfile::tempdir().unwrap();
    let good = write(dir.path(), "mx.example.org");
    let other = write(dir.path(), "other.example.org");
    assert!(
        load(&config(dir.path(), vec![good.clone()]), Missing::Make, 0).unwrap().server.is_some()
    );
    let file = |name: &str, text: &str| -> PathBuf {
        fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name)
    };
    let with_certificate = |certificate| {
        problems(&config(dir.path(), vec![CertificateFiles { certificate, ..good.clone() }]))
    };
    let with_key =
        |key| problems(&config(dir.path(), vec![CertificateFiles { key, ..good.clone() }]));
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let cases = [
        (
            with_certificate(dir.path().join("none")),
            "tls.certificate: cannot read ",
            "No such file",
        ),
        (
            with_certificate(file("empty", "")),
            "tls.certificate: ",
            "empty: no PEM block of a CERTIFICATE",
        ),
        (
            with_certificate(file("half", "-----BEGIN CERTIFICATE-----\nMAAA\n")),
            "tls.certificate: ",
            "half: a PEM block of a CERTIFICATE without its end",
        ),
        (
            with_certificate(file(
                "junk",
                "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
            )),
            "tls.certificate: ",
            "junk: a PEM block that is not base64",
        ),
        (
            with_key(other.key.clone()),
            "tls.key: ",
            "the private key is not that of the certificate",
        ),
        (with_key(good.certificate.clone()), "tls.key: ", "no PEM block of a PRIVATE KEY"),
        (with_key(file("locked", encrypted)), "tls.key: ", "locked: the private key is encrypted"),
    ];
    for (found, start, part) in cases {
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(start) && found[0].contains(part), "{found:?}");
    }
    let mut config = config(dir.path(), vec![good]);
    config.tls.client_certificates = ClientCertificates::Require;
    config.tls.client_ca = Some(file("ca", "nothing"));
    assert!(problems(&config)[0].starts_with("tls.client_ca: "), "{:?}", problems(&config));
}

#[test]
fn a_key_that_everybody_reads_and_a_certificate_that_ends_are_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let files = write(dir.path(), "mx.example.org");
    let end = Certificate::parse(&{
        let pem = fs::read(&files.certificate).unwrap();
        let identity = Identity::new(
            Vec::new(),
            &Pem { certificate: pem, key: fs::read(&files.key).unwrap() },
        );
        identity.unwrap().certificate().to_vec()
    })
    .unwrap()
    .not_after()
    .unwrap();
    let config = config(dir.path(), vec![files.clone()]);
    let warnings = |now| load(&config, Missing::Make, now).unwrap().warnings;
    assert_eq!(warnings(0), Vec::<String>::new());
    assert!(warnings(end - 86400)[0].contains("expires in 1 days"), "{:?}", warnings(end - 86400));
    assert!(warnings(end + 1)[0].contains("has expired"));
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(warnings(0)[0].contains("can be read by everybody"), "{:?}", warnings(0));
}

#[test]
fn a_self_signed_certificate_is_made_once_and_only_its_owner_reads_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { data_dir: dir.path().to_owned(), ..Config::default() };
    assert_eq!(config.tls.certificates, Certificates::SelfSigned);
    let checked = load(&config, Missing::Leave, 0).unwrap();
    assert!(checked.notes[0].contains("made at the first start"), "{:?}", checked.notes);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "a check changes nothing");
    let first = load(&config, Missing::Make, 0).unwrap();
    let again = load(&config, Missing::Make, 0).unwrap();
    assert!(first.texts == again.texts, "the same is used again");
    assert!(again.notes[0].contains("is self-signed"), "{:?}", again.notes);
    let about = fs::metadata(own::files(&config).key).unwrap();
    assert_eq!(about.permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_bad_new_certificate_leaves_the_old_one_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let files = write(dir.path(), "mx.example.org");
    let config = Arc::new(config(dir.path(), vec![files.clone()]));
    let keeper = Keeper::start(&config).unwrap();
    assert!(keeper.server().is_some());
    assert!(keeper.changed().is_none(), "nothing has changed");
    assert!(keeper.renew(&config).is_none(), "nor has it at a reload");
    fs::write(&files.certificate, "-----BEGIN CERTIFICATE-----\n").unwrap();
    assert!(keeper.changed().is_none());
    assert!(keeper.server().is_some(), "the old one stays");
    let pem = self_signed(&["mx.example.org"]).unwrap();
    fs::write(&files.certificate, &pem.certificate).unwrap();
    assert!(keeper.changed().is_none(), "its key is missing yet");
    let new_key = dir.path().join("fresh");
    fs::write(&new_key, &pem.key).unwrap();
    fs::rename(&new_key, &files.key).unwrap();
    assert!(keeper.changed().is_some(), "now they belong together");
    assert!(keeper.changed().is_none());
}

/// A certificate's files in `dir` with a key for `algorithm`, for `named` if there are
/// any, or else for the names that are `held` in it.
fn keyed(
    dir: &Path,
    algorithm: &'static rcgen::SignatureAlgorithm,
    held: &[&str],
    named: &[&str],
) -> CertificateFiles {
    let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
    let held: Vec<String> = held.iter().map(|name| (*name).to_owned()).collect();
    let params = rcgen::CertificateParams::new(held).unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    let folder = tempfile::tempdir_in(dir).unwrap().keep();
    let files = CertificateFiles {
        names: named.iter().map(|name| name.parse().unwrap()).collect(),
        certificate: folder.join("crt"),
        key: folder.join("key"),
        is_only: false,
    };
    fs::write(&files.certificate, certificate).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

#[test]
fn a_name_has_a_certificate_for_each_kind_of_key() {
    use rcgen::{PKCS_ECDSA_P256_SHA256 as ECDSA, PKCS_RSA_SHA256 as RSA};
    let dir = tempfile::tempdir().unwrap();
    let of = |algorithm, held: &[&str], named: &[&str]| keyed(dir.path(), algorithm, held, named);
    let said = |files: &[&CertificateFiles]| {
        problems(&config(dir.path(), files.iter().map(|&files| files.clone()).collect()))
    };
    let ecdsa = of(&ECDSA, &["a.test", "b.test"], &[]);
    let rsa = of(&RSA, &["a.test"], &[]);
    let named = of(&RSA, &["x.test"], &["A.test"]);
    let other = of(&ECDSA, &["b.test", "c.test"], &[]);
    let none = of(&RSA, &[], &[]);
    for fine in [&[&ecdsa, &rsa][..], &[&ecdsa, &named], &[&ecdsa, &other, &rsa], &[&none, &rsa]] {
        assert_eq!(said(fine), Vec::<String>::new());
    }
    for (wrong, key, text) in [
        ([&ecdsa, &ecdsa], "certificate", "is never used, for each of its names has a certificate"),
        ([&rsa, &named], "names", "a.test has a certificate with a key of the same kind (RSA) alr"),
        ([&named, &named], "names", "a.test has a certificate with a key of the same kind (RSA) a"),
        ([&named, &rsa], "certificate", "is never used, for each of its names has a certificate w"),
        ([&ecdsa, &none], "certificate", "is never used, for it holds no name of a host"),
    ] {
        let start = format!("tls.certificate.{key}: {}: {text}", wrong[1].certificate.display());
        let said = said(&wrong);
        assert!(said.len() == 1 && said[0].starts_with(&start), "{said:?} is not {start}");
    }
}
