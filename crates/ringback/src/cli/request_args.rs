//! Options about a webhook's requests: headers and TLS.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use super::table::{clean, text};
use crate::failure::Failure;

/// Headers and TLS of a webhook.
#[derive(Args)]
#[command(next_help_heading = "The requests")]
pub(crate) struct RequestArgs {
    /// A header of its requests instead of those so far, no place for secrets; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = header)]
    header: Vec<(String, String)>,
    /// Take its headers away
    #[arg(long, conflicts_with = "header")]
    no_headers: bool,
    /// PEM file of the only authorities its certificate may come from
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// PEM file of the certificate that is shown to it, with its chain
    #[arg(long, value_name = "FILE")]
    tls_certificate: Option<PathBuf>,
    /// PEM file of that certificate's key; without, the one that is set stays
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Take its own TLS setting away; otherwise the --tls options together are the whole setting
    #[arg(long, conflicts_with_all = ["tls_ca", "tls_certificate"])]
    no_tls: bool,
}

impl RequestArgs {
    /// Adds what is asked for to what the API takes.
    pub(crate) fn add_to(&self, form: &mut Map<String, Value>) -> Result<(), Failure> {
        if self.no_headers || !self.header.is_empty() {
            let headers: Map<_, _> = self
                .header
                .iter()
                .map(|(name, value)| (name.clone(), value.clone().into()))
                .collect();
            form.insert("headers".to_owned(), headers.into());
        }
        if self.no_tls {
            form.insert("tls".to_owned(), Value::Null);
        } else if self.tls_ca.is_some() || self.tls_certificate.is_some() {
            let read = |path: &Option<PathBuf>| path.as_deref().map(read).transpose();
            let tls = json!({
                "ca": read(&self.tls_ca)?,
                "certificate": read(&self.tls_certificate)?,
                "key": read(&self.tls_key)?,
            });
            form.insert("tls".to_owned(), tls);
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("reading {}: {error}", path.display())))
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("use NAME=VALUE".to_owned()),
    }
}

/// The headers, for people.
pub(crate) fn headers(webhook: &Value) -> String {
    let headers = webhook["headers"].as_object();
    let shown = headers.into_iter().flatten().map(|(name, value)| {
        let name = clean(name);
        format!("{name}: {}", text(value))
    });
    match shown.collect::<Vec<_>>() {
        none if none.is_empty() => "none of its own".to_owned(),
        some => some.join(", "),
    }
}

/// The TLS setting, for people.
pub(crate) fn tls(webhook: &Value) -> String {
    let tls = &webhook["tls"];
    match (tls["ca"].is_string(), tls["certificate"].is_string()) {
        (false, false) => "the deployment's".to_owned(),
        (true, false) => "authorities of its own".to_owned(),
        (false, true) => "with a client certificate".to_owned(),
        (true, true) => "authorities of its own, with a client certificate".to_owned(),
    }
}
