//! Real SIP calls: Kamailio between callers and callees of sipp, on loopback.
//!
//! [`prepare`] finds the programs on the machine, or unpacks Debian's packages of them below `target/`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

type Result<T> = std::result::Result<T, String>;

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

/// Finds the programs, installing them below `target/` when they are not there. Two processes may do
/// so at the same time.
pub fn prepare() -> Result<Sip> {
    if let Some(sip) = Sip::below(Path::new("/")) {
        return Ok(sip);
    }
    let dir = target_dir().join("sip");
    let doing = |error: std::io::Error| format!("preparing {}: {error}", dir.display());
    fs::create_dir_all(&dir).map_err(doing)?;
    let lock = File::create(dir.join("lock")).map_err(doing)?;
    lock.lock().map_err(doing)?;
    let root = dir.join("root");
    if let Some(sip) = Sip::below(&root) {
        return Ok(sip);
    }
    download(&dir).map_err(|error| {
        format!(
            "{error}\nKamailio and sipp are missing and cannot be had from Debian's packages here; \
             as root: apt-get install -y --no-install-recommends {}",
            PACKAGES.join(" ")
        )
    })?;
    for package in fs::read_dir(dir.join("archives")).map_err(doing)? {
        let package = package.map_err(doing)?.path();
        if package.extension().is_some_and(|name| name == "deb") {
            run(Command::new("dpkg-deb").arg("-x").args([&package, &root]))?;
        }
    }
    Sip::below(&root).ok_or_else(|| {
        format!(
            "the packages in {} do not make a whole; remove it",
            dir.display()
        )
    })
}

/// Downloads the packages and whatever of their dependencies the machine does not have.
fn download(dir: &Path) -> Result<()> {
    let (archives, lists) = (dir.join("archives"), dir.join("lists"));
    for made in [archives.join("partial"), lists.join("partial")] {
        fs::create_dir_all(&made).map_err(|error| format!("{}: {error}", made.display()))?;
    }
    let apt = |with_lists: bool, args: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.args(["-y", "-q", "-o", "Debug::NoLocking=true", "-o"])
            .arg(format!("Dir::Cache::archives={}", archives.display()));
        if with_lists {
            apt.arg("-o")
                .arg(format!("Dir::State::lists={}", lists.display()));
        }
        run(apt.args(args))
    };
    let mut install = vec!["install", "--no-install-recommends", "--download-only"];
    install.extend(PACKAGES);
    apt(false, &install).or_else(|_| {
        // The machine has no lists of packages, or old ones.
        apt(true, &["update"])?;
        apt(true, &install)
    })
}

impl Sip {
    /// The programs below a root, if all of them are there and start.
    fn below(root: &Path) -> Option<Self> {
        let libraries = root.join("usr/lib");
        let multiarch = fs::read_dir(&libraries).ok()?.filter_map(|entry| {
            let path = entry.ok()?.path();
            path.join("kamailio/modules").is_dir().then_some(path)
        });
        let multiarch = multiarch.last()?;
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
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
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

fn run(command: &mut Command) -> Result<()> {
    let doing = format!("{:?}", command.get_program());
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{doing}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{doing}: {}: {said}", output.status))
        }
    }
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pbx/kamailio")
}

fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
    }
}
