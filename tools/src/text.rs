//! Figures for people: numbers with their thousands apart, times with a unit
//! that fits, round values for axes.

/// A whole number with its thousands apart.
pub fn grouped(number: f64) -> String {
    let digits = format!("{:.0}", number.max(0.0));
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// So many of something, as "1 core" or "2,000 cores".
pub fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {what}{plural}", grouped(count as f64))
}

/// A time with two or three digits and its unit.
pub fn time_label(ms: f64) -> String {
    let (value, unit) = match ms {
        ms if ms < 0.9995 => (ms * 1000.0, "µs"),
        ms if ms < 999.5 => (ms, "ms"),
        ms => (ms / 1000.0, "s"),
    };
    let decimals = if value < 9.95 && (value - value.round()).abs() > 0.049 { 1 } else { 0 };
    format!("{value:.decimals$} {unit}")
}

/// The distance of round grid lines and the topmost of them, for values up to
/// `most`: four to eight lines.
pub fn round_steps(most: f64) -> (f64, f64) {
    let rough = most / 5.0;
    let decade = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * decade)
        .find(|step| *step >= rough)
        .unwrap_or(rough)
        .max(1.0);
    (step, (most / step).ceil() * step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!(grouped(1_234_567.4), "1,234,567");
        assert_eq!(grouped(12.0), "12");
        for (ms, text) in
            [(0.1, "100 µs"), (0.0456, "46 µs"), (1.0, "1 ms"), (1.26, "1.3 ms"), (999.7, "1 s")]
        {
            assert_eq!(time_label(ms), text);
        }
        assert_eq!(counted(1, "core") + &counted(2000, "run"), "1 core2,000 runs");
        assert_eq!(round_steps(23_000.0), (5_000.0, 25_000.0));
        assert_eq!(round_steps(0.5).0, 1.0);
    }
}
