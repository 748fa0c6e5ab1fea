//! The order of what waits, by the priority of messages (MT-PRIORITY, RFC 6710):
//! that of the highest priority goes first, and of one priority what has waited
//! longest. So that the rest is not forgotten, what has waited longest of all has
//! its turn after each [`TURNS`] that went by priority. Pure.
//!
//! Nearly all mail has one priority. Then there is one line, and nothing to choose.

use std::collections::VecDeque;

use smallvec::{SmallVec, smallvec};

/// What goes by priority before the oldest of all goes.
pub(super) const TURNS: u8 = 7;

/// Whose turn it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turns(u8);

impl Turns {
    /// Which line is next: its index. `firsts` tells of each line, the highest
    /// priority first, when its first one came; `None` of an empty one.
    pub(super) fn next<A: Ord>(
        &mut self,
        firsts: impl Iterator<Item = Option<A>>,
    ) -> Option<usize> {
        let mut firsts = firsts.enumerate().filter_map(|(at, first)| Some((first?, at)));
        let top = firsts.next()?;
        let Some(second) = firsts.next() else {
            self.0 = 0;
            return Some(top.1);
        };
        if self.0 < TURNS {
            self.0 += 1;
            return Some(top.1);
        }
        self.0 = 0;
        let oldest = firsts.fold(top.min(second), Ord::min);
        Some(oldest.1)
    }
}

/// A line of things with their numbers, in order of arrival.
type Line<T> = VecDeque<(u64, T)>;

/// A queue of things of several priorities.
pub(super) struct Ranks<T> {
    /// By priority, the highest first; only one of a single line may be empty.
    lines: SmallVec<[(i8, Line<T>); 1]>,
    turns: Turns,
    len: usize,
    /// How many have come.
    count: u64,
}

impl<T> Default for Ranks<T> {
    fn default() -> Self {
        Ranks { lines: smallvec![], turns: Turns::default(), len: 0, count: 0 }
    }
}

impl<T> Ranks<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn line(&mut self, priority: i8) -> &mut Line<T> {
        self.lines.retain(|(known, line)| *known == priority || !line.is_empty());
        let at = self.lines.partition_point(|(known, _)| *known > priority);
        if self.lines.get(at).is_none_or(|(known, _)| *known != priority) {
            self.lines.insert(at, (priority, Line::new()));
        }
        &mut self.lines[at].1
    }

    /// Adds one behind those of its priority.
    pub(super) fn push(&mut self, priority: i8, item: T) {
        self.len += 1;
        self.count += 1;
        let count = self.count;
        self.line(priority).push_back((count, item));
    }

    /// Puts one in front of those of its priority: it has been there before.
    pub(super) fn put_back(&mut self, priority: i8, item: T) {
        self.len += 1;
        self.line(priority).push_front((0, item));
    }

    /// Takes the next one out.
    pub(super) fn pop(&mut self) -> Option<T> {
        let firsts = self.lines.iter().map(|(_, line)| line.front().map(|(came, _)| *came));
        let at = self.turns.next(firsts)?;
        let (_, item) = self.lines[at].1.pop_front()?;
        self.len -= 1;
        if self.lines.len() > 1 && self.lines[at].1.is_empty() {
            self.lines.remove(at);
        }
        Some(item)
    }

    /// Takes out those for which `goes` is true, by priority.
    pub(super) fn take_out(&mut self, goes: impl Fn(&T) -> bool) -> Vec<T> {
        let mut out = Vec::new();
        for (_, line) in &mut self.lines {
            let (gone, kept): (Line<T>, Line<T>) =
                std::mem::take(line).into_iter().partition(|(_, item)| goes(item));
            *line = kept;
            out.extend(gone.into_iter().map(|(_, item)| item));
        }
        self.len -= out.len();
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(ranks: &mut Ranks<u32>) -> Vec<u32> {
        std::iter::from_fn(|| ranks.pop()).collect()
    }

    #[test]
    fn of_one_priority_the_first_comes_first() {
        let mut ranks = Ranks::default();
        (0..20).for_each(|n| ranks.push(0, n));
        assert_eq!((ranks.pop(), ranks.pop(), ranks.len()), (Some(0), Some(1), 18));
        ranks.put_back(0, 1);
        assert_eq!(all(&mut ranks), (1..20).collect::<Vec<_>>());
        assert!(ranks.is_empty() && ranks.lines.len() == 1, "it keeps its room");
    }

    #[test]
    fn the_urgent_overtake_and_nothing_starves() {
        let mut ranks = Ranks::default();
        (0..3).for_each(|n| ranks.push(0, n));
        ranks.push(-5, 9);
        (100..130).for_each(|n| ranks.push(4, n));
        (200..203).for_each(|n| ranks.push(9, n));
        let order = all(&mut ranks);
        assert_eq!(order[..8], [200, 201, 202, 100, 101, 102, 103, 0], "the eighth is the oldest");
        let place = |n| order.iter().position(|other| *other == n).unwrap();
        assert_eq!((place(1), place(2), place(9)), (15, 23, 31));
        assert_eq!(order.len(), 37);
        // Others may come for ever: whoever waits has its turn.
        ranks.push(-9, 1);
        let mut waited = 0;
        loop {
            ranks.push(9, 1000);
            if ranks.pop() == Some(1) {
                break;
            }
            waited += 1;
        }
        assert_eq!(waited, usize::from(TURNS));
    }

    #[test]
    fn what_is_taken_out_leaves_the_rest_in_order() {
        let mut ranks = Ranks::default();
        for n in 0..6 {
            ranks.push(if n % 2 == 0 { 0 } else { 3 }, n);
        }
        assert_eq!(ranks.take_out(|n| n % 3 == 0), [3, 0]);
        assert_eq!(ranks.len(), 4);
        ranks.put_back(3, 3);
        assert_eq!(all(&mut ranks), [3, 1, 5, 2, 4]);
    }
}
