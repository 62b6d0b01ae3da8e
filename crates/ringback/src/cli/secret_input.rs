//! Authentication of a webhook from options, files, standard input and the environment.

use std::io::{IsTerminal as _, Read};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use crate::failure::Failure;

/// Where a password is looked for when basic or digest authentication is asked for without one.
const PASSWORD_ENV: &str = "RINGBACK_WEBHOOK_PASSWORD";
/// The same for the token of bearer authentication.
const TOKEN_ENV: &str = "RINGBACK_WEBHOOK_TOKEN";
/// Where the passphrase of an export is looked for.
const PASSPHRASE_ENV: &str = "RINGBACK_PASSPHRASE";
/// Longest secret that is read, in bytes; the API takes less.
const BYTES_MAX: u64 = 64 * 1024;

/// How requests to the webhook authenticate.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    None,
    Basic,
    Digest,
    Bearer,
}

/// Options that set a webhook's authentication.
#[derive(Args)]
#[command(next_help_heading = "Authentication of the requests")]
pub(crate) struct AuthenticationArgs {
    /// The method; basic and bearer follow from their options, digest must be asked for
    #[arg(long, value_enum, value_name = "METHOD")]
    auth: Option<Method>,
    /// User name for basic and digest authentication
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// Password for basic and digest authentication (visible in the list of processes: better from a file,
    /// standard input, or RINGBACK_WEBHOOK_PASSWORD)
    #[arg(long, value_name = "TEXT", group = "secret")]
    password: Option<String>,
    /// A file with the password
    #[arg(long, value_name = "FILE", group = "secret")]
    password_file: Option<PathBuf>,
    /// Read the password from standard input
    #[arg(long, group = "secret")]
    password_stdin: bool,
    /// Token for bearer authentication (visible in the list of processes: better from a file,
    /// standard input, or RINGBACK_WEBHOOK_TOKEN)
    #[arg(long, value_name = "TEXT", group = "secret")]
    token: Option<String>,
    /// A file with the token
    #[arg(long, value_name = "FILE", group = "secret")]
    token_file: Option<PathBuf>,
    /// Read the token from standard input
    #[arg(long, group = "secret")]
    token_stdin: bool,
    /// For how long a receiver that refuses the new authentication is asked again with that of before
    /// (24h), so that it can change in this time
    #[arg(long, value_name = "DURATION")]
    grace: Option<String>,
}

impl AuthenticationArgs {
    /// The authentication as the API takes it; `None` when no option is about it.
    pub(crate) fn read(&self) -> Result<Option<Value>, Failure> {
        let login = self.username.is_some()
            || self.password.is_some()
            || self.password_file.is_some()
            || self.password_stdin;
        let bearer = self.token.is_some() || self.token_file.is_some() || self.token_stdin;
        let method = match (self.auth, login, bearer) {
            (None, false, false) if self.grace.is_some() => {
                return Err(Failure::usage(
                    "--grace goes with a new user name, password or token",
                ));
            }
            (None, false, false) => return Ok(None),
            (_, true, true) => {
                return Err(Failure::usage(
                    "choose basic or digest, or bearer authentication, not both",
                ));
            }
            (Some(Method::None), false, false) => Method::None,
            (Some(Method::Basic) | None, true, false) => Method::Basic,
            (Some(Method::Digest), true, false) => Method::Digest,
            (Some(Method::Bearer) | None, false, true) => Method::Bearer,
            (Some(method), false, false) => method,
            (Some(_), _, _) => {
                return Err(Failure::usage(
                    "the options do not fit the method given with --auth",
                ));
            }
        };
        let mut form = Map::new();
        let mut put = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                form.insert(name.to_owned(), value.into());
            }
        };
        put("grace", self.grace.clone());
        match method {
            Method::None => put("method", Some("none".to_owned())),
            Method::Basic | Method::Digest => {
                let name = match method {
                    Method::Digest => "digest",
                    _ => "basic",
                };
                put("method", Some(name.to_owned()));
                put("username", self.username.clone());
                let Self {
                    password,
                    password_file,
                    password_stdin,
                    ..
                } = self;
                let file = password_file.as_deref();
                put(
                    "password",
                    secret(password.as_deref(), file, *password_stdin, PASSWORD_ENV)?,
                );
            }
            Method::Bearer => {
                put("method", Some("bearer".to_owned()));
                let Self {
                    token,
                    token_file,
                    token_stdin,
                    ..
                } = self;
                put(
                    "token",
                    secret(
                        token.as_deref(),
                        token_file.as_deref(),
                        *token_stdin,
                        TOKEN_ENV,
                    )?,
                );
            }
        }
        Ok(Some(form.into()))
    }

    /// Fits what was read to the webhook that is changed: a new user name or password alone makes no
    /// Digest webhook a Basic one, whose requests would carry the password.
    pub(crate) fn fit(&self, form: &mut Value, current: &Value) {
        let digest = current["method"] == "digest" && form["method"] == "basic";
        if let (None, true, Some(form)) = (self.auth, digest, form.as_object_mut()) {
            form.remove("method");
        }
    }
}

/// A signing secret of one's own, instead of one that is made.
#[derive(Args)]
pub(crate) struct SigningSecretArgs {
    /// A secret of your own, whsec_… or whsk_…, instead of one that is made (visible in the list of
    /// processes: better from a file or standard input)
    #[arg(long, value_name = "TEXT", group = "own_secret")]
    secret: Option<String>,
    /// A file with it
    #[arg(long, value_name = "FILE", group = "own_secret")]
    secret_file: Option<PathBuf>,
    /// Read it from standard input
    #[arg(long, group = "own_secret")]
    secret_stdin: bool,
}

impl SigningSecretArgs {
    /// `None` when none is given.
    pub(crate) fn read(&self) -> Result<Option<String>, Failure> {
        given(
            self.secret.as_deref(),
            self.secret_file.as_deref(),
            self.secret_stdin,
        )
    }
}

/// The password of an account. There is no option with the password itself: those who list processes
/// see options.
#[derive(Args)]
#[command(next_help_heading = "Password")]
pub(crate) struct AccountPasswordArgs {
    /// A file with the password
    #[arg(long, value_name = "FILE", group = "password_source")]
    password_file: Option<PathBuf>,
    /// Read the password from standard input
    #[arg(long, group = "password_source")]
    password_stdin: bool,
    /// Ask for the password, without showing what is typed
    #[arg(long, group = "password_source")]
    ask_password: bool,
}

impl AccountPasswordArgs {
    /// `None` when none is given.
    pub(crate) fn read(&self) -> Result<Option<String>, Failure> {
        match self.ask_password {
            true => ask().map(Some),
            false => given(None, self.password_file.as_deref(), self.password_stdin),
        }
    }
}

/// Asks twice on the terminal.
fn ask() -> Result<String, Failure> {
    let terminal = console::Term::stderr();
    if !terminal.is_term() || !std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            "there is no terminal to ask for the password on; use --password-file or --password-stdin",
        ));
    }
    let ask = |what: &str| {
        terminal
            .write_str(what)
            .and_then(|()| terminal.read_secure_line())
            .map_err(|error| Failure::new(format!("asking for the password: {error}")))
    };
    let password = ask("New password: ")?;
    match ask("The same again: ")? == password {
        true => Ok(password),
        false => Err(Failure::usage(
            "the two passwords differ; nothing was changed",
        )),
    }
}

/// The passphrase of an export: from a file, standard input, or `RINGBACK_PASSPHRASE`.
#[derive(Args)]
pub(crate) struct PassphraseArgs {
    /// A file with the passphrase, which seals the secrets in the document
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl PassphraseArgs {
    pub(crate) fn read(&self) -> Result<String, Failure> {
        let found = secret(None, self.passphrase_file.as_deref(), false, PASSPHRASE_ENV)?;
        found.ok_or_else(|| {
            Failure::usage(format!(
                "the secrets in the document need a passphrase: use --passphrase-file or {PASSPHRASE_ENV}"
            ))
        })
    }
}

fn secret(
    text: Option<&str>,
    file: Option<&Path>,
    stdin: bool,
    variable: &str,
) -> Result<Option<String>, Failure> {
    let found = given(text, file, stdin)?;
    Ok(found.or_else(|| std::env::var(variable).ok().filter(|text| !text.is_empty())))
}

/// A secret that is given with an option.
fn given(text: Option<&str>, file: Option<&Path>, stdin: bool) -> Result<Option<String>, Failure> {
    if let Some(text) = text {
        return Ok(Some(text.to_owned()));
    }
    if let Some(path) = file {
        let what = path.display().to_string();
        let file = std::fs::File::open(path)
            .map_err(|error| Failure::usage(format!("reading the secret from {what}: {error}")))?;
        return read(file, &what).map(Some);
    }
    if stdin {
        let stdin = std::io::stdin();
        if stdin.is_terminal() {
            return Err(Failure::usage(
                "standard input is a terminal, which would show the secret; pipe it in, or use a file",
            ));
        }
        return read(stdin.lock(), "standard input").map(Some);
    }
    Ok(None)
}

/// Reads a secret that may end with a line break.
fn read(source: impl Read, what: &str) -> Result<String, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::usage(format!("reading the secret from {what}: {error}"))
    };
    let mut text = String::new();
    source
        .take(BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| failed(&error))?;
    if text.len() as u64 > BYTES_MAX {
        return Err(failed(&"it is far too long for a secret"));
    }
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(failed(&"it is empty"));
    }
    Ok(text.to_owned())
}
