//! The `cores` key: which CPUs get a shard.

use std::fmt;
use std::str::FromStr;

/// Highest CPU number taken; a list beyond it is a typing error.
const CPU_MAX: usize = 4095;

/// Which CPUs get a shard, as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cores {
    /// `"all"`: every CPU that the process may use.
    #[default]
    All,
    /// A count: that many of them, the first ones.
    Count(usize),
    /// A CPU list like `"0-3,8"`: these. In ascending order, each once.
    List(Vec<usize>),
}

impl Cores {
    /// The CPUs to pin shards to, given those that the process may use.
    ///
    /// # Errors
    /// Says which CPUs are missing. The caller names the key.
    pub fn resolve(&self, available: &[usize]) -> Result<Vec<usize>, String> {
        match self {
            Cores::All => Ok(available.to_vec()),
            Cores::Count(count) => {
                available.get(..*count).map(<[usize]>::to_vec).ok_or_else(|| {
                    format!("asks for {count} CPUs, this process may use {}", available.len())
                })
            }
            Cores::List(list) => {
                let missing: Vec<usize> =
                    list.iter().copied().filter(|cpu| !available.contains(cpu)).collect();
                if missing.is_empty() {
                    return Ok(list.clone());
                }
                Err(format!(
                    "names CPU {} which this process may not use; it may use {}",
                    Cores::List(missing),
                    Cores::List(available.to_vec())
                ))
            }
        }
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cores::All => f.write_str("all"),
            Cores::Count(count) => write!(f, "{count}"),
            Cores::List(list) => write_ranges(f, list),
        }
    }
}

fn write_ranges(f: &mut fmt::Formatter<'_>, list: &[usize]) -> fmt::Result {
    for (index, run) in list.chunk_by(|a, b| a + 1 == *b).enumerate() {
        if index > 0 {
            f.write_str(",")?;
        }
        match run {
            [one] => write!(f, "{one}")?,
            [first, .., last] => write!(f, "{first}-{last}")?,
            [] => unreachable!("chunk_by gives no empty runs"),
        }
    }
    Ok(())
}

/// A text that is neither `all` nor a CPU list: what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadCores(String);

impl fmt::Display for BadCores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadCores {}

impl FromStr for Cores {
    type Err = BadCores;

    /// Reads `all` or a CPU list. A lone number is a list of one CPU: a count is
    /// an integer of the configuration, not a text.
    fn from_str(text: &str) -> Result<Self, BadCores> {
        if text == "all" {
            return Ok(Cores::All);
        }
        let mut list = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (cpu_number(first)?, cpu_number(last)?);
            if first > last {
                return Err(BadCores(format!("the range `{part}` runs backwards")));
            }
            list.extend(first..=last);
        }
        list.sort_unstable();
        list.dedup();
        Ok(Cores::List(list))
    }
}

fn cpu_number(text: &str) -> Result<usize, BadCores> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .then(|| text.parse().ok().filter(|&cpu| cpu <= CPU_MAX))
        .flatten()
        .ok_or_else(|| BadCores(format!("`{text}` is no CPU number (0 to {CPU_MAX})")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints_cpu_lists() {
        for (text, printed, cpus) in [
            ("0-3,8", "0-3,8", vec![0, 1, 2, 3, 8]),
            ("8,1,0,1", "0-1,8", vec![0, 1, 8]),
            ("5", "5", vec![5]),
        ] {
            let cores: Cores = text.parse().unwrap();
            assert_eq!(cores, Cores::List(cpus));
            assert_eq!(cores.to_string(), printed);
            assert_eq!(printed.parse(), Ok(cores));
        }
        assert_eq!("all".parse(), Ok(Cores::All));
        for bad in ["", "ALL", "1,", "3-1", "a", "-1", "1-", "+1", "1 ,2", "99999999", "0x1"] {
            assert!(bad.parse::<Cores>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn resolves_against_what_the_process_may_use() {
        let may = [2, 3, 5];
        assert_eq!(Cores::All.resolve(&may), Ok(vec![2, 3, 5]));
        assert_eq!(Cores::Count(2).resolve(&may), Ok(vec![2, 3]));
        assert_eq!(Cores::List(vec![3, 5]).resolve(&may), Ok(vec![3, 5]));
        let count = Cores::Count(4).resolve(&may).unwrap_err();
        assert!(count.contains('4') && count.contains('3'), "{count}");
        let list = Cores::List(vec![0, 1, 2]).resolve(&may).unwrap_err();
        assert!(list.contains("0-1") && list.contains("2-3,5"), "{list}");
    }
}
