//! Lists that can be of one tenant alone.

use clap::Args;
use serde_json::Value;

use super::client::Client;
use super::connection::Connection;
use crate::failure::Failure;

#[derive(Args)]
pub(crate) struct ListArgs {
    /// Only those of this tenant
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    #[command(flatten)]
    pub(super) connection: Connection,
}

impl ListArgs {
    /// All of the list, under its name.
    pub(super) async fn ask(&self, list: &str) -> Result<Value, Failure> {
        let tenant = self.tenant.iter().map(|tenant| ("tenant", tenant.clone()));
        let query: Vec<_> = tenant.collect();
        Client::new(&self.connection)?
            .all(&[list], list, &query)
            .await
    }
}
