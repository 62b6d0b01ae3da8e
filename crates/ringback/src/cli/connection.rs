//! Where the administration is, and the operator's token for it.

use std::io::ErrorKind;
use std::path::PathBuf;

use clap::Args;
use ringback_core::secret::Secret;

use crate::failure::Failure;
use crate::http::Trust;

/// The operator's token in the data directory; `ringback up` writes it.
const TOKEN_FILE: &str = "operator-token";

/// Options of every command that talks to the administration.
#[derive(Args)]
#[command(next_help_heading = "Administration")]
pub(crate) struct Connection {
    /// Address of the administration
    #[arg(
        long,
        env = "RINGBACK_ADMIN_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:8081"
    )]
    pub(super) admin: String,
    #[command(flatten)]
    pub(super) trust: Trust,
    /// The operator's token, or a tenant's with the scope that it takes [default: read from
    /// DIR/operator-token]
    #[arg(
        long,
        env = "RINGBACK_OPERATOR_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub(super) operator_token: Option<String>,
    /// The data directory of `ringback up`, for its operator-token
    #[arg(
        long,
        env = "RINGBACK_LOG__LOCAL__DIR",
        value_name = "DIR",
        default_value = "ringback-data"
    )]
    pub(super) data: PathBuf,
    /// Print the API's JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl Connection {
    /// The operator's token, from wherever it is.
    pub(super) fn token(&self) -> Result<Secret, Failure> {
        if let Some(token) = self.operator_token.as_deref().map(str::trim)
            && !token.is_empty()
        {
            return Ok(Secret::new(token));
        }
        let path = self.data.join(TOKEN_FILE);
        let text = std::fs::read_to_string(&path).map_err(|error| {
            let path = path.display();
            match error.kind() {
                ErrorKind::NotFound => Failure::usage(format!(
                    "no operator token: {path} does not exist; run this where `ringback up` runs, name its data directory with --data, or use --operator-token or RINGBACK_OPERATOR_TOKEN"
                )),
                _ => Failure::usage(format!(
                    "reading the operator token from {path}: {error}; use --operator-token or RINGBACK_OPERATOR_TOKEN instead"
                )),
            }
        })?;
        match text.trim() {
            "" => Err(Failure::usage(format!(
                "the operator token in {} is empty; use --operator-token or RINGBACK_OPERATOR_TOKEN",
                path.display()
            ))),
            token => Ok(Secret::new(token)),
        }
    }
}
