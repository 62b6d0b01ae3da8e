//! Where the steps of an event stand in its trace (W3C Trace Context). The ids follow from what they
//! stand for, so that a retry hours later, in another process, knows the attempt before it without a
//! record of it: and an event that came without a trace is found by its id, which is its trace's.

use std::fmt;

use uuid::Uuid;

use crate::cloudevent::traceparent;
use crate::event::Event;
use crate::record::Delivery;

/// Random bits at the end of a trace's id that sampling goes by (W3C Trace Context Level 2 §5.1.2).
const RANDOM_BITS: u32 = 56;

/// The trace of something, and its own place there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TraceContext {
    /// Id of the trace.
    pub trace: u128,
    /// Id of the step.
    pub span: u64,
    /// Whether it is recorded.
    pub is_sampled: bool,
}

impl TraceContext {
    /// Reads a `traceparent`; `None` when it is none, or has ids that are not allowed.
    pub fn parse(text: &str) -> Option<Self> {
        let text = traceparent(text)?;
        let mut parts = text.split('-');
        let version = parts.next()?;
        let trace = u128::from_str_radix(parts.next()?, 16).ok()?;
        let span = u64::from_str_radix(parts.next()?, 16).ok()?;
        let flags = u8::from_str_radix(parts.next()?, 16).ok()?;
        let is_legal = version != "ff" && trace != 0 && span != 0;
        is_legal.then_some(Self {
            trace,
            span,
            is_sampled: flags & 1 == 1,
        })
    }
}

/// As `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace, span, .. } = self;
        write!(
            f,
            "00-{trace:032x}-{span:016x}-{:02x}",
            u8::from(self.is_sampled)
        )
    }
}

/// A step that is recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// Where it stands.
    pub context: TraceContext,
    /// The step that led to it.
    pub parent: Option<u64>,
    /// The step that it repeats.
    pub previous: Option<u64>,
}

/// The share of events that are recorded of those that come without a trace of their own.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
pub struct SampleRatio(f64);

impl SampleRatio {
    /// `None` unless it is from 0 to 1.
    pub fn new(ratio: f64) -> Option<Self> {
        (0.0..=1.0).contains(&ratio).then_some(Self(ratio))
    }

    fn takes(self, trace: u128) -> bool {
        let random = trace & ((1 << RANDOM_BITS) - 1);
        // 56 bits and a double's 53 differ by less than anybody can see.
        (random as f64) < self.0 * (1_u64 << RANDOM_BITS) as f64
    }
}

/// The acceptance of an event; `None` when it is not recorded. Who sent it has decided, if the event has
/// a trace.
pub fn of_acceptance(event: &Event, ratio: SampleRatio) -> Option<Step> {
    let sender = event.traceparent.as_deref().and_then(TraceContext::parse);
    let (trace, parent, is_sampled) = match sender {
        Some(sender) => (sender.trace, Some(sender.span), sender.is_sampled),
        None => (event.id.as_u128(), None, ratio.takes(event.id.as_u128())),
    };
    is_sampled.then(|| Step {
        context: TraceContext {
            trace,
            span: id(event.id, b"accept"),
            is_sampled,
        },
        parent,
        previous: None,
    })
}

/// The attempt that comes next; `None` when it is not recorded.
pub fn of_attempt(delivery: &Delivery) -> Option<Step> {
    let accepted = TraceContext::parse(delivery.event.traceparent.as_deref()?)?;
    accepted.is_sampled.then(|| Step {
        context: TraceContext {
            span: attempt_id(delivery, delivery.attempt),
            ..accepted
        },
        parent: Some(accepted.span),
        previous: delivery
            .attempt
            .checked_sub(1)
            .map(|before| attempt_id(delivery, before)),
    })
}

fn attempt_id(delivery: &Delivery, attempt: u8) -> u64 {
    let mut name = [0; 21];
    name[..16].copy_from_slice(delivery.webhook.as_bytes());
    name[16..20].copy_from_slice(&delivery.run.to_be_bytes());
    name[20] = attempt;
    id(delivery.event.id, &name)
}

/// Never zero: a version 5 UUID says so in its seventh byte.
fn id(event: Uuid, name: &[u8]) -> u64 {
    Uuid::new_v5(&event, name).as_u64_pair().0
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::event::{EventName, Source, TenantId};
    use crate::time::Timestamp;

    const SENDER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const ID: u128 = 0x0191_2345_6789_7abc_8def_0000_0000_0007;

    fn event(traceparent: Option<&str>) -> Event {
        Event {
            id: Uuid::from_u128(ID),
            name: EventName::parse("cdr.completed").unwrap(),
            time: Timestamp::EPOCH,
            tenant: TenantId::parse("acme").unwrap(),
            source: Source::parse("pbx").unwrap(),
            subject: None,
            data: Bytes::from_static(b"{}"),
            backfill: false,
            traceparent: traceparent.map(str::to_owned),
        }
    }

    fn delivery(traceparent: Option<&str>, run: u32, attempt: u8) -> Delivery {
        Delivery {
            event: Arc::new(event(traceparent)),
            webhook: Uuid::from_u128(1),
            attempt,
            run,
            accepted: Timestamp::EPOCH,
            deferrals: 0,
            replay: None,
        }
    }

    fn ratio(ratio: f64) -> SampleRatio {
        SampleRatio::new(ratio).unwrap()
    }

    #[test]
    fn a_traceparent_is_read_and_written() {
        let context = TraceContext::parse(SENDER).unwrap();
        assert_eq!(context.trace, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(context.span, 0x00f0_67aa_0ba9_02b7);
        assert!(context.is_sampled);
        assert_eq!(context.to_string(), SENDER);
        let unsampled = SENDER.replace("-01", "-02");
        let context = TraceContext::parse(&unsampled).unwrap();
        assert!(!context.is_sampled, "only the last flag");
        assert_eq!(context.to_string(), SENDER.replace("-01", "-00"));
        // Of a version of the future is read what is known of this one.
        assert!(TraceContext::parse(&SENDER.replacen("00-", "cc-", 1)).is_some());
        for none in [
            SENDER.replacen("00-", "ff-", 1),
            SENDER.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            SENDER.replace("00f067aa0ba902b7", &"0".repeat(16)),
            "nonsense".to_owned(),
        ] {
            assert_eq!(TraceContext::parse(&none), None, "{none}");
        }
    }

    #[test]
    fn who_sent_an_event_decides_whether_it_is_recorded() {
        let step = of_acceptance(&event(Some(SENDER)), ratio(0.0)).unwrap();
        let sender = TraceContext::parse(SENDER).unwrap();
        assert_eq!(
            (step.context.trace, step.parent),
            (sender.trace, Some(sender.span))
        );
        assert!(step.context.is_sampled && step.previous.is_none());
        assert_ne!(step.context.span, sender.span);
        let unsampled = SENDER.replace("-01", "-00");
        assert_eq!(of_acceptance(&event(Some(&unsampled)), ratio(1.0)), None);
    }

    #[test]
    fn without_a_trace_its_id_is_one_and_the_ratio_decides() {
        let step = of_acceptance(&event(None), ratio(1.0)).unwrap();
        assert_eq!((step.context.trace, step.parent), (ID, None));
        assert_eq!(of_acceptance(&event(None), ratio(0.0)), None);
        let taken = (0..1_000_u128).filter(|n| {
            let mut event = event(None);
            event.id = Uuid::new_v5(&event.id, &n.to_be_bytes());
            of_acceptance(&event, ratio(0.25)).is_some()
        });
        let taken = taken.count();
        assert!((200..300).contains(&taken), "{taken}");
        for wrong in [-0.1, 1.1, f64::NAN] {
            assert_eq!(SampleRatio::new(wrong), None);
        }
    }

    #[test]
    fn an_attempt_knows_the_one_before() {
        let accepted = of_acceptance(&event(None), ratio(1.0)).unwrap().context;
        let traceparent = accepted.to_string();
        let step = |run, attempt| of_attempt(&delivery(Some(&traceparent), run, attempt)).unwrap();
        let (first, second) = (step(0, 0), step(0, 1));
        assert_eq!(first.context.trace, accepted.trace);
        assert_eq!((first.parent, first.previous), (Some(accepted.span), None));
        assert_eq!(second.parent, Some(accepted.span));
        assert_eq!(second.previous, Some(first.context.span));
        let mut other = delivery(Some(&traceparent), 0, 0);
        other.webhook = Uuid::from_u128(2);
        let spans = [
            step(1, 0),
            step(0, 2),
            of_attempt(&other).unwrap(),
            first,
            second,
        ];
        let spans: HashSet<_> = spans.iter().map(|step| step.context.span).collect();
        assert_eq!(spans.len(), 5);
        assert!(!spans.contains(&accepted.span));
    }

    #[test]
    fn what_is_not_recorded_has_no_steps() {
        let unsampled = SENDER.replace("-01", "-00");
        assert_eq!(of_attempt(&delivery(None, 0, 1)), None);
        assert_eq!(of_attempt(&delivery(Some(&unsampled), 0, 1)), None);
        assert_eq!(of_attempt(&delivery(Some("nonsense"), 0, 1)), None);
    }
}
