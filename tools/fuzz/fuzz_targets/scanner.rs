//! The scanner and the readers of a stored body: every variant finds what the
//! byte automaton finds, however the data is cut; the header readers agree; and
//! stuffing brings back what unstuffing took.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringpost::mail::{headers, stuffing};
use ringpost::proto::scan::{Scan, Scanner, Variant};

/// Everything a scanner says about `data`, fed in pieces of `step` octets.
fn scanned(variant: Variant, data: &[u8], step: usize) -> (Option<usize>, u64, u64, [bool; 3]) {
    let mut scanner = Scanner::with(variant).expect("an available variant");
    let mut end = None;
    for (index, chunk) in data.chunks(step).enumerate() {
        if let Scan::End { len } = scanner.scan(chunk) {
            end = Some(index * step + len);
            break;
        }
    }
    let found = [scanner.bare_cr(), scanner.bare_lf(), scanner.has_8bit()];
    (end, scanner.size(), scanner.longest_line(), found)
}

fuzz_target!(|input: (u16, Vec<u8>)| {
    let (step, data) = input;
    let step = usize::from(step).max(1);
    let expected = scanned(Variant::Scalar, &data, data.len().max(1));
    for variant in Variant::ALL.into_iter().filter(|variant| variant.is_available()) {
        assert_eq!(scanned(variant, &data, data.len().max(1)), expected, "{variant:?}");
        assert_eq!(scanned(variant, &data, step), expected, "{variant:?} in {step}");
    }

    let body = &data[..expected.0.unwrap_or(data.len())];
    let received = headers::fields(body).filter(|field| field.is("received")).count();
    assert_eq!(headers::received_count(body) as usize, received);
    let mut counter = headers::HeaderWatch::new();
    for chunk in body.chunks(step) {
        counter.push(chunk);
    }
    assert_eq!(counter.received() as usize, received);
    let mut whole = headers::HeaderWatch::new();
    whole.push(body);
    assert_eq!(counter.tls_optional(), whole.tls_optional());

    let text = stuffing::unstuff(body);
    let mut unstuffer = stuffing::Unstuffer::new();
    let mut cut = vec![];
    for chunk in body.chunks(step) {
        unstuffer.chunk(chunk).for_each(|piece| cut.extend_from_slice(piece));
    }
    assert_eq!(cut, text);
    assert_eq!(unstuffer.is_done(), expected.0.is_some());
    let mut wire = vec![];
    stuffing::stuff(&text, &mut wire);
    let again = stuffing::unstuff(&wire);
    assert!(again.starts_with(&text) && again.len() <= text.len() + 2);
});
