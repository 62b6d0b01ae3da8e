//! `…/webhooks/{webhook}/parked`: what ended without success; and `/v1/parked`, which also has what
//! belongs to no webhook that exists.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use ringback_core::log::{Log, Reader, Record};
use ringback_core::record::{Delivery, Reason, decode_delivery, header};
use ringback_core::redaction::{HIDDEN, Redaction};
use ringback_core::time::Timestamp;
use ringback_core::topics::{Partition, Role};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::problem::Problem;
use crate::projection::{Entry, Query, pages, place};
use crate::reading::{BUDGET, Extent, LIMIT, LIMIT_MAX, newest_first};
use crate::request::Parameters;
use crate::schema::Moment;
use crate::source::{ProjectionSource, Source};
use crate::state::{Admin, AdminState, key_of};

/// A replay is asked for after its delivery was parked, but clocks of brokers differ a little.
pub(crate) const CLOCKS_DIFFER: Duration = Duration::from_secs(60);
/// Bytes of a value and of a header that are shown of a record that cannot be read.
const PREVIEW_BYTES: usize = 1024;
/// Headers that are shown of such a record.
const HEADERS_MAX: usize = 32;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListParameters {
    limit: Option<usize>,
    cursor: Option<String>,
    event: Option<Uuid>,
    reason: Option<String>,
    #[schemars(with = "Option<Moment>")]
    since: Option<Timestamp>,
    /// Only for `/v1/parked`: the deliveries of this webhook, which may have been removed.
    webhook: Option<Uuid>,
}

/// A delivery as it was parked, read from the log.
struct Parked {
    delivery: Delivery,
    reason: Option<Reason>,
    at: Timestamp,
    view: Value,
}

pub(crate) async fn list<L: Log>(
    State(state): State<AdminState<L>>,
    Path((tenant, name)): Path<(String, String)>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<Value>, Problem> {
    if parameters.webhook.is_some() {
        let detail = "the webhook is in the path already; leave the parameter out";
        return Err(Problem::invalid("invalid_parameter", detail).with("field", "webhook"));
    }
    state
        .run(move |admin| {
            let webhook = admin.webhook(&tenant, &name)?.value.id;
            list_of_webhook(admin, webhook, &parameters).map(Json)
        })
        .await
}

/// The operator's view: of a webhook by its id, even if it was removed; otherwise what has no
/// readable webhook at all.
pub(crate) async fn list_all<L: Log>(
    State(state): State<AdminState<L>>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<Value>, Problem> {
    state
        .run(move |admin| match parameters.webhook {
            Some(webhook) => list_of_webhook(admin, webhook, &parameters).map(Json),
            None => list_unreadable(admin, &parameters).map(Json),
        })
        .await
}

fn list_of_webhook<L: Log>(
    admin: &Admin<L>,
    webhook: Uuid,
    parameters: &ListParameters,
) -> Result<Value, Problem> {
    let reason = parameters.reason.as_deref().map(find_reason).transpose()?;
    match admin.source(parameters.cursor.as_deref())? {
        Source::Log => list_from_log(admin, webhook, reason, parameters),
        Source::Projection(source) => {
            list_from_projection(admin, &source, webhook, reason, parameters)
        }
    }
}

fn list_from_projection<L: Log>(
    admin: &Admin<L>,
    source: &ProjectionSource<'_>,
    webhook: Uuid,
    reason: Option<Reason>,
    parameters: &ListParameters,
) -> Result<Value, Problem> {
    let query = Query {
        webhook,
        event: parameters.event,
        since: parameters.since,
        below: source.below,
        limit: parameters.extent().limit,
    };
    let (page, runs, counts) = source.read(|session| {
        let page = pages::parked(session, &query, reason.map(Reason::as_str))?;
        let events: Vec<_> = page.entries.iter().map(|entry| entry.event).collect();
        let runs = pages::runs(session, webhook, &events)?;
        let counts = match query.below {
            None => Some(pages::parked_counts(session, webhook)?),
            Some(_) => None,
        };
        Ok((page, runs, counts))
    })?;
    let mut entries = Vec::with_capacity(page.entries.len());
    for entry in &page.entries {
        let mut view: Value = serde_json::from_str(&entry.record).unwrap_or_default();
        redact(&admin.redaction, &mut view, &REDACTED);
        let latest = runs.get(&entry.event).copied().unwrap_or_default();
        view["replayed"] = (latest > entry.number).into();
        if parameters.event.is_some() {
            // It is not in the projection, but the log may still have it.
            view["data"] = data_in_log(admin, entry)?;
        }
        entries.push(view);
    }
    let mut answer = json!({
        "parked": entries,
        "cursor": page.cursor.map(|cursor| cursor.to_string()),
        "source": "projection",
        "as_of": source.as_of,
    });
    if let Some(counts) = counts {
        answer["counts"] = json!(counts);
    }
    Ok(answer)
}

/// The data of a parked delivery, or null when the log has dropped it.
fn data_in_log<L: Log>(admin: &Admin<L>, entry: &Entry) -> Result<Value, Problem> {
    let (index, offset) = place(entry.id());
    let topic = admin.topic(Role::Parked)?;
    let mut data = Value::Null;
    let mut reader = admin.log.reader()?;
    reader.read(
        Partition { topic, index },
        offset..offset + 1,
        &mut |record| {
            if let Ok(delivery) = decode_delivery(&record)
                && (delivery.event.id, delivery.webhook) == (entry.event, entry.webhook)
            {
                data = data_view(admin, &delivery);
            }
        },
    )?;
    Ok(data)
}

fn list_from_log<L: Log>(
    admin: &Admin<L>,
    webhook: Uuid,
    reason: Option<Reason>,
    parameters: &ListParameters,
) -> Result<Value, Problem> {
    let partition = admin.partition(Role::Parked, webhook)?;
    let key = key_of(webhook);
    let mut reader = admin.log.reader()?;
    let erased = admin.erasures()?;
    let cursor = parameters.cursor.as_deref();
    let mut unreadable = 0_u64;
    let page = newest_first(
        &mut reader,
        &[partition],
        cursor,
        &parameters.extent(),
        |record| {
            if record.key != Some(key.as_bytes()) {
                return None;
            }
            let Ok(delivery) = decode_delivery(record) else {
                unreadable += 1;
                return None;
            };
            let event = &delivery.event;
            if erased.cover(&event.tenant, event.subject.as_ref(), record.appended) {
                return None;
            }
            let parked = Parked {
                view: parked_view(record, &delivery),
                delivery,
                reason: reason_of(record),
                at: record.appended,
            };
            let of_event = parameters
                .event
                .is_none_or(|event| event == parked.delivery.event.id);
            (of_event && (reason.is_none() || reason == parked.reason)).then_some(parked)
        },
    )?;
    let replays = admin.partition(Role::Replay, webhook)?;
    let (runs, complete) = later_runs(&mut reader, replays, &key, &page.entries)?;
    // The data may be large: it is shown to whoever asks for one event.
    let with_data = parameters.event.is_some();
    let entries: Vec<_> = page
        .entries
        .iter()
        .map(|parked| parked.view(admin, &runs, complete, with_data))
        .collect();
    Ok(json!({
        "parked": entries,
        "cursor": page.cursor,
        "scanned": page.scanned,
        "unreadable": unreadable,
        "source": "log",
        "as_of": admin.clock.now(),
    }))
}

/// Records that could not even be read as a delivery: they have no key, so they are anywhere.
fn list_unreadable<L: Log>(
    admin: &Admin<L>,
    parameters: &ListParameters,
) -> Result<Value, Problem> {
    let reason = parameters.reason.as_deref().map(find_reason).transpose()?;
    let topic = admin.topic(Role::Parked)?;
    let partitions: Vec<_> = admin.log.topics().partitions(topic).collect();
    let event = parameters
        .event
        .map(|event| event.as_hyphenated().to_string());
    let mut reader = admin.log.reader()?;
    let cursor = parameters.cursor.as_deref();
    let extent = parameters.extent();
    let page = newest_first(&mut reader, &partitions, cursor, &extent, |record| {
        let of_event = event
            .as_ref()
            .is_none_or(|id| record.header(header::ID) == Some(id.as_bytes()));
        let of_reason = reason.is_none() || reason == reason_of(record);
        (record.key.is_none() && of_event && of_reason).then(|| view_raw(&admin.redaction, record))
    })?;
    Ok(json!({ "parked": page.entries, "cursor": page.cursor, "scanned": page.scanned }))
}

impl ListParameters {
    fn extent(&self) -> Extent {
        Extent {
            limit: self.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX),
            budget: BUDGET,
            since: self.since,
        }
    }
}

impl Parked {
    fn view<L: Log>(
        &self,
        admin: &Admin<L>,
        runs: &HashMap<Uuid, u32>,
        complete: bool,
        with_data: bool,
    ) -> Value {
        let mut view = self.view.clone();
        redact(&admin.redaction, &mut view, &REDACTED);
        view["replayed"] = match runs.get(&self.delivery.event.id) {
            Some(latest) if *latest > self.delivery.run => true.into(),
            // Not found is no proof when not everything was looked at.
            _ if complete => false.into(),
            _ => Value::Null,
        };
        if with_data {
            view["data"] = data_view(admin, &self.delivery);
        }
        view
    }
}

/// A parked delivery as it is shown, without its data.
pub(crate) fn parked_view(record: &Record<'_>, delivery: &Delivery) -> Value {
    let event = &delivery.event;
    json!({
        "event": event.id,
        "type": event.name,
        "tenant": event.tenant,
        "source": event.source,
        "subject": event.subject,
        "time": event.time,
        "webhook": delivery.webhook,
        "run": delivery.run,
        "attempts": delivery.attempt,
        "accepted": delivery.accepted,
        "parked": record.appended,
        "reason": reason_of(record),
        "detail": text(record, header::DETAIL),
        "data_bytes": event.data.len(),
    })
}

/// Members of [`parked_view`] that may say something that is not to be shown.
pub(crate) const REDACTED: [&str; 2] = ["subject", "detail"];

/// Takes out of these members what is not to be shown.
pub(crate) fn redact(redaction: &Redaction, view: &mut Value, members: &[&str]) {
    for member in members {
        if let Some(Value::String(text)) = view.get_mut(member)
            && let Cow::Owned(masked) = redaction.text(text)
        {
            *text = masked;
        }
    }
}

fn data_view<L: Log>(admin: &Admin<L>, delivery: &Delivery) -> Value {
    let text = String::from_utf8_lossy(&delivery.event.data);
    let text = admin.redaction.text(&text);
    serde_json::from_str(&text).unwrap_or_else(|_| text.into())
}

/// The highest run of each of these events in `replay`, and whether everything was looked at.
fn later_runs(
    reader: &mut impl Reader,
    partition: Partition,
    key: &str,
    parked: &[Parked],
) -> Result<(HashMap<Uuid, u32>, bool), Problem> {
    let mut runs: HashMap<Uuid, u32> = parked
        .iter()
        .map(|parked| (parked.delivery.event.id, 0))
        .collect();
    let Some(oldest) = parked.iter().map(|parked| parked.at).min() else {
        return Ok((runs, true));
    };
    let complete = raise_runs(reader, partition, key, oldest, BUDGET, &mut runs)?;
    Ok((runs, complete))
}

/// Blocking: raises the runs of these events to the highest in `replay`, looking for deliveries that
/// were parked at `oldest` or later. Whether the budget of offsets was enough.
pub(crate) fn raise_runs(
    reader: &mut impl Reader,
    partition: Partition,
    key: &str,
    oldest: Timestamp,
    budget: u64,
    runs: &mut HashMap<Uuid, u32>,
) -> Result<bool, Problem> {
    let extent = Extent {
        limit: 1,
        budget,
        since: Some(oldest - CLOCKS_DIFFER),
    };
    let page = newest_first(reader, &[partition], None, &extent, |record| {
        if record.key == Some(key.as_bytes())
            && let Some((event, run)) = event_and_run(record)
            && let Some(highest) = runs.get_mut(&event)
        {
            *highest = run.max(*highest);
        }
        None::<()>
    })?;
    Ok(page.cursor.is_none())
}

/// What identifies a delivery of one webhook, without copying the rest of the record.
pub(crate) fn event_and_run(record: &Record<'_>) -> Option<(Uuid, u32)> {
    let text = |name| std::str::from_utf8(record.header(name)?).ok();
    let event = Uuid::try_parse(text(header::ID)?).ok()?;
    Some((event, text(header::RUN)?.parse().ok()?))
}

/// Why a record was parked.
pub(crate) fn reason_of(record: &Record<'_>) -> Option<Reason> {
    Reason::find(std::str::from_utf8(record.header(header::REASON)?).ok()?)
}

/// The reason with this name.
pub(crate) fn find_reason(name: &str) -> Result<Reason, Problem> {
    Reason::find(name).ok_or_else(|| {
        let names: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        let detail = format!("the reason is one of {}", names.join(", "));
        Problem::invalid("invalid_parameter", detail).with("field", "reason")
    })
}

fn text(record: &Record<'_>, name: &str) -> Option<String> {
    record.header(name).map(preview)
}

fn view_raw(redaction: &Redaction, record: &Record<'_>) -> Value {
    let shown = |bytes: &[u8]| redaction.text(&preview(bytes)).into_owned();
    let ours = |name: &str| matches!(name, header::REASON | header::DETAIL);
    let headers: serde_json::Map<_, _> = record
        .headers
        .iter()
        .filter(|header| !ours(header.name))
        .take(HEADERS_MAX)
        .map(|header| {
            let value = match redaction.hides_header(header.name) {
                true => HIDDEN.to_owned(),
                false => shown(header.value),
            };
            (preview(header.name.as_bytes()), value.into())
        })
        .collect();
    json!({
        "partition": record.partition.index,
        "offset": record.offset,
        "parked": record.appended,
        "reason": reason_of(record),
        "detail": record.header(header::DETAIL).map(shown),
        "headers": headers,
        "data_bytes": record.value.map(<[u8]>::len),
        "data_preview": record.value.map(shown),
    })
}

/// The beginning as text; what is not UTF-8 is replaced.
fn preview(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(PREVIEW_BYTES)]).into_owned()
}
