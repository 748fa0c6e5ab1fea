//! What an origin has for one site: how many handles are out for it, how many may
//! be, and the recipients that wait until there is room. They wait by id alone,
//! by priority and in order of age (`ranks`): no envelope, no body, no timer, and
//! nothing looks at them before their turn. So a site that takes little costs as little as its mail
//! takes to be stored, however much of it there is.
//!
//! Used by `origin`, which has the handles; pure.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use smallvec::{SmallVec, smallvec};

use super::ranks::Turns;
use crate::base::{Place, QueueId, ShardId};

/// Handles that may always be out for a site that works, however many are out
/// for others.
pub(super) const WINDOW_MIN: usize = 4;
/// How long handles of a rate-limited site may take to leave, in seconds: more
/// of them wait in the log.
const WINDOW_SECONDS: f64 = 5.0;
/// Room that is not worth giving back.
const ROOM_KEPT: usize = 64;

/// What a site's window depends on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    /// Handles of all sites that may still be given out.
    pub(super) free: usize,
    /// Messages a second that the site may get, if that is limited.
    pub(super) rate: Option<f64>,
    /// The site has failed, and is being tried with one message.
    pub(super) probing: bool,
}

type Heap = BinaryHeap<Reverse<(Place, u16)>>;

/// What waits of one log: the oldest first, by priority, the highest first.
struct Waiting {
    lines: SmallVec<[(i8, Heap); 1]>,
    turns: Turns,
}

impl Waiting {
    fn line(&mut self, priority: i8) -> &mut Heap {
        let at = self.lines.partition_point(|(known, _)| *known > priority);
        if self.lines.get(at).is_none_or(|(known, _)| *known != priority) {
            self.lines.insert(at, (priority, Heap::new()));
        }
        &mut self.lines[at].1
    }

    /// The recipients of one message that are next, with its priority and place.
    fn take(&mut self) -> Option<(i8, Place, SmallVec<[u16; 1]>)> {
        let firsts = self.lines.iter().map(|(_, heap)| heap.peek().map(|Reverse(first)| *first));
        let at = self.turns.next(firsts)?;
        let (priority, heap) = &mut self.lines[at];
        let priority = *priority;
        let Reverse((place, recipient)) = heap.pop()?;
        let mut recipients: SmallVec<[u16; 1]> = smallvec![recipient];
        while let Some(&Reverse((_, recipient))) = heap.peek().filter(|next| next.0.0 == place) {
            recipients.push(recipient);
            heap.pop();
        }
        if self.lines.len() > 1 && self.lines[at].1.is_empty() {
            self.lines.remove(at);
        }
        Some((priority, place, recipients))
    }

    /// Gives back room that is not needed.
    fn shrink(&mut self) {
        for (_, heap) in &mut self.lines {
            if heap.capacity() > ROOM_KEPT && heap.capacity() > 4 * heap.len() {
                heap.shrink_to(2 * heap.len());
            }
        }
    }
}

/// See the module's comment.
#[derive(Default)]
pub(super) struct Outflow {
    out: usize,
    /// By log: those that this shard has open, nearly always one.
    waiting: SmallVec<[(ShardId, Waiting); 1]>,
    count: usize,
    /// Those of them that are urgent: of a priority above 0.
    urgent: usize,
}

impl Outflow {
    /// Handles that are out.
    pub(super) fn out(&self) -> usize {
        self.out
    }

    /// Recipients that wait. Some of them may have been settled meanwhile.
    pub(super) fn waiting(&self) -> usize {
        self.count
    }

    /// True when nothing is out and nothing waits.
    pub(super) fn is_unused(&self) -> bool {
        self.out == 0 && self.count == 0
    }

    /// Handles that may be out: as many as all others together leave free, so
    /// that one site alone gets half of what there is, two a third each, and
    /// there is always some left for one more.
    pub(super) fn window(limits: Limits) -> usize {
        if limits.probing {
            return 1;
        }
        let most = limits.free.max(WINDOW_MIN);
        limits.rate.map_or(most, |rate| most.min(2 + (rate * WINDOW_SECONDS) as usize))
    }

    /// True when one more handle may go out.
    pub(super) fn has_room(&self, limits: Limits) -> bool {
        self.out < Self::window(limits)
    }

    /// Recipients that should be taken out now: none until half of the window is
    /// free, so that they come in batches. Urgent ones do not wait for that.
    pub(super) fn wanted(&self, limits: Limits) -> usize {
        let window = Self::window(limits);
        let free = window.saturating_sub(self.out);
        match self.count {
            0 => 0,
            _ if self.out <= window / 2 => free,
            _ => free.min(self.urgent),
        }
    }

    /// True when a new message of this priority may go ahead of all that waits.
    pub(super) fn is_in_turn(&self, priority: i8) -> bool {
        self.count == 0 || (priority > 0 && self.urgent == 0)
    }

    /// A handle has gone out.
    pub(super) fn went_out(&mut self) {
        self.out += 1;
    }

    /// A handle has come home.
    pub(super) fn came_home(&mut self) {
        self.out -= 1;
    }

    /// These recipients wait.
    pub(super) fn park(&mut self, id: QueueId, recipients: &[u16], priority: i8) {
        self.count += recipients.len();
        self.urgent += if priority > 0 { recipients.len() } else { 0 };
        let elements = recipients.iter().map(|&recipient| Reverse((id.place, recipient)));
        let at = self.waiting.iter().position(|(log, _)| *log == id.log).unwrap_or_else(|| {
            let waiting = Waiting { lines: SmallVec::new(), turns: Turns::default() };
            self.waiting.push((id.log, waiting));
            self.waiting.len() - 1
        });
        self.waiting[at].1.line(priority).extend(elements);
    }

    /// Takes out what is next, by priority and age: of `most` messages at most. What
    /// waits in several logs is taken from another one first each time.
    pub(super) fn take(&mut self, most: usize) -> Vec<(QueueId, SmallVec<[u16; 1]>)> {
        let mut taken = Vec::new();
        for (log, waiting) in &mut self.waiting {
            while taken.len() < most {
                let Some((priority, place, mut recipients)) = waiting.take() else { break };
                self.count -= recipients.len();
                self.urgent -= if priority > 0 { recipients.len() } else { 0 };
                // A recipient can wait twice: it was held and released.
                recipients.dedup();
                taken.push((QueueId { log: *log, place }, recipients));
            }
            waiting.shrink();
        }
        if self.count == 0 {
            self.waiting = SmallVec::new();
        } else {
            // The logs take turns: ages in one say nothing about those in another.
            self.waiting.rotate_left(1);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(log: u16, offset: u32) -> QueueId {
        QueueId { log: ShardId(log), place: Place { segment: 1, offset } }
    }

    #[test]
    fn the_oldest_come_first_and_recipients_of_a_message_together() {
        let mut flow = Outflow::default();
        for offset in [8, 2, 6, 4] {
            flow.park(id(0, offset), &[1, 0], 0);
        }
        flow.park(id(0, 2), &[1], 0);
        flow.park(id(3, 1), &[7], 0);
        assert_eq!(flow.waiting(), 10);
        let order = |taken: &[(QueueId, SmallVec<[u16; 1]>)]| {
            taken.iter().map(|(id, to)| (id.place.offset, to.to_vec())).collect::<Vec<_>>()
        };
        assert_eq!(order(&flow.take(2)), [(2, vec![0, 1]), (4, vec![0, 1])]);
        assert_eq!(flow.waiting(), 5);
        // The other log's turn.
        assert_eq!(order(&flow.take(1)), [(1, vec![7])]);
        flow.park(id(3, 2), &[7], 0);
        assert_eq!(order(&flow.take(1)), [(6, vec![0, 1])]);
        assert_eq!(order(&flow.take(9)), [(2, vec![7]), (8, vec![0, 1])]);
        assert_eq!((flow.waiting(), flow.take(9).len()), (0, 0));
    }

    #[test]
    fn the_urgent_go_first_and_do_not_wait_for_half_of_the_window() {
        let mut flow = Outflow::default();
        for n in 0..40 {
            flow.park(id(0, n), &[0], 0);
        }
        let limits = Limits { free: 20, ..Limits::default() };
        (0..15).for_each(|_| flow.went_out());
        assert_eq!(flow.wanted(limits), 0);
        assert!(flow.is_in_turn(1) && !flow.is_in_turn(0) && !flow.is_in_turn(-1));
        flow.park(id(0, 90), &[1, 0], 5);
        flow.park(id(0, 80), &[0], 5);
        flow.park(id(0, 2), &[1], -3);
        assert!(!flow.is_in_turn(9), "others are as urgent, and older");
        assert_eq!(flow.wanted(limits), 3);
        let taken: Vec<_> =
            flow.take(2).into_iter().map(|(id, to)| (id.place.offset, to.to_vec())).collect();
        assert_eq!(taken, [(80, vec![0]), (90, vec![0, 1])]);
        assert_eq!((flow.wanted(limits), flow.waiting()), (0, 41));
        // The rest by priority and age, with a turn for the oldest of all.
        let order: Vec<_> =
            flow.take(99).into_iter().map(|(id, to)| (id.place.offset, to[0])).collect();
        let place = |wanted| order.iter().position(|other| *other == wanted);
        assert_eq!((place((0, 0)), place((39, 0))), (Some(0), Some(40)));
        assert!(place((2, 1)) < Some(16), "it was the oldest soon: {order:?}");
        assert_eq!((flow.waiting(), flow.urgent), (0, 0));
    }

    #[test]
    fn a_window_leaves_room_for_others_and_follows_rate_and_trouble() {
        let limits = Limits { free: 1000, ..Limits::default() };
        assert_eq!(Outflow::window(limits), 1000);
        assert_eq!(Outflow::window(Limits { free: 0, ..limits }), WINDOW_MIN);
        assert_eq!(Outflow::window(Limits { rate: Some(10.0), ..limits }), 52);
        assert_eq!(Outflow::window(Limits { rate: Some(0.01), ..limits }), 2);
        assert_eq!(Outflow::window(Limits { probing: true, ..limits }), 1);
        let mut flow = Outflow::default();
        let limits = Limits { free: 40, ..limits };
        assert_eq!(flow.wanted(limits), 0, "nothing waits");
        for n in 0..100 {
            flow.park(id(0, n), &[0], 0);
        }
        assert_eq!(flow.wanted(limits), 40);
        (0..30).for_each(|_| flow.went_out());
        assert!(flow.has_room(limits));
        assert_eq!(flow.wanted(limits), 0, "not worth while yet");
        (0..10).for_each(|_| flow.came_home());
        assert_eq!((flow.out(), flow.wanted(limits)), (20, 20));
    }

    #[test]
    fn what_waits_costs_few_bytes_and_gives_them_back() {
        let mut flow = Outflow::default();
        assert_eq!(size_of::<Reverse<(Place, u16)>>(), 12);
        for n in 0..10_000 {
            flow.park(id(0, n), &[0], 0);
        }
        flow.take(9_000);
        let (_, heap) = &flow.waiting[0].1.lines[0];
        assert!(heap.len() == 1000 && heap.capacity() <= 4000, "{}", heap.capacity());
    }
}
