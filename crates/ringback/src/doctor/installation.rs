//! The log and its topics, the clocks, the projection's database and the mail server.

use ringback_admin::{Projection, mail};
use ringback_core::log::Log;
use ringback_core::topics::Topics;
use ringback_log::kafka::KafkaLog;
use ringback_log::local::{LocalLog, LocalOptions};

use super::clocks;
use super::report::Report;
use crate::component::blocking;
use crate::config::{Config, Engine};
use crate::failure::Failure;
use crate::moved::refuse_moved;

/// Checks what is configured, from this machine.
pub(super) async fn check(
    config: &Config,
    create_topics: bool,
    report: &mut Report,
) -> Result<(), Failure> {
    match config.log.engine {
        Engine::Local => local(config, create_topics, report).await?,
        Engine::Kafka => kafka(config, create_topics, report).await?,
    }
    projection(config, report).await;
    mail_server(config, report).await;
    Ok(())
}

async fn local(config: &Config, create: bool, report: &mut Report) -> Result<(), Failure> {
    let dir = config.log.local.dir.join("log");
    if !dir.exists() {
        let said = format!("{} does not exist yet", dir.display());
        report.warning("log", said, "`ringback up` creates it");
        return Ok(());
    }
    if let Err(error) = refuse_moved(&config.log.local.dir) {
        report.failed("log", error.message, "use the log that it was moved to");
        return Ok(());
    }
    if let Some(holder) = LocalLog::holder(&dir) {
        let said = format!("{} is in use by {holder}, which checked it", dir.display());
        report.ok("log", said);
        return Ok(());
    }
    let topics = Topics::new(&config.topics(), config.schedule.tiers());
    let opened = blocking(move || LocalLog::open(&dir, topics, LocalOptions::default())).await;
    match opened {
        Ok(log) => topics_of(log, create, report).await,
        Err(error) => report.failed("log", error.message, "see docs/reliability.md"),
    }
    Ok(())
}

async fn kafka(config: &Config, create: bool, report: &mut Report) -> Result<(), Failure> {
    let topics = Topics::new(&config.topics(), config.schedule.tiers());
    let kafka = config.log.kafka.clone();
    let log = match blocking(move || KafkaLog::open(kafka, topics)).await {
        Ok(log) => log,
        Err(error) => {
            let advice = "check log.kafka.bootstrap and how it gets in, see docs/kafka.md";
            report.failed("log", error.message, advice);
            return Ok(());
        }
    };
    report.ok("log", "the brokers answer");
    topics_of(log.clone(), create, report).await;
    clocks::check(log, report).await;
    Ok(())
}

async fn topics_of<L: Log>(log: L, create: bool, report: &mut Report) {
    let count = log.topics().iter().count();
    let asked = blocking(move || match create {
        true => log.create_topics(),
        false => log.check_topics(),
    });
    match asked.await {
        Ok(problems) if problems.is_empty() => {
            report.ok("topics", format!("all {count} as they must be"));
        }
        Ok(problems) => {
            let advice = "`ringback doctor --create-topics` creates missing topics; the others need a change by hand, or another configuration";
            for problem in problems {
                report.failed("topics", problem.to_string(), advice);
            }
        }
        Err(error) => report.failed("topics", error.message, "see docs/kafka.md, Grants"),
    }
}

async fn projection(config: &Config, report: &mut Report) {
    let dir = config.log.local.dir.join("projection");
    let (of, clock) = (&config.admin.projection, ringback_log::system_clock());
    let Some(projection) = Projection::new(of, "", &dir, clock) else {
        report.ok("projection", "none: the log itself is read");
        return;
    };
    match blocking(move || projection.check()).await {
        Ok(said) => report.ok("projection", said),
        Err(error) => report.failed(
            "projection",
            error.message,
            "attempts and parked deliveries cannot be shown until it works, deliveries go on; see docs/admin.md, The projection",
        ),
    }
}

async fn mail_server(config: &Config, report: &mut Report) {
    let settings = config.admin.mail.clone();
    if !settings.is_on() {
        report.ok("mail", "none is sent: admin.mail.server is not set");
        return;
    }
    let server = settings.server.clone();
    match blocking(move || mail::check(&settings)).await {
        Ok(()) => report.ok("mail", format!("{server} lets us in")),
        Err(error) => report.failed(
            "mail",
            format!("{server}: {}", error.message),
            "check admin.mail.server, .tls, .ca_file, .username and .password_file",
        ),
    }
}
