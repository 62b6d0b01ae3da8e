//! Real SIP calls: Kamailio between callers and callees of sipp, on loopback.
//!
//! [`prepare`] finds the programs on the machine, or unpacks Debian's packages of them below `target/`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::debian;

const PACKAGES: [&str; 5] = [
    "kamailio",
    "kamailio-extra-modules",
    "kamailio-json-modules",
    "kamailio-utils-modules",
    "sip-tester",
];

/// Modules that are in packages of their own.
const MODULES: [&str; 3] = ["http_client.so", "jansson.so", "acc_json.so"];

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Sip {
    kamailio: PathBuf,
    sipp: PathBuf,
    modules: PathBuf,
    /// Where the libraries are, when they are not the machine's.
    libraries: Option<OsString>,
}

/// Finds the programs, unpacking them below `target/` when they are not there.
pub fn prepare() -> Result<Sip, String> {
    debian::prepare("sip", &PACKAGES, Sip::below)
}

impl Sip {
    /// The programs below a root, if all of them are there and start.
    fn below(root: &Path) -> Option<Self> {
        let multiarch = debian::multiarch(root, |path| path.join("kamailio/modules").is_dir())?;
        let path = |names: [PathBuf; 3]| std::env::join_paths(names).ok();
        let sip = Self {
            kamailio: root.join("usr/sbin/kamailio"),
            sipp: root.join("usr/bin/sipp"),
            modules: multiarch.join("kamailio/modules"),
            libraries: match root == Path::new("/") {
                true => None,
                // Older packages put some libraries into /lib.
                false => path([
                    multiarch.clone(),
                    root.join("lib").join(multiarch.file_name()?),
                    multiarch.join("kamailio"),
                ]),
            },
        };
        let modules = MODULES.iter().all(|name| sip.modules.join(name).exists());
        // 127: a library is missing. Asked for its version, sipp ends with a code of its own.
        let starts = |program: &Path| {
            let output = sip.command(program).arg("-v").output();
            output.is_ok_and(|output| output.status.code().is_some_and(|code| code != 127))
        };
        (modules && starts(&sip.kamailio) && starts(&sip.sipp)).then_some(sip)
    }

    fn command(&self, program: &Path) -> Command {
        debian::command(program, self.libraries.as_deref())
    }

    /// Starts the proxy, which posts to this ingest with this token, and callees; waits until all of
    /// them are there. `dir` takes their logs.
    pub fn start(&self, dir: &Path, ingest: &str, token: &str) -> Pbx {
        let [port, answers, busy, rings] = free_ports();
        let mut children = Vec::new();
        for (scenario, port) in [("answers", answers), ("is-busy", busy), ("rings", rings)] {
            let mut callee = self.sipp(dir, scenario, port);
            children.push(callee.spawn().unwrap());
        }
        let mut kamailio = self.command(&self.kamailio);
        let define = |name: &str, value: String| [String::from("-A"), format!("{name}={value}")];
        let modules = format!("\"{}/\"", self.modules.display());
        kamailio
            .arg("-f")
            .arg(sources().join("kamailio.cfg"))
            .args(define("SIP_PORT", port.to_string()))
            .args(define("ANSWERS", answers.to_string()))
            .args(define("BUSY", busy.to_string()))
            .args(define("RINGS", rings.to_string()))
            .args(define("MODULES", modules))
            .arg("-Y")
            .arg(dir)
            .arg("-P")
            .arg(dir.join("kamailio.pid"))
            .args(["-m", "64", "-M", "8", "-DD", "-E"])
            .env("RINGBACK_INGEST_URL", ingest)
            .env("RINGBACK_TOKEN", token)
            .stdout(Stdio::null())
            .stderr(File::create(dir.join("kamailio.log")).unwrap());
        children.insert(0, kamailio.spawn().unwrap());
        let pbx = Pbx {
            sip: self.clone(),
            dir: dir.to_owned(),
            port,
            children,
        };
        pbx.wait([answers, busy, rings]);
        pbx
    }

    fn sipp(&self, dir: &Path, scenario: &str, port: u16) -> Command {
        let mut sipp = self.command(&self.sipp);
        sipp.current_dir(dir)
            .arg("-sf")
            .arg(sources().join(format!("{scenario}.xml")))
            .args(["-i", "127.0.0.1", "-mi", "127.0.0.1", "-nostdin"])
            .args(["-p", &port.to_string()])
            .args(["-trace_err", "-error_file"])
            .arg(format!("sipp-{scenario}-errors.log"))
            .stdout(Stdio::null())
            .stderr(File::create(dir.join(format!("sipp-{scenario}.log"))).unwrap());
        sipp
    }
}

/// A running proxy with callees; stopped when dropped.
pub struct Pbx {
    sip: Sip,
    dir: PathBuf,
    port: u16,
    children: Vec<Child>,
}

impl Pbx {
    /// Makes so many calls of a kind (`answered`, `busy` or `cancelled`), with the Call-IDs
    /// `KIND-GROUP-1` and so on. Returns when all have ended as they should.
    pub fn call(&self, kind: &str, group: &str, calls: usize) {
        let callee = match kind {
            "answered" => "1001",
            "busy" => "2001",
            _ => "3001",
        };
        let [port] = free_ports();
        let mut caller = self.sip.sipp(&self.dir, kind, port);
        caller
            .arg(format!("127.0.0.1:{}", self.port))
            .args(["-s", callee, "-r", "20", "-d", "300", "-timeout", "60"])
            .args(["-timeout_error", "-m", &calls.to_string()])
            .args(["-cid_str", &format!("{kind}-{group}-%u")]);
        let status = caller.status().unwrap();
        assert!(
            status.success(),
            "{calls} {kind} calls: {status}\n{}\n{}",
            fs::read_to_string(self.dir.join(format!("sipp-{kind}-errors.log")))
                .unwrap_or_default(),
            self.log()
        );
    }

    /// What the proxy said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("kamailio.log")).unwrap_or_default()
    }

    /// Waits until the proxy answers and the callees have their ports.
    fn wait(&self, callees: [u16; 3]) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let tick = Duration::from_millis(100);
        socket.set_read_timeout(Some(tick)).unwrap();
        let ours = socket.local_addr().unwrap();
        for turn in 0..300 {
            let port = self.port;
            let options = format!(
                "OPTIONS sip:127.0.0.1:{port} SIP/2.0\r\n\
                 Via: SIP/2.0/UDP {ours};branch=z9hG4bK{turn}\r\n\
                 From: <sip:test@{ours}>;tag=1\r\nTo: <sip:127.0.0.1:{port}>\r\n\
                 Call-ID: ready-{turn}\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 5\r\n\
                 Content-Length: 0\r\n\r\n"
            );
            let _ = socket.send_to(options.as_bytes(), ("127.0.0.1", port));
            let mut answer = [0; 1024];
            let answered = socket
                .recv(&mut answer)
                .is_ok_and(|_| answer.starts_with(b"SIP/2.0 200"));
            let taken = |port: &u16| UdpSocket::bind(("127.0.0.1", *port)).is_err();
            if answered && callees.iter().all(taken) {
                return;
            }
            if !answered {
                std::thread::sleep(tick);
            }
        }
        panic!("Kamailio does not answer:\n{}", self.log());
    }
}

impl Drop for Pbx {
    fn drop(&mut self) {
        // Kamailio ends its own processes when it is asked to.
        for child in &mut self.children {
            let pid = child.id().to_string();
            let _ = Command::new("kill").args(["-TERM", &pid]).status();
        }
        for child in &mut self.children {
            for _ in 0..100 {
                match child.try_wait() {
                    Ok(None) => std::thread::sleep(Duration::from_millis(50)),
                    _ => break,
                }
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// UDP ports that are free now.
fn free_ports<const N: usize>() -> [u16; N] {
    let sockets = [(); N].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    sockets.map(|socket| socket.local_addr().unwrap().port())
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pbx/kamailio")
}
