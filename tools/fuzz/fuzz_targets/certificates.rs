//! Certificates that say anything at all: reading one never panics, gives no more
//! names than it may, and no text that could break a log line.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringpost::proto::x509::Certificate;

fuzz_target!(|data: &[u8]| {
    let Some(certificate) = Certificate::parse(data) else { return };
    let (dns, mail) = (certificate.dns_names(), certificate.mail_addresses());
    assert!(dns.len() <= 100 && mail.len() <= 100);
    for text in dns.iter().chain(&mail).chain(&certificate.common_name()) {
        assert!(!text.chars().any(char::is_control), "{text:?}");
        assert!(text.len() <= 3 * data.len());
    }
    let _ = (certificate.not_after(), certificate.signature_hash());
});
