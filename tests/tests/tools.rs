//! The command line as scripts and people meet it: exit codes, completions, manual pages, the doctor.

// Test code: a broken expectation should panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use ringback_tests::certificates::{Authority, write};
use ringback_tests::ports;
use ringback_tests::process::{Process, binary};
use ringback_tests::rig::OPERATOR;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

fn ringback(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.current_dir(dir).args(args).env_clear();
    command.output().unwrap()
}

fn code(dir: &Path, args: &[&str]) -> i32 {
    let output = ringback(dir, args);
    output.status.code().unwrap()
}

#[test]
fn completions_and_manual_pages_are_those_of_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = ringback(dir.path(), &["completions", shell]);
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(
            script.contains("webhook") && script.contains("rotate"),
            "{shell}"
        );
    }
    let script = ringback(dir.path(), &["completions", "bash"]).stdout;
    let path = write(
        dir.path(),
        "completions",
        std::str::from_utf8(&script).unwrap(),
    );
    let checked = Command::new("bash").arg("-n").arg(path).status().unwrap();
    assert!(checked.success());
    let pages = dir.path().join("made/man1");
    let output = ringback(dir.path(), &["man", pages.to_str().unwrap()]);
    assert!(output.status.success());
    let page = std::fs::read_to_string(pages.join("ringback-webhook-add.1")).unwrap();
    assert!(page.contains(".TH") && page.contains("subscribe"), "{page}");
    // Not a directory.
    let file = dir.path().join("completions/x");
    assert_eq!(code(dir.path(), &["man", file.to_str().unwrap()]), 1);
    assert_eq!(code(dir.path(), &["completions", "tcsh"]), 64);
}

/// Something that answers HTTP over TLS.
async fn tls_server(authority: &Authority) -> u16 {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (certificate, key) = authority.issue("receiver");
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![certificate], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut request = [0; 4096];
                let read = stream.read(&mut request).await.unwrap_or(0);
                // No event may come by the way.
                assert!(request[..read].starts_with(b"HEAD "));
                let _ = stream
                    .write_all(b"HTTP/1.1 405 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    .await;
                let _ = stream.shutdown().await;
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_learn_from_exit_codes_and_people_from_the_doctor() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let nobody = format!("http://127.0.0.1:{}", ports::free().unwrap());
    let process = Process::start("up", dir, &[]).await;
    let admin = process.url("admin");
    let token = ringback_tests::rig::OPERATOR;
    let call = |args: &[&str], admin: &str, token: &str| {
        let words = [args, &["--admin", admin, "--operator-token", token]].concat();
        ringback(dir, &words)
    };
    let code = |args: &[&str], admin: &str, token: &str| call(args, admin, token).status.code();
    assert_eq!(code(&["tenant", "add", "acme"], &admin, token), Some(0));
    assert_eq!(code(&["tenant", "add", "acme"], &admin, token), Some(1));
    assert_eq!(code(&["tenant", "add"], &admin, token), Some(64));
    assert_eq!(code(&["tenant", "list"], &nobody, token), Some(69));
    assert_eq!(
        code(&["tenant", "list"], &admin, "not-the-token-at-all"),
        Some(77)
    );
    let notify = [
        "tenant",
        "notify",
        "acme",
        "--to",
        "it@acme.example",
        "--json",
    ];
    let tenant: Value = serde_json::from_slice(&call(&notify, &admin, token).stdout).unwrap();
    assert_eq!(tenant["notify"], json!(["it@acme.example"]));
    let bad = [
        "tenant",
        "notify",
        "acme",
        "--to",
        "it@acme.example\nBcc: x@y",
    ];
    assert_eq!(code(&bad, &admin, token), Some(1));

    let authority = Authority::new("ours");
    let ca = write(dir, "ca", authority.pem());
    let tls = tls_server(&authority).await;
    let url = |scheme: &str, port: u16| format!("{scheme}://127.0.0.1:{port}/hook");
    let (secure, plain) = (url("https", tls), process.url("telemetry"));
    let gone = url("http", ports::free().unwrap());
    let ca = ca.to_str().unwrap();
    for (name, url, more) in [
        ("trusted", &secure, &["--tls-ca", ca][..]),
        ("untrusted", &secure, &[]),
        ("plain", &plain, &[]),
        ("gone", &gone, &[]),
    ] {
        let args = [
            "webhook",
            "add",
            "acme",
            name,
            "--subscribe",
            "*",
            "--url",
            url,
        ];
        let added = call(&[&args, more].concat(), &admin, token);
        assert!(added.status.success(), "{added:?}");
    }
    let settings = [
        "--set",
        "admin.mail.from=ringback@pbx.example",
        "--set",
        &format!("admin.mail.server={}", nobody.replace("http://", "")),
        "--set",
        "admin.mail.tls=none",
    ];
    let doctor = |more: &[&str]| call(&[&["doctor"], &settings[..], more].concat(), &admin, token);
    let output = doctor(&["--webhooks", "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = |check: &str| -> &Value {
        let mut checks = said["checks"].as_array().unwrap().iter();
        checks
            .find(|line| line["check"] == check)
            .unwrap_or(&Value::Null)
    };
    for (check, result) in [
        ("configuration", "ok"),
        ("log", "ok"),
        ("projection", "ok"),
        ("mail", "failed"),
        ("acme/trusted TCP", "ok"),
        ("acme/trusted TLS", "ok"),
        ("acme/trusted answer", "ok"),
        ("acme/untrusted TLS", "failed"),
        ("acme/plain TLS", "warning"),
        ("acme/gone TCP", "failed"),
    ] {
        assert_eq!(found(check)["result"], result, "{check}: {said:#}");
    }
    let advice = found("acme/untrusted TLS")["advice"].as_str().unwrap();
    assert!(advice.contains("--tls-ca"), "{advice}");
    assert_eq!(
        (output.status.code(), &said["ok"]),
        (Some(1), &json!(false))
    );

    let output = doctor(&["--only-webhooks", "--webhook", "acme/trusted"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("ok       acme/trusted answer: it answers 405 to HEAD"),
        "{text}"
    );
    assert_eq!(output.status.code(), Some(0), "{text}");
    let unknown = doctor(&["--webhook", "acme/unknown"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert_eq!(doctor(&["--webhook", "acme"]).status.code(), Some(64));
}

/// What it prints at its beginning is enough to look on in a browser.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_names_the_portal_and_how_to_sign_in() {
    // What it leaves behind when it is killed.
    let home = tempfile::tempdir().unwrap();
    let mut demo = tokio::process::Command::new(binary());
    demo.env("TMPDIR", home.path());
    demo.arg("demo").stdout(std::process::Stdio::piped());
    let mut demo = demo.kill_on_drop(true).spawn().unwrap();
    let mut lines = tokio::io::BufReader::new(demo.stdout.take().unwrap()).lines();
    let (mut portal, mut token) = (None, None);
    while portal.is_none() || token.is_none() {
        let line = lines.next_line().await.unwrap().expect("it says both");
        let named = |label| line.strip_prefix(label).map(|said| said.trim().to_owned());
        portal = portal.or(named("Portal "));
        token = token.or(named("Sign in    with the token in "));
    }
    let (portal, token) = (portal.unwrap(), token.unwrap());
    let client = reqwest::Client::new();
    let page = client.get(&portal).send().await.unwrap();
    assert!(page.text().await.unwrap().contains("/portal/js/main.js"));
    let sign_in = json!({ "token": std::fs::read_to_string(token).unwrap().trim() });
    let (admin, _) = portal.split_once("/portal/").unwrap();
    let session = client.post(format!("{admin}/v1/session")).json(&sign_in);
    assert_eq!(session.send().await.unwrap().status().as_u16(), 201);
    demo.kill().await.unwrap();
}

/// `ringback` at an administration with TLS, told of it by the environment.
struct Secured<'a> {
    dir: &'a Path,
    process: &'a Process,
}

impl Secured<'_> {
    fn call(&self, args: &[&str], more: &[(&str, &str)]) -> Output {
        let https = |part: &str| format!("https://{}", self.process.addresses[part]);
        let mut command = Command::new(binary());
        command.current_dir(self.dir).args(args).env_clear();
        command.env("RINGBACK_ADMIN_URL", https("admin"));
        command.env("RINGBACK_INGEST_URL", https("ingest"));
        command.env("RINGBACK_OPERATOR_TOKEN", OPERATOR);
        command.envs(more.iter().copied()).output().unwrap()
    }

    fn list(&self, more: &[&str]) -> Output {
        self.call(&[&["tenant", "list"], more].concat(), &[])
    }

    /// Replaces the files that it serves with.
    fn serve_with(dir: &Path, (certificate, key): &(String, String)) -> [String; 4] {
        let certificate = write(dir, "served.pem", certificate);
        let key = write(dir, "served.key", key);
        let files = [("certificate_file", certificate), ("key_file", key)];
        let setting = |part: &str, (name, path): &(&str, std::path::PathBuf)| {
            format!("{part}.tls.{name}={}", path.display())
        };
        let [a, b] = &files;
        [
            setting("admin", a),
            setting("admin", b),
            setting("ingest", a),
            setting("ingest", b),
        ]
    }

    /// How often each server has taken its files again.
    async fn reloads(&self) -> [f64; 2] {
        let series =
            |server| format!("ringback_tls_reloads_total{{result=\"ok\",server=\"{server}\"}}");
        [
            self.process.metric(&series("admin")).await,
            self.process.metric(&series("ingest")).await,
        ]
    }
}

fn said(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_authority_is_named_and_certificates_are_read_again_at_sighup() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let issued = ours.issue("admin");
    let settings = Secured::serve_with(dir, &issued);
    let process = Process::start("up", dir, &settings).await;
    let secured = Secured {
        dir,
        process: &process,
    };
    let file = |name: &str, text: &str| write(dir, name, text).display().to_string();
    let (ours_file, other_file) = (file("ours", ours.pem()), file("other", other.pem()));

    for untrusted in [&[][..], &["--ca", &other_file]] {
        let said = said(&secured.list(untrusted), 69);
        assert!(
            said.contains("is not trusted") && said.contains("--ca or RINGBACK_CA"),
            "{said}"
        );
    }
    said(&secured.list(&["--ca", &ours_file]), 0);
    let by_environment = [("RINGBACK_CA", ours_file.as_str())];
    said(
        &secured.call(&["tenant", "add", "acme"], &by_environment),
        0,
    );
    let missing = said(&secured.list(&["--ca", "missing.pem"]), 64);
    assert!(
        missing.contains("missing.pem (--ca, RINGBACK_CA)"),
        "{missing}"
    );
    let key = said(&secured.list(&["--ca", "served.key"]), 64);
    assert!(
        key.contains("no certificate in PEM") && !key.contains(&issued.1[40..60]),
        "{key}"
    );

    let token = secured.call(
        &["token", "add", "--tenant", "acme", "--json"],
        &by_environment,
    );
    let token: Value = serde_json::from_slice(&token.stdout).unwrap();
    write(dir, "events", r#"{"type":"cdr.completed","data":{"n":1}}"#);
    let send = [
        "send",
        "events",
        "--token",
        token["token"].as_str().unwrap(),
    ];
    // It does not try for a minute what cannot become better.
    let refused = said(
        &secured.call(&[&send[..], &["--give-up-after", "1h"]].concat(), &[]),
        1,
    );
    assert!(refused.contains("--ca or RINGBACK_CA"), "{refused}");
    said(&secured.call(&send, &by_environment), 0);

    // The files are the same, so that only the signal can be why they are read again.
    assert_eq!(secured.reloads().await, [0.0, 0.0]);
    while secured.reloads().await.iter().any(|count| *count < 1.0) {
        process.hang_up().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    said(&secured.list(&["--ca", &ours_file]), 0);
    let mut elsewhere =
        rcgen::CertificateParams::new(vec!["elsewhere.example".to_owned()]).unwrap();
    elsewhere
        .distinguished_name
        .push(rcgen::DnType::CommonName, "elsewhere");
    Secured::serve_with(dir, &ours.sign(elsewhere));
    process.hang_up().await;
    let renamed = loop {
        let output = secured.list(&["--ca", &ours_file]);
        if !output.status.success() {
            break said(&output, 69);
        }
    };
    assert!(renamed.contains("for another name"), "{renamed}");
    let mut process = process;
    assert_eq!(process.terminate().await, Some(0));
}

/// Plays somebody at a terminal: answers each question when it is asked and nothing shows what is
/// typed; then says on standard output all that was on the screen, and ends like the command.
const TYPIST: &str = r#"
import os, pty, signal, sys, termios, time
command, answers = sys.argv[1:-1], sys.argv[-1].split("|")
signal.alarm(300)
pid, screen = pty.fork()
if pid == 0:
    os.execv(command[0], command)
seen = b""
def read():
    global seen
    try:
        piece = os.read(screen, 4096)
    except OSError:
        piece = b""
    seen += piece
    return piece
for question, answer in zip((b"New password: ", b"The same again: "), answers):
    while question not in seen and read():
        pass
    while termios.tcgetattr(screen)[3] & termios.ECHO:
        time.sleep(0.01)
    os.write(screen, answer.encode() + b"\n")
while read():
    pass
sys.stdout.buffer.write(seen)
sys.stdout.flush()
os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_asked_for_without_showing_it() {
    let home = tempfile::tempdir().unwrap();
    let process = Process::start("up", home.path(), &[]).await;
    let admin = process.url("admin");
    let account = |answers: Option<&str>| {
        let program = match answers {
            Some(_) => "python3".as_ref(),
            None => binary().as_os_str(),
        };
        let mut command = Command::new(program);
        if answers.is_some() {
            command.args(["-c", TYPIST]).arg(binary());
        }
        command.args(["account", "add", "ann", "--operator", "--ask-password"]);
        command.args(["--admin", &admin]).args(answers);
        command.env("RINGBACK_OPERATOR_TOKEN", OPERATOR);
        command.stdin(std::process::Stdio::null()).output().unwrap()
    };
    let without = said(&account(None), 64);
    assert!(
        without.contains("no terminal") && without.contains("--password-stdin"),
        "{without}"
    );
    let differing = account(Some("horses never eat staples|horses ever eat staples"));
    said(&differing, 64);
    let screen = String::from_utf8_lossy(&differing.stdout).into_owned();
    assert!(
        screen.contains("differ") && !screen.contains("horses"),
        "{screen}"
    );
    let added = account(Some("horses never eat staples|horses never eat staples"));
    said(&added, 0);
    let screen = String::from_utf8_lossy(&added.stdout).into_owned();
    assert!(
        screen.contains("Added account ann") && !screen.contains("horses"),
        "{screen}"
    );
    let sign_in = json!({ "login": "ann", "password": "horses never eat staples" });
    let client = reqwest::Client::new();
    let session = client.post(format!("{admin}/v1/session")).json(&sign_in);
    assert_eq!(session.send().await.unwrap().status().as_u16(), 201);
}
