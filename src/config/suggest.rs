//! What an operator may have meant by a name that does not exist.

/// The known name that is nearest to `written`, if one is near enough to be a
/// slip of the pen.
pub(super) fn nearest<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    let written = written.to_ascii_lowercase().replace('-', "_");
    let slips_max = (written.len() / 3).max(1);
    known
        .iter()
        .map(|name| (distance(&written, name), *name))
        .filter(|(slips, _)| *slips <= slips_max)
        .min()
        .map(|(_, name)| name)
}

/// Edits between two texts: letters put in, left out, changed, or swapped with
/// their neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            if i == 0 || j == 0 {
                rows[i][j] = i + j;
                continue;
            }
            let changed = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            best = best.min(rows[i - 1][j - 1] + changed);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        for (a, b, edits) in [
            ("", "", 0),
            ("a", "", 1),
            ("abc", "acb", 1),
            ("abc", "abd", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!((distance(a, b), distance(b, a)), (edits, edits), "{a} {b}");
        }
    }

    #[test]
    fn suggests_only_what_is_near() {
        let known = ["hostname", "data_dir", "cores", "listener"];
        assert_eq!(nearest("hostnmae", &known), Some("hostname"));
        assert_eq!(nearest("Data-Dir", &known), Some("data_dir"));
        assert_eq!(nearest("listeners", &known), Some("listener"));
        assert_eq!(nearest("dns", &known), None);
        assert_eq!(nearest("x", &known), None);
    }
}
