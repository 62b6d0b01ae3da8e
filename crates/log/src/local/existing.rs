//! The table of topics that a log has, read off the log itself.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use ringback_core::log::LogError;
use ringback_core::topics::{Topics, TopicsConfig, retired_tiers};

use super::state::StoredTopic;

/// The topic that every log has, and whose name ends like no other's.
const LANDMARK: &str = "events.system";

/// The table of these topics, by full name. What the configuration says today may name other tiers,
/// another prefix or a shorter retention, and nothing of this log may be overlooked or dropped.
pub(super) fn table(
    dir: &Path,
    stored: &HashMap<String, StoredTopic>,
) -> Result<Arc<Topics>, LogError> {
    let fail = |reason| {
        let doing = format!("reading the topics of the local log in {}", dir.display());
        LogError::permanent(doing, reason)
    };
    let mut landmarks = stored
        .iter()
        .filter_map(|(name, topic)| Some((name.strip_suffix(LANDMARK)?, topic)));
    let (Some((prefix, system)), None) = (landmarks.next(), landmarks.next()) else {
        return Err(fail(
            "it has no topics, or those of several prefixes; was it made by `ringback up`?",
        ));
    };
    let mut config = TopicsConfig {
        prefix: prefix.to_owned(),
        event_partitions: 1,
        work_partitions: 1,
        ..TopicsConfig::default()
    };
    config.retention = system.retention.unwrap_or(config.retention);
    let raw = format!("{prefix}raw.");
    config.raw = stored
        .keys()
        .filter_map(|name| Some(name.strip_prefix(&raw)?.to_owned()))
        .collect();
    config.raw.sort_unstable();
    let tiers = retired_tiers(&config, &[], stored.keys().map(String::as_str));
    for (name, topic) in stored {
        let name = name.strip_prefix(prefix).unwrap_or_default();
        let by_events = |part: &str| name.starts_with(part);
        if ["events.", "raw.", "attempts", "windows"]
            .into_iter()
            .any(by_events)
        {
            config.event_partitions = config.event_partitions.max(topic.partitions);
        } else {
            config.work_partitions = config.work_partitions.max(topic.partitions);
        }
    }
    Ok(Topics::new(&config, &tiers))
}
