//! How far a move is.

use std::collections::BTreeMap;

use ringback_core::log::Offset;
use ringback_core::topics::Partition;
use serde::{Deserialize, Serialize};

use super::Kind;

/// Records of a topic that were moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Moved {
    /// Configuration, and what is over and only looked up.
    pub kept: u64,
    /// What somebody has still to work off.
    pub waiting: u64,
}

/// How far a move is; kept between two attempts.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// By what is moved and from where: the next offset.
    next: BTreeMap<String, Offset>,
    /// By the source's topic without its prefix.
    pub moved: BTreeMap<String, Moved>,
    /// The groups are set.
    pub(super) positions: bool,
    /// The windows are written.
    pub(super) windows: bool,
}

impl Progress {
    /// Where to go on.
    pub(super) fn next(&self, kind: Kind, topic: &str, from: Partition) -> Option<Offset> {
        self.next.get(&part(kind, topic, from)).copied()
    }

    /// So many records of this topic were moved, everything before `next`.
    pub(super) fn note(
        &mut self,
        kind: Kind,
        topic: &str,
        from: Partition,
        next: Offset,
        count: u64,
    ) {
        self.next.insert(part(kind, topic, from), next);
        let moved = self.moved.entry(topic.to_owned()).or_default();
        match kind {
            Kind::Over => moved.kept += count,
            Kind::Waiting => moved.waiting += count,
        }
    }

    /// Deliveries and events that wait on the target because they waited on the source.
    pub fn waiting(&self) -> u64 {
        // Attempts wait for nothing but to be counted.
        let topics = self.moved.iter().filter(|(topic, _)| *topic != "attempts");
        topics.map(|(_, moved)| moved.waiting).sum()
    }
}

fn part(kind: Kind, topic: &str, from: Partition) -> String {
    let kind = match kind {
        Kind::Over => "over",
        Kind::Waiting => "waiting",
    };
    format!("{kind} {topic}/{}", from.index)
}
