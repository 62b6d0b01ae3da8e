//! The SMTP server that mail is handed to.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lettre::address::Envelope;
use lettre::message::{Mailbox, Message, header};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::{Error as SmtpError, SmtpTransport};
use lettre::{Address, Transport as _};
use ringback_core::mail_address::MailAddress;
use ringback_core::time::Timestamp;

use super::config::{MailConfig, MailTls};
use super::letter::Letter;

/// How long connecting, and each answer, may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Replies by which a server refuses us, not the mail.
const ABOUT_US: [u16; 5] = [421, 530, 534, 535, 538];

/// What became of a letter.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Sent {
    /// The server has it.
    Taken,
    /// The server will never take this one.
    Refused(String),
    /// The server does not take this one now.
    NotNow(String),
    /// The server takes nothing now, or is not there.
    Away(String),
}

/// Where letters are handed over.
pub(super) struct Post {
    transport: SmtpTransport,
    from: Mailbox,
    domain: String,
}

impl Post {
    /// Reads the files that the settings name. Connects to nothing.
    pub(super) fn new(config: &MailConfig) -> Result<Self, String> {
        let (host, port) = config
            .host_and_port()
            .ok_or("admin.mail.server is not an address such as smtp.example.com:587")?;
        let from = MailAddress::parse(&config.from)
            .map_err(|error| format!("admin.mail.from: {error}"))?;
        let tls = match config.tls {
            MailTls::Starttls => Tls::Required(parameters(config, host)?),
            MailTls::Tls => Tls::Wrapper(parameters(config, host)?),
            MailTls::None => Tls::None,
        };
        let mut builder = SmtpTransport::builder_dangerous(host)
            .port(port)
            .tls(tls)
            .timeout(Some(TIMEOUT));
        if let (Some(user), Some(path)) = (&config.username, &config.password_file) {
            let password = std::fs::read_to_string(path).map_err(|error| {
                let path = path.display();
                format!("reading admin.mail.password_file {path}: {error}")
            })?;
            let password = password.trim_end_matches(['\r', '\n']).to_owned();
            builder = builder.credentials(Credentials::new(user.clone(), password));
        }
        Ok(Self {
            transport: builder.build(),
            domain: from.domain().to_owned(),
            from: Mailbox::new(Some("Ringback".to_owned()), address(&from)?),
        })
    }

    /// Blocking: whether the server is there and lets us in.
    pub(super) fn reach(&self) -> Result<(), String> {
        match self.transport.test_connection() {
            Ok(true) => Ok(()),
            Ok(false) => Err("the server closed the connection".to_owned()),
            Err(error) => Err(reason(&error)),
        }
    }

    /// Blocking: hands a letter over.
    pub(super) fn send(&self, letter: &Letter, now: Timestamp) -> Sent {
        let (envelope, message) = match self.message(letter, now) {
            Ok(message) => message,
            Err(reason) => return Sent::Refused(reason),
        };
        match self.transport.send_raw(&envelope, &message) {
            Ok(_) => Sent::Taken,
            Err(error) => {
                let code = error.status().map(u16::from);
                let reason = reason(&error);
                match code {
                    Some(code) if ABOUT_US.contains(&code) => Sent::Away(reason),
                    Some(_) if error.is_permanent() => Sent::Refused(reason),
                    Some(_) => Sent::NotNow(reason),
                    None => Sent::Away(reason),
                }
            }
        }
    }

    fn message(&self, letter: &Letter, now: Timestamp) -> Result<(Envelope, Vec<u8>), String> {
        let to = address(&letter.to)?;
        let since_epoch = Duration::from_micros(now.as_micros().max(0).unsigned_abs());
        let date: SystemTime = UNIX_EPOCH + since_epoch;
        let message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .date(date)
            .subject(letter.subject.clone())
            .message_id(Some(format!("<{}@{}>", letter.id, self.domain)))
            .header(AutoSubmitted)
            .header(header::ContentType::TEXT_PLAIN)
            .body(letter.text.clone())
            .map_err(|error| format!("making the mail: {error}"))?;
        Ok((message.envelope().clone(), message.formatted()))
    }
}

/// Blocking: whether mail could be sent with these settings; what is wrong otherwise.
pub fn check(config: &MailConfig) -> Result<(), String> {
    Post::new(config)?.reach()
}

fn parameters(config: &MailConfig, host: &str) -> Result<TlsParameters, String> {
    let mut builder = TlsParameters::builder(host.to_owned());
    if let Some(path) = &config.ca_file {
        let doing = format!("reading admin.mail.ca_file {}", path.display());
        let pem = std::fs::read(path).map_err(|error| format!("{doing}: {error}"))?;
        let certificate = Certificate::from_pem(&pem)
            .map_err(|error| format!("{doing}: it is no PEM certificate: {error}"))?;
        builder = builder
            .certificate_store(CertificateStore::None)
            .add_root_certificate(certificate);
    }
    builder
        .build()
        .map_err(|error| format!("preparing TLS for admin.mail: {error}"))
}

fn address(address: &MailAddress) -> Result<Address, String> {
    let text = address.as_str();
    text.parse()
        .map_err(|error| format!("{text:?} cannot be a mail address: {error}"))
}

/// What went wrong, with its causes, on one line.
fn reason(error: &SmtpError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    let line = text.replace(char::is_control, " ");
    line.chars().take(500).collect()
}

/// RFC 3834: nobody's absence notice shall come back.
#[derive(Clone)]
struct AutoSubmitted;

impl header::Header for AutoSubmitted {
    fn name() -> header::HeaderName {
        header::HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> header::HeaderValue {
        header::HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}
