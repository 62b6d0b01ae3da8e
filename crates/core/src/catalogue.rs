//! The catalogue of event types: type → family → preset, and the class that says how much a type
//! matters once it is late.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The topic an event type travels in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Family {
    /// `cdr.*`: call detail records. People bill by them.
    Cdr,
    /// `extension.*`, `agent.*`, `queue.*`: the states of extensions, agents and queues.
    Extension,
    /// Everything else: calls, messages, recordings, conferences, trunks, …
    Resource,
}

impl Family {
    /// All families.
    pub const ALL: [Self; 3] = [Self::Cdr, Self::Extension, Self::Resource];

    /// The family of an event type.
    pub fn of(event_type: &str) -> Self {
        match event_type.split('.').next() {
            Some("cdr") => Self::Cdr,
            Some("extension" | "agent" | "queue") => Self::Extension,
            _ => Self::Resource,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cdr => "cdr",
            Self::Extension => "extension",
            Self::Resource => "resource",
        })
    }
}

/// The two named webhooks that every tenant has (contract R2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// *CDR Events*: a call is completed or updated.
    Cdr,
    /// *Extension Events*: extension call status, presence, online/offline, queue status.
    Extension,
}

impl Preset {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Cdr, Self::Extension];

    /// The name of its webhook in URLs and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cdr => "cdr",
            Self::Extension => "extension",
        }
    }

    /// Its name on the portal.
    pub fn title(self) -> &'static str {
        match self {
            Self::Cdr => "CDR Events",
            Self::Extension => "Extension Events",
        }
    }

    /// The patterns it subscribes to, see [`crate::webhook::Pattern`].
    pub fn patterns(self) -> &'static [&'static str] {
        match self {
            Self::Cdr => &["cdr.*"],
            Self::Extension => &["extension.*", "agent.*", "queue.*"],
        }
    }

    /// The preset with this [`name`](Self::name).
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.name() == name)
    }
}

/// What a late event of a type is still worth.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// A fact to keep (a CDR, a changed configuration): full schedule, never merged.
    Record,
    /// Something happened (a call was answered): full schedule.
    Transition,
    /// How something is now (presence): a newer one may replace it.
    State,
}

/// One row of the catalogue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventType {
    /// `cdr.completed`
    pub name: &'static str,
    /// What a late one is worth.
    pub class: Class,
    /// For people who choose a subscription.
    pub summary: &'static str,
}

/// The types we know. Others are accepted and delivered just the same (contract R4).
pub const CATALOGUE: &[EventType] = &[
    row(
        "cdr.completed",
        Class::Record,
        "a call ended; its call detail record",
    ),
    row(
        "cdr.updated",
        Class::Record,
        "a call detail record was corrected or completed",
    ),
    row("call.started", Class::Transition, "a call began"),
    row(
        "call.updated",
        Class::Transition,
        "a call's details changed",
    ),
    row(
        "call.leg.invited",
        Class::Transition,
        "a destination was invited into a call",
    ),
    row("call.leg.ringing", Class::Transition, "a destination rings"),
    row(
        "call.leg.answered",
        Class::Transition,
        "a destination answered",
    ),
    row(
        "call.leg.no_answer",
        Class::Transition,
        "a destination did not answer",
    ),
    row(
        "call.leg.failed",
        Class::Transition,
        "a destination could not be reached",
    ),
    row(
        "call.leg.ended",
        Class::Transition,
        "a destination left the call",
    ),
    row("call.held", Class::Transition, "a call was put on hold"),
    row("call.resumed", Class::Transition, "a held call went on"),
    row(
        "call.transferred",
        Class::Transition,
        "a call was transferred",
    ),
    row(
        "call.bridged",
        Class::Transition,
        "two legs of a call were joined",
    ),
    row(
        "extension.created",
        Class::Record,
        "an extension was created",
    ),
    row(
        "extension.updated",
        Class::Record,
        "an extension was changed",
    ),
    row(
        "extension.deleted",
        Class::Record,
        "an extension was deleted",
    ),
    row(
        "extension.status_changed",
        Class::State,
        "status of extensions",
    ),
    row(
        "extension.registration_changed",
        Class::State,
        "an extension went online or offline",
    ),
    row(
        "extension.call_state_changed",
        Class::State,
        "an extension rings, talks or is idle",
    ),
    row(
        "extension.presence_changed",
        Class::State,
        "presence of an extension changed",
    ),
    row(
        "agent.status_changed",
        Class::State,
        "an agent became ready, busy, idle, …",
    ),
    row("queue.created", Class::Record, "a queue was created"),
    row("queue.updated", Class::Record, "a queue was changed"),
    row("queue.deleted", Class::Record, "a queue was deleted"),
    row(
        "queue.status_changed",
        Class::State,
        "callers and agents of a queue",
    ),
    row(
        "queue.caller_joined",
        Class::Transition,
        "a caller entered a queue",
    ),
    row(
        "queue.caller_answered",
        Class::Transition,
        "an agent answered a queued caller",
    ),
    row(
        "queue.caller_overflowed",
        Class::Transition,
        "a caller left a full queue",
    ),
    row(
        "queue.caller_abandoned",
        Class::Transition,
        "a caller hung up while queued",
    ),
    row(
        "queue.caller_callback_scheduled",
        Class::Transition,
        "a caller asked to be called back",
    ),
    row(
        "queue.sla_breached",
        Class::Transition,
        "callers wait longer than promised",
    ),
    row("recording.started", Class::Transition, "a recording began"),
    row(
        "recording.completed",
        Class::Record,
        "a recording can be fetched",
    ),
    row(
        "voicemail.received",
        Class::Record,
        "a voice message was left",
    ),
    row(
        "message.received",
        Class::Record,
        "an SMS, MMS or chat message came in",
    ),
    row(
        "message.delivered",
        Class::Transition,
        "a message reached its recipient",
    ),
    row(
        "message.failed",
        Class::Record,
        "a message could not be delivered",
    ),
    row(
        "conference.participant_joined",
        Class::Transition,
        "somebody joined a conference",
    ),
    row(
        "conference.participant_left",
        Class::Transition,
        "somebody left a conference",
    ),
    row(
        "trunk.status_changed",
        Class::State,
        "a trunk went up or down",
    ),
    row("device.registered", Class::State, "a device registered"),
    row(
        "webhook.failing",
        Class::Record,
        "a webhook's error rate is high",
    ),
    row(
        "webhook.disabled",
        Class::Record,
        "a webhook was disabled for its error rate",
    ),
    row(
        "webhook.recovered",
        Class::Record,
        "a failing webhook works again",
    ),
    row(
        "webhook.test",
        Class::Transition,
        "sent on request, to test one webhook",
    ),
    row(
        "source.gap",
        Class::Record,
        "a source of events missed some",
    ),
];

const fn row(name: &'static str, class: Class, summary: &'static str) -> EventType {
    EventType {
        name,
        class,
        summary,
    }
}

/// The class of an event type; types that the catalogue does not have are transitions: never
/// merged, and nothing is assumed about them.
pub fn class_of(event_type: &str) -> Class {
    CATALOGUE
        .iter()
        .find(|known| known.name == event_type)
        .map_or(Class::Transition, |known| known.class)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventName;
    use crate::webhook::Pattern;

    #[test]
    fn catalogue_names_are_legal_and_unique() {
        for (index, known) in CATALOGUE.iter().enumerate() {
            EventName::parse(known.name).unwrap();
            assert!(
                CATALOGUE[..index]
                    .iter()
                    .all(|other| other.name != known.name)
            );
        }
    }

    #[test]
    fn presets_cover_their_families_exactly() {
        for known in CATALOGUE {
            for (preset, family) in [
                (Preset::Cdr, Family::Cdr),
                (Preset::Extension, Family::Extension),
            ] {
                let matches = preset
                    .patterns()
                    .iter()
                    .any(|pattern| Pattern::parse(pattern).unwrap().matches(known.name));
                assert_eq!(matches, Family::of(known.name) == family, "{}", known.name);
            }
        }
    }

    #[test]
    fn presets_are_named_as_the_portal_and_urls_name_them() {
        let named = Preset::ALL.map(|preset| (preset.name(), preset.title()));
        let expected = [("cdr", "CDR Events"), ("extension", "Extension Events")];
        assert_eq!(named, expected);
        assert_eq!(Preset::find("extension"), Some(Preset::Extension));
        assert_eq!(Preset::find("CDR Events"), None);
    }

    #[test]
    fn unknown_types_are_resources() {
        assert_eq!(Family::of("fax.received"), Family::Resource);
        assert_eq!(Family::of("cdrs.completed"), Family::Resource);
        assert_eq!(Family::of(""), Family::Resource);
        assert_eq!(class_of("fax.received"), Class::Transition);
    }
}
