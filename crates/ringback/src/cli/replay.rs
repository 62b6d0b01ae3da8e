//! `ringback replay`

use std::io::{BufRead, IsTerminal as _, Read as _, Write};

use clap::Args;
use ringback_core::time::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::Client;
use super::connection::Connection;
use super::table::{self, clean, count};
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
    #[arg(long, group = "which", conflicts_with_all = ["event", "since", "reason"])]
    all: bool,
    /// Only this event
    #[arg(long, value_name = "ID", group = "which")]
    event: Option<Uuid>,
    /// Only what was parked since then: 2h, 7d or 2026-11-21T09:30:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_since, group = "which")]
    since: Option<Timestamp>,
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

/// What all requests of a replay did together.
const COUNTS: [&str; 4] = ["selected", "replayed", "already_replayed", "unreadable"];

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
    put("reason", args.reason);
    let (last, sums) = replay(&client, &args.tenant, &args.webhook, form).await?;
    if args.connection.json {
        let mut whole = last;
        for (sum, name) in sums.into_iter().zip(COUNTS) {
            whole[name] = sum.into();
        }
        return Ok(table::json(&whole));
    }
    Ok(sentence(
        &last,
        sums,
        args.dry_run,
        &clean(&args.tenant),
        &clean(&args.webhook),
    ))
}

/// Replays what the form says, with as many requests as it takes: the last answer, and the sums of
/// [`COUNTS`].
async fn replay(
    client: &Client,
    tenant: &str,
    webhook: &str,
    mut form: Value,
) -> Result<(Value, [u64; COUNTS.len()]), Failure> {
    let path = ["tenants", tenant, "webhooks", webhook, "replay"];
    let mut sums = [0_u64; COUNTS.len()];
    loop {
        let body = client.post(&path, &form).await.map_err(|failure| {
            let [_, replayed, ..] = sums;
            match replayed {
                0 => failure,
                _ => Failure::new(format!(
                    "{failure}; {replayed} were replayed by earlier requests"
                )),
            }
        })?;
        let body = body.body;
        for (sum, name) in sums.iter_mut().zip(COUNTS) {
            *sum += body[name].as_u64().unwrap_or(0);
        }
        match body["cursor"].as_str() {
            Some(cursor) => form["cursor"] = cursor.into(),
            None => return Ok((body, sums)),
        }
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
            let (_, [selected, _, already, _]) = replay(client, tenant, webhook, form).await?;
            Ok::<_, Failure>(selected.saturating_sub(already))
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
        let (_, [_, replayed, ..]) = replay(client, tenant, webhook, form).await?;
        Ok(match self {
            Self::All => format!("Replayed {}.", count(replayed, "delivery")),
            _ => format!(
                "Replayed {}; states are left out, and sent by:\n{later}",
                count(replayed, "delivery")
            ),
        })
    }
}

fn sentence(last: &Value, sums: [u64; 4], dry_run: bool, tenant: &str, webhook: &str) -> String {
    let [selected, replayed, already, unreadable] = sums;
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
    if last["disabled"] == true {
        text = format!(
            "{text}\nWarning: the webhook is disabled, so they are parked again:\n  ringback webhook enable {tenant} {webhook}"
        );
    }
    if last["enabled"] == false {
        text = format!(
            "{text}\nWarning: the webhook is paused, so they are parked again:\n  ringback webhook resume {tenant} {webhook}"
        );
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
