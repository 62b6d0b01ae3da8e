//! `ringback doctor`: is everything as it must be?

use clap::Args;
use ringback_core::health;
use ringback_core::log::Log;
use ringback_core::topics::Topics;
use ringback_log::kafka::KafkaLog;
use ringback_log::local::{LocalLog, LocalOptions};

use crate::component::blocking;
use crate::config::{Config, ConfigArgs, Engine};
use crate::failure::Failure;
use crate::moved::refuse_moved;
use crate::out;

/// Options of `ringback doctor`.
#[derive(Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Create topics that do not exist
    #[arg(long)]
    create_topics: bool,
    /// Only show what the policy of disablement does to receivers of many kinds, by simulation
    #[arg(long, conflicts_with = "create_topics")]
    policy: bool,
}

/// Checks and says what differs; success when nothing does.
pub(crate) async fn run(args: DoctorArgs) -> Result<(), Failure> {
    let config = Config::load(&args.config)?;
    if args.policy {
        let table = health::table(&config.metrics.policy, &config.schedule);
        out!("{}", table.trim_end());
        return Ok(());
    }
    out!("configuration: no mistakes");
    let topics = Topics::new(&config.topics(), config.schedule.tiers());
    match config.log.engine {
        Engine::Local => {
            let dir = config.log.local.dir.join("log");
            if !dir.exists() {
                out!(
                    "log: {} does not exist yet; `ringback up` creates it",
                    dir.display()
                );
                return Ok(());
            }
            refuse_moved(&config.log.local.dir)?;
            let options = LocalOptions::default();
            let log = blocking(move || LocalLog::open(&dir, topics, options)).await?;
            check(log, args.create_topics).await
        }
        Engine::Kafka => {
            let kafka = config.log.kafka.clone();
            let log = blocking(move || KafkaLog::open(kafka, topics)).await?;
            check(log, args.create_topics).await
        }
    }
}

async fn check<L: Log>(log: L, create: bool) -> Result<(), Failure> {
    let count = log.topics().iter().count();
    let problems = blocking(move || match create {
        true => log.create_topics(),
        false => log.check_topics(),
    })
    .await?;
    for problem in &problems {
        out!("{problem}");
    }
    match problems.len() {
        0 => {
            out!("topics: all {count} as they must be");
            Ok(())
        }
        found => Err(Failure::new(format!(
            "{found} differences; `ringback doctor --create-topics` creates missing topics, the others need a change by hand or another configuration"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use ringback_core::schedule::Schedule;

    use super::*;

    #[test]
    fn the_page_shows_what_the_default_policy_does() {
        let page = include_str!("../../../docs/disablement.md");
        let table = health::table(&health::HealthPolicy::default(), &Schedule::default());
        assert!(
            page.contains(&table),
            "docs/disablement.md lacks this table of `ringback doctor --policy`:\n{table}"
        );
    }
}
