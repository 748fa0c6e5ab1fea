//! Sizes of generated messages: one, or a mix with weights
//! (`4KiB:80,100KiB:20`), and the order in which the sizes of a mix come.

use std::fmt;
use std::str::FromStr;

use crate::draw::Draw;
use crate::text::size_label;
use crate::values;

/// Largest sum of the weights of a mix.
const WEIGHTS_MAX: u64 = 10_000;

/// Messages after which the order of a mix repeats, at least.
const ROUND: usize = 1_000;

/// Sizes and their weights; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes(Vec<(u64, u64)>);

impl Sizes {
    /// The size, if all messages have the same.
    pub fn single(&self) -> Option<u64> {
        (self.0.len() == 1).then(|| self.0[0].0)
    }

    /// The sizes, in octets.
    pub fn all(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|(size, _)| *size)
    }

    /// Which of the sizes come one after the other: each as often as its weight
    /// says, mixed, the same in every run.
    pub fn order(&self) -> Vec<u16> {
        if self.0.len() == 1 {
            return vec![0];
        }
        let weights: u64 = self.0.iter().map(|(_, weight)| weight).sum();
        let rounds = ROUND.div_ceil(weights as usize);
        let mut order: Vec<u16> = Vec::new();
        for (index, (_, weight)) in self.0.iter().enumerate() {
            order.extend(std::iter::repeat_n(index as u16, *weight as usize * rounds));
        }
        let mut draw = Draw::new(0x51_2e5);
        for at in (1..order.len()).rev() {
            order.swap(at, (draw.number() % (at as u64 + 1)) as usize);
        }
        order
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mix: Result<Vec<(u64, u64)>, String> = text
            .split(',')
            .map(|part| match part.trim().split_once(':') {
                None => Ok((values::size(part.trim())?, 1)),
                Some((size, weight)) => {
                    let weight = weight.parse().ok().filter(|weight| *weight > 0);
                    let weight = weight.ok_or_else(|| {
                        format!("\"{part}\": a weight is a whole number, as in \"4KiB:80\"")
                    })?;
                    Ok((values::size(size)?, weight))
                }
            })
            .collect();
        let mix = mix?;
        if mix.iter().map(|(_, weight)| weight).sum::<u64>() > WEIGHTS_MAX {
            return Err(format!("\"{text}\": the weights come to more than {WEIGHTS_MAX}"));
        }
        Ok(Sizes(mix))
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = |(size, weight): &(u64, u64)| match self.single() {
            Some(_) => size_label(*size),
            None => format!("{}:{weight}", size_label(*size)),
        };
        let parts: Vec<String> = self.0.iter().map(label).collect();
        write!(f, "messages of {}", parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_has_its_weights_and_no_rhythm() {
        let sizes: Sizes = "4KiB:80,100KiB:15, 1MiB:5".parse().unwrap();
        let order = sizes.order();
        assert_eq!(order.len(), 1_000);
        let count = |part: &[u16], which| part.iter().filter(|index| **index == which).count();
        assert_eq!([0, 1, 2].map(|which| count(&order, which)), [800, 150, 50]);
        // Two workers that take turns both get some of each.
        let even: Vec<u16> = order.iter().copied().step_by(2).collect();
        assert!(count(&even, 2) > 10 && count(&even, 2) < 40);
        assert_eq!(order, sizes.order());
        assert_eq!(sizes.single(), None);
        assert_eq!(sizes.to_string(), "messages of 4 KiB:80, 100 KiB:15, 1 MiB:5");
    }

    #[test]
    fn one_size_is_one() {
        let sizes: Sizes = "4KiB".parse().unwrap();
        assert_eq!((sizes.single(), sizes.order()), (Some(4096), vec![0]));
        assert_eq!(sizes.to_string(), "messages of 4 KiB");
        for bad in ["", "4KiB:", "4KiB:0", "4KiB:x", "4KiB:9999,1KiB:9999", ",", "1:2:3"] {
            assert!(bad.parse::<Sizes>().is_err(), "{bad}");
        }
    }
}
