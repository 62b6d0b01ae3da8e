//! `ringback export` and `ringback import`: the configuration as a file.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::client::Client;
use super::connection::Connection;
use super::secret_input::PassphraseArgs;
use super::table::{self, count, list, text};
use crate::failure::Failure;

/// The parts of a document, in the order in which they are imported.
const PARTS: [&str; 4] = ["tenants", "webhooks", "tokens", "accounts"];
/// Bytes of a request: the API takes 64 KiB.
const REQUEST_BYTES: usize = 40 * 1024;

/// Options of `ringback export`.
#[derive(Args)]
pub(crate) struct ExportArgs {
    /// The file to write; it must not exist
    file: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    #[command(flatten)]
    connection: Connection,
}

/// Options of `ringback import`.
#[derive(Args)]
pub(crate) struct ImportArgs {
    /// A file that `ringback export` wrote
    file: PathBuf,
    /// Overwrite what is there and differs
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn export(args: ExportArgs) -> Result<String, Failure> {
    let client = Client::new(&args.connection)?;
    let mut form = json!({ "passphrase": args.passphrase.read()? });
    let mut document = Value::Null;
    loop {
        let mut page = client.post(&["export"], &form).await?.body;
        let next = page["next"].take();
        form["key"] = page["key"].clone();
        if let Value::Object(page) = &mut page {
            page.remove("next");
        }
        match &mut document {
            Value::Null => document = page,
            document => {
                for part in PARTS {
                    let more = page[part].take();
                    if let (Value::Array(all), Value::Array(more)) = (&mut document[part], more) {
                        all.extend(more);
                    }
                }
            }
        }
        match next {
            Value::Null => break,
            next => form["after"] = next,
        }
    }
    write(&args.file, &document)?;
    if args.connection.json {
        return Ok(table::json(&json!({ "written": args.file })));
    }
    let [tenants, webhooks, tokens, accounts] =
        PARTS.map(|part| list(&document, part).len() as u64);
    Ok(format!(
        "Wrote {}, {}, {} and {} to {}. Secrets and the hashes of passwords in it open with the passphrase only; tokens are there as hashes.\nElsewhere:\n  ringback import {}",
        count(tenants, "tenant"),
        count(webhooks, "webhook"),
        count(tokens, "token"),
        count(accounts, "account"),
        args.file.display(),
        args.file.display()
    ))
}

fn write(path: &Path, document: &Value) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(format!("writing {}: {error}", path.display()))
    };
    let text = table::json(document);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| failed(&error))
        .and_then(|mut file| {
            writeln!(file, "{text}")
                .and_then(|()| file.sync_all())
                .map_err(|error| {
                    // Half a document must not pass for a whole one.
                    let _ = fs::remove_file(path);
                    failed(&error)
                })
        })
}

pub(super) async fn import(args: ImportArgs) -> Result<String, Failure> {
    let file = args.file.display();
    let unreadable = |error: &dyn std::fmt::Display| {
        Failure::usage(format!(
            "{file} is not a document of `ringback export`: {error}"
        ))
    };
    let bytes =
        fs::read(&args.file).map_err(|error| Failure::usage(format!("reading {file}: {error}")))?;
    let document: Value = serde_json::from_slice(&bytes).map_err(|error| unreadable(&error))?;
    let client = Client::new(&args.connection)?;
    let head = json!({
        "passphrase": args.passphrase.read()?,
        "replace": args.replace,
        "format": document["format"],
        "version": document["version"],
        "key": document["key"],
    });
    if !document["format"].is_string() || !document["key"].is_object() {
        return Err(unreadable(&"format or key is missing"));
    }
    let mut sums = [0_u64; 3];
    let mut conflicts = Vec::new();
    let mut import = async |form: &Value| -> Result<(), Failure> {
        let body = client.post(&["import"], form).await?.body;
        for (sum, name) in sums.iter_mut().zip(["added", "replaced", "unchanged"]) {
            *sum += body[name].as_u64().unwrap_or(0);
        }
        conflicts.extend(list(&body, "conflicts").iter().map(text));
        Ok(())
    };
    for part in PARTS {
        let mut form = head.clone();
        let mut size = 0;
        form[part] = json!([]);
        for entry in list(&document, part) {
            let bytes = entry.to_string().len();
            if size > 0 && size + bytes > REQUEST_BYTES {
                import(&form).await?;
                form[part] = json!([]);
                size = 0;
            }
            size += bytes;
            if let Value::Array(entries) = &mut form[part] {
                entries.push(entry.clone());
            }
        }
        // Even an empty document has its passphrase checked.
        import(&form).await?;
    }
    let [added, replaced, unchanged] = sums;
    if !conflicts.is_empty() {
        return Err(Failure::new(format!(
            "{added} added, {replaced} replaced, {unchanged} unchanged, but there already and different (--replace overwrites):\n  {}",
            conflicts.join("\n  ")
        )));
    }
    Ok(match args.connection.json {
        true => {
            table::json(&json!({ "added": added, "replaced": replaced, "unchanged": unchanged }))
        }
        false => format!("{added} added, {replaced} replaced, {unchanged} unchanged."),
    })
}
