//! The header of the PROXY protocol as anybody may send it: reading never
//! panics, and does not depend on how the bytes arrive.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringpost::proto::proxy::{HEADER_MAX, parse};

fuzz_target!(|input: &[u8]| {
    let whole = parse(input);
    if let Ok(None) = whole {
        assert!(input.len() < HEADER_MAX, "waits for ever");
    }
    for end in 0..input.len().min(300) {
        match (parse(&input[..end]), whole) {
            (Ok(None), _) => {}
            (Ok(Some(read)), whole) => {
                assert!(read.0 <= end);
                assert_eq!(whole, Ok(Some(read)));
            }
            (Err(_), whole) => assert!(whole.is_err()),
        }
    }
});
