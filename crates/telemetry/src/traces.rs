//! Traces: spans of what was recorded anyway, sent to an OpenTelemetry collector (OTLP over HTTP). Where
//! a span stands in its trace, `ringback_core::trace` knows.
//!
//! Like the log output this is one for the process. Nothing waits for it: spans that the collector does
//! not take in time are dropped, and counted.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::InstrumentationScope;
pub use opentelemetry::KeyValue;
pub use opentelemetry::trace::SpanKind;
use opentelemetry::trace::{Link, SpanContext, SpanId, Status, TraceFlags, TraceId, TraceState};
use opentelemetry_otlp::{SpanExporter as Otlp, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanExporter, SpanLinks,
    SpanProcessor,
};
use parking_lot::RwLock;
use ringback_core::event::Event;
use ringback_core::time::Timestamp;
use ringback_core::trace::{SampleRatio, Step, of_acceptance};

use crate::config::Traces;
use crate::metrics::{Counter, Metrics};

/// Spans that wait for the collector; about 1 KiB each.
const QUEUE_MAX: usize = 8_192;
/// Spans of one request.
const BATCH_MAX: usize = 512;
/// How long one request may take, and how long the end waits for the last.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often what there is is sent.
const SEND_EVERY: Duration = Duration::from_secs(1);
/// Where a collector takes traces (OTLP/HTTP).
const PATH: &str = "/v1/traces";

static RECORDER: RwLock<Option<Arc<Recorder>>> = RwLock::new(None);

struct Recorder {
    processor: BatchSpanProcessor,
    ratio: SampleRatio,
    scope: InstrumentationScope,
    metrics: Metrics,
}

/// One step of a trace that has ended.
pub struct Span {
    /// What was done, with few values.
    pub name: Cow<'static, str>,
    /// On which side of what.
    pub kind: SpanKind,
    /// Where it stands.
    pub step: Step,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// What else is known of it. Never a secret, nor what a call was about.
    pub attributes: Vec<KeyValue>,
    /// What went wrong.
    pub error: Option<String>,
}

/// Sends what waits, and ends the recording, when it is dropped. It blocks.
#[must_use]
pub struct Recording(Option<Arc<Recorder>>);

impl Drop for Recording {
    fn drop(&mut self) {
        let Some(recorder) = self.0.take() else {
            return;
        };
        RECORDER.write().take();
        if let Err(error) = recorder.processor.shutdown_with_timeout(TIMEOUT) {
            tracing::warn!(%error, "the last spans may not have reached the collector");
        }
    }
}

/// Records spans from now on, if that is configured. `service` is what their traces call this process,
/// `instance` which of them it is.
pub fn record(
    config: &Traces,
    service: &str,
    instance: &str,
    metrics: Metrics,
) -> Result<Recording, String> {
    let Some(endpoint) = &config.endpoint else {
        return Ok(Recording(None));
    };
    let ratio = SampleRatio::new(config.sample_ratio).ok_or("telemetry.traces.sample_ratio")?;
    let exporter = Otlp::builder()
        .with_http()
        .with_endpoint(url(endpoint))
        .with_timeout(TIMEOUT)
        .build()
        .map_err(|error| format!("telemetry.traces.endpoint {endpoint}: {error}"))?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE_MAX)
        .with_max_export_batch_size(BATCH_MAX)
        .with_scheduled_delay(SEND_EVERY)
        .build();
    let watched = Watched {
        exporter,
        metrics: metrics.clone(),
        is_failing: AtomicBool::new(false),
    };
    let mut processor = BatchSpanProcessor::builder(watched)
        .with_batch_config(batches)
        .build();
    let resource = Resource::builder()
        .with_service_name(service.to_owned())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", instance.to_owned()))
        .build();
    processor.set_resource(&resource);
    let recorder = Arc::new(Recorder {
        processor,
        ratio,
        scope: InstrumentationScope::builder("ringback").build(),
        metrics,
    });
    *RECORDER.write() = Some(recorder.clone());
    Ok(Recording(Some(recorder)))
}

/// The collector's URL for traces.
fn url(endpoint: &str) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    match endpoint.ends_with(PATH) {
        true => endpoint.to_owned(),
        false => format!("{endpoint}{PATH}"),
    }
}

/// Whether spans are recorded.
pub fn is_on() -> bool {
    RECORDER.read().is_some()
}

/// Records a span.
pub fn ended(span: Span) {
    let Some(recorder) = RECORDER.read().clone() else {
        return;
    };
    let own = span.step.context;
    let of = |id: u64| {
        SpanContext::new(
            TraceId::from(own.trace),
            SpanId::from(id),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        )
    };
    let mut links = SpanLinks::default();
    if let Some(previous) = span.step.previous {
        links.links.push(Link::with_context(of(previous)));
    }
    recorder.metrics.inc(Counter::Spans, &["made"]);
    recorder.processor.on_end(SpanData {
        span_context: of(own.span),
        parent_span_id: span.step.parent.map_or(SpanId::INVALID, SpanId::from),
        parent_span_is_remote: span.step.parent.is_some(),
        span_kind: span.kind,
        name: span.name,
        start_time: system_time(span.started),
        end_time: system_time(span.ended),
        attributes: span.attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links,
        status: span.error.map_or(Status::Unset, Status::error),
        instrumentation_scope: recorder.scope.clone(),
    });
}

fn system_time(time: Timestamp) -> SystemTime {
    let micros = u64::try_from(time.as_micros()).unwrap_or_default();
    UNIX_EPOCH + Duration::from_micros(micros)
}

/// An event on its way into the log, which is recorded.
#[derive(Clone, Copy, Debug)]
pub struct Accepting {
    step: Step,
    started: Timestamp,
}

/// Gives an event its place in its trace, if it is recorded. `now` is when it came.
pub fn accepting(event: &mut Event, now: impl FnOnce() -> Timestamp) -> Option<Accepting> {
    let recorder = RECORDER.read().clone()?;
    let step = of_acceptance(event, recorder.ratio)?;
    event.traceparent = Some(step.context.to_string());
    Some(Accepting {
        step,
        started: now(),
    })
}

impl Accepting {
    /// The log has acknowledged it, or refused it.
    pub fn ended(self, event: &Event, ended: Timestamp, error: Option<String>) {
        self::ended(Span {
            name: Cow::Borrowed("accept"),
            kind: SpanKind::Producer,
            step: self.step,
            started: self.started,
            ended,
            attributes: of_event(event),
            error,
        });
    }
}

/// What spans say of an event: whose and which, not what is in it.
pub fn of_event(event: &Event) -> Vec<KeyValue> {
    vec![
        KeyValue::new("cloudevents.event_id", event.id.as_hyphenated().to_string()),
        KeyValue::new("cloudevents.event_type", event.name.to_string()),
        KeyValue::new("cloudevents.event_source", event.source.to_string()),
        KeyValue::new("ringback.tenant", event.tenant.to_string()),
    ]
}

/// Counts what the collector took, and says once when it begins and when it ceases to fail.
struct Watched<E> {
    exporter: E,
    metrics: Metrics,
    is_failing: AtomicBool,
}

impl<E: fmt::Debug> fmt::Debug for Watched<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.exporter.fmt(f)
    }
}

impl<E: SpanExporter> SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let ended = self.exporter.export(batch).await;
        let was_failing = self.is_failing.swap(ended.is_err(), Ordering::Relaxed);
        match &ended {
            Ok(()) => {
                self.metrics.add(Counter::Spans, &["exported"], spans);
                if was_failing {
                    tracing::info!("the collector takes spans again");
                }
            }
            Err(error) => {
                self.metrics.add(Counter::Spans, &["failed"], spans);
                if !was_failing {
                    tracing::warn!(%error, "the collector does not take spans (telemetry.traces); they are dropped until it does");
                }
            }
        }
        ended
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_named_with_or_without_the_path() {
        for endpoint in ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"] {
            assert_eq!(url(endpoint), "http://c:4318/v1/traces");
        }
        assert_eq!(url("https://c/otlp"), "https://c/otlp/v1/traces");
    }
}
