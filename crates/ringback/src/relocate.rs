//! `ringback move`: an installation on the local engine becomes one on Kafka, with all that waits.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use ringback_core::log::Log;
use ringback_core::secret::KeyRing;
use ringback_core::time::duration_label;
use ringback_core::topics::DEFER_RUNGS;
use ringback_log::kafka::KafkaLog;
use ringback_log::local::{LocalLog, LocalOptions};
use ringback_log::moving::{self, Environment, MoveError, Progress};
use ringback_log::system_clock;

use crate::component::{blocking, prepare_topics, table};
use crate::config::{Config, ConfigArgs, Engine};
use crate::failure::Failure;
use crate::moved::{Destination, Mark};
use crate::out;
use crate::up::{MASTER_KEY_FILE, OPERATOR_TOKEN_FILE};

/// How long a dispatcher on the target that was just stopped may take to be missed.
const LEAVE: Duration = Duration::from_secs(30);

/// Options of `ringback move`.
#[derive(Args)]
pub(crate) struct MoveArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// The data directory of the local installation [default: log.local.dir]
    #[arg(long, value_name = "DIR")]
    pub(crate) from: Option<PathBuf>,
}

/// Moves, or goes on moving.
pub(crate) async fn run(config: Config, from: Option<PathBuf>) -> Result<(), Failure> {
    if config.log.engine != Engine::Kafka {
        return Err(Failure::usage(
            "the configuration is where to move to: set log.engine = \"kafka\" and log.kafka, and say \
             with --from where the local data directory is",
        ));
    }
    let dir = from.unwrap_or_else(|| config.log.local.dir.clone());
    let keys = config.key_ring().map_err(|failure| hint(failure, &dir))?;
    // Until the end of the move nothing else can run on it: the log is locked.
    let source = {
        let log = dir.join("log");
        blocking(move || LocalLog::open_existing(&log, LocalOptions::default())).await?
    };
    let to = Destination::of(&config);
    let mark = match Mark::read(&dir)? {
        Some(mark) if !mark.to.is(&to) => {
            return Err(Failure::new(format!(
                "{} is being moved, or was moved, to {} already, not to {to}",
                dir.display(),
                mark.to
            )));
        }
        Some(Mark {
            ended: Some(ended), ..
        }) => {
            out!(
                "{} was moved to {to} at {ended}; nothing to do.",
                dir.display()
            );
            return Ok(());
        }
        mark => mark,
    };
    // Before anything is written.
    check_secrets(&source, keys, &dir).await?;
    let target = open_target(&config, source.topics().tiers()).await?;
    prepare_topics(&target, true).await?;
    let begun = mark.as_ref().map(|mark| mark.progress.clone());
    let (here, there) = (source.clone(), target.clone());
    blocking(move || {
        match begun {
            None => moving::check_target(&here, &there)?,
            Some(progress) => moving::check_begun(&there, &progress)?,
        }
        Ok::<_, MoveError>(moving::check_idle(&there, LEAVE)?)
    })
    .await?;
    let mark = mark.unwrap_or_else(|| Mark::new(to.clone(), system_clock().now()));
    let progress = carry(source, target, mark, dir.clone()).await?;
    summarise(&progress, &config, &dir, &to);
    Ok(())
}

async fn open_target(config: &Config, tiers: &[Duration]) -> Result<KafkaLog, Failure> {
    let (kafka, asked) = (config.log.kafka.clone(), config.log.kafka.clone());
    let mut names = blocking(move || KafkaLog::existing_topics(&asked)).await?;
    names.extend(needed_tier(config, tiers));
    let topics = table(config, &names);
    blocking(move || KafkaLog::open(kafka, topics)).await
}

/// The topic of the longest tier, where no delay on the target is as long: what waits there would be
/// early. Dispatchers read it like any tier that is no longer in the schedule.
fn needed_tier(config: &Config, tiers: &[Duration]) -> Option<String> {
    let longest = *tiers.iter().max()?;
    let mut delays = config.schedule.tiers().iter().chain(&DEFER_RUNGS);
    let is_there = delays.any(|delay| *delay >= longest);
    let label = duration_label(longest);
    (!is_there).then(|| format!("{}retry.{label}", config.topics.prefix))
}

async fn check_secrets(source: &LocalLog, keys: KeyRing, dir: &Path) -> Result<(), Failure> {
    let source = source.clone();
    let checked = tokio::task::spawn_blocking(move || {
        source.create_topics()?;
        moving::check_secrets(&source, &keys)
    });
    match checked.await.map_err(Failure::new)? {
        Ok(()) => Ok(()),
        Err(error @ MoveError::Secret(_)) => Err(hint(Failure::usage(error), dir)),
        Err(error) => Err(Failure::new(error)),
    }
}

/// `up` may have made the key itself.
fn hint(failure: Failure, dir: &Path) -> Failure {
    let own = dir.join(MASTER_KEY_FILE);
    if !own.exists() {
        return failure;
    }
    Failure {
        message: format!(
            "{}. The local installation seals with the key in {}: configure it as secrets.keys.local",
            failure.message,
            own.display()
        ),
        ..failure
    }
}

async fn carry(
    source: LocalLog,
    target: KafkaLog,
    mut mark: Mark,
    dir: PathBuf,
) -> Result<Progress, Failure> {
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::new_spinner(),
        false => ProgressBar::hidden(),
    };
    blocking(move || {
        let keep = |mark: &Mark| {
            let written = mark.write(&dir);
            written.map_err(|error| MoveError::Progress(format!("{}: {error}", dir.display())))
        };
        keep(&mark)?;
        let environment = Environment {
            progress: mark.progress.clone(),
            keep: &mut |progress| {
                let count: u64 = progress.moved.values().map(|m| m.kept + m.waiting).sum();
                bar.set_message(format!("{count} records moved"));
                bar.tick();
                mark.progress = progress.clone();
                keep(&mark)
            },
            clock: system_clock(),
        };
        let moved = moving::run(&source, &target, environment);
        bar.finish_and_clear();
        let progress = moved?;
        mark.ended = Some(system_clock().now());
        keep(&mark)?;
        Ok::<_, MoveError>(progress)
    })
    .await
    .map_err(|failure| Failure {
        message: format!(
            "{}. What was moved is moved: run `ringback move` again to go on",
            failure.message
        ),
        ..failure
    })
}

fn summarise(progress: &Progress, config: &Config, dir: &Path, to: &Destination) {
    out!("Moved {} to {to}:", dir.display());
    for (topic, moved) in &progress.moved {
        if moved.kept + moved.waiting > 0 {
            out!(
                "  {topic:<20} {:>9} kept {:>9} waiting",
                moved.kept,
                moved.waiting
            );
        }
    }
    out!(
        "{} events and deliveries wait there. {} is as it was, and `ringback up` does not run on it any more.",
        progress.waiting(),
        dir.display()
    );
    out!(
        "Next: start `admin`, `dispatcher`, `metrics` and `producer` (or `up`) with this configuration."
    );
    if !config.admin.has_operator_token() {
        out!(
            "The administration needs admin.operator_token; the one of the local installation is in {}.",
            dir.join(OPERATOR_TOKEN_FILE).display()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_that_nothing_there_replaces_goes_along() {
        let config = Config::default();
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        assert_eq!(needed_tier(&config, &[]), None);
        assert_eq!(needed_tier(&config, &[hours(1), hours(2)]), None);
        let needed = needed_tier(&config, &[hours(3), hours(2)]);
        assert_eq!(needed.as_deref(), Some("ringback.retry.3h"));
        let topics = table(&config, &[needed.unwrap_or_default()]);
        assert!(topics.tiers().contains(&hours(3)));
    }
}
