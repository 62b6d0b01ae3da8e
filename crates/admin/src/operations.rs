//! `/v1/operations`: what operators look at: webhooks that fail, how far the pipeline is behind, and who
//! does the work.

use axum::Json;
use axum::extract::State;
use ringback_core::log::{GroupView, Log, LogError, Offset, Reader};
use ringback_core::time::Timestamp;
use ringback_core::topics::{Partition, Role, TopicId, group};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::health::Standing;
use crate::problem::Problem;
use crate::reading::LIMIT_MAX;
use crate::request::Parameters;
use crate::schema::Moment;
use crate::state::{Admin, AdminState};

/// Webhooks that are shown when the request does not say.
const WORST: usize = 50;
/// Where an offset has no record (the log's own marks), the next ones are looked at.
const LOOK_AHEAD: Offset = 64;
/// Groups that work a topic off, by the component that is in them.
const GROUPS: [(&str, &str); 8] = [
    (group::CDR_EVENTS, "dispatcher"),
    (group::EXTENSION_EVENTS, "dispatcher"),
    (group::RESOURCE_EVENTS, "dispatcher"),
    (group::SYSTEM_EVENTS, "dispatcher"),
    (group::RETRIES, "dispatcher"),
    (group::DEFERRALS, "dispatcher"),
    (group::ATTEMPTS, "metrics"),
    (group::RAW, "producer"),
];

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhooksParameters {
    /// At most so many, 50 when it is not said.
    limit: Option<usize>,
}

/// The webhooks of all tenants that need somebody's attention.
#[derive(Serialize, JsonSchema)]
pub(crate) struct WorstWebhooks {
    counts: StandingCounts,
    /// Disabled first, then failing, then paused; within these, those that are so for longest first.
    webhooks: Vec<WorstWebhook>,
}

/// How many webhooks there are in each state.
#[derive(Serialize, JsonSchema, Default)]
struct StandingCounts {
    webhooks: u64,
    disabled: u64,
    failing: u64,
    paused: u64,
}

#[derive(Serialize, JsonSchema)]
struct WorstWebhook {
    id: Uuid,
    tenant: String,
    name: String,
    state: Standing,
    #[schemars(with = "Option<Moment>")]
    since: Option<Timestamp>,
    /// Why, for people.
    reason: Option<String>,
}

pub(crate) async fn webhooks<L: Log>(
    State(state): State<AdminState<L>>,
    Parameters(parameters): Parameters<WebhooksParameters>,
) -> Result<Json<WorstWebhooks>, Problem> {
    let limit = parameters.limit.unwrap_or(WORST).clamp(1, LIMIT_MAX);
    state.run(move |admin| worst(admin, limit)).await.map(Json)
}

fn worst<L: Log>(admin: &Admin<L>, limit: usize) -> Result<WorstWebhooks, Problem> {
    let directory = admin.directory()?;
    let mut counts = StandingCounts::default();
    let mut found = Vec::new();
    for tenant in directory.tenants() {
        for webhook in directory.webhooks(&tenant.value.id) {
            let webhook = &webhook.value;
            let verdict = directory.health(webhook);
            let state = Standing::of(webhook, verdict);
            counts.webhooks += 1;
            let (count, since) = match state {
                Standing::Healthy => continue,
                Standing::Disabled => (&mut counts.disabled, verdict.map(|v| v.since)),
                Standing::Failing => (&mut counts.failing, verdict.map(|v| v.since)),
                Standing::Paused => (&mut counts.paused, directory.off_since(webhook.id)),
            };
            *count += 1;
            found.push((state, since, webhook));
        }
    }
    found.sort_by_key(|(state, since, webhook)| (*state, *since, webhook.id));
    let webhooks = found
        .into_iter()
        .take(limit)
        .map(|(state, since, webhook)| {
            let verdict = directory
                .health(webhook)
                .filter(|_| state != Standing::Paused);
            WorstWebhook {
                id: webhook.id,
                tenant: webhook.tenant.to_string(),
                name: webhook.name.to_string(),
                state,
                since,
                reason: verdict.map(|verdict| verdict.reason.clone()),
            }
        });
    Ok(WorstWebhooks {
        webhooks: webhooks.collect(),
        counts,
    })
}

/// How far each stage is behind.
#[derive(Serialize, JsonSchema)]
pub(crate) struct LagView {
    stages: Vec<StageLag>,
    #[schemars(with = "Moment")]
    as_of: Timestamp,
}

/// A topic and the group that works it off.
#[derive(Serialize, JsonSchema)]
struct StageLag {
    topic: String,
    group: String,
    /// Of the group, over all its topics.
    members: u64,
    /// Records that are not worked off. A few that are finished may count, until those before them are.
    records: u64,
    /// Age of the oldest of them; null when there is none.
    oldest_seconds: Option<u64>,
    /// How long records wait here on purpose.
    delay_seconds: u64,
}

pub(crate) async fn lag<L: Log>(
    State(state): State<AdminState<L>>,
) -> Result<Json<LagView>, Problem> {
    state.run(lag_now).await.map(Json)
}

fn lag_now<L: Log>(admin: &Admin<L>) -> Result<LagView, Problem> {
    let now = admin.clock.now();
    let mut reader = admin.log.reader()?;
    let mut stages = Vec::new();
    for (name, _) in GROUPS {
        let topics = topics_of(admin, name);
        if topics.is_empty() {
            continue;
        }
        let view = admin.log.group(name, &topics)?;
        for topic in topics {
            let spec = admin.log.topics().spec(topic);
            let (mut records, mut oldest) = (0, None::<Timestamp>);
            for partition in admin.log.topics().partitions(topic) {
                let (left, first) = behind(&mut reader, partition, &view)?;
                records += left;
                oldest = [oldest, first].into_iter().flatten().min();
            }
            stages.push(StageLag {
                topic: spec.name.clone(),
                group: name.to_owned(),
                members: view.members.len() as u64,
                records,
                oldest_seconds: oldest.map(|oldest| now.since(oldest).as_secs()),
                delay_seconds: admin.log.topics().delay(topic).as_secs(),
            });
        }
    }
    Ok(LagView { stages, as_of: now })
}

/// How many offsets of a partition a group has before it, and when the first of them was appended.
fn behind(
    reader: &mut impl Reader,
    partition: Partition,
    view: &GroupView,
) -> Result<(u64, Option<Timestamp>), LogError> {
    let bounds = reader.bounds(partition)?;
    let from = next_of(partition, view)
        .unwrap_or(bounds.start)
        .max(bounds.start);
    let left = u64::try_from(bounds.end - from).unwrap_or(0);
    let mut first = None;
    if left > 0 {
        let to = bounds.end.min(from.saturating_add(LOOK_AHEAD));
        // One is wanted, and mostly the first is it.
        for (from, to) in [(from, from + 1), (from + 1, to)] {
            if first.is_none() && from < to {
                reader.read(partition, from..to, &mut |record| {
                    first.get_or_insert(record.appended);
                })?;
            }
        }
    }
    Ok((left, first))
}

fn next_of(partition: Partition, view: &GroupView) -> Option<Offset> {
    let mut committed = view.committed.iter();
    let (_, next) = committed.find(|(of, _)| *of == partition)?;
    Some(*next)
}

fn topics_of<L: Log>(admin: &Admin<L>, group: &str) -> Vec<TopicId> {
    let topics = admin.log.topics().iter();
    topics
        .filter(|(_, spec)| spec.role.group() == Some(group))
        .map(|(topic, _)| topic)
        .collect()
}

/// Who does the work.
#[derive(Serialize, JsonSchema)]
pub(crate) struct MembersView {
    groups: Vec<GroupMembers>,
}

/// A consumer group. A dispatcher is a member of three, with a member id in each.
#[derive(Serialize, JsonSchema)]
struct GroupMembers {
    group: String,
    /// `dispatcher`, `metrics` or `producer`.
    component: String,
    members: Vec<MemberView>,
    /// Partitions that nobody owns: nothing of them is worked off. While members come and go there are
    /// some for a moment.
    unowned: u64,
}

#[derive(Serialize, JsonSchema)]
struct MemberView {
    id: String,
    host: String,
    partitions: Vec<TopicPartitions>,
}

#[derive(Serialize, JsonSchema)]
struct TopicPartitions {
    topic: String,
    partitions: Vec<u32>,
}

pub(crate) async fn dispatchers<L: Log>(
    State(state): State<AdminState<L>>,
) -> Result<Json<MembersView>, Problem> {
    state.run(members_now).await.map(Json)
}

fn members_now<L: Log>(admin: &Admin<L>) -> Result<MembersView, Problem> {
    let mut groups = Vec::new();
    for (name, component) in GROUPS {
        let topics = topics_of(admin, name);
        if topics.is_empty() {
            continue;
        }
        let view = admin.log.group(name, &topics)?;
        let all: usize = topics
            .iter()
            .map(|topic| admin.log.topics().partitions(*topic).count())
            .sum();
        let owned: usize = view
            .members
            .iter()
            .map(|member| member.partitions.len())
            .sum();
        let members = view.members.into_iter().map(|member| {
            let of = |topic: &TopicId| {
                let mut partitions: Vec<_> = member
                    .partitions
                    .iter()
                    .filter(|partition| partition.topic == *topic)
                    .map(|partition| partition.index)
                    .collect();
                partitions.sort_unstable();
                (!partitions.is_empty()).then(|| TopicPartitions {
                    topic: admin.log.topics().spec(*topic).name.clone(),
                    partitions,
                })
            };
            MemberView {
                partitions: topics.iter().filter_map(of).collect(),
                id: member.id,
                host: member.host,
            }
        });
        groups.push(GroupMembers {
            group: name.to_owned(),
            component: component.to_owned(),
            members: members.collect(),
            unowned: all.saturating_sub(owned) as u64,
        });
    }
    Ok(MembersView { groups })
}

/// What the log has, partition by partition.
#[derive(Serialize, JsonSchema)]
pub(crate) struct PartitionsView {
    topics: Vec<TopicView>,
}

#[derive(Serialize, JsonSchema)]
struct TopicView {
    topic: String,
    /// The group that works it off, if one does.
    group: Option<String>,
    partitions: Vec<PartitionView>,
}

#[derive(Serialize, JsonSchema)]
struct PartitionView {
    index: u32,
    /// The earliest offset that the log has.
    start: Offset,
    /// The next offset to be written.
    end: Offset,
    /// The next offset that the group reads; null when it has committed none, or there is no group.
    committed: Option<Offset>,
    /// Who owns it in the group.
    member: Option<String>,
}

pub(crate) async fn partitions<L: Log>(
    State(state): State<AdminState<L>>,
) -> Result<Json<PartitionsView>, Problem> {
    state.run(partitions_now).await.map(Json)
}

fn partitions_now<L: Log>(admin: &Admin<L>) -> Result<PartitionsView, Problem> {
    let mut reader = admin.log.reader()?;
    let mut topics = Vec::new();
    for (name, _) in GROUPS {
        let of = topics_of(admin, name);
        if of.is_empty() {
            continue;
        }
        let view = admin.log.group(name, &of)?;
        for topic in of {
            topics.push(topic_view(admin, &mut reader, topic, Some((name, &view)))?);
        }
    }
    let others = [Role::Parked, Role::Audit];
    for topic in others
        .into_iter()
        .filter_map(|role| admin.log.topics().find(role))
    {
        topics.push(topic_view(admin, &mut reader, topic, None)?);
    }
    Ok(PartitionsView { topics })
}

fn topic_view<L: Log>(
    admin: &Admin<L>,
    reader: &mut L::Reader,
    topic: TopicId,
    group: Option<(&str, &GroupView)>,
) -> Result<TopicView, LogError> {
    let mut partitions = Vec::new();
    for partition in admin.log.topics().partitions(topic) {
        let bounds = reader.bounds(partition)?;
        let owner = group.and_then(|(_, view)| {
            let mut members = view.members.iter();
            members.find(|member| member.partitions.contains(&partition))
        });
        partitions.push(PartitionView {
            index: partition.index,
            start: bounds.start,
            end: bounds.end,
            committed: group.and_then(|(_, view)| next_of(partition, view)),
            member: owner.map(|member| member.id.clone()),
        });
    }
    Ok(TopicView {
        topic: admin.log.topics().spec(topic).name.clone(),
        group: group.map(|(name, _)| name.to_owned()),
        partitions,
    })
}
