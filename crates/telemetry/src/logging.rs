//! Structured logs on standard error.

use std::io::IsTerminal as _;

use ringback_core::event::Event;
use ringback_core::trace::TraceContext;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::{Config, Format};

/// Starts logging for the process. The error says what is wrong with the filter.
pub fn init_logging(config: &Config) -> Result<(), String> {
    let filter = filter(&config.log).map_err(|problem| format!("telemetry.log: {problem}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match config.format {
        Format::Text => builder
            .with_ansi(std::io::stderr().is_terminal())
            .try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| format!("starting the log output: {error}"))
}

/// The id of the trace that an event is in, as log lines have it.
pub fn trace_id(event: &Event) -> Option<String> {
    let context = TraceContext::parse(event.traceparent.as_deref()?)?;
    Some(format!("{:032x}", context.trace))
}

/// The filter that a text means.
pub(crate) fn filter(text: &str) -> Result<EnvFilter, String> {
    let wrong = |why: &dyn std::fmt::Display| {
        format!(
            "{text:?} is not a filter such as \"info\" or \"info,ringback_dispatcher=debug\": {why}"
        )
    };
    let directives: Vec<_> = text.split(',').map(str::trim).collect();
    for directive in &directives {
        // The parser would take `inof` for the name of a module, and log nothing but its traces.
        let level = directive.rsplit('=').next().unwrap_or_default();
        if level.is_empty() || level.parse::<LevelFilter>().is_err() {
            return Err(wrong(&format_args!(
                "{level:?} is none of off, error, warn, info, debug, trace"
            )));
        }
    }
    EnvFilter::try_new(directives.join(",")).map_err(|error| wrong(&error))
}
