//! A mail server that others wrote (aiosmtpd), on loopback; see `tests/sdks/mail_server.py`.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;

use crate::sdks;

const PATIENCE: Duration = Duration::from_secs(60);

/// How a server is protected.
#[derive(Clone, Copy, Debug)]
pub struct Protection<'a> {
    /// `none`, `starttls` or `tls`.
    pub mode: &'a str,
    /// Certificate and key.
    pub files: Option<(&'a Path, &'a Path)>,
    /// The only user, with the password.
    pub login: Option<(&'a str, &'a str)>,
}

/// No protection.
pub const OPEN: Protection<'static> = Protection {
    mode: "none",
    files: None,
    login: None,
};

/// A running server; ended when dropped.
pub struct MailServer {
    child: Child,
    reader: Option<JoinHandle<()>>,
    mails: Arc<Mutex<Vec<Value>>>,
}

impl MailServer {
    /// Starts one on this port, and waits until it takes connections.
    pub fn start(port: u16, protection: Protection<'_>) -> Self {
        let path = |path: Option<&Path>| path.map_or("-".into(), |path| path.display().to_string());
        let (certificate, key) = protection.files.unzip();
        let (user, password) = protection.login.unwrap_or(("-", "-"));
        let mut command = sdks::prepare().unwrap().python("mail_server.py");
        let mut child = command
            .args([port.to_string(), protection.mode.to_owned()])
            .args([path(certificate), path(key)])
            .args([user, password])
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        let mails = Arc::new(Mutex::new(Vec::new()));
        let kept = mails.clone();
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().push(serde_json::from_str(&line).unwrap());
            }
        });
        Self {
            child,
            reader: Some(reader),
            mails,
        }
    }

    /// What it has got.
    pub fn mails(&self) -> Vec<Value> {
        self.mails.lock().clone()
    }

    /// What it has got when there are at least so many.
    pub fn wait(&self, count: usize) -> Vec<Value> {
        let until = Instant::now() + PATIENCE;
        while self.mails().len() < count {
            assert!(
                Instant::now() < until,
                "not {count} mails: {:?}",
                self.mails()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        self.mails()
    }

    /// Ends it; what it has got.
    pub fn stop(mut self) -> Vec<Value> {
        self.end();
        self.mails()
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.end();
    }
}

/// A header of a mail; it must be there once.
pub fn header<'a>(mail: &'a Value, name: &str) -> &'a str {
    let headers = mail["headers"].as_array().unwrap();
    let mut found = headers.iter().filter(|header| header[0] == name);
    let value = found.next().unwrap_or_else(|| panic!("no {name}: {mail}"));
    assert!(found.next().is_none(), "{name} twice: {mail}");
    value[1].as_str().unwrap()
}
