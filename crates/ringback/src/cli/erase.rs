//! `ringback erase`: what is kept for showing of a subject, or of a tenant, is forgotten.

use clap::Args;
use serde_json::json;

use super::client::Client;
use super::connection::Connection;
use super::table::{self, text};
use crate::failure::Failure;

/// Options of `ringback erase`.
#[derive(Args)]
pub(crate) struct EraseArgs {
    /// Whose
    #[arg(long)]
    tenant: String,
    /// Of what: call/0195…, extension/2001; the subject of its events
    #[arg(long, required_unless_present = "all")]
    subject: Option<String>,
    /// Everything of the tenant, but its configuration
    #[arg(long, conflicts_with = "subject")]
    all: bool,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(args: EraseArgs) -> Result<String, Failure> {
    let client = Client::new(&args.connection)?;
    let wish = match &args.subject {
        Some(subject) => json!({ "subject": subject }),
        None => json!({ "all": args.all }),
    };
    let path = ["tenants", &args.tenant, "erasures"];
    let answer = client.post(&path, &wish).await?.body;
    if args.connection.json {
        return Ok(table::json(&answer));
    }
    let what = match args.subject {
        Some(subject) => table::clean(&subject),
        None => format!(
            "everything of tenant {}",
            text(&answer["erasure"]["tenant"])
        ),
    };
    let now = match answer["projection"].as_str() {
        Some("pending") => "It is taken out of the projection as soon as that works again.",
        _ => "It is not shown any more.",
    };
    Ok(format!(
        "{now} The log forgets {what} by its retention; see docs/personal-data.md."
    ))
}
