//! A real Apache Kafka (KRaft, broker and controller in one process) on loopback, for tests.
//!
//! The jars come from Maven Central, once, into the target directory. Needed are Java 17 or later
//! and Maven: [`prepare`] fetches, [`install_prerequisites`] installs.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::ports::free;

/// The version of Kafka; also in `tests/kafka/pom.xml`.
pub const VERSION: &str = "4.3.1";

/// How long a node may take to be ready. Usually 4 s; machines that build meanwhile take longer.
const READY: Duration = Duration::from_secs(120);

/// What went wrong, in words for the person who runs the tests.
pub type Result<T> = std::result::Result<T, String>;

/// How a cluster is started.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// How many nodes.
    pub nodes: u16,
    /// The address where clients without encryption come.
    pub host: IpAddr,
    /// The first node's client port; `None`: any free ones.
    pub port: Option<u16>,
    /// Kafka's own JVM options, for benchmarks; otherwise those that start quickest.
    pub perf: bool,
    /// Where the data is kept; `None`: in a temporary directory, removed in the end.
    pub dir: Option<PathBuf>,
    /// Further broker settings.
    pub settings: Vec<(String, String)>,
    /// Also listens with TLS and SASL, and grants by ACLs alone.
    pub secure: Option<Secure>,
}

/// What a secured cluster knows.
#[derive(Clone, Debug)]
pub struct Secure {
    /// Users and passwords, for PLAIN and both kinds of SCRAM.
    pub users: Vec<(String, String)>,
    /// PEM of the authority that signs client certificates.
    pub authority: String,
    /// PEM of the brokers' key and certificate.
    pub identity: String,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self {
            nodes: 1,
            host: Ipv4Addr::LOCALHOST.into(),
            port: None,
            perf: false,
            dir: None,
            settings: Vec::new(),
            secure: None,
        }
    }
}

/// A running cluster. Dropping it, or the end of this process, kills it and removes its data.
pub struct KafkaServer {
    nodes: Vec<Node>,
    bootstrap: String,
    ports: Vec<u16>,
    perf: bool,
    /// The directory to remove in the end.
    temporary: Option<TempDir>,
}

struct Node {
    dir: PathBuf,
    process: Option<Process>,
}

struct Process {
    child: Child,
    /// The guard kills the broker when this closes.
    stdin: ChildStdin,
}

impl KafkaServer {
    /// One node with the usual options.
    pub fn start() -> Result<Self> {
        Self::start_with(&KafkaOptions::default())
    }

    /// Starts a cluster and waits until it is ready.
    pub fn start_with(options: &KafkaOptions) -> Result<Self> {
        prepare()?;
        let temporary = match options.dir {
            Some(_) => None,
            None => Some(temporary_dir()?),
        };
        let dir = match (&options.dir, &temporary) {
            (Some(dir), _) => dir.clone(),
            (None, Some(temporary)) => temporary.path().to_owned(),
            (None, None) => return Err("no directory for Kafka's data".to_owned()),
        };
        let ports = ports(options)?;
        let clients = &ports[..usize::from(options.nodes)];
        let host = options.host;
        let bootstrap: Vec<String> = clients.iter().map(|p| format!("{host}:{p}")).collect();
        let mut server = Self {
            nodes: Vec::new(),
            bootstrap: bootstrap.join(","),
            ports: ports.clone(),
            perf: options.perf,
            temporary,
        };
        for id in 1..=options.nodes {
            let dir = dir.join(format!("node-{id}"));
            configure(&dir, id, &ports, options)?;
            format(&dir, options.secure.as_ref())?;
            server.nodes.push(Node { dir, process: None });
        }
        server.restart()?;
        Ok(server)
    }

    /// Where clients ask first: `host:port,host:port`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The first node's address with TLS and SASL ([`KafkaOptions::secure`]).
    pub fn sasl_bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.ports[2 * self.nodes.len()])
    }

    /// The first node's address with TLS that asks for a client's certificate.
    pub fn tls_bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.ports[3 * self.nodes.len()])
    }

    /// A directory that goes when the cluster goes, for files of the test.
    pub fn dir(&self) -> &Path {
        &self.nodes[0].dir
    }

    /// Kills all nodes at once (SIGKILL); their data stays.
    pub fn kill(&mut self) -> Result<()> {
        (0..self.nodes.len()).try_for_each(|node| self.kill_node(node))
    }

    /// Kills one node, from 0 (SIGKILL); its data stays.
    pub fn kill_node(&mut self, node: usize) -> Result<()> {
        let node = &mut self.nodes[node];
        let Some(Process {
            mut child,
            mut stdin,
        }) = node.process.take()
        else {
            return Ok(());
        };
        // A line means: kill, and keep the data.
        let told = stdin.write_all(b"kill\n").and_then(|()| stdin.flush());
        told.and_then(|()| child.wait())
            .map(drop)
            .map_err(|error| format!("killing the Kafka node in {}: {error}", node.dir.display()))
    }

    /// Starts the nodes that do not run, and waits until they are ready.
    pub fn restart(&mut self) -> Result<()> {
        let remove = self.temporary.as_ref().map(TempDir::path);
        for node in &mut self.nodes {
            if node.process.is_none() {
                node.process = Some(launch(&node.dir, remove, self.perf)?);
            }
        }
        self.nodes.iter_mut().try_for_each(Node::wait_ready)
    }

    /// The first node can make no file larger than this, as if its disk were full; a restart lifts it.
    pub fn limit_files(&self, bytes: u64) -> Result<()> {
        let pid = fs::read_to_string(self.nodes[0].dir.join("pid"))
            .map_err(|error| format!("reading the node's pid: {error}"))?;
        let mut limit = Command::new("prlimit");
        limit
            .args(["--pid", pid.trim()])
            .arg(format!("--fsize={bytes}:"));
        run(
            &mut limit,
            "limiting the node's files (prlimit of util-linux)",
        )
    }

    /// Changes a setting (`name=value`) of a topic with Kafka's own tool, as a person would.
    pub fn set_of_topic(&self, topic: &str, setting: &str) -> Result<()> {
        let mut tool = java(false)?;
        tool.arg("kafka.admin.ConfigCommand")
            .args(["--bootstrap-server", &self.bootstrap])
            .args(["--alter", "--entity-type", "topics", "--entity-name", topic])
            .args(["--add-config", setting]);
        run(
            &mut tool,
            &format!("setting {setting} of the topic {topic}"),
        )
    }

    /// Waits until a node ends by itself.
    pub fn wait(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            if let Some(process) = &mut node.process {
                let ended = process.child.wait();
                ended.map_err(|error| format!("waiting for Kafka: {error}"))?;
            }
        }
        Ok(())
    }
}

impl Drop for KafkaServer {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(Process { mut child, stdin }) = node.process.take() {
                drop(stdin);
                // Nothing to do about it here; the guard has been told.
                let _ = child.wait();
            }
        }
    }
}

/// The one broker of this test process, started by whoever asks first. Tests that kill their broker
/// start one of their own.
///
/// # Panics
/// When there is no broker to be had: no test can go on then.
#[allow(clippy::panic, reason = "a test without its broker has failed")]
pub fn shared() -> &'static KafkaServer {
    static SHARED: OnceLock<KafkaServer> = OnceLock::new();
    SHARED.get_or_init(|| match KafkaServer::start() {
        Ok(server) => server,
        Err(error) => panic!("{error}"),
    })
}

/// Fetches the jars unless they are there. Two processes may do so at the same time.
pub fn prepare() -> Result<PathBuf> {
    let libs = target_dir().join(format!("kafka-libs-{VERSION}"));
    let complete = libs.join(".complete");
    if complete.exists() {
        return Ok(libs);
    }
    let doing = |error: std::io::Error| format!("preparing {}: {error}", libs.display());
    fs::create_dir_all(target_dir()).map_err(doing)?;
    let lock = File::create(libs.with_extension("lock")).map_err(doing)?;
    lock.lock().map_err(doing)?;
    if complete.exists() {
        return Ok(libs);
    }
    check_prerequisites()?;
    let mut maven = Command::new("mvn");
    maven
        .args(["-B", "-q", "-f"])
        .arg(sources().join("pom.xml"))
        .arg("dependency:copy-dependencies")
        .arg(format!("-DoutputDirectory={}", libs.display()));
    run(&mut maven, "fetching Kafka's jars with Maven")?;
    File::create(&complete).map_err(doing)?;
    Ok(libs)
}

const ADVICE: &str = "install Java 17 or later and Maven (Debian: apt-get install \
                      default-jre-headless maven)";

fn check_prerequisites() -> Result<()> {
    for tool in ["java", "mvn"] {
        let found = Command::new(tool)
            .arg("-version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !found.is_ok_and(|status| status.success()) {
            return Err(format!("tests with Kafka need {tool}: {ADVICE}"));
        }
    }
    Ok(())
}

/// Installs Java and Maven where that is possible (root, Debian or alike); otherwise says what to
/// install.
pub fn install_prerequisites() -> Result<()> {
    let Err(missing) = check_prerequisites() else {
        return Ok(());
    };
    let output = Command::new("id").arg("-u").output();
    let root = output.is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    let apt = Command::new("apt-get").arg("--version").output().is_ok();
    if !root || !apt {
        return Err(missing);
    }
    let mut update = Command::new("apt-get");
    run(update.arg("update"), "apt-get update")?;
    let mut install = Command::new("apt-get");
    install
        .args(["install", "-y", "--no-install-recommends"])
        .args(["default-jre-headless", "maven"])
        .env("DEBIAN_FRONTEND", "noninteractive");
    run(&mut install, "installing Java and Maven")?;
    check_prerequisites()
}

fn run(command: &mut Command, doing: &str) -> Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{doing}: {error}; {ADVICE}"))?;
    if output.status.success() {
        return Ok(());
    }
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    Err(format!("{doing} failed ({}):\n{out}{err}", output.status))
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka")
}

fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
    }
}

fn temporary_dir() -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix("ringback-kafka-")
        .tempdir()
        .map_err(|error| format!("making a directory for Kafka's data: {error}"))
}

/// For every node a client port, then for every node a controller port, then one with SASL, then one
/// with client certificates.
fn ports(options: &KafkaOptions) -> Result<Vec<u16>> {
    let count = if options.secure.is_some() { 4 } else { 2 } * options.nodes;
    if let Some(first) = options.port {
        return match first.checked_add(count) {
            Some(end) => Ok((first..end).collect()),
            None => Err(format!("port {first} leaves no room for {count} ports")),
        };
    }
    (0..count).map(|_| free()).collect()
}

fn configure(dir: &Path, id: u16, ports: &[u16], options: &KafkaOptions) -> Result<()> {
    let nodes = options.nodes;
    let client = ports[usize::from(id - 1)];
    let controller = ports[usize::from(nodes + id - 1)];
    let voters: Vec<String> = (1..=nodes)
        .map(|id| format!("{id}@127.0.0.1:{}", ports[usize::from(nodes + id - 1)]))
        .collect();
    let (copies, in_sync) = (nodes.min(3), if nodes < 3 { 1 } else { 2 });
    let mut text = format!(
        "process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
listeners=PLAINTEXT://{host}:{client},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://{host}:{client}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
default.replication.factor={copies}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={copies}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={copies}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor={copies}
share.coordinator.state.topic.min.isr={in_sync}
share.coordinator.state.topic.num.partitions=4
# tests do not wait for members that might still come, or long for dead ones
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.heartbeat.interval.ms=500
group.consumer.min.heartbeat.interval.ms=500
group.consumer.min.session.timeout.ms=5000
group.consumer.session.timeout.ms=6000
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# retention and compaction at once
log.retention.check.interval.ms=1000
log.cleaner.backoff.ms=500
log.cleaner.dedupe.buffer.size=16777216
",
        voters = voters.join(","),
        host = options.host,
        data = dir.join("data").display(),
    );
    if !options.perf {
        text.push_str("num.network.threads=2\nnum.io.threads=4\n");
    }
    if let Some(secure) = &options.secure {
        let port = |row: u16| ports[usize::from(row * nodes + id - 1)];
        text.push_str(&secured(
            dir,
            secure,
            [client, controller, port(2), port(3)],
        ));
    }
    for (name, value) in &options.settings {
        text.push_str(&format!("{name}={value}\n"));
    }
    let identity = options.secure.as_ref().map_or("", |s| s.identity.as_str());
    let authority = options.secure.as_ref().map_or("", |s| s.authority.as_str());
    fs::create_dir_all(dir)
        .and_then(|()| fs::write(dir.join("identity.pem"), identity))
        .and_then(|()| fs::write(dir.join("authority.pem"), authority))
        .and_then(|()| fs::write(dir.join("server.properties"), text))
        .map_err(|error| {
            format!(
                "writing the settings of Kafka to {}: {error}",
                dir.display()
            )
        })
}

/// Replaces the listeners by those and two more. Whoever comes without encryption is a super user:
/// the brokers among each other, and the test's own administration.
fn secured(dir: &Path, secure: &Secure, ports: [u16; 4]) -> String {
    let [client, controller, sasl, tls] = ports;
    let module = "org.apache.kafka.common.security";
    let users: Vec<String> = secure
        .users
        .iter()
        .map(|(user, password)| format!("user_{user}=\"{password}\""))
        .collect();
    format!(
        "listeners=PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller},\
SASL://127.0.0.1:{sasl},TLS://127.0.0.1:{tls}
advertised.listeners=PLAINTEXT://127.0.0.1:{client},SASL://127.0.0.1:{sasl},TLS://127.0.0.1:{tls}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL:SASL_SSL,TLS:SSL
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
ssl.keystore.type=PEM
ssl.keystore.location={identity}
ssl.truststore.type=PEM
ssl.truststore.location={authority}
listener.name.tls.ssl.client.auth=required
listener.name.sasl.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl.plain.sasl.jaas.config={module}.plain.PlainLoginModule required {users};
listener.name.sasl.scram-sha-256.sasl.jaas.config={module}.scram.ScramLoginModule required;
listener.name.sasl.scram-sha-512.sasl.jaas.config={module}.scram.ScramLoginModule required;
listener.name.sasl.oauthbearer.sasl.jaas.config={module}.oauthbearer.OAuthBearerLoginModule required;
",
        identity = dir.join("identity.pem").display(),
        authority = dir.join("authority.pem").display(),
        users = users.join(" "),
    )
}

/// The Java command without the class to run.
fn java(perf: bool) -> Result<Command> {
    let libs = prepare()?;
    let mut java = Command::new("java");
    if perf {
        // What Kafka's own start script says.
        java.args(["-Xms1G", "-Xmx1G", "-server", "-XX:+UseG1GC"])
            .args([
                "-XX:MaxGCPauseMillis=20",
                "-XX:+ExplicitGCInvokesConcurrent",
            ])
            .arg("-XX:InitiatingHeapOccupancyPercent=35");
    } else {
        // Nearly halves the CPU that a start takes.
        java.args(["-Xms64m", "-Xmx512m", "-XX:+UseSerialGC"])
            .arg("-XX:TieredStopAtLevel=1");
    }
    let log4j = sources().join("log4j2.properties");
    java.arg("-Djava.awt.headless=true")
        .arg(format!("-Dlog4j2.configurationFile={}", log4j.display()))
        .arg("-cp")
        .arg(libs.join("*"));
    Ok(java)
}

fn format(dir: &Path, secure: Option<&Secure>) -> Result<()> {
    if dir.join("data/meta.properties").exists() {
        return Ok(());
    }
    let mut java = java(false)?;
    java.arg("kafka.tools.StorageTool")
        .args(["format", "--cluster-id", "RingbackTestClusterAAA"])
        .arg("--config")
        .arg(dir.join("server.properties"));
    for (user, password) in secure.iter().flat_map(|secure| &secure.users) {
        for kind in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            let credential = format!("{kind}=[name={user},password={password}]");
            java.args(["--add-scram", &credential]);
        }
    }
    run(&mut java, "formatting Kafka's storage")
}

fn launch(dir: &Path, remove: Option<&Path>, perf: bool) -> Result<Process> {
    let doing = |error: std::io::Error| format!("starting Kafka in {}: {error}", dir.display());
    let java = java(perf)?;
    let log = File::create(dir.join("server.log")).map_err(doing)?;
    let log_too = log.try_clone().map_err(doing)?;
    let mut guard = Command::new("sh");
    guard
        .arg(sources().join("guard.sh"))
        .arg(dir.join("pid"))
        .arg(remove.unwrap_or(Path::new("")))
        .arg(java.get_program())
        .args(java.get_args())
        .arg("kafka.Kafka")
        .arg(dir.join("server.properties"))
        .stdin(Stdio::piped())
        .stdout(log)
        .stderr(log_too);
    let mut child = guard.spawn().map_err(doing)?;
    let stdin = child.stdin.take();
    let stdin = stdin.ok_or("starting Kafka: no way to tell its guard to stop")?;
    Ok(Process { child, stdin })
}

impl Node {
    fn wait_ready(&mut self) -> Result<()> {
        let path = self.dir.join("server.log");
        let deadline = Instant::now() + READY;
        loop {
            let log = fs::read(&path).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            if log.contains("Kafka Server started") {
                return Ok(());
            }
            let ended = match &mut self.process {
                Some(process) => matches!(process.child.try_wait(), Ok(Some(_)) | Err(_)),
                None => true,
            };
            if ended || Instant::now() >= deadline {
                let what = if ended {
                    "ended"
                } else {
                    "is not ready in time"
                };
                let lines: Vec<&str> = log.lines().rev().take(20).collect();
                let tail: Vec<&str> = lines.into_iter().rev().collect();
                return Err(format!(
                    "Kafka {what}; its log ends with:\n{}",
                    tail.join("\n")
                ));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
