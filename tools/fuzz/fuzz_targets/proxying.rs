//! XCLIENT and XFORWARD as anybody may send them: reading never panics, and what
//! was taken holds nothing that could end a line of the log or of a header.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringpost::proto::smtp::command::Command;

fuzz_target!(|input: &[u8]| {
    for verb in [&b"XCLIENT "[..], b"XFORWARD "] {
        let line = [verb, input].concat();
        let Ok(Command::Claims(attributes)) = Command::parse(&line) else { continue };
        let claims = attributes.claims();
        let texts = [
            &claims.name,
            &claims.protocol,
            &claims.helo,
            &claims.login,
            &claims.ident,
            &claims.source,
        ];
        for text in texts.into_iter().flatten().flatten() {
            assert!(!text.is_empty() && text.len() <= 255);
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
        let mut twice = claims.clone();
        twice.update(claims.clone());
        assert_eq!(twice, claims);
    }
});
