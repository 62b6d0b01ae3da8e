//! `ringback replay`

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
