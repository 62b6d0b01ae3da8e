//! A collector of OpenTelemetry as a process, and what it says it was sent.
//!
//! The program is `RINGBACK_OTELCOL`, `otelcol` of the `PATH`, a kit's, or built by Go from
//! `tests/otelcol`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::ports;

/// How long a collector may take to listen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running collector, killed when dropped.
pub struct Collector {
    child: Child,
    port: u16,
    dir: TempDir,
}

/// A span, as the collector prints it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Span {
    pub service: String,
    pub name: String,
    pub kind: String,
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub status: String,
    pub attributes: BTreeMap<String, String>,
    /// Ids of the spans it is linked to.
    pub links: Vec<String>,
}

impl Collector {
    pub fn start() -> Self {
        Self::start_at(ports::free().unwrap())
    }

    pub fn start_at(port: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "receivers: {{otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:{port}'}}}}}}}}\n\
             exporters: {{debug: {{verbosity: detailed}}}}\n\
             service:\n  telemetry: {{metrics: {{level: none}}}}\n  \
             pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}\n"
        );
        let path = dir.path().join("config.yaml");
        fs::write(&path, config).unwrap();
        let output = File::create(dir.path().join("output")).unwrap();
        let child = Command::new(program().unwrap())
            .arg(format!("--config=file:{}", path.display()))
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let mut collector = Self { child, port, dir };
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = collector.child.try_wait().unwrap();
            assert!(
                ended.is_none() && began.elapsed() < PATIENCE,
                "the collector does not listen: {}",
                collector.output()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        collector
    }

    /// Where it takes spans.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn output(&self) -> String {
        fs::read_to_string(self.dir.path().join("output")).unwrap()
    }

    /// What it was sent so far.
    pub fn spans(&self) -> Vec<Span> {
        read(&self.output())
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads what the debug exporter prints: `name : value` and, in lists, `-> name: Kind(value)`.
fn read(output: &str) -> Vec<Span> {
    #[derive(PartialEq)]
    enum List {
        Resource,
        Attributes,
        Links,
    }
    let mut spans: Vec<Span> = Vec::new();
    let (mut list, mut service) = (List::Resource, String::new());
    for line in output.lines().map(str::trim) {
        let begins = |what: &str| line.starts_with(what);
        if begins("Resource attributes:") {
            list = List::Resource;
        } else if begins("Span #") {
            list = List::Attributes;
            let service = service.clone();
            spans.push(Span {
                service,
                ..Span::default()
            });
        } else if begins("Links:") || begins("SpanLink #") {
            list = List::Links;
        } else if let Some((name, value)) =
            line.strip_prefix("-> ").and_then(|l| l.split_once(": "))
        {
            let unwrapped = value.split_once('(').map(|(_, rest)| rest);
            let text = unwrapped.and_then(|rest| rest.strip_suffix(')'));
            let text = text.unwrap_or(value).to_owned();
            match (&list, spans.last_mut()) {
                (List::Resource, _) if name == "service.name" => service = text,
                (List::Attributes, Some(span)) => drop(span.attributes.insert(name.into(), text)),
                (List::Links, Some(span)) if name == "ID" => span.links.push(text),
                _ => {}
            }
        } else if let (Some((name, value)), Some(span)) = (line.split_once(':'), spans.last_mut()) {
            let value = value.trim().to_owned();
            match name.trim() {
                "Trace ID" => span.trace = value,
                "Parent ID" => span.parent = value,
                "ID" => span.id = value,
                "Name" => span.name = value,
                "Kind" => span.kind = value,
                "Status code" => span.status = value,
                _ => {}
            }
        }
    }
    spans
}

/// The path of a collector.
pub fn program() -> Result<PathBuf, String> {
    let works = |program: &Path| {
        let version = Command::new(program).arg("--version").output();
        version.is_ok_and(|version| version.status.success())
    };
    let named = std::env::var_os("RINGBACK_OTELCOL").map(PathBuf::from);
    let known = named.into_iter().chain([PathBuf::from("otelcol")]);
    if let Some(found) = known.into_iter().find(|program| works(program)) {
        return Ok(found);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = root.join("../target/otelcol");
    let program = dir.join("otelcol");
    // One process at a time makes it.
    fs::create_dir_all(&dir).map_err(|error| format!("making {}: {error}", dir.display()))?;
    let lock = File::create(dir.join("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    if works(&program) {
        return Ok(program);
    }
    let mut kits = root
        .ancestors()
        .map(|dir| dir.join("shared/kubernetes/bin/otelcol.xz"));
    let packed = kits.find(|packed| packed.exists());
    let made = match packed {
        Some(packed) => unpack(&packed, &program),
        None => build(&root.join("otelcol"), &program),
    };
    made?;
    match works(&program) {
        true => Ok(program),
        false => Err(format!("{} does not start", program.display())),
    }
}

fn unpack(packed: &Path, program: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |error: std::io::Error| format!("unpacking {}: {error}", packed.display());
    let output = File::create(program).map_err(failed)?;
    let mut xz = Command::new("xz");
    let status = xz.args(["-dc"]).arg(packed).stdout(output).status();
    if !status.map_err(failed)?.success() {
        return Err(format!("xz cannot unpack {}", packed.display()));
    }
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).map_err(failed)
}

fn build(source: &Path, program: &Path) -> Result<(), String> {
    let advice = "a collector of OpenTelemetry is missing: install otelcol, or Go 1.25 or later, with which it is built here";
    let mut go = Command::new("go");
    go.args(["build", "-o"])
        .arg(program)
        .arg(".")
        .current_dir(source);
    let status = go.env("CGO_ENABLED", "0").stdin(Stdio::null()).status();
    match status
        .map_err(|error| format!("{advice}: {error}"))?
        .success()
    {
        true => Ok(()),
        false => Err(advice.to_owned()),
    }
}
