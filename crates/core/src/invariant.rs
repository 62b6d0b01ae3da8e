//! The numbered invariants: one registry, checked in tests, counted in production.

use std::sync::atomic::{AtomicU64, Ordering};

/// What must always hold. The numbers are part of metrics and runbooks and are never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Invariant {
    /// Every accepted event has, per subscribed webhook and run, a state, and at rest it is terminal:
    /// accepted × subscriptions = delivered + parked + waiting + in flight.
    DL1,
    /// A committed offset is never beyond the lowest unfinished one, and never goes back while owned.
    DL2,
    /// An offset is done only after a durable outcome of every delivery of its record.
    DL3,
    /// Attempt k starts no earlier than due, and none beyond contract R13.
    DL4,
    /// In flight ≤ cap, per webhook (per process) and per process; every queue is bounded.
    DL5,
    /// Within 2 s after a pause or a disablement is written, nothing is sent.
    DL6,
    /// Data bytes delivered = data bytes accepted; the signature verifies.
    DL7,
    /// After a revoke, the old owner commits nothing for that partition and writes no retry or parked
    /// record for it.
    DL8,
    /// No request leaves for a forbidden address.
    DL9,
    /// No unread record is lost to retention without being counted and alarmed.
    DL10,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::DL1,
        Self::DL2,
        Self::DL3,
        Self::DL4,
        Self::DL5,
        Self::DL6,
        Self::DL7,
        Self::DL8,
        Self::DL9,
        Self::DL10,
    ];

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        [
            "DL1", "DL2", "DL3", "DL4", "DL5", "DL6", "DL7", "DL8", "DL9", "DL10",
        ][self as usize]
    }
}

static VIOLATIONS: [AtomicU64; 10] = [const { AtomicU64::new(0) }; 10];

/// How often an invariant was seen violated by this process.
pub fn violations(invariant: Invariant) -> u64 {
    VIOLATIONS[invariant as usize].load(Ordering::Relaxed)
}

/// Counts a violation that our code need not have caused (records lost by retention, a process that
/// stood still), or where a panic would hide another, and goes on.
pub fn count(invariant: Invariant) {
    VIOLATIONS[invariant as usize].fetch_add(1, Ordering::Relaxed);
}

/// Counts a violation. In tests and debug builds it panics: an invariant is never violated there.
pub fn violated(invariant: Invariant, what: std::fmt::Arguments<'_>) {
    count(invariant);
    debug_assert!(false, "{invariant:?} violated: {what}");
}

/// Checks an invariant: counts in production, panics in tests.
#[macro_export]
macro_rules! check_invariant {
    ($invariant:ident, $holds:expr, $($what:tt)+) => {
        if !$holds {
            $crate::invariant::violated(
                $crate::invariant::Invariant::$invariant,
                format_args!($($what)+),
            );
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_invariant_has_its_name() {
        for (index, invariant) in Invariant::ALL.into_iter().enumerate() {
            assert_eq!(invariant.as_str(), format!("DL{}", index + 1));
        }
    }

    /// `docs/reliability.md` names the place where each is checked in production.
    #[test]
    fn the_page_says_where_each_is_checked() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        let read = |path: &str| std::fs::read_to_string(format!("{root}/{path}")).unwrap();
        let page = read("docs/reliability.md");
        let (_, table) = page.split_once("## Invariants in production").unwrap();
        let rows: Vec<_> = table
            .lines()
            .filter(|line| line.starts_with("| DL"))
            .collect();
        assert_eq!(rows.len(), Invariant::ALL.len());
        for (invariant, row) in Invariant::ALL.into_iter().zip(rows) {
            let name = invariant.as_str();
            assert!(row.starts_with(&format!("| {name} | ")), "{row}");
            let files: Vec<_> = row
                .split('`')
                .filter(|part| part.starts_with("crates/"))
                .collect();
            assert!(!files.is_empty(), "{row}");
            for file in files {
                let source = read(file);
                let counts = |macros: &str| {
                    let words: String = source.split_whitespace().collect();
                    words.contains(&format!("{macros}{name}"))
                };
                let checked = counts("check_invariant!(") || counts("count(Invariant::");
                let by_path = counts("count(ringback_core::invariant::Invariant::");
                let by_module = counts("invariant::count(Invariant::");
                assert!(
                    checked || by_path || by_module,
                    "{file} does not check {name}"
                );
            }
        }
    }

    #[test]
    fn a_violation_is_counted_and_panics_in_tests() {
        let before = violations(Invariant::DL1);
        let panic = std::panic::catch_unwind(|| check_invariant!(DL1, before == u64::MAX, "{}", 7));
        let text = panic.unwrap_err().downcast::<String>().unwrap();
        assert_eq!(*text, "DL1 violated: 7");
        assert_eq!(violations(Invariant::DL1), before + 1);
        check_invariant!(DL2, before < u64::MAX, "holds");
    }
}
