//! `ringback replay`

use std::io::{BufRead, IsTerminal as _, Read as _, Write};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use ringback_core::time::Timestamp;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use super::client::Client;
use super::connection::Connection;
use super::table::{self, clean, count, list, text};
use super::time::parse_since;
use crate::failure::Failure;

/// Options of `ringback replay`.
#[derive(Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true))]
pub(crate) struct ReplayArgs {
    /// Whose
    tenant: String,
    /// The webhook's name or id
    webhook: String,
    /// Everything that is parked
    #[arg(long, group = "which", conflicts_with_all = ["event", "since", "until", "name", "reason"])]
    all: bool,
    /// Only this event
    #[arg(long, value_name = "ID", group = "which")]
    event: Option<Uuid>,
    /// Only what was parked since then: 2h, 7d or 2026-11-21T09:30:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_since, group = "which")]
    since: Option<Timestamp>,
    /// Only what was parked before then
    #[arg(long, value_name = "TIME", value_parser = parse_since, group = "which")]
    until: Option<Timestamp>,
    /// Only events of this type, or of this family: call.*
    #[arg(long = "type", value_name = "TYPE", group = "which")]
    name: Option<String>,
    /// Only what was parked for this reason: paused, exhausted, rejected, …
    #[arg(long, group = "which")]
    reason: Option<String>,
    /// Leave states (presence, queue status) out: old ones may mislead
    #[arg(long)]
    without_states: bool,
    /// Only count
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connection: Connection,
}

/// How often it is looked how far a replay is.
const EVERY: Duration = Duration::from_millis(300);

pub(super) async fn run(args: ReplayArgs) -> Result<String, Failure> {
    let client = Client::new(&args.connection)?;
    let mut form = json!({
        "all": args.all,
        "dry_run": args.dry_run,
        "states": !args.without_states,
    });
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            form[name] = value.into();
        }
    };
    put("event", args.event.map(|event| event.to_string()));
    put("since", args.since.map(|since| since.to_string()));
    put("until", args.until.map(|until| until.to_string()));
    put("reason", args.reason);
    put("type", args.name);
    let replay = replay(&client, &args.tenant, &args.webhook, &form).await?;
    if args.connection.json {
        return Ok(table::json(&replay));
    }
    Ok(sentence(
        &replay,
        args.dry_run,
        &clean(&args.tenant),
        &clean(&args.webhook),
    ))
}

/// Replays what the form says, and waits for the end, with a progress bar on a terminal.
async fn replay(
    client: &Client,
    tenant: &str,
    webhook: &str,
    form: &Value,
) -> Result<Value, Failure> {
    let path = ["tenants", tenant, "webhooks", webhook, "replay"];
    let mut replay = client.post(&path, form).await?.body["replay"].take();
    let id = text(&replay["id"]);
    let bar = ProgressBar::new(1000);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent} %  {msg}") {
        bar.set_style(style);
    }
    let mut looks = interval(EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let path = ["tenants", tenant, "webhooks", webhook, "replays", &id];
    while replay["state"] == "running" {
        let progress = replay["progress"].as_f64().unwrap_or(0.0).clamp(0.0, 1.0);
        bar.set_position((progress * 1000.0) as u64);
        let error = replay["error"].as_str().map(clean).unwrap_or_default();
        bar.set_message(format!(
            "{} of {} sent {error}",
            replay["sent"], replay["found"]
        ));
        looks.tick().await;
        let looked = client.get(&path, &[]).await;
        replay = looked
            .map_err(|failure| {
                Failure::new(format!(
                    "{failure}; the replay goes on, and says how far it is at /v1/{}",
                    path.join("/")
                ))
            })?
            .body["replay"]
            .take();
    }
    bar.finish_and_clear();
    match replay["state"].as_str() {
        Some("done") => Ok(replay),
        _ => Err(Failure::new(format!(
            "the replay was {}: {} of {} were sent {}",
            text(&replay["state"]),
            replay["sent"],
            replay["found"],
            replay["error"].as_str().map(clean).unwrap_or_default()
        ))),
    }
}

/// What was parked while a webhook was paused or disabled, to be sent once it no longer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(super) enum Afterwards {
    /// Records (CDRs) and transitions, but not states
    Records,
    /// Everything
    All,
    /// Nothing
    None,
}

impl Afterwards {
    /// Asks a person at a terminal, after what has been `said`; records otherwise, or when nothing is
    /// parked.
    pub(super) async fn choose(
        said: &str,
        client: &Client,
        tenant: &str,
        webhook: &str,
        reason: &str,
    ) -> Result<Self, Failure> {
        let (stdin, stderr) = (std::io::stdin(), std::io::stderr());
        if !stdin.is_terminal() || !stderr.is_terminal() {
            return Ok(Self::Records);
        }
        let parked = async |states: bool| {
            let form = json!({ "reason": reason, "states": states, "dry_run": true });
            let counted = replay(client, tenant, webhook, &form).await?;
            let number = |name: &str| counted[name].as_u64().unwrap_or(0);
            Ok::<_, Failure>(number("found").saturating_sub(number("already")))
        };
        let (all, records) = (parked(true).await?, parked(false).await?);
        if all == 0 {
            return Ok(Self::Records);
        }
        let states = all.saturating_sub(records);
        Self::ask(said, (records, states), stdin.lock(), stderr.lock()).map_err(|error| {
            Failure::usage(format!(
                "asking what to replay: {error}; say it with --replay"
            ))
        })
    }

    /// The question, until it is answered. The end of the input is no answer.
    fn ask(
        said: &str,
        (records, states): (u64, u64),
        mut from: impl BufRead,
        mut to: impl Write,
    ) -> std::io::Result<Self> {
        writeln!(
            to,
            "{said} Parked meanwhile: {} and transitions, {} (old presence may mislead).",
            count(records, "record"),
            count(states, "state"),
        )?;
        loop {
            write!(to, "Send now: [r]ecords, [a]ll, [n]one? [r] ")?;
            to.flush()?;
            let mut line = String::new();
            if from.by_ref().take(64).read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            match line.trim().to_lowercase().as_str() {
                "" | "r" | "records" => return Ok(Self::Records),
                "a" | "all" => return Ok(Self::All),
                "n" | "none" => return Ok(Self::None),
                _ => {}
            }
        }
    }

    /// Replays what was parked for this reason; a sentence about it.
    pub(super) async fn replay(
        self,
        client: &Client,
        tenant: &str,
        webhook: &str,
        reason: &str,
    ) -> Result<String, Failure> {
        let later = format!("  ringback replay {tenant} {webhook} --reason {reason}");
        if self == Self::None {
            return Ok(format!("What was parked meanwhile is sent by:\n{later}"));
        }
        let form = json!({ "reason": reason, "states": self == Self::All });
        let replay = replay(client, tenant, webhook, &form).await?;
        let replayed = replay["sent"].as_u64().unwrap_or(0);
        Ok(match self {
            Self::All => format!("Replayed {}.", count(replayed, "delivery")),
            _ => format!(
                "Replayed {}; states are left out, and sent by:\n{later}",
                count(replayed, "delivery")
            ),
        })
    }
}

fn sentence(replay: &Value, dry_run: bool, tenant: &str, webhook: &str) -> String {
    let number = |name: &str| replay[name].as_u64().unwrap_or(0);
    let [selected, replayed, already, unreadable] =
        ["found", "sent", "already", "unreadable"].map(number);
    if selected == 0 {
        return format!(
            "Nothing parked fits. What there is:\n  ringback parked list {tenant} {webhook}"
        );
    }
    let mut text = match dry_run {
        true => {
            format!(
                "Would replay {}.",
                count(selected.saturating_sub(already), "delivery")
            )
        }
        false => format!("Replayed {}.", count(replayed, "delivery")),
    };
    if already > 0 {
        text = format!("{text} {} replayed before.", were(already));
    }
    if unreadable > 0 {
        text = format!("{text} {} unreadable.", were(unreadable));
    }
    for warning in list(replay, "warnings") {
        let warning = clean(warning.as_str().unwrap_or_default());
        let verb = match warning.contains("disabled") {
            true => "enable",
            false => "resume",
        };
        text = format!("{text}\nWarning: {warning}:\n  ringback webhook {verb} {tenant} {webhook}");
    }
    if replayed > 0 {
        text =
            format!("{text}\nWhat becomes of them:\n  ringback attempts list {tenant} {webhook}");
    }
    text
}

fn were(number: u64) -> String {
    match number {
        1 => "1 was".to_owned(),
        _ => format!("{number} were"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(input: &str) -> (std::io::Result<Afterwards>, String) {
        let mut said = Vec::new();
        let answer = Afterwards::ask("Resumed.", (12, 1), input.as_bytes(), &mut said);
        (answer, String::from_utf8(said).unwrap())
    }

    #[test]
    fn a_person_is_asked_until_there_is_an_answer() {
        let (answer, said) = ask("yes\nALL\n");
        assert_eq!(answer.unwrap(), Afterwards::All);
        assert!(
            said.starts_with("Resumed. Parked meanwhile: 12 records and transitions, 1 state ")
        );
        assert_eq!(said.matches("[r]ecords, [a]ll, [n]one?").count(), 2);
        assert_eq!(ask("\n").0.unwrap(), Afterwards::Records);
        assert_eq!(ask("n").0.unwrap(), Afterwards::None);
        let gone = ask("").0.unwrap_err();
        assert_eq!(gone.kind(), std::io::ErrorKind::UnexpectedEof);
    }
}
