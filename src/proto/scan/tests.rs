//! Every variant against a plain definition of the end of a message, over
//! every way to cut the data.

use proptest::prelude::*;

use super::*;

/// The findings, and the length of the message if it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    end: Option<usize>,
    size: u64,
    longest: u64,
    bare_cr: bool,
    bare_lf: bool,
    eight_bit: bool,
}

/// The definition, written for clarity: it sees all the data at once.
fn defined(data: &[u8]) -> Found {
    let mut led = b"\r\n".to_vec();
    led.extend_from_slice(data);
    let end = led.windows(5).position(|window| window == b"\r\n.\r\n").map(|at| at + 5 - 2);
    let body = &data[..end.unwrap_or(data.len())];
    let mut lines = vec![0_u64];
    for index in 0..body.len() {
        *lines.last_mut().unwrap() += 1;
        if body[..=index].ends_with(b"\r\n") {
            lines.push(0);
        }
    }
    Found {
        end,
        size: body.len() as u64,
        longest: lines.into_iter().max().unwrap().max(LINE_FLOOR),
        bare_cr: body.windows(2).any(|pair| pair[0] == b'\r' && pair[1] != b'\n'),
        bare_lf: body.first() == Some(&b'\n')
            || body.windows(2).any(|pair| pair[0] != b'\r' && pair[1] == b'\n'),
        eight_bit: !body.is_ascii(),
    }
}

/// What `variant` finds when the data is cut at `cuts` (in order).
fn scanned(variant: Variant, data: &[u8], cuts: &[usize]) -> Found {
    let mut scanner = Scanner::with(variant).expect("an available variant");
    let mut end = None;
    let mut from = 0;
    for &to in cuts.iter().chain([&data.len()]) {
        if let Scan::End { len } = scanner.scan(&data[from..to]) {
            end = Some(from + len);
            break;
        }
        from = to;
    }
    assert_eq!(scanner.has_ended(), end.is_some());
    Found {
        end,
        size: scanner.size(),
        longest: scanner.longest_line(),
        bare_cr: scanner.bare_cr(),
        bare_lf: scanner.bare_lf(),
        eight_bit: scanner.has_8bit(),
    }
}

fn available() -> impl Iterator<Item = Variant> {
    Variant::ALL.into_iter().filter(|variant| variant.is_available())
}

/// Holds every variant to the definition, for the data in one piece, byte by
/// byte, and cut in two at every place.
fn check_every_cut(data: &[u8]) {
    let expected = defined(data);
    let each: Vec<usize> = (1..data.len()).collect();
    for variant in available() {
        assert_eq!(scanned(variant, data, &[]), expected, "{variant:?} {data:?}");
        assert_eq!(scanned(variant, data, &each), expected, "{variant:?} bytewise {data:?}");
        for cut in 0..=data.len() {
            assert_eq!(scanned(variant, data, &[cut]), expected, "{variant:?} at {cut} {data:?}");
        }
    }
}

#[test]
fn the_end_is_where_the_standard_puts_it() {
    let ends: [(&[u8], Option<usize>); 16] = [
        (b".\r\n", Some(3)),
        (b"\r\n.\r\n", Some(5)),
        (b"a\r\n.\r\nQUIT\r\n", Some(6)),
        (b"..\r\n.\r\n", Some(7)),
        (b"\r\n\r\n.\r\n", Some(7)),
        (b".\r\n.\r\n", Some(3)),
        (b"a\n.\n", None),
        (b"a\r.\r", None),
        (b"a\n.\r\n", None),
        (b"a\r\n.\n", None),
        (b"a\r\n.\r", None),
        (b"a\r.\r\n", None),
        (b"\n.\r\n", None),
        (b"a\r\n.\r\r\n", None),
        (b"a\r\r\n.\r\nx", Some(7)),
        (b"a\r\n.a\r\n", None),
    ];
    for (data, end) in ends {
        assert_eq!(defined(data).end, end, "{data:?}");
        check_every_cut(data);
    }
}

#[test]
fn every_short_text_over_the_octets_that_matter() {
    let octets = *b"\r\n.a\xe9";
    for len in 0..=6_u32 {
        for mut number in 0..5_usize.pow(len) {
            let mut data = vec![];
            for _ in 0..len {
                data.push(octets[number % 5]);
                number /= 5;
            }
            let expected = defined(&data);
            for variant in available() {
                assert_eq!(scanned(variant, &data, &[]), expected, "{variant:?} {data:?}");
                let cut = len as usize / 2;
                assert_eq!(scanned(variant, &data, &[cut]), expected, "{variant:?} {data:?}");
            }
        }
    }
}

#[test]
fn a_terminator_at_every_offset_of_several_blocks() {
    for lead in 0..200 {
        for text in
            [&b"\r\n.\r\nMAIL"[..], b"\n.\r\n\r\n.\r\nRSET\r\n\xff", b"\r\n.\r\r\n\r\n.\r\n"]
        {
            let mut data = vec![b'x'; lead];
            data.extend_from_slice(text);
            check_every_cut(&data);
            data.resize(lead + text.len() + 130, b'\n');
            let expected = defined(&data);
            for variant in available() {
                assert_eq!(scanned(variant, &data, &[]), expected, "{variant:?} {lead} {text:?}");
            }
        }
    }
}

#[test]
fn lines_are_measured_across_chunks() {
    let fills: [&[u8]; 3] = [b"y", b"yyyyyyyyyyyyyyyyyyyyyyyyyyyyy\n", b"\r"];
    for len in [0, 62, 255, 509, 510, 511, 512, 767, 998, 5000] {
        for fill in fills {
            let mut data = b"Subject: x\r\n\r\n".to_vec();
            data.extend(fill.iter().copied().cycle().take(len));
            data.extend_from_slice(b"z\r\nz\r\n.\r\n");
            let expected = (len as u64 + 3).max(LINE_FLOOR);
            for variant in available() {
                for step in [1, 7, 63, 64, 65, 257, 300, 1000, 10_000] {
                    let cuts: Vec<usize> = (step..data.len()).step_by(step).collect();
                    let found = scanned(variant, &data, &cuts);
                    assert_eq!(found.longest, expected, "{variant:?} {len} in {step} of {fill:?}");
                }
            }
        }
    }
}

/// Ordinary text of several groups, put wherever a group may begin, with one
/// thing in it that is not ordinary, at every place.
#[test]
fn one_odd_thing_anywhere_in_ordinary_text() {
    let line = b"Ordinary text, in lines of the usual length, as most mail has it.\r\n";
    let text = line.repeat(12);
    let odd: [&[u8]; 7] =
        [b"\r", b"\n", b"\xff", b"\r\n.\r\n", b"\r\na\r\n", b"\n.\r\n", b"\r\n.\n"];
    for thing in odd {
        for at in 0..text.len() {
            let mut data = text.clone();
            data.splice(at..at, thing.iter().copied());
            let expected = defined(&data);
            for variant in available() {
                assert_eq!(scanned(variant, &data, &[]), expected, "{variant:?} {thing:?} at {at}");
                let cuts = [at / 3, at];
                assert_eq!(scanned(variant, &data, &cuts), expected, "{variant:?} {thing:?} {at}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "one message")]
fn a_scanner_is_not_used_twice() {
    let mut scanner = Scanner::new();
    assert_eq!(scanner.scan(b".\r\n"), Scan::End { len: 3 });
    let _ = scanner.scan(b".\r\n");
}

/// Pieces that make up nasty and ordinary data, so that ends, near misses and
/// long lines all come up.
fn data() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => Just(b"\r\n".to_vec()),
        2 => Just(b".".to_vec()),
        1 => Just(b"\r".to_vec()),
        1 => Just(b"\n".to_vec()),
        1 => Just(b"\r\n.\r\n".to_vec()),
        1 => Just(b"\r\n.\n".to_vec()),
        1 => Just("é".as_bytes().to_vec()),
        4 => proptest::collection::vec(b'a'..=b'z', 0..100),
        2 => (0_usize..12, 1_usize..90).prop_map(|(lines, len)| {
            [&vec![b'x'; len][..], b"\r\n"].concat().repeat(lines)
        }),
        1 => (0_usize..900).prop_map(|len| vec![b'y'; len]),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_cut_and_no_variant_changes_what_is_found(
        data in data(),
        places in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
    ) {
        let expected = defined(&data);
        let mut cuts: Vec<usize> = places.iter().map(|at| at.index(data.len() + 1)).collect();
        cuts.sort_unstable();
        for variant in available() {
            prop_assert_eq!(&scanned(variant, &data, &cuts), &expected, "{:?}", variant);
        }
        check_every_cut(&data[..data.len().min(160)]);
    }
}
