//! `ringback up`: the whole pipeline in one process.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringback_core::account::hex;
use ringback_core::secret::KEY_BYTES;

use crate::component::{Addresses, Components, run_until_signal};
use crate::config::{Config, Engine};
use crate::failure::Failure;
use crate::out;

/// The operator's token, in the data directory.
pub(crate) const OPERATOR_TOKEN_FILE: &str = "operator-token";
/// The key that `up` made, likewise.
pub(crate) const MASTER_KEY_FILE: &str = "master-key";
/// Id of the key that `up` makes for itself.
const OWN_KEY: &str = "local";

/// Runs until it is told to stop.
pub(crate) async fn run(mut config: Config) -> Result<(), Failure> {
    let dir = config.log.local.dir.clone();
    if config.log.engine == Engine::Local {
        provide_secrets(&mut config, &dir)?;
    }
    let local = config.log.engine == Engine::Local;
    let loopback = config.open_own_machine();
    run_until_signal(config, Components::ALL, |addresses| {
        greet(addresses, local.then_some(dir.as_path()), loopback);
    })
    .await?;
    out!(
        "stopped; everything accepted is in {} or delivered",
        "the log"
    );
    Ok(())
}

/// On one machine nobody should have to invent keys: what configuration does not give is made once,
/// and kept beside the data for its owner only.
pub(crate) fn provide_secrets(config: &mut Config, dir: &Path) -> Result<(), Failure> {
    let made = || format!("making the data directory {}", dir.display());
    fs::create_dir_all(dir).map_err(|error| Failure::new(format!("{}: {error}", made())))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
        .map_err(|error| Failure::new(format!("{}: {error}", made())))?;
    if !config.admin.has_operator_token() {
        let token = keep(&dir.join(OPERATOR_TOKEN_FILE), |bytes| {
            format!("rbo_{}", hex(bytes))
        })?;
        config.admin.operator_token = token.into();
    }
    if config.secrets.keys.is_empty() {
        let key = keep(&dir.join(MASTER_KEY_FILE), |bytes| STANDARD.encode(bytes))?;
        config.secrets.set_only_key(OWN_KEY, key);
    }
    Ok(())
}

/// Reads a secret from a file, or makes it from fresh randomness.
fn keep(path: &Path, make: impl Fn(&[u8]) -> String) -> Result<String, Failure> {
    let failed = |doing: &str, error: &dyn std::fmt::Display| {
        Failure::new(format!("{doing} {}: {error}", path.display()))
    };
    match fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {
            return Err(failed(
                "reading",
                &"it is empty; restore it, or remove it to get a new one",
            ));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("reading", &error)),
    }
    let mut bytes = [0; KEY_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| failed("finding randomness for", &error))?;
    let text = make(&bytes);
    // Written beside and moved into place: a kill leaves the whole file or none.
    let beside = path.with_extension("new");
    let _ = fs::remove_file(&beside);
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| {
            writeln!(file, "{text}")?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| failed("writing", &error))?;
    Ok(text)
}

fn greet(addresses: &Addresses, dir: Option<&Path>, loopback: bool) {
    let unknown = String::new();
    let ingest = addresses.ingest.as_ref().unwrap_or(&unknown);
    let admin = addresses.admin.as_ref().unwrap_or(&unknown);
    let telemetry = addresses.telemetry.as_ref().unwrap_or(&unknown);
    out!("Ringback is up.");
    out!("  events go in at   {ingest}/v1/events");
    out!("  portal            {admin}/portal/");
    out!("  administration    {admin}/v1/");
    out!("  metrics, health   {telemetry}/metrics, /healthz, /readyz");
    if let Some(canary) = &addresses.canary {
        out!("  canary listens    {canary}");
    }
    if let Some(dir) = dir {
        out!("  data              {}", dir.display());
        out!(
            "  operator's token  {}",
            dir.join(OPERATOR_TOKEN_FILE).display()
        );
        out!("Sign in to the portal with that token, or with an account:");
    } else {
        out!("Sign in to the portal with admin.operator_token, or with an account:");
    }
    out!("  ringback account add NAME --operator");
    if loopback {
        out!("  webhooks may be   on this machine, because dispatcher.allow_networks is not set");
    }
    out!("");
    out!("Next, in other terminals:");
    out!("  ringback listen                                    # a receiver on port 8090");
    out!("  ringback tenant add acme");
    out!("  ringback webhook add acme cdr --url http://127.0.0.1:8090/cdr");
    out!("  ringback token add --tenant acme                   # then: export RINGBACK_TOKEN=…");
    out!(
        "  echo '{{\"type\":\"cdr.completed\",\"data\":{{\"caller\":\"2001\"}}}}' | ringback send"
    );
    out!("  ringback attempts list acme cdr");
}
