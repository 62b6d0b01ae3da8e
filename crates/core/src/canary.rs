//! What the canary decides: when it hands an event in, which ones it waits for, and what has come, has come
//! twice, or is lost; and when it looks after its tenant, webhook and token.
//!
//! The canary behaves as any customer would and knows nothing of what is between. Times are of the
//! [steady](crate::time::Clock::steady) hand of a clock, ids are the caller's.

use std::collections::VecDeque;
use std::time::Duration;

use uuid::Uuid;

use crate::catalogue::Family;

/// An event that was accepted and has not come after this long is lost, and waited for no more.
pub const LOST_AFTER: Duration = Duration::from_secs(3600);
/// Most events of a family that are waited for; beyond, the oldest is lost before its time.
pub const WAITING_MAX: usize = 4096;
/// Most events of a family that are known to have come.
pub const CAME_MAX: usize = 4096;

/// What is counted of the canary's events.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// The ingest answered that it has it (202).
    Accepted,
    /// The ingest refused it, or did not answer.
    Refused,
    /// It came, for the first time.
    Received,
    /// It came again.
    Duplicate,
    /// It did not come within [`LOST_AFTER`], or cannot come any more.
    Lost,
    /// It came without being waited for: lost before, handed in before a restart, or accepted although
    /// that was not answered.
    Stray,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Accepted,
        Self::Refused,
        Self::Received,
        Self::Duplicate,
        Self::Lost,
        Self::Stray,
    ];

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Received => "received",
            Self::Duplicate => "duplicate",
            Self::Lost => "lost",
            Self::Stray => "stray",
        }
    }
}

/// The event type that the canary sends to watch a family.
pub fn event_type(family: Family) -> &'static str {
    match family {
        Family::Cdr => "cdr.canary",
        Family::Extension => "extension.canary",
        Family::Resource => "call.canary",
    }
}

/// The events of the canary: what is due, on its way to the ingest, waited for, and has come.
#[derive(Debug)]
pub struct Canary {
    every: Duration,
    hold_until: Duration,
    watches: [Watch; 3],
}

/// The events of one family.
#[derive(Debug, Default)]
struct Watch {
    /// When the next one is handed in.
    next: Duration,
    /// On its way to the ingest.
    posting: Option<Posting>,
    /// Accepted and not come, with the time of acceptance; the oldest first.
    waiting: VecDeque<(Uuid, Duration)>,
    /// Come, with the time of that; the oldest first.
    came: VecDeque<(Uuid, Duration)>,
    counts: [u64; Outcome::ALL.len()],
}

#[derive(Debug)]
struct Posting {
    id: Uuid,
    /// It came before the ingest's answer did.
    came: bool,
}

impl Canary {
    /// One that hands in an event of each family every so often, from the end of the first hold on.
    pub fn new(every: Duration) -> Self {
        Self {
            every,
            hold_until: Duration::MAX,
            watches: Default::default(),
        }
    }

    /// Hands nothing in until this time: what it needs is not there, or not known everywhere yet.
    pub fn hold_until(&mut self, time: Duration) {
        self.hold_until = time;
    }

    /// Whether an event of this family is to be handed in now.
    pub fn is_due(&self, family: Family, now: Duration) -> bool {
        let watch = self.watch(family);
        now >= self.hold_until && now >= watch.next && watch.posting.is_none()
    }

    /// An event of this family goes to the ingest now. What was missed meanwhile is not made up for.
    pub fn begin(&mut self, family: Family, id: Uuid, now: Duration) {
        let every = self.every;
        let watch = self.watch_mut(family);
        let next = watch.next.saturating_add(every);
        watch.next = match next > now {
            true => next,
            false => now.saturating_add(every),
        };
        watch.posting = Some(Posting { id, came: false });
    }

    /// How handing it in ended: whether the ingest accepted it.
    pub fn posted(&mut self, family: Family, id: Uuid, accepted: bool, now: Duration) {
        let watch = self.watch_mut(family);
        let Some(posting) = watch.posting.take_if(|posting| posting.id == id) else {
            return;
        };
        // What has come was accepted, whatever became of the answer.
        if !accepted && !posting.came {
            watch.count(Outcome::Refused);
            return;
        }
        watch.count(Outcome::Accepted);
        if posting.came {
            return;
        }
        if watch.waiting.len() >= WAITING_MAX {
            watch.waiting.pop_front();
            watch.count(Outcome::Lost);
        }
        watch.waiting.push_back((id, now));
    }

    /// It came to the receiver, rightly signed. Returns how long after its acceptance, if it was waited
    /// for.
    pub fn received(&mut self, family: Family, id: Uuid, now: Duration) -> Option<Duration> {
        let watch = self.watch_mut(family);
        let is_it = |(known, _): &(Uuid, Duration)| *known == id;
        let early = |posting: &Posting| posting.id == id && posting.came;
        if watch.came.iter().any(is_it) || watch.posting.as_ref().is_some_and(early) {
            watch.count(Outcome::Duplicate);
            return None;
        }
        let took = match watch.waiting.iter().position(is_it) {
            Some(at) => {
                let (_, accepted) = watch.waiting.remove(at)?;
                now.saturating_sub(accepted)
            }
            None => {
                let posting = watch.posting.as_mut().filter(|posting| posting.id == id);
                let Some(posting) = posting else {
                    watch.count(Outcome::Stray);
                    return None;
                };
                posting.came = true;
                Duration::ZERO
            }
        };
        watch.count(Outcome::Received);
        if watch.came.len() >= CAME_MAX {
            watch.came.pop_front();
        }
        watch.came.push_back((id, now));
        Some(took)
    }

    /// Gives up what has not come for too long, and forgets what came long ago.
    pub fn forget(&mut self, now: Duration) {
        let is_old = |(_, since): &mut (Uuid, Duration)| now.saturating_sub(*since) >= LOST_AFTER;
        for watch in &mut self.watches {
            while watch.waiting.pop_front_if(is_old).is_some() {
                watch.count(Outcome::Lost);
            }
            while watch.came.pop_front_if(is_old).is_some() {}
        }
    }

    /// Gives up all that is waited for: the webhook was off or away, so that it was parked or went nowhere.
    pub fn give_up(&mut self) {
        for watch in &mut self.watches {
            while watch.waiting.pop_front().is_some() {
                watch.count(Outcome::Lost);
            }
        }
    }

    /// For how long the oldest event that was accepted has not come; zero when all have.
    pub fn oldest(&self, family: Family, now: Duration) -> Duration {
        let oldest = self.watch(family).waiting.front();
        oldest.map_or(Duration::ZERO, |(_, since)| now.saturating_sub(*since))
    }

    /// How often something became of an event of this family.
    pub fn count(&self, family: Family, outcome: Outcome) -> u64 {
        self.watch(family).counts[outcome as usize]
    }

    fn watch(&self, family: Family) -> &Watch {
        &self.watches[family as usize]
    }

    fn watch_mut(&mut self, family: Family) -> &mut Watch {
        &mut self.watches[family as usize]
    }
}

impl Watch {
    fn count(&mut self, outcome: Outcome) {
        self.counts[outcome as usize] += 1;
    }
}

/// When the canary looks whether its tenant, webhook and token are as it needs them.
#[derive(Debug)]
pub struct Upkeep {
    every: Duration,
    /// The earliest and the latest next look.
    earliest: Duration,
    latest: Duration,
    failures: u32,
}

/// The least time between two looks.
const LOOKS_APART: Duration = Duration::from_secs(1);
/// The most between two looks of which the first failed.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

impl Upkeep {
    /// The first look is now, the others so far apart, if nothing asks for one earlier.
    pub fn new(every: Duration) -> Self {
        Self {
            every: every.max(LOOKS_APART),
            earliest: Duration::ZERO,
            latest: Duration::ZERO,
            failures: 0,
        }
    }

    /// Whether to look now.
    pub fn is_due(&self, now: Duration) -> bool {
        now >= self.latest
    }

    /// A look ended at this time: whether all is as it must be, or was made so.
    pub fn looked(&mut self, well: bool, now: Duration) {
        self.failures = match well {
            true => 0,
            false => self.failures.saturating_add(1),
        };
        let backoff = LOOKS_APART * (1 << self.failures.saturating_sub(1).min(10));
        let (earliest, latest) = match well {
            true => (LOOKS_APART, self.every),
            false => (backoff.min(BACKOFF_MAX), backoff.min(BACKOFF_MAX)),
        };
        self.earliest = now.saturating_add(earliest);
        self.latest = now.saturating_add(latest);
    }

    /// How many looks have failed since one went well.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Something says that a look is worth it: it comes as early as it may.
    pub fn suspect(&mut self) {
        self.latest = self.earliest;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CDR: Family = Family::Cdr;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    /// It hands in from the start.
    fn canary() -> Canary {
        let mut canary = Canary::new(seconds(10));
        canary.hold_until(Duration::ZERO);
        canary
    }

    fn accept(canary: &mut Canary, number: u128, now: Duration) {
        canary.begin(CDR, id(number), now);
        canary.posted(CDR, id(number), true, now);
    }

    fn counts(canary: &Canary) -> [u64; 6] {
        Outcome::ALL.map(|outcome| canary.count(CDR, outcome))
    }

    #[test]
    fn its_types_are_of_their_families_and_legal() {
        for family in Family::ALL {
            let name = event_type(family);
            assert_eq!(Family::of(name), family);
            crate::event::EventName::parse(name).unwrap();
        }
        let mut names = Outcome::ALL.map(Outcome::as_str).to_vec();
        names.dedup();
        assert_eq!(
            names.join(" "),
            "accepted refused received duplicate lost stray"
        );
    }

    #[test]
    fn nothing_is_due_before_all_is_set_up() {
        let mut canary = Canary::new(seconds(10));
        assert!(!canary.is_due(CDR, seconds(1_000_000)));
        canary.hold_until(seconds(7));
        assert!(!canary.is_due(CDR, seconds(6)));
        assert!(canary.is_due(CDR, seconds(7)));
    }

    #[test]
    fn one_at_a_time_and_none_is_made_up_for() {
        let mut canary = canary();
        canary.begin(CDR, id(1), seconds(0));
        assert!(!canary.is_due(CDR, seconds(30)), "one is on its way");
        assert!(canary.is_due(Family::Resource, seconds(0)));
        canary.posted(CDR, id(2), true, seconds(30));
        assert!(!canary.is_due(CDR, seconds(30)), "another one's answer");
        canary.posted(CDR, id(1), true, seconds(30));
        assert!(canary.is_due(CDR, seconds(30)));
        canary.begin(CDR, id(3), seconds(30));
        canary.posted(CDR, id(3), true, seconds(30));
        assert!(!canary.is_due(CDR, seconds(39)));
        assert!(canary.is_due(CDR, seconds(40)));
        // In time, it keeps its rhythm.
        canary.begin(CDR, id(4), seconds(41));
        canary.posted(CDR, id(4), true, seconds(41));
        assert!(!canary.is_due(CDR, seconds(49)));
        assert!(canary.is_due(CDR, seconds(50)));
        // A whole interval late.
        canary.begin(CDR, id(5), seconds(60));
        canary.posted(CDR, id(5), true, seconds(60));
        assert!(!canary.is_due(CDR, seconds(69)));
        assert!(canary.is_due(CDR, seconds(70)));
    }

    #[test]
    fn from_accepted_to_received_is_measured() {
        let mut canary = canary();
        accept(&mut canary, 1, seconds(1));
        accept(&mut canary, 2, seconds(11));
        assert_eq!(canary.oldest(CDR, seconds(15)), seconds(14));
        assert_eq!(canary.oldest(Family::Resource, seconds(15)), seconds(0));
        // In any order.
        assert_eq!(canary.received(CDR, id(2), seconds(13)), Some(seconds(2)));
        assert_eq!(canary.oldest(CDR, seconds(15)), seconds(14));
        assert_eq!(canary.received(CDR, id(1), seconds(16)), Some(seconds(15)));
        assert_eq!(canary.oldest(CDR, seconds(16)), seconds(0));
        assert_eq!(canary.received(CDR, id(1), seconds(17)), None);
        assert_eq!(counts(&canary), [2, 0, 2, 1, 0, 0]);
    }

    #[test]
    fn what_comes_before_the_answer_took_no_time() {
        let mut canary = canary();
        canary.begin(CDR, id(1), seconds(1));
        assert_eq!(canary.received(CDR, id(1), seconds(1)), Some(seconds(0)));
        assert_eq!(canary.received(CDR, id(1), seconds(1)), None);
        canary.posted(CDR, id(1), true, seconds(2));
        assert_eq!(canary.oldest(CDR, seconds(9)), seconds(0));
        assert_eq!(counts(&canary), [1, 0, 1, 1, 0, 0]);
        // The answer was lost.
        canary.begin(CDR, id(2), seconds(11));
        canary.received(CDR, id(2), seconds(11));
        canary.posted(CDR, id(2), false, seconds(12));
        assert_eq!(counts(&canary), [2, 0, 2, 1, 0, 0]);
    }

    #[test]
    fn what_was_refused_is_not_waited_for() {
        let mut canary = canary();
        canary.begin(CDR, id(1), seconds(1));
        canary.posted(CDR, id(1), false, seconds(2));
        assert_eq!(canary.oldest(CDR, seconds(9)), seconds(0));
        assert_eq!(canary.received(CDR, id(1), seconds(9)), None);
        assert_eq!(canary.received(CDR, id(7), seconds(9)), None);
        assert_eq!(counts(&canary), [0, 1, 0, 0, 0, 2]);
    }

    #[test]
    fn what_does_not_come_in_time_is_lost() {
        let mut canary = canary();
        accept(&mut canary, 1, seconds(1));
        accept(&mut canary, 2, seconds(2));
        canary.forget(seconds(3600));
        assert_eq!(counts(&canary), [2, 0, 0, 0, 0, 0]);
        canary.forget(seconds(3601));
        assert_eq!(counts(&canary), [2, 0, 0, 0, 1, 0]);
        assert_eq!(canary.oldest(CDR, seconds(3601)), seconds(3599));
        canary.give_up();
        assert_eq!(canary.oldest(CDR, seconds(3601)), seconds(0));
        assert_eq!(canary.received(CDR, id(2), seconds(3602)), None);
        assert_eq!(counts(&canary), [2, 0, 0, 0, 2, 1]);
    }

    #[test]
    fn what_came_long_ago_is_forgotten() {
        let mut canary = canary();
        accept(&mut canary, 1, seconds(1));
        canary.received(CDR, id(1), seconds(1));
        canary.forget(seconds(3600));
        canary.received(CDR, id(1), seconds(3600));
        canary.forget(seconds(3601));
        canary.received(CDR, id(1), seconds(3601));
        assert_eq!(counts(&canary), [1, 0, 1, 1, 0, 1]);
    }

    #[test]
    fn it_holds_no_more_than_so_many() {
        let mut canary = canary();
        for number in 0..=WAITING_MAX as u128 {
            accept(&mut canary, number, seconds(1));
        }
        assert_eq!(canary.count(CDR, Outcome::Lost), 1);
        assert_eq!(canary.watch(CDR).waiting.len(), WAITING_MAX);
        assert_eq!(canary.received(CDR, id(0), seconds(2)), None);
        for number in 1..=WAITING_MAX as u128 {
            canary.received(CDR, id(number), seconds(2));
        }
        assert_eq!(canary.watch(CDR).came.len(), CAME_MAX);
        accept(&mut canary, 1_000_000, seconds(3));
        canary.received(CDR, id(1_000_000), seconds(3));
        assert_eq!(canary.watch(CDR).came.len(), CAME_MAX);
        assert_eq!(canary.received(CDR, id(1), seconds(3)), None);
        assert_eq!(canary.count(CDR, Outcome::Stray), 2);
    }

    #[test]
    fn looks_are_apart_and_ever_further_when_they_fail() {
        let mut upkeep = Upkeep::new(seconds(30));
        assert!(upkeep.is_due(seconds(0)));
        upkeep.looked(true, seconds(5));
        assert!(!upkeep.is_due(seconds(34)) && upkeep.is_due(seconds(35)));
        upkeep.suspect();
        assert!(!upkeep.is_due(Duration::from_millis(5999)));
        assert!(upkeep.is_due(seconds(6)));
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            upkeep.looked(false, seconds(100));
            // Suspicion makes it no quicker.
            upkeep.suspect();
            assert!(!upkeep.is_due(seconds(100 + wait) - Duration::from_millis(1)));
            assert!(upkeep.is_due(seconds(100 + wait)), "{wait}");
        }
        for _ in 0..100 {
            upkeep.looked(false, seconds(100));
        }
        assert_eq!(upkeep.failures(), 108);
        assert!(upkeep.is_due(seconds(160)));
        upkeep.looked(true, seconds(200));
        assert_eq!(upkeep.failures(), 0);
        upkeep.looked(false, seconds(200));
        assert!(upkeep.is_due(seconds(201)));
        let mut quick = Upkeep::new(Duration::from_millis(1));
        quick.looked(true, seconds(0));
        assert!(!quick.is_due(Duration::from_millis(999)));
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// A new one.
        Begin,
        /// The one so many before the last.
        Post(u8, bool),
        /// Likewise.
        Receive(u8),
        Forget,
        GiveUp,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Begin),
            4 => (0u8..2, any::<bool>()).prop_map(|(back, well)| Step::Post(back, well)),
            6 => (0u8..5).prop_map(Step::Receive),
            1 => Just(Step::Forget),
            1 => Just(Step::GiveUp),
        ]
    }

    proptest! {
        /// Whatever happens in whatever order: what was accepted came once, is lost, or is waited for;
        /// what is waited for is never older than it may be; and every arrival is counted once.
        #[test]
        fn the_books_balance(
            steps in proptest::collection::vec((step(), 0u64..900), 0..200),
        ) {
            let mut canary = canary();
            let (mut now, mut last, mut arrivals, mut on_its_way) = (seconds(0), 100, 0, false);
            for (step, passes) in steps {
                now += seconds(passes);
                match step {
                    Step::Begin if canary.is_due(CDR, now) => {
                        (on_its_way, last) = (true, last + 1);
                        canary.begin(CDR, id(last), now);
                        prop_assert!(!canary.is_due(CDR, now + seconds(1000)));
                    }
                    Step::Begin => {}
                    Step::Post(back, accepted) => {
                        on_its_way &= back != 0;
                        canary.posted(CDR, id(last - u128::from(back)), accepted, now);
                    }
                    Step::Receive(back) => {
                        arrivals += 1;
                        let took = canary.received(CDR, id(last - u128::from(back)), now);
                        prop_assert!(took.is_none_or(|took| took <= now));
                    }
                    Step::Forget => {
                        canary.forget(now);
                        prop_assert!(canary.oldest(CDR, now) < LOST_AFTER);
                    }
                    Step::GiveUp => canary.give_up(),
                }
                let [accepted, _, received, duplicate, lost, stray] = counts(&canary);
                let waiting = canary.watch(CDR).waiting.len() as u64;
                let early = canary.watch(CDR).posting.as_ref().is_some_and(|posting| posting.came);
                prop_assert_eq!(accepted + u64::from(early), received + lost + waiting);
                prop_assert_eq!(arrivals, received + duplicate + stray);
                prop_assert_eq!(waiting == 0, canary.oldest(CDR, now + seconds(1)) == seconds(0));
                prop_assert_eq!(canary.watch(CDR).posting.is_some(), on_its_way);
            }
        }
    }
}
