//! The way to a webhook, step by step: its address, name, connection, certificate, and whether something
//! answers there. Nothing is sent that a receiver could take for an event.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::tls::TlsInfo;
use reqwest::{Certificate, StatusCode};
use ringback_core::target::Unreachable;
use ringback_core::time::Timestamp;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Url;

use super::report::Report;
use crate::cli::{Client, Connection, list};
use crate::config::Config;
use crate::failure::Failure;
use crate::http;

/// How long resolving a name may take.
const RESOLVED_WITHIN: Duration = Duration::from_secs(5);
/// Addresses of a name that are connected to.
const ADDRESSES_MAX: usize = 8;
/// A certificate that ends sooner is warned of.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 86_400);
const DAY: Duration = Duration::from_secs(86_400);

/// Checks these webhooks, or all there are.
pub(super) async fn check_all(
    config: &Config,
    connection: &Connection,
    named: &[(String, String)],
    report: &mut Report,
) -> Result<(), Failure> {
    let client = Client::new(connection)?;
    let mut config = config.clone();
    config.open_own_machine();
    let mut webhooks = Vec::new();
    if named.is_empty() {
        let tenants = client.all(&["tenants"], "tenants", &[]).await?;
        for tenant in list(&tenants, "tenants") {
            let tenant = tenant["id"].as_str().unwrap_or_default();
            let found = client.get(&["tenants", tenant, "webhooks"], &[]).await?;
            webhooks.extend(list(&found.body, "webhooks").iter().cloned());
        }
    } else {
        for (tenant, name) in named {
            let path = ["tenants", tenant, "webhooks", name];
            webhooks.push(client.get(&path, &[]).await?.body);
        }
    }
    for webhook in &webhooks {
        check(&config, webhook, report).await;
    }
    Ok(())
}

async fn check(config: &Config, webhook: &Value, report: &mut Report) {
    let text = |field: &str| webhook[field].as_str().unwrap_or_default();
    let name = format!("{}/{}", text("tenant"), text("name"));
    state(webhook, &name, report);
    let url = match config.dispatcher.reach().check(text("url")) {
        Ok(url) => url,
        Err(error) => return refused(&name, &error, report),
    };
    if config.dispatcher.lookup().is_none() {
        let said = "requests go through the proxy (dispatcher.proxy), which resolves and connects";
        let advice = "`ringback webhook test` shows whether it answers";
        return report.warning(&format!("{name} address"), said, advice);
    }
    let Some(addresses) = resolve(config, &url, &name, report).await else {
        return;
    };
    let Some(open) = connect(config, &addresses, &name, report).await else {
        return;
    };
    answer(config, webhook, &url, &open, &name, report).await;
}

fn state(webhook: &Value, name: &str, report: &mut Report) {
    let check = format!("{name} state");
    let health = &webhook["health"];
    let reason = health["reason"].as_str().unwrap_or_default();
    let [tenant, webhook_name] =
        ["tenant", "name"].map(|f| webhook[f].as_str().unwrap_or_default());
    match (webhook["enabled"].as_bool(), health["state"].as_str()) {
        (Some(false), _) => {
            let advice = format!("`ringback webhook resume {tenant} {webhook_name}`");
            report.warning(&check, "paused: nothing is sent", &advice);
        }
        (_, Some("disabled")) => {
            let advice =
                format!("repair it, then `ringback webhook enable {tenant} {webhook_name}`");
            report.failed(&check, format!("disabled: {reason}"), &advice);
        }
        (_, Some("failing")) => {
            let advice = format!(
                "`ringback attempts list {tenant} {webhook_name} --outcome failed` shows what it answers"
            );
            report.warning(&check, format!("failing: {reason}"), &advice);
        }
        _ => report.ok(&check, "on, and not known to fail"),
    }
}

fn refused(name: &str, error: &Unreachable, report: &mut Report) {
    let advice =
        "use another address, or open it with dispatcher.allow_networks; see docs/addresses.md";
    report.failed(&format!("{name} address"), error.to_string(), advice);
}

/// The addresses that may be dialled.
async fn resolve(
    config: &Config,
    url: &Url,
    name: &str,
    report: &mut Report,
) -> Option<Vec<SocketAddr>> {
    let port = url.port_or_known_default().unwrap_or_default();
    let host = url.host_str().unwrap_or_default();
    let Some(domain) = url.domain() else {
        // A literal, which is open: it was checked with the URL.
        let address = host.trim_matches(['[', ']']).parse().ok()?;
        return Some(vec![SocketAddr::new(address, port)]);
    };
    let check = format!("{name} DNS");
    let advice = "correct the name, or its records in the DNS; this machine's resolver was asked";
    let lookup = config.dispatcher.lookup()?;
    let found = match timeout(RESOLVED_WITHIN, lookup.find(domain)).await {
        Ok(Ok(found)) if found.is_empty() => Err("it has no address".to_owned()),
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", RESOLVED_WITHIN.as_secs())),
    };
    let found = match found {
        Ok(found) => found,
        Err(reason) => {
            report.failed(
                &check,
                format!("{domain} does not resolve: {reason}"),
                advice,
            );
            return None;
        }
    };
    let reach = config.dispatcher.reach();
    let open = match reach.check_addresses(domain, found.iter().copied()) {
        Ok(open) => open,
        Err(error) => {
            refused(name, &error, report);
            return None;
        }
    };
    let shown: Vec<_> = open
        .iter()
        .map(|address| address.ip().to_string())
        .collect();
    let said = format!("{domain} is {}", shown.join(", "));
    match found.len() - open.len() {
        0 => report.ok(&check, said),
        closed => report.warning(
            &check,
            format!("{said}; {closed} more of its addresses are closed to webhooks"),
            "see docs/addresses.md; only the others are used",
        ),
    }
    let with_port = |mut address: SocketAddr| {
        address.set_port(port);
        address
    };
    Some(
        open.into_iter()
            .map(with_port)
            .take(ADDRESSES_MAX)
            .collect(),
    )
}

/// The addresses that take connections.
async fn connect(
    config: &Config,
    addresses: &[SocketAddr],
    name: &str,
    report: &mut Report,
) -> Option<Vec<SocketAddr>> {
    let check = format!("{name} TCP");
    let (mut open, mut problems) = (Vec::new(), Vec::new());
    for address in addresses {
        match timeout(
            config.dispatcher.connect_timeout,
            TcpStream::connect(address),
        )
        .await
        {
            Ok(Ok(_)) => open.push(*address),
            Ok(Err(error)) => problems.push(format!("{address}: {error}")),
            Err(_) => problems.push(format!("{address}: no answer")),
        }
    }
    let advice = "is the receiver running, and does a firewall let this machine through?";
    match (open.is_empty(), problems.is_empty()) {
        (true, _) => {
            report.failed(&check, problems.join("; "), advice);
            return None;
        }
        (false, false) => report.warning(&check, problems.join("; "), advice),
        (false, true) => report.ok(&check, format!("{} of its addresses connect", open.len())),
    }
    Some(open)
}

/// TLS, and whether HTTP is spoken there.
async fn answer(
    config: &Config,
    webhook: &Value,
    url: &Url,
    addresses: &[SocketAddr],
    name: &str,
    report: &mut Report,
) {
    let client = match client(config, webhook, url, addresses) {
        Ok(client) => client,
        Err(reason) => {
            let advice = "correct dispatcher.ca_file, or the webhook's tls.ca";
            return report.failed(&format!("{name} TLS"), reason, advice);
        }
    };
    // Without authentication and without a body: no receiver takes it for an event.
    let response = match client.head(url.clone()).send().await {
        Ok(response) => response,
        Err(error) => return no_answer(&error, webhook, name, report),
    };
    if let Some(certificate) = response.extensions().get::<TlsInfo>() {
        let now = ringback_log::system_clock().now();
        certificate_of(certificate.peer_certificate(), now, name, report);
    } else if url.scheme() == "http" {
        let said = "there is none: events and passwords can be read on their way";
        report.warning(&format!("{name} TLS"), said, "use an https:// address");
    }
    status(response.status(), webhook, name, report);
}

fn client(
    config: &Config,
    webhook: &Value,
    url: &Url,
    addresses: &[SocketAddr],
) -> Result<reqwest::Client, String> {
    // Another part of the process may have chosen a provider before; either will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(config.dispatcher.connect_timeout)
        .timeout(config.dispatcher.timeout)
        .tls_info(true);
    if let Some(domain) = url.domain() {
        builder = builder.resolve_to_addrs(domain, addresses);
    }
    let bundle = |pem: &[u8], what: &str| {
        Certificate::from_pem_bundle(pem)
            .map_err(|error| format!("reading {what}: {}", http::describe(&error)))
    };
    builder = match (webhook["tls"]["ca"].as_str(), &config.dispatcher.ca_file) {
        (Some(ca), _) => builder.tls_certs_only(bundle(ca.as_bytes(), "the webhook's tls.ca")?),
        (None, Some(path)) => {
            let what = format!("dispatcher.ca_file {}", path.display());
            let pem = std::fs::read(path).map_err(|error| format!("reading {what}: {error}"))?;
            builder.tls_certs_merge(bundle(&pem, &what)?)
        }
        (None, None) => builder,
    };
    let made = builder.build();
    made.map_err(|error| format!("making the HTTP client: {}", http::describe(&error)))
}

fn no_answer(error: &reqwest::Error, webhook: &Value, name: &str, report: &mut Report) {
    let said = http::describe(error);
    let Some(tls) = http::tls_error(error) else {
        let advice = "does a web server listen at that port, and answer in time?";
        return report.failed(&format!("{name} answer"), said, advice);
    };
    let advice = match tls {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "its authority is not known here: send the whole chain with the certificate, or give its authority with `ringback webhook set … --tls-ca` or dispatcher.ca_file"
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => {
            "its certificate is for another name: use that name in the URL, or a certificate for this one"
        }
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "its certificate has expired: renew it",
        rustls::Error::AlertReceived(_) if webhook["tls"]["certificate"].is_string() => {
            "it wants to see the client certificate, whose key only dispatchers have: `ringback webhook test` shows whether it takes it"
        }
        rustls::Error::AlertReceived(_) => {
            "it refuses the connection: does it want a client certificate, or an old version of TLS? 1.2 and 1.3 are spoken"
        }
        _ => "does the receiver speak TLS 1.2 or 1.3 at that port?",
    };
    report.failed(&format!("{name} TLS"), said, advice);
}

/// What was verified by the handshake is right now; how long will it be?
fn certificate_of(der: Option<&[u8]>, now: Timestamp, name: &str, report: &mut Report) {
    let check = format!("{name} TLS");
    match der.and_then(|der| ends_before(der, now + EXPIRES_SOON)) {
        None => report.ok(&check, "its certificate is right, also in two weeks"),
        Some(end) => {
            let days = end.since(now).as_secs() / DAY.as_secs();
            let said = format!("its certificate is right, and expires in {days} days ({end})");
            report.warning(&check, said, "renew it before that");
        }
    }
}

/// When this certificate ends, if that is before then.
fn ends_before(der: &[u8], then: Timestamp) -> Option<Timestamp> {
    let der = CertificateDer::from(der);
    let certificate = ParsedCertificate::try_from(&der).ok()?;
    let then = UnixTime::since_unix_epoch(then.since(Timestamp::EPOCH));
    // Without authorities it never succeeds; times are looked at before these.
    let nobody = RootCertStore::empty();
    match verify_server_cert_signed_by_trust_anchor(&certificate, &nobody, &[], then, &[]) {
        Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
            not_after,
            ..
        })) => Some(Timestamp::EPOCH + Duration::from_secs(not_after.as_secs())),
        _ => None,
    }
}

fn status(status: StatusCode, webhook: &Value, name: &str, report: &mut Report) {
    let check = format!("{name} answer");
    let said = format!("it answers {} to HEAD", status.as_u16());
    let method = webhook["authentication"]["method"].as_str();
    match status.as_u16() {
        300..=399 => report.warning(
            &check,
            said,
            "redirects are not followed, and acknowledge nothing: use the address it leads to",
        ),
        401 | 403 if matches!(method, None | Some("none")) => report.warning(
            &check,
            said,
            "it asks for authentication and the webhook has none: `ringback webhook set … --auth …`",
        ),
        404 | 410 => report.warning(
            &check,
            said,
            "is the path right? Some receivers answer POST only: `ringback webhook test` sends one",
        ),
        500.. => report.warning(&check, said, "look into the receiver's own log"),
        _ => report.ok(&check, said),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn a_certificate_that_ends_soon_is_noticed() {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 6, 1);
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let at = |day: &str| Timestamp::parse(&format!("{day}T00:00:00Z")).unwrap();
        assert_eq!(ends_before(der.der(), at("2026-05-31")), None);
        assert_eq!(
            ends_before(der.der(), at("2026-06-03")),
            Some(at("2026-06-01"))
        );
        let mut report = Report::new(true);
        for now in ["2026-05-01", "2026-05-25"] {
            certificate_of(Some(der.der()), at(now), "acme/cdr", &mut report);
        }
        assert_eq!(report.results(), ["ok", "warning"]);
    }

    #[test]
    fn answers_that_do_not_bode_well_are_warned_of() {
        let mut report = Report::new(true);
        for (code, method) in [
            (200, "none"),
            (405, "none"),
            (401, "digest"),
            (401, "none"),
            (302, "none"),
            (404, "none"),
            (503, "none"),
        ] {
            let webhook = serde_json::json!({ "authentication": { "method": method } });
            let code = StatusCode::from_u16(code).unwrap();
            status(code, &webhook, "acme/cdr", &mut report);
        }
        assert_eq!(
            report.results(),
            ["ok", "ok", "ok", "warning", "warning", "warning", "warning"]
        );
    }
}
