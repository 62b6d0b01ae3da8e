//! `ringback listen`: a receiver that shows what arrives, and can misbehave on command.

mod behaviour;
mod receiver;
mod show;

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use clap::Args;
use ringback_core::secret::Secret;
use ringback_core::signature::{InvalidKey, Verifier};
use ringback_core::time::parse_duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) use crate::listen::behaviour::{Behaviour, Credentials};
pub(crate) use crate::listen::receiver::{Receiver, Request};

use crate::failure::Failure;
use crate::out;

/// Requests that wait to be shown; beyond, answers wait, so that nothing goes unshown.
const UNSHOWN_MAX: usize = 256;
/// How often `--quiet` shows its counters, when they changed.
const COUNTERS_EVERY: Duration = Duration::from_secs(1);

/// `ringback listen`.
#[derive(Args, Debug)]
pub(crate) struct ListenArgs {
    /// Address to listen on; port 0 takes any free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8090")]
    listen: String,
    /// Show only counters
    #[arg(long, conflicts_with = "json")]
    quiet: bool,
    /// Show each request as a line of JSON
    #[arg(long)]
    json: bool,
    /// Answer with this status [default: 200, and 503 for what is to fail]
    #[arg(long, value_parser = clap::value_parser!(u16).range(200..=599))]
    status: Option<u16>,
    /// Only the first N requests fail, or get --status; then 200
    #[arg(
        long = "status-for-first",
        value_name = "N",
        conflicts_with = "fail_share"
    )]
    first: Option<u64>,
    /// Only this share of requests fails, or gets --status: 0.3
    #[arg(long, value_name = "SHARE", value_parser = share)]
    fail_share: Option<f64>,
    /// Which requests --fail-share chooses
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Those that are to fail (all, unless chosen) get no answer for this long: 10s
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    hang: Option<Duration>,
    /// Every answer takes at least this long: 200ms
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    delay: Option<Duration>,
    /// Add a header to every answer: `retry-after:30`
    #[arg(long = "header", value_name = "NAME:VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// End after this many requests
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    exit_after: Option<u64>,
    /// Answer 401 to requests without these credentials
    #[arg(long, value_name = "USER:PASSWORD", group = "required", value_parser = secret)]
    require_basic: Option<Secret>,
    /// Challenge requests by Digest (SHA-256), and answer 401 to those that do not reply with these
    #[arg(long, value_name = "USER:PASSWORD", group = "required", value_parser = digest)]
    require_digest: Option<Credentials>,
    /// Answer 401 to requests without this token
    #[arg(long, value_name = "TOKEN", group = "required", value_parser = secret)]
    require_bearer: Option<Secret>,
    /// Verify signatures with this secret, whsec_… or whpk_…; answer 401 to requests it does not sign
    #[arg(long, value_name = "SECRET", value_parser = verifier)]
    secret: Option<Verifier>,
}

impl ListenArgs {
    fn behaviour(&self) -> Behaviour {
        let fails = self.first.is_some() || self.fail_share.is_some() || self.hang.is_some();
        let usual = if fails { 503 } else { 200 };
        let basic = self.require_basic.as_ref().map(Credentials::basic);
        let bearer = self.require_bearer.as_ref().map(Credentials::bearer);
        Behaviour {
            status: self.status.unwrap_or(usual),
            first: self.first,
            share: self.fail_share,
            seed: self.seed,
            hang: self.hang.unwrap_or_default(),
            delay: self.delay.unwrap_or_default(),
            headers: self.headers.clone(),
            credentials: basic.or(bearer).or(self.require_digest.clone()),
            verifier: self.secret.clone(),
        }
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text
        .parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "use a number from 0 to 1".to_owned())
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("use name:value")?;
    let name = name
        .trim()
        .parse::<HeaderName>()
        .map_err(|error| error.to_string())?;
    let value = value
        .trim()
        .parse::<HeaderValue>()
        .map_err(|error| error.to_string())?;
    Ok((name, value))
}

fn verifier(text: &str) -> Result<Verifier, InvalidKey> {
    Verifier::read(&Secret::new(text))
}

fn digest(text: &str) -> Result<Credentials, String> {
    Credentials::digest(&Secret::new(text), Uuid::new_v4())
}

#[allow(clippy::unnecessary_wraps)] // The form that clap asks for.
fn secret(text: &str) -> Result<Secret, String> {
    Ok(Secret::new(text))
}

/// Receives until Ctrl-C, SIGTERM or `--exit-after`, then sums up.
pub(crate) async fn run(args: ListenArgs) -> Result<(), Failure> {
    let failed = |error| {
        Failure::new(format!(
            "listening on {}: {error}; choose another address with --listen",
            args.listen
        ))
    };
    let listener = TcpListener::bind(&args.listen).await.map_err(failed)?;
    let stop = CancellationToken::new();
    tokio::spawn(cancel_on_signal(stop.clone())?);
    let (sender, requests) = mpsc::channel(UNSHOWN_MAX);
    let receiver = Receiver::watched(listener, args.behaviour(), sender).map_err(failed)?;
    match args.json {
        true => out!("{{\"listening\":\"http://{}\"}}", receiver.address()),
        false => out!("listening on http://{}; Ctrl-C ends", receiver.address()),
    }
    show_until(&args, &receiver, requests, &stop).await;
    let received = receiver.stop().await;
    if args.json {
        out!("{}", show::summary_json(&received));
    } else {
        out!("{}", show::summary(&received));
    }
    Ok(())
}

/// Shows requests until `stop`, or until the last one that was asked for.
async fn show_until(
    args: &ListenArgs,
    receiver: &Receiver,
    mut requests: mpsc::Receiver<Request>,
    stop: &CancellationToken,
) {
    let mut counters = tokio::time::interval(COUNTERS_EVERY);
    let (mut shown, mut said) = (0, 0);
    while args.exit_after.is_none_or(|last| shown < last) {
        let request = tokio::select! {
            request = requests.recv() => request,
            _ = counters.tick(), if args.quiet => {
                if shown > said {
                    out!("{}", show::summary(&receiver.received()));
                    said = shown;
                }
                continue;
            }
            () = stop.cancelled() => None,
        };
        let Some(request) = request else { return };
        shown += 1;
        if args.json {
            out!("{}", show::json(&request));
        } else if !args.quiet {
            out!("{}", show::readable(&request));
        }
    }
}

/// Listens from the moment it is called.
fn cancel_on_signal(stop: CancellationToken) -> Result<impl Future<Output = ()>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |error| Failure::new(format!("listening for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    })
}
