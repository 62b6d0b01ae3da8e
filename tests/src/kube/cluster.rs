//! The cluster, through kubectl and helm as people use them.

use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long something may take before it counts as never: machines are shared.
pub(super) const PATIENCE: Duration = Duration::from_secs(240);

/// A namespace of its own in the cluster that `KUBECONFIG` names.
pub struct Cluster {
    pub namespace: String,
    /// The image's repository and tag.
    pub image: (String, String),
    /// This machine, as pods reach it: Kafka and the receiver listen there.
    pub host: IpAddr,
    /// A node, as this machine reaches it.
    pub node: String,
}

/// What of a pod matters here.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    pub name: String,
    pub ready: bool,
    /// It was told to end.
    pub ending: bool,
    pub restarts: u64,
    /// `containerd://…`
    pub container: String,
    /// Why its container waits to be started.
    pub waiting: String,
    /// The last words of its container before it ended.
    pub last_words: String,
}

impl Cluster {
    /// Makes the namespace, where pods must be *restricted*. Asks the environment for `IMAGE` and, where
    /// the node is not this machine, `KUBE_HOST`.
    pub fn prepare(namespace: &str) -> Self {
        let image = std::env::var("IMAGE").expect("IMAGE names the image");
        let (repository, tag) = image.rsplit_once(':').expect("IMAGE has a tag");
        let host = ["KUBE_HOST", "NODE_IP"].map(std::env::var);
        let host = host.into_iter().find_map(Result::ok);
        let host = host.expect("KUBE_HOST is this machine's address as pods reach it");
        let mut cluster = Self {
            namespace: namespace.to_owned(),
            image: (repository.to_owned(), tag.to_owned()),
            host: host.parse().expect("KUBE_HOST is an IP address"),
            node: String::new(),
        };
        let nodes = cluster.json(&["get", "nodes"]);
        let addresses = nodes["items"][0]["status"]["addresses"].as_array().unwrap();
        let internal = addresses.iter().find(|one| one["type"] == "InternalIP");
        cluster.node = text(&internal.unwrap()["address"]);
        cluster.apply(&json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {
                "name": namespace,
                "labels": { "pod-security.kubernetes.io/enforce": "restricted" },
            },
        }));
        cluster
    }

    /// What kubectl prints, or why it failed.
    pub fn try_kubectl(&self, args: &[&str], input: Option<&str>) -> Result<String, String> {
        let mut kubectl = Command::new("kubectl");
        kubectl.args(["--namespace", &self.namespace, "--request-timeout=60s"]);
        output(kubectl.args(args), input)
    }

    /// The same; it must work.
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.try_kubectl(args, None).unwrap()
    }

    /// What helm prints, or why it failed.
    pub fn helm(&self, args: &[&str], values: &Value) -> Result<String, String> {
        let mut helm = Command::new("helm");
        helm.args(["--namespace", &self.namespace]).args(args);
        if !values.is_null() {
            helm.args(["--values", "-"]);
        }
        output(&mut helm, Some(&values.to_string()))
    }

    /// Something that `kubectl … --output json` tells.
    pub fn json(&self, args: &[&str]) -> Value {
        let told = self.kubectl(&[args, &["--output", "json"]].concat());
        serde_json::from_str(&told).unwrap()
    }

    /// Makes an object.
    pub fn apply(&self, object: &Value) {
        let args = ["apply", "--filename", "-"];
        self.try_kubectl(&args, Some(&object.to_string())).unwrap();
    }

    /// A Secret with these values.
    pub fn secret(&self, name: &str, values: &Value) {
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": values,
        }));
    }

    /// The pods that a selector of labels matches.
    pub fn pods(&self, selector: &str) -> Vec<Pod> {
        let found = self.json(&["get", "pods", "--selector", selector]);
        found["items"].as_array().unwrap().iter().map(pod).collect()
    }

    /// The port at which every node serves a Service.
    pub fn node_port(&self, service: &str) -> u64 {
        let found = self.json(&["get", "service", service]);
        found["spec"]["ports"][0]["nodePort"].as_u64().unwrap()
    }
}

fn pod(found: &Value) -> Pod {
    let status = &found["status"];
    let conditions = status["conditions"].as_array();
    let ready = conditions.into_iter().flatten();
    let mut ready = ready.filter(|one| one["type"] == "Ready");
    let container = &status["containerStatuses"][0];
    let ended =
        ["lastState", "state"].map(|state| text(&container[state]["terminated"]["message"]));
    Pod {
        name: text(&found["metadata"]["name"]),
        ready: ready.any(|one| one["status"] == "True"),
        ending: !found["metadata"]["deletionTimestamp"].is_null(),
        restarts: container["restartCount"].as_u64().unwrap_or(0),
        container: text(&container["containerID"]),
        waiting: text(&container["state"]["waiting"]["message"]),
        last_words: ended.concat(),
    }
}

/// The text of a JSON string.
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Asks again until there is an answer.
#[track_caller]
pub fn until<T>(what: &str, mut asked: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match asked() {
            Ok(found) => return found,
            Err(why) => assert!(Instant::now() < deadline, "not in time: {what}: {why}"),
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Runs a command with this on its standard input; what it prints.
fn output(command: &mut Command, input: Option<&str>) -> Result<String, String> {
    let doing = format!("{command:?}").replace('"', "");
    let failed = |error: std::io::Error| format!("{doing}: {error}");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        stdin.write_all(input.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{doing}: {}: {}", output.status, said.trim()))
        }
    }
}
