//! HTTP servers that others wrote, as receivers: Apache httpd, lighttpd and nginx, on loopback.
//!
//! [`prepare`] finds the programs on the machine, or unpacks Debian's packages of them below `target/`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::debian;
use crate::ports;

const PACKAGES: [&str; 4] = ["apache2-bin", "lighttpd", "nginx", "curl"];

/// Apache's modules, which may be linked in.
const APACHE_MODULES: [&str; 7] = [
    "mpm_event",
    "authn_core",
    "authn_file",
    "authz_core",
    "authz_user",
    "auth_digest",
    "include",
];

/// User name and password that all servers know.
pub const LOGIN: (&str, &str) = ("pbx", "open sesame");
/// The same beyond ASCII; the name and password of RFC 7616 §3.9.2.
pub const UTF8_LOGIN: (&str, &str) = ("Jäsøn Doe", "Secret, or not?");
/// The token that nginx knows.
pub const TOKEN: &str = "s3cr3t-t0ken";

/// As `htdigest` makes it: MD5 of `user:hooks:password`.
const HTDIGEST: &str = "pbx:hooks:5b26cd7e15ea3d795fa58420bf7c2116\nJäsøn Doe:hooks:bc10803f56dd13778dc3bdaff5c05c1d\n";

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    apache: PathBuf,
    apache_modules: PathBuf,
    lighttpd: PathBuf,
    lighttpd_modules: PathBuf,
    nginx: PathBuf,
    curl: PathBuf,
    /// Where the libraries are, when they are not the machine's.
    libraries: Option<OsString>,
}

/// Finds the programs, unpacking them below `target/` when they are not there.
pub fn prepare() -> Result<Programs, String> {
    debian::prepare("servers", &PACKAGES, Programs::below)
}

impl Programs {
    /// The programs below a root, if all of them are there and start. What the machine has already is
    /// not unpacked.
    fn below(root: &Path) -> Option<Self> {
        let find = |path: &str| {
            let paths = [root.join(path), Path::new("/").join(path)];
            paths.into_iter().find(|path| path.exists())
        };
        let libraries = debian::multiarch(root, |path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().ends_with("-linux-gnu"))
        });
        let libraries = match (root == Path::new("/"), libraries) {
            (false, Some(libraries)) => {
                // Older packages put some libraries into /lib.
                let old = root.join("lib").join(libraries.file_name()?);
                std::env::join_paths([libraries, old]).ok()
            }
            _ => None,
        };
        let programs = Self {
            apache: find("usr/sbin/apache2")?,
            apache_modules: find("usr/lib/apache2/modules")?,
            lighttpd: find("usr/sbin/lighttpd")?,
            lighttpd_modules: find("usr/lib/lighttpd")?,
            nginx: find("usr/sbin/nginx")?,
            curl: find("usr/bin/curl")?,
            libraries,
        };
        let starts = |program: &Path, version: &str| {
            let output = programs.command(program).arg(version).output();
            output.is_ok_and(|output| output.status.success())
        };
        let all = starts(&programs.apache, "-v")
            && starts(&programs.lighttpd, "-v")
            && starts(&programs.nginx, "-v")
            && starts(&programs.curl, "-V");
        all.then_some(programs)
    }

    /// Another client to compare with.
    pub fn curl(&self) -> Command {
        let mut curl = self.command(&self.curl);
        curl.arg("--disable")
            .args(["--noproxy", "*", "--silent", "--show-error", "--include"])
            .args(["--max-time", "60"]);
        curl
    }

    /// Starts all three and waits until they take connections. `dir` takes their configuration and logs.
    pub fn start(&self, dir: &Path) -> Servers {
        // Apache serves as another user when root starts it.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        let write = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
        let lines = |logins: &[(&str, &str)], infix: &str| -> String {
            let line = |(user, password): &(&str, &str)| format!("{user}:{infix}{password}\n");
            logins.iter().map(line).collect()
        };
        let documents = dir.join("documents");
        fs::create_dir(&documents).unwrap();
        for path in ["basic", "md5", "sha-256", "sha-512-256", "all", "short"] {
            fs::write(documents.join(path), "noted").unwrap();
        }
        write("logins", &lines(&[LOGIN, UTF8_LOGIN], ""));
        write("htpasswd", &lines(&[LOGIN], "{PLAIN}"));
        write("htdigest", HTDIGEST);
        let addresses = [(); 3].map(|()| format!("127.0.0.1:{}", ports::free().unwrap()));
        let [apache, lighttpd, nginx] = &addresses;
        write("apache.conf", &self.apache_conf(dir, apache));
        write("lighttpd.conf", &lighttpd_conf(dir, lighttpd));
        write("nginx.conf", &nginx_conf(dir, nginx));
        let commands = [
            self.apache_command(dir),
            self.lighttpd_command(dir),
            self.nginx_command(dir),
        ];
        Servers {
            apache: format!("http://{apache}"),
            lighttpd: format!("http://{lighttpd}"),
            nginx: format!("http://{nginx}"),
            running: Running::start(dir, commands, &addresses),
        }
    }

    fn command(&self, program: &Path) -> Command {
        debian::command(program, self.libraries.as_deref())
    }

    fn server(&self, program: &Path, dir: &Path, name: &str) -> Command {
        let mut command = self.command(program);
        let output = File::create(dir.join(format!("{name}.out"))).unwrap();
        command
            .current_dir(dir)
            .stdout(Stdio::from(output.try_clone().unwrap()))
            .stderr(output);
        command
    }

    fn apache_command(&self, dir: &Path) -> Command {
        let mut command = self.server(&self.apache, dir, "apache");
        command
            .arg("-f")
            .arg(dir.join("apache.conf"))
            .arg("-DFOREGROUND");
        command
    }

    fn lighttpd_command(&self, dir: &Path) -> Command {
        let mut command = self.server(&self.lighttpd, dir, "lighttpd");
        command
            .arg("-D")
            .arg("-f")
            .arg(dir.join("lighttpd.conf"))
            .arg("-m")
            .arg(&self.lighttpd_modules);
        command
    }

    pub(crate) fn nginx_command(&self, dir: &Path) -> Command {
        let mut command = self.server(&self.nginx, dir, "nginx");
        command
            .arg("-p")
            .arg(dir)
            .arg("-c")
            .arg(dir.join("nginx.conf"))
            .arg("-e")
            .arg(dir.join("nginx-error.log"));
        command
    }

    /// A file that `mod_include` reads is an answer to a POST too.
    fn apache_conf(&self, dir: &Path, address: &str) -> String {
        let dir = dir.display();
        let modules: String = APACHE_MODULES
            .iter()
            .map(|name| {
                let path = self.apache_modules.join(format!("mod_{name}.so"));
                format!("LoadModule {name}_module {}\n", path.display())
            })
            .collect();
        format!(
            "ServerRoot {dir}\nServerName localhost\nListen {address}\n{modules}\
             PidFile {dir}/apache.pid\nDefaultRuntimeDir {dir}\nErrorLog {dir}/apache-error.log\n\
             User www-data\nGroup www-data\n\
             StartServers 1\nServerLimit 1\nThreadsPerChild 25\nMaxRequestWorkers 25\n\
             MinSpareThreads 1\nMaxSpareThreads 25\nMaxKeepAliveRequests 0\n\
             LogFormat \"%>s %U %{{Authorization}}i\" access\n\
             CustomLog {dir}/apache-access.log access\n\
             DocumentRoot {dir}/documents\nAuthDigestShmemSize 128k\n\
             <Directory {dir}/documents>\n\
             AuthType Digest\nAuthName hooks\nAuthDigestProvider file\n\
             AuthUserFile {dir}/htdigest\nRequire valid-user\n\
             Options +Includes\nSetOutputFilter INCLUDES\n</Directory>\n\
             <Location /short>\nAuthDigestNonceLifetime 30\n</Location>\n"
        )
    }
}

/// lighttpd answers a POST to a file with the file.
fn lighttpd_conf(dir: &Path, address: &str) -> String {
    let dir = dir.display();
    let (host, port) = address.split_once(':').unwrap();
    let rule = |path: &str, rest: &str| {
        format!("\"{path}\" => (\"realm\" => \"hooks\", \"require\" => \"valid-user\", {rest}),\n")
    };
    let digest = |path: &str, algorithm: &str| {
        rule(
            path,
            &format!("\"method\" => \"digest\", \"algorithm\" => \"{algorithm}\""),
        )
    };
    format!(
        "server.document-root = \"{dir}/documents\"\n\
         server.bind = \"{host}\"\nserver.port = {port}\n\
         server.max-keep-alive-requests = 100000\n\
         server.modules = (\"mod_auth\", \"mod_authn_file\", \"mod_accesslog\")\n\
         server.errorlog = \"{dir}/lighttpd-error.log\"\n\
         accesslog.filename = \"{dir}/lighttpd-access.log\"\n\
         accesslog.format = \"%s %U %{{Authorization}}i\"\n\
         auth.backend = \"plain\"\nauth.backend.plain.userfile = \"{dir}/logins\"\n\
         auth.require = (\n{}{}{}{}{})\n",
        rule("/basic", "\"method\" => \"basic\""),
        digest("/md5", "MD5"),
        digest("/sha-256", "SHA-256"),
        digest("/sha-512-256", "SHA-512-256"),
        digest("/all", "MD5|SHA-256|SHA-512-256"),
    )
}

/// `try_files` comes after authentication; `return` in the same place would come before.
fn nginx_conf(dir: &Path, address: &str) -> String {
    let servers = format!(
        "server {{\nlisten {address};\n\
         location /basic {{\nauth_basic hooks;\nauth_basic_user_file {}/htpasswd;\n\
         try_files /none @noted;\n}}\n\
         location /bearer {{\nif ($http_authorization != \"Bearer {TOKEN}\") {{\n\
         add_header WWW-Authenticate Bearer always;\nreturn 401;\n}}\n\
         try_files /none @noted;\n}}\n\
         location @noted {{ return 200 noted; }}\n}}\n",
        dir.display()
    );
    nginx_frame(dir, "$http_authorization", &servers)
}

/// What every nginx needs around its servers; `noted` of each request, after its status and path, goes
/// to the log.
pub(crate) fn nginx_frame(dir: &Path, noted: &str, servers: &str) -> String {
    let dir = dir.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {dir}/nginx-{name};\n"))
        .concat();
    format!(
        "daemon off;\nmaster_process off;\npid {dir}/nginx.pid;\nerror_log {dir}/nginx-error.log;\n\
         events {{ worker_connections 64; }}\n\
         http {{\nlog_format access '$status $uri {noted}';\n\
         access_log {dir}/nginx-access.log access;\n{temporary}{servers}}}\n"
    )
}

/// Running servers; stopped when dropped.
pub struct Servers {
    /// Digest with MD5 below every path; nonces of `/short` live 30 s.
    pub apache: String,
    /// `/basic`, and Digest with the algorithm of the path: `/md5`, `/sha-256`, `/sha-512-256`, `/all`.
    pub lighttpd: String,
    /// `/basic` and `/bearer`.
    pub nginx: String,
    running: Running,
}

impl Servers {
    /// Stops the servers; they have written their logs then.
    pub fn stop(&mut self) {
        self.running.stop();
    }

    /// What a server (`apache`, `lighttpd`, `nginx`) noted of the requests to a path: status, path and
    /// the `Authorization` header.
    pub fn requests(&self, server: &str, path: &str) -> Vec<String> {
        self.running.requests(server, path)
    }
}

/// Processes and where their logs are; stopped when dropped.
pub(crate) struct Running {
    dir: PathBuf,
    children: Vec<Child>,
}

impl Running {
    /// Starts them and waits until they take connections at all addresses.
    pub(crate) fn start<const N: usize>(
        dir: &Path,
        commands: [Command; N],
        addresses: &[String],
    ) -> Self {
        let children = commands.map(|mut command| command.spawn().unwrap());
        let running = Self {
            dir: dir.to_owned(),
            children: children.into(),
        };
        for address in addresses {
            running.wait(address);
        }
        running
    }

    /// Stops them; they have written their logs then.
    pub(crate) fn stop(&mut self) {
        for child in &mut self.children {
            let pid = child.id().to_string();
            let _ = Command::new("kill").args(["-TERM", &pid]).status();
        }
        for mut child in self.children.drain(..) {
            for _ in 0..200 {
                match child.try_wait() {
                    Ok(None) => std::thread::sleep(Duration::from_millis(50)),
                    _ => break,
                }
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The lines of a server's log about requests to a path.
    pub(crate) fn requests(&self, server: &str, path: &str) -> Vec<String> {
        let log = self.dir.join(format!("{server}-access.log"));
        let log = fs::read(log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).replace("\\\"", "\"");
        log.lines()
            .filter(|line| line.split(' ').nth(1) == Some(path))
            .map(str::to_owned)
            .collect()
    }

    fn wait(&self, address: &str) {
        for _ in 0..600 {
            if TcpStream::connect(address).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("nobody listens on {address}:\n{}", self.said());
    }

    /// What the servers said about themselves.
    fn said(&self) -> String {
        let mut said = String::new();
        for server in ["apache", "lighttpd", "nginx"] {
            for kind in [".out", "-error.log"] {
                let name = format!("{server}{kind}");
                let text = fs::read(self.dir.join(&name)).unwrap_or_default();
                said += &format!("== {name}\n{}", String::from_utf8_lossy(&text));
            }
        }
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}
