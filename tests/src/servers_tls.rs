//! nginx as a receiver over TLS, one port for each way to speak it.

use std::path::Path;

use crate::certificates::{Authority, write};
use crate::ports;
use crate::servers::{Programs, Running, nginx_frame};

/// Ways, and what nginx is told about each. The TLS 1.1 of OpenSSL 3 needs its lowest security level.
const WAYS: [(&str, &str, &str); 6] = [
    ("tls12", "ssl", "ssl_protocols TLSv1.2;"),
    ("tls13", "ssl", "ssl_protocols TLSv1.3;"),
    ("http2", "ssl http2", BOTH),
    ("own", "ssl http2", BOTH),
    (
        "client",
        "ssl http2",
        "ssl_protocols TLSv1.2 TLSv1.3; ssl_verify_client on;",
    ),
    (
        "tls11",
        "ssl",
        "ssl_protocols TLSv1.1; ssl_ciphers DEFAULT:@SECLEVEL=0;",
    ),
];

const BOTH: &str = "ssl_protocols TLSv1.2 TLSv1.3;";

/// A running nginx; stopped when dropped.
pub struct SecureServer {
    addresses: Vec<String>,
    running: Running,
}

impl Programs {
    /// Starts it with certificates for loopback by `deployment`, on the ways `own` and `client` by
    /// `private`; `client` wants a certificate by `private` too. `dir` takes its configuration and logs.
    pub fn start_tls(
        &self,
        dir: &Path,
        deployment: &Authority,
        private: &Authority,
    ) -> SecureServer {
        write(dir, "private.pem", private.pem());
        for (name, authority) in [("deployment", deployment), ("private", private)] {
            let (certificate, key) = authority.issue("receiver");
            write(dir, &format!("{name}-receiver.pem"), &certificate);
            write(dir, &format!("{name}-receiver.key"), &key);
        }
        let addresses = WAYS.map(|_| format!("127.0.0.1:{}", ports::free().unwrap()));
        let ways = WAYS.iter().zip(&addresses);
        let servers = ways.map(|((name, listen, more), address)| {
            let by = match *name {
                "own" | "client" => "private",
                _ => "deployment",
            };
            let dir = dir.display();
            format!(
                "server {{\nlisten {address} {listen};\n{more}\n\
                 ssl_certificate {dir}/{by}-receiver.pem;\n\
                 ssl_certificate_key {dir}/{by}-receiver.key;\n\
                 ssl_client_certificate {dir}/private.pem;\n\
                 location / {{ return 200 noted; }}\n}}\n"
            )
        });
        let noted = "$ssl_protocol $server_protocol $ssl_client_verify";
        let conf = nginx_frame(dir, noted, &servers.collect::<String>());
        write(dir, "nginx.conf", &conf);
        SecureServer {
            running: Running::start(dir, [self.nginx_command(dir)], &addresses),
            addresses: addresses.into(),
        }
    }
}

impl SecureServer {
    /// Where it is spoken this way. The path says which way was meant.
    pub fn url(&self, way: &str) -> String {
        let place = WAYS.iter().position(|(name, ..)| *name == way).unwrap();
        format!("https://{}/{way}", self.addresses[place])
    }

    /// Stops it; it has written its log then.
    pub fn stop(&mut self) {
        self.running.stop();
    }

    /// What it noted of the requests that meant a way: status, path, versions of TLS and HTTP, and
    /// what it thinks of the client's certificate.
    pub fn requests(&self, way: &str) -> Vec<String> {
        self.running.requests("nginx", &format!("/{way}"))
    }
}
