//! What is due next.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::plan::{Ask, Pause, Phase, Sends, WorkerPlan};

/// A request that is due. Times are absolute, CLOCK_MONOTONIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    /// When.
    pub(crate) planned_ns: u64,
    /// Which.
    pub(crate) ask: Ask,
}

/// What is due when a slot or a conversation comes to its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    /// A new item.
    Fresh,
    /// The next request of a conversation.
    Turn { item: u64, turn: u32 },
}

/// Conversations: how many requests each has, and the pause between them.
pub(crate) struct Talks {
    /// Requests of the conversation that is item so and so.
    pub(crate) turns: Box<dyn Fn(u64) -> u32>,
    /// From an answer to the next request.
    pub(crate) pause: Pause,
}

/// The plan of one worker while it runs.
pub(crate) struct Source {
    kind: Kind,
    rank: u64,
    size: u64,
    measure_start_ns: u64,
    stop_ns: Option<u64>,
    talks: Option<Talks>,
    /// What follows an answer after a pause, or waits in its slot.
    waiting: BinaryHeap<Reverse<(u64, Next)>>,
    warmup: Numbers,
    measure: Numbers,
    /// Measured requests that were due by plan and will not be sent.
    dropped: u64,
}

/// What has been given out in one phase.
#[derive(Default)]
struct Numbers {
    requests: u64,
    items: u64,
}

enum Kind {
    Open {
        /// Ascending, warm-up first.
        due: std::vec::IntoIter<u64>,
        start_ns: u64,
    },
    Closed {
        think: Pause,
        requests: Option<u64>,
    },
}

impl Source {
    /// The plan, beginning at `start_ns`.
    pub(crate) fn new(
        plan: &WorkerPlan,
        (rank, size): (u32, u32),
        start_ns: u64,
        talks: Option<Talks>,
    ) -> Self {
        let mut waiting = BinaryHeap::new();
        let kind = match &plan.sends {
            Sends::Open { warmup, measure } => {
                let due: Vec<u64> = warmup.iter().chain(measure).copied().collect();
                Kind::Open { due: due.into_iter(), start_ns }
            }
            Sends::Closed { slots, starts, think, requests } => {
                let all_at_once = (starts.len()..*slots as usize).map(|_| &0);
                let begin = |at: &u64| Reverse((start_ns.saturating_add(*at), Next::Fresh));
                waiting.extend(starts.iter().chain(all_at_once).map(begin));
                Kind::Closed { think: *think, requests: *requests }
            }
        };
        Self {
            kind,
            rank: u64::from(rank),
            size: u64::from(size.max(1)),
            measure_start_ns: start_ns.saturating_add(plan.measure_start_ns),
            stop_ns: plan.measure_end_ns.map(|end| start_ns.saturating_add(end)),
            talks,
            waiting,
            warmup: Numbers::default(),
            measure: Numbers::default(),
            dropped: 0,
        }
    }

    /// When the next arrival of an open load is due.
    fn arrival(&self) -> Option<u64> {
        match &self.kind {
            Kind::Open { due, start_ns } => {
                due.as_slice().first().map(|due| start_ns.saturating_add(*due))
            }
            Kind::Closed { .. } => None,
        }
    }

    /// When the next request is due; `None` when nothing is, for now or for good.
    pub(crate) fn peek(&self) -> Option<u64> {
        let waiting = self.waiting.peek().map(|Reverse((due, _))| *due);
        match (self.arrival(), waiting) {
            (Some(arrival), Some(waiting)) => Some(arrival.min(waiting)),
            (arrival, waiting) => arrival.or(waiting),
        }
    }

    /// Whether nothing will be due any more, whatever the answers do.
    pub(crate) fn over(&self, now_ns: u64) -> bool {
        let past = self.stop_ns.is_some_and(|stop| now_ns >= stop);
        match &self.kind {
            Kind::Open { due, .. } => {
                due.as_slice().is_empty()
                    && self.waiting.is_empty()
                    && (self.talks.is_none() || past)
            }
            Kind::Closed { requests, .. } => *requests == Some(0) || past,
        }
    }

    /// Measured requests of an open load that have come due so far or still will.
    pub(crate) fn planned(&self) -> Option<u64> {
        let left = self.left(u64::MAX)?;
        Some(self.measure.requests.saturating_add(left).saturating_add(self.dropped))
    }

    /// Measured requests of an open load that are due until `until_ns` and were not sent.
    fn left(&self, until_ns: u64) -> Option<u64> {
        let Kind::Open { due, start_ns } = &self.kind else { return None };
        let measured = self.measure_start_ns..=until_ns;
        let (first, last) =
            (measured.start().saturating_sub(*start_ns), until_ns.saturating_sub(*start_ns));
        let rest = due.as_slice();
        let before = rest.partition_point(|due| *due < first);
        let arrivals = rest.partition_point(|due| *due <= last).saturating_sub(before);
        let later = self.waiting.iter().filter(|Reverse((due, _))| measured.contains(due));
        u64::try_from(arrivals + later.count()).ok()
    }

    /// Takes the next request; `None` where a slot ends instead.
    pub(crate) fn pop(&mut self) -> Option<Due> {
        let arrival = self.arrival();
        let waiting = self.waiting.peek().map(|Reverse((due, _))| *due);
        let (planned_ns, next) = match (arrival, waiting) {
            (Some(at), waiting) if waiting.is_none_or(|other| at <= other) => {
                if let Kind::Open { due, .. } = &mut self.kind {
                    due.next();
                }
                (at, Next::Fresh)
            }
            _ => self.waiting.pop()?.0,
        };
        self.issue(planned_ns, next)
    }

    /// What follows the answer to `ask` at `end_ns`: the conversation's or the slot's next request
    /// if it is due at once. With a pause it will come from [`Source::pop`]. In an open load
    /// nothing follows but the rest of a conversation.
    pub(crate) fn after(&mut self, ask: Ask, end_ns: u64, pause_ns: u64) -> Option<Due> {
        let turn = ask.turn + 1;
        let talk = self.talks.as_ref().filter(|talks| turn < (talks.turns)(ask.item));
        let (pause, next) = match (talk, &self.kind) {
            (Some(talks), _) => (talks.pause.after(ask.key()), Next::Turn { item: ask.item, turn }),
            (None, Kind::Closed { think, .. }) => (think.after(ask.key()), Next::Fresh),
            (None, Kind::Open { .. }) => return None,
        };
        let due = end_ns.saturating_add(pause.max(pause_ns));
        if self.stop_ns.is_some_and(|stop| due >= stop) {
            return None;
        }
        if due == end_ns {
            return self.issue(due, next);
        }
        self.waiting.push(Reverse((due, next)));
        None
    }

    /// Nothing more is sent. What is due until `until_ns` stays planned.
    pub(crate) fn stop(&mut self, until_ns: u64) {
        self.dropped = self.dropped.saturating_add(self.left(until_ns).unwrap_or(0));
        if let Kind::Open { due, .. } = &mut self.kind {
            *due = Vec::new().into_iter();
        }
        self.waiting.clear();
        self.stop_ns = Some(0);
    }

    fn issue(&mut self, planned_ns: u64, next: Next) -> Option<Due> {
        let phase = if planned_ns < self.measure_start_ns { Phase::Warmup } else { Phase::Measure };
        if let Kind::Closed { requests, .. } = &mut self.kind {
            if self.stop_ns.is_some_and(|stop| planned_ns >= stop) {
                return None;
            }
            if let (Phase::Measure, Some(left)) = (phase, requests) {
                *left = left.checked_sub(1)?;
            }
        }
        let numbers = match phase {
            Phase::Warmup => &mut self.warmup,
            Phase::Measure => &mut self.measure,
        };
        let mut ask = Ask::new(phase, numbers.requests * self.size + self.rank);
        numbers.requests += 1;
        match next {
            Next::Fresh => {
                ask.item = Ask::new(phase, numbers.items * self.size + self.rank).key();
                numbers.items += 1;
            }
            Next::Turn { item, turn } => (ask.item, ask.turn) = (item, turn),
        }
        Some(Due { planned_ns, ask })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(sends: Sends, start: u64, end: Option<u64>) -> WorkerPlan {
        WorkerPlan {
            sends,
            measure_start_ns: start,
            measure_end_ns: end,
            hash: String::new(),
            trace: None,
        }
    }

    fn closed(slots: u32, think_ns: u64, requests: Option<u64>) -> Sends {
        Sends::Closed { slots, starts: Vec::new(), think: Pause::Fixed(think_ns), requests }
    }

    const ASK: Ask = Ask { phase: Phase::Measure, id: 0, item: 0, turn: 0 };

    fn asks(source: &mut Source) -> Vec<(u64, Phase, u64)> {
        std::iter::from_fn(|| source.pop())
            .map(|due| (due.planned_ns, due.ask.phase, due.ask.id))
            .collect()
    }

    #[test]
    fn an_open_plan_is_replayed() {
        let sends = Sends::Open { warmup: vec![0, 5], measure: vec![10, 12] };
        let mut source = Source::new(&plan(sends, 10, Some(20)), (1, 3), 100, None);
        assert_eq!(source.peek(), Some(100));
        assert_eq!(source.after(ASK, 1_000, 0), None);
        assert_eq!(
            asks(&mut source),
            [
                (100, Phase::Warmup, 1),
                (105, Phase::Warmup, 4),
                (110, Phase::Measure, 1),
                (112, Phase::Measure, 4)
            ]
        );
        assert_eq!(source.peek(), None);
    }

    #[test]
    fn a_closed_slot_follows_its_answer() {
        let sends = closed(2, 0, None);
        let mut source = Source::new(&plan(sends, 10, Some(30)), (0, 1), 100, None);
        assert_eq!(asks(&mut source), [(100, Phase::Warmup, 0), (100, Phase::Warmup, 1)]);
        let due = source.after(ASK, 111, 0).unwrap();
        assert_eq!((due.planned_ns, due.ask.phase, due.ask.id), (111, Phase::Measure, 0));
        assert_eq!(source.after(ASK, 129, 5), None);
        assert_eq!(source.peek(), None, "beyond the end");
        assert!(!source.over(129) && source.over(130));
        assert_eq!(source.after(ASK, 130, 0), None);
        assert_eq!(source.peek(), None);
    }

    #[test]
    fn a_number_of_requests_ends_it() {
        let sends = closed(2, 7, Some(3));
        let mut source = Source::new(&plan(sends, 0, None), (0, 1), 100, None);
        assert_eq!(asks(&mut source).len(), 2);
        assert_eq!(source.after(ASK, 150, 0), None);
        assert_eq!(source.after(ASK, 160, 0), None);
        assert!(!source.over(160));
        assert_eq!(asks(&mut source), [(157, Phase::Measure, 2)]);
        assert!(source.over(160));
        source.stop(u64::MAX);
        assert_eq!(source.after(ASK, 200, 0), None);
        assert_eq!(asks(&mut source), []);
    }

    #[test]
    fn what_a_stop_leaves_over_stays_planned() {
        let sends = || Sends::Open { warmup: vec![0], measure: vec![10, 20, 30, 40] };
        for (until, planned) in [(u64::MAX, 4), (130, 3), (100, 1)] {
            let mut source = Source::new(&plan(sends(), 10, Some(50)), (0, 1), 100, None);
            assert_eq!((source.pop().is_some(), source.pop().is_some()), (true, true));
            source.stop(until);
            assert_eq!((source.peek(), source.planned()), (None, Some(planned)), "{until}");
        }
    }

    #[test]
    fn slots_of_a_ramp_begin_one_after_the_other() {
        let sends = Sends::Closed {
            slots: 3,
            starts: vec![0, 15, 30],
            think: Pause::Fixed(0),
            requests: None,
        };
        let mut source = Source::new(&plan(sends, 10, Some(50)), (0, 1), 100, None);
        let due: Vec<_> = asks(&mut source).into_iter().map(|(at, phase, _)| (at, phase)).collect();
        assert_eq!(due, [(100, Phase::Warmup), (115, Phase::Measure), (130, Phase::Measure)]);
    }

    fn talks(turns: u32, pause: u64) -> Option<Talks> {
        Some(Talks { turns: Box::new(move |_| turns), pause: Pause::Fixed(pause) })
    }

    #[test]
    fn an_open_conversation_goes_on_after_each_answer() {
        let sends = Sends::Open { warmup: vec![], measure: vec![10, 30] };
        let mut source = Source::new(&plan(sends, 10, Some(100)), (0, 1), 0, talks(3, 15));
        assert_eq!(source.planned(), Some(2));
        let first = source.pop().unwrap().ask;
        assert_eq!((first.id, first.item, first.turn), (0, 0, 0));
        assert_eq!(source.after(first, 12, 0), None, "there is a pause");
        assert_eq!(source.peek(), Some(27));
        let second = source.pop().unwrap();
        assert_eq!((second.planned_ns, second.ask.id), (27, 1));
        assert_eq!((second.ask.item, second.ask.turn), (0, 1));
        let other = source.pop().unwrap().ask;
        assert_eq!((other.id, other.item, other.turn), (2, 1, 0), "another conversation");
        assert!(!source.over(31), "answers are still to come");
        assert_eq!(source.after(second.ask, 40, 0), None);
        let third = source.pop().unwrap().ask;
        assert_eq!((third.item, third.turn), (0, 2));
        assert_eq!((source.after(third, 60, 0), source.peek()), (None, None), "it has three turns");
        assert_eq!(source.after(other, 90, 0), None, "due after the end");
        assert_eq!((source.peek(), source.planned()), (None, Some(4)));
        assert!(source.over(100));
    }

    #[test]
    fn a_closed_slot_ends_one_conversation_before_it_begins_another() {
        let mut source =
            Source::new(&plan(closed(1, 0, Some(5)), 0, None), (0, 1), 100, talks(2, 0));
        let mut next = source.pop();
        let mut seen = Vec::new();
        while let Some(Due { ask, .. }) = next {
            seen.push((ask.id, ask.item, ask.turn));
            next = source.after(ask, 110, 0);
        }
        assert_eq!(seen, [(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1), (4, 2, 0)]);
        assert!(source.over(110));
    }
}
