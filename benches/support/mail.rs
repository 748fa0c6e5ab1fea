//! Messages to scan.

/// A message of about `len` octets with lines of `from` to `to` octets, whose
/// lengths follow no pattern that a branch predictor could learn.
pub fn message(len: usize, from: usize, to: usize) -> Vec<u8> {
    let mut body = vec![];
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    while body.len() + to + 5 < len {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let line = from + (random >> 33) as usize % (to - from + 1);
        body.extend((0..line - 2).map(|at| b"etaoin. shrdlu "[at % 15]));
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b".\r\n");
    body
}
