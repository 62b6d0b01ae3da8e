//! Creates the topics of the table, and says how those that exist differ from it.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::Metadata;
use ringback_core::log::{LogError, TopicProblem};
use ringback_core::topics::{Cleanup, TopicSpec};

use super::context::Plain;
use super::error::{advice, code_error, is_permanent, log_error};
use super::{KafkaConfig, Shared, raw};

/// How long the brokers may take for one request.
const ANSWER: Duration = Duration::from_secs(30);

/// How long the brokers may take to answer at all.
const CONTACT: Duration = Duration::from_secs(15);

/// How long one look for the brokers may take before what librdkafka complains of is looked at.
const GLANCE: Duration = Duration::from_secs(1);

/// More than librdkafka makes in that time.
const EVENTS_PER_GLANCE: usize = 100;

/// How long it may look as if TLS were refused before that is believed.
const DOUBT: Duration = Duration::from_secs(4);

/// How long new topics may take until every broker tells of them.
const SPREAD: Duration = Duration::from_secs(15);

/// The problem of a topic that is not there: "it is missing".
const MISSING: &str = "it";

/// The settings of a topic, from the table.
fn settings(spec: &TopicSpec, replication: u16) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        // Due times and retention go by one clock, the broker's.
        ("message.timestamp.type", "LogAppendTime".to_owned()),
        // One copy may be away; with one copy that is all there is.
        ("min.insync.replicas", replication.clamp(1, 2).to_string()),
        ("unclean.leader.election.enable", "false".to_owned()),
    ];
    match spec.cleanup {
        Cleanup::Delete { retention } => settings.extend([
            ("cleanup.policy", "delete".to_owned()),
            ("retention.ms", retention.as_millis().to_string()),
            // A limit by size would drop events that nobody has read (DL10).
            ("retention.bytes", "-1".to_owned()),
        ]),
        Cleanup::Compact => settings.extend([
            ("cleanup.policy", "compact".to_owned()),
            // The segment being written is never compacted, so it must not stay that for a week.
            ("segment.ms", "3600000".to_owned()),
            ("max.compaction.lag.ms", "86400000".to_owned()),
        ]),
    }
    settings
}

/// Creates what is missing; then says how the rest differs.
pub(super) fn create(shared: &Shared) -> Result<Vec<TopicProblem>, LogError> {
    let client = client(shared)?;
    let problems = differences(shared, &client)?;
    let missing: Vec<&TopicSpec> = shared
        .topics
        .iter()
        .map(|(_, spec)| spec)
        .filter(|spec| {
            problems
                .iter()
                .any(|problem| problem.setting == MISSING && problem.topic == spec.full_name)
        })
        .collect();
    if missing.is_empty() {
        return Ok(problems);
    }
    create_missing(shared, &client.admin, &missing)?;
    // The brokers learn of a new topic one after the other, and whoever asks next may ask another.
    let deadline = Instant::now() + SPREAD;
    while !known_everywhere(&client, &missing)? && Instant::now() < deadline {
        thread::park_timeout(Duration::from_millis(100));
    }
    differences(shared, &client)
}

fn known_everywhere(client: &Client, topics: &[&TopicSpec]) -> Result<bool, LogError> {
    let metadata = client.metadata("asking for the list of brokers")?;
    for broker in metadata.brokers() {
        let described = describe(&client.admin, topics, &options().broker_id(broker.id()))?;
        if described.iter().any(Option::is_none) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Says how the topics differ from the table.
pub(super) fn check(shared: &Shared) -> Result<Vec<TopicProblem>, LogError> {
    differences(shared, &client(shared)?)
}

/// The names of all topics.
pub(super) fn names(config: &KafkaConfig) -> Result<Vec<String>, LogError> {
    let metadata = client_of(config)?.metadata("asking for the list of topics")?;
    let names = metadata
        .topics()
        .iter()
        .map(|topic| topic.name().to_owned());
    Ok(names.collect())
}

/// What asks and what changes: errors of connections reach only a client that is polled, and
/// `AdminClient` polls for its own results alone.
struct Client {
    admin: AdminClient<Plain>,
    asking: BaseConsumer<Plain>,
}

fn client(shared: &Shared) -> Result<Client, LogError> {
    client_of(&shared.config)
}

fn client_of(config: &KafkaConfig) -> Result<Client, LogError> {
    let doing = "starting an admin client of Kafka";
    let tokens = config.tokens();
    let failed = |error| log_error(doing, &error);
    let context = Plain::with(tokens.clone());
    let admin = AdminClient::from_config_and_context(&config.client(), context);
    let admin = admin.map_err(failed)?;
    raw::give_token(admin.inner(), &tokens);
    let context = Plain::with(tokens.clone());
    let asking = config.reading().create_with_context(context);
    let asking: BaseConsumer<Plain> = asking.map_err(failed)?;
    raw::give_token(asking.client(), &tokens);
    Ok(Client { admin, asking })
}

impl Client {
    /// Asks what there is. The first answer of the brokers, so this is where it shows when they are
    /// out of reach or do not let us in: at once when they say so, otherwise within [`CONTACT`].
    fn metadata(&self, doing: &str) -> Result<Metadata, LogError> {
        let started = Instant::now();
        loop {
            // All topics at once: asking for one by name could create it.
            let error = match self.asking.fetch_metadata(None, GLANCE) {
                Ok(metadata) => return Ok(metadata),
                Err(error) => error,
            };
            // Each poll brings one event at most, and does not tell a log line from nothing.
            for _ in 0..EVENTS_PER_GLANCE {
                drop(self.asking.poll(Duration::ZERO));
            }
            let complaint = self.asking.client().context().complaint();
            // A broker that refuses TLS just hangs up; only the text tells that from a broken line.
            let about_tls = |reason: &str| reason.contains("SSL");
            let patience = match &complaint {
                Some((code, _)) if is_permanent(*code) => Duration::ZERO,
                Some((_, reason)) if about_tls(reason) => DOUBT,
                _ => CONTACT,
            };
            if started.elapsed() < patience {
                continue;
            }
            return Err(match complaint {
                Some((code, reason)) => {
                    let code = match about_tls(&reason) {
                        true => RDKafkaErrorCode::SSL,
                        false => code,
                    };
                    LogError {
                        reason: format!("{reason}{}", advice(code)),
                        ..code_error(doing, code)
                    }
                }
                None => log_error(doing, &error),
            });
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(ANSWER))
        .operation_timeout(Some(ANSWER))
}

fn create_missing(
    shared: &Shared,
    admin: &AdminClient<Plain>,
    missing: &[&TopicSpec],
) -> Result<(), LogError> {
    let replication = shared.topics.replication();
    let settings: Vec<_> = missing
        .iter()
        .map(|spec| settings(spec, replication))
        .collect();
    let topics: Vec<NewTopic<'_>> = missing
        .iter()
        .zip(&settings)
        .map(|(spec, settings)| {
            let partitions = i32::try_from(spec.partitions).unwrap_or(i32::MAX);
            let copies = TopicReplication::Fixed(i32::from(replication));
            let topic = NewTopic::new(&spec.full_name, partitions, copies);
            settings
                .iter()
                .fold(topic, |topic, (name, value)| topic.set(name, value))
        })
        .collect();
    let results = block_on(admin.create_topics(&topics, &options()))
        .map_err(|error| log_error("creating topics", &error))?;
    for result in results {
        match result {
            // Somebody else may be creating them at the same time.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, RDKafkaErrorCode::InvalidReplicationFactor)) => {
                let reason = format!(
                    "there are fewer than {replication} brokers; start them, or set \
                     topics.replication"
                );
                return Err(LogError::permanent(
                    format!("creating topic {topic}"),
                    reason,
                ));
            }
            Err((topic, code)) => {
                return Err(code_error(format!("creating topic {topic}"), code));
            }
        }
    }
    Ok(())
}

fn differences(shared: &Shared, client: &Client) -> Result<Vec<TopicProblem>, LogError> {
    let replication = shared.topics.replication();
    let metadata = client.metadata("asking for the list of topics")?;
    let found: HashMap<&str, _> = metadata
        .topics()
        .iter()
        .filter(|topic| topic.error().is_none())
        .map(|topic| (topic.name(), topic.partitions()))
        .collect();
    let (mut problems, mut present) = (Vec::new(), Vec::new());
    for (_, spec) in shared.topics.iter() {
        let mut differs = |setting: &str, expected: String, found: String| {
            problems.push(TopicProblem {
                topic: spec.full_name.clone(),
                setting: setting.to_owned(),
                expected,
                found,
            });
        };
        let Some(partitions) = found.get(spec.full_name.as_str()) else {
            differs(MISSING, "a topic".to_owned(), "missing".to_owned());
            continue;
        };
        present.push(spec);
        if partitions.len() != spec.partitions as usize {
            let (expected, found) = (spec.partitions.to_string(), partitions.len().to_string());
            differs("partitions", expected, found);
        }
        let copies = partitions
            .iter()
            .map(|partition| partition.replicas().len());
        let copies = copies.min().unwrap_or(0);
        if copies != usize::from(replication) {
            differs("replication", replication.to_string(), copies.to_string());
        }
    }
    problems.extend(setting_problems(&client.admin, &present, replication)?);
    Ok(problems)
}

fn setting_problems(
    admin: &AdminClient<Plain>,
    present: &[&TopicSpec],
    replication: u16,
) -> Result<Vec<TopicProblem>, LogError> {
    if present.is_empty() {
        return Ok(Vec::new());
    }
    let mut problems = Vec::new();
    for (spec, found) in present.iter().zip(describe(admin, present, &options())?) {
        let mut differs = |setting: &str, expected: String, found: &str| {
            problems.push(TopicProblem {
                topic: spec.full_name.clone(),
                setting: setting.to_owned(),
                expected,
                found: found.to_owned(),
            });
        };
        let Some(found) = found else {
            differs(MISSING, "a topic".to_owned(), "missing");
            continue;
        };
        for (name, expected) in settings(spec, replication) {
            let value = found.get(name).and_then(|entry| entry.value.as_deref());
            if value != Some(expected.as_str()) {
                differs(name, expected, value.unwrap_or("not set"));
            }
        }
    }
    Ok(problems)
}

/// The settings of these topics, in this order; `None` for one that the broker does not know.
fn describe(
    admin: &AdminClient<Plain>,
    topics: &[&TopicSpec],
    options: &AdminOptions,
) -> Result<Vec<Option<ConfigResource>>, LogError> {
    let doing = "asking for the settings of topics";
    let resources: Vec<_> = topics
        .iter()
        .map(|spec| ResourceSpecifier::Topic(&spec.full_name))
        .collect();
    let described = block_on(admin.describe_configs(&resources, options))
        .map_err(|error| log_error(doing, &error))?;
    let mut by_name = HashMap::new();
    for resource in described {
        match resource {
            // An unknown topic comes as one without any setting.
            Ok(resource) if resource.entries.is_empty() => {}
            Ok(resource) => {
                if let OwnedResourceSpecifier::Topic(name) = &resource.specifier {
                    by_name.insert(name.clone(), resource);
                }
            }
            Err(RDKafkaErrorCode::UnknownTopicOrPartition) => {}
            Err(code) => return Err(code_error(doing, code)),
        }
    }
    Ok(topics
        .iter()
        .map(|spec| by_name.remove(&spec.full_name))
        .collect())
}

/// Waits for a future that another thread completes, as those of the admin client are.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
