//! `ringback metrics-inventory`: every metric, with its type, labels and meaning.

use clap::Args;
use ringback_telemetry::inventory;

use crate::failure::Failure;
use crate::out;

/// Options of `ringback metrics-inventory`.
#[derive(Args)]
pub(crate) struct InventoryArgs {
    /// As a JSON array, for programs
    #[arg(long)]
    json: bool,
}

/// Prints the inventory.
pub(crate) fn run(args: &InventoryArgs) -> Result<(), Failure> {
    match args.json {
        true => {
            let text = serde_json::to_string_pretty(&inventory()).map_err(Failure::new)?;
            out!("{text}");
        }
        false => out!("{}", table().trim_end()),
    }
    Ok(())
}

/// As docs/metrics.md has it.
fn table() -> String {
    let rows = inventory().into_iter().map(|metric| {
        let labels: Vec<_> = metric
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let labels = match labels.is_empty() {
            true => "none".to_owned(),
            false => labels.join(", "),
        };
        format!(
            "| `{}` | {} | {labels} | {} |\n",
            metric.name, metric.kind, metric.help
        )
    });
    "| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n".to_owned()
        + &rows.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_metric() {
        let page = include_str!("../../../docs/metrics.md");
        let table = table();
        assert!(
            page.contains(&table),
            "docs/metrics.md lacks this table of `ringback metrics-inventory`:\n{table}"
        );
    }
}
