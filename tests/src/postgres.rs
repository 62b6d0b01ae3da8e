//! A PostgreSQL of Debian's packages, on loopback, in a directory of its own.
//!
//! It refuses to run as root, so root starts it as `nobody`.

use std::ffi::OsString;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{debian, ports};

/// `nobody` of Debian.
const NOBODY: u32 = 65_534;
/// Its user and password.
const LOGIN: (&str, &str) = ("ringback", "open-sesame");
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    bin: PathBuf,
    libraries: Option<OsString>,
}

/// Finds the programs, unpacking them below `target/` when they are not there.
pub fn prepare() -> Result<Programs, String> {
    debian::prepare("postgres", &["postgresql"], Programs::below)
}

/// The same, of packages that are unpacked whatever the machine has: what happens where it has none.
pub fn unpack() -> Result<Programs, String> {
    let family = ["postgresql", "libpq"];
    debian::unpack(
        "postgres-unpacked",
        &["postgresql"],
        &family,
        Programs::below,
    )
}

impl Programs {
    fn below(root: &Path) -> Option<Self> {
        let versions = fs::read_dir(root.join("usr/lib/postgresql")).ok()?;
        let mut bins: Vec<_> = versions
            .filter_map(|version| Some(version.ok()?.path().join("bin")))
            .filter(|bin| bin.join("initdb").exists() && bin.join("postgres").exists())
            .collect();
        bins.sort();
        let libraries = debian::multiarch(root, |path| {
            let name = path.file_name().map(|name| name.to_string_lossy());
            name.is_some_and(|name| name.ends_with("-linux-gnu"))
        });
        let programs = Self {
            bin: bins.pop()?,
            libraries: (root != Path::new("/"))
                .then(|| libraries.map(PathBuf::into_os_string))
                .flatten(),
        };
        let version = programs.command("postgres").arg("--version").output();
        version
            .is_ok_and(|output| output.status.success())
            .then_some(programs)
    }

    /// The folder of the programs.
    pub fn folder(&self) -> &Path {
        &self.bin
    }

    fn command(&self, program: &str) -> Command {
        debian::command(&self.bin.join(program), self.libraries.as_deref())
    }

    /// Starts a server with an empty database cluster and waits until it answers.
    pub fn start(&self) -> Server {
        let dir = tempfile::tempdir().unwrap();
        // Who runs it must be able to come here.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        let password = dir.path().join("password");
        fs::write(&password, LOGIN.1).unwrap();
        let is_root = fs::metadata(&data).unwrap().uid() == 0;
        if is_root {
            chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
            chown(&password, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let as_whom = |command: &mut Command| {
            command.current_dir(&data);
            if is_root {
                command.uid(NOBODY).gid(NOBODY);
            }
        };
        let mut initdb = self.command("initdb");
        as_whom(&mut initdb);
        let made = initdb
            .args([
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--no-sync",
                "--locale=C",
            ])
            .arg(format!("--username={}", LOGIN.0))
            .arg(format!("--pwfile={}", password.display()))
            .arg("--pgdata")
            .arg(&data)
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        let port = ports::free().unwrap();
        let mut server = Server {
            programs: self.clone(),
            is_root,
            port,
            with_tls: false,
            process: None,
            dir,
        };
        server.restart();
        server
    }
}

/// A server, which ends with this.
pub struct Server {
    programs: Programs,
    is_root: bool,
    port: u16,
    with_tls: bool,
    process: Option<Child>,
    dir: tempfile::TempDir,
}

impl Server {
    /// The id of its process.
    pub fn process(&self) -> u32 {
        self.process.as_ref().map_or(0, Child::id)
    }

    /// Makes a database; its URL.
    pub fn database(&self, name: &str) -> String {
        let (user, password) = LOGIN;
        let made = self
            .programs
            .command("createdb")
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &self.port.to_string(),
                "-U",
                user,
                name,
            ])
            .env("PGPASSWORD", password)
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        self.url(name)
    }

    /// Has it speak TLS with this certificate and key, and nothing in clear.
    pub fn insist_on_tls(&mut self, (certificate, key): &(String, String)) {
        let data = self.dir.path().join("data");
        let hba = data.join("pg_hba.conf");
        let rules = fs::read_to_string(&hba).unwrap();
        fs::write(&hba, rules.replace("\nhost ", "\nhostssl ")).unwrap();
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let path = data.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            if self.is_root {
                chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        self.with_tls = true;
        self.restart();
    }

    /// The URL of a database.
    pub fn url(&self, database: &str) -> String {
        let (user, password) = LOGIN;
        format!(
            "postgresql://{user}:{password}@127.0.0.1:{}/{database}",
            self.port
        )
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // The server itself; its children see that it is gone.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts it, after [`Self::kill`] too.
    pub fn restart(&mut self) {
        self.kill();
        let data = self.dir.path().join("data");
        let until = Instant::now() + STARTS_WITHIN;
        loop {
            // Children of one that was killed may still be there, and keep the next from starting.
            let log = fs::File::create(self.dir.path().join("log")).unwrap();
            let mut command = self.programs.command("postgres");
            command.current_dir(&data);
            if self.is_root {
                command.uid(NOBODY).gid(NOBODY);
            }
            let process = command
                .arg("-D")
                .arg(&data)
                .args([
                    "-c",
                    "listen_addresses=127.0.0.1",
                    "-c",
                    "unix_socket_directories=",
                ])
                .args(["-c", "max_connections=40", "-c", "shared_buffers=32MB"])
                .args(["-c", &format!("port={}", self.port)])
                .args(["-c", if self.with_tls { "ssl=on" } else { "ssl=off" }])
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .unwrap();
            let process = self.process.insert(process);
            while process.try_wait().unwrap().is_none() {
                if is_ready(&self.programs, self.port) {
                    return;
                }
                assert!(Instant::now() < until, "{}", self.log());
                std::thread::sleep(Duration::from_millis(50));
            }
            assert!(Instant::now() < until, "{}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

fn is_ready(programs: &Programs, port: u16) -> bool {
    let open = TcpStream::connect(("127.0.0.1", port)).is_ok();
    open && programs
        .command("pg_isready")
        .args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()])
        .status()
        .is_ok_and(|status| status.success())
}

impl Drop for Server {
    fn drop(&mut self) {
        // It cleans up behind itself when it is asked to end.
        let mut stop = self.programs.command("pg_ctl");
        stop.current_dir(self.dir.path().join("data"));
        if self.is_root {
            stop.uid(NOBODY).gid(NOBODY);
        }
        let stop = stop.args(["stop", "-s", "-w", "-m", "immediate", "-D"]);
        let _ = stop.arg(self.dir.path().join("data")).status();
        self.kill();
    }
}
