//! What the user sees of the configuration.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::*;

/// A key for tests, in the form that `secrets.keys` takes.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

pub(super) struct Given {
    dir: TempDir,
    args: ConfigArgs,
    environment: Vec<(OsString, OsString)>,
}

/// A file, variables and flags.
pub(super) fn given(file: &str, variables: &[(&str, &str)], flags: &[&str]) -> Given {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ringback.toml");
    fs::write(&path, file).unwrap();
    let args = ConfigArgs {
        config: Some(path),
        set: flags.iter().map(|flag| (*flag).to_owned()).collect(),
    };
    let environment = variables
        .iter()
        .map(|(name, value)| (name.into(), value.into()));
    Given {
        args,
        environment: environment.collect(),
        dir,
    }
}

impl Given {
    pub(super) fn config(self) -> Config {
        Config::read(&self.args, self.environment).unwrap()
    }

    /// The reported mistakes, with `DIR` for the directory.
    pub(super) fn mistakes(self) -> Vec<String> {
        let mistakes = self.all_mistakes();
        assert!(!mistakes.is_empty());
        mistakes
    }

    /// The same, or none.
    pub(super) fn all_mistakes(self) -> Vec<String> {
        let Err(failure) = Config::read(&self.args, self.environment) else {
            return Vec::new();
        };
        assert_eq!(failure.code, 64);
        let dir = self.dir.path().display().to_string();
        let lines: Vec<_> = failure.message.lines().collect();
        let (first, rest) = lines.split_first().unwrap();
        let (last, list) = rest.split_last().unwrap();
        assert!(first.starts_with("the configuration has "), "{first}");
        assert!(last.contains("docs/configuration.md"), "{last}");
        list.iter()
            .map(|line| line.trim().replace(&dir, "DIR"))
            .collect()
    }
}

#[test]
fn nothing_given_is_the_defaults() {
    let config = given("", &[], &[]).config();
    assert_eq!(config.log.engine, Engine::Local);
    assert_eq!(config.telemetry.listen, "127.0.0.1:9464");
    assert_eq!(config.to_string(), Config::default().to_string());
}

#[test]
fn flags_win_over_variables_and_these_over_the_file() {
    let file = "topics.replication = 2\n[telemetry]\nlisten = 'file:1'\nlog = 'warn'\n";
    let listen = ("RINGBACK_TELEMETRY__LISTEN", "variable:2");
    let config = given(file, &[listen], &["telemetry.listen=flag:3"]).config();
    assert_eq!(config.telemetry.listen, "flag:3");
    assert_eq!(config.telemetry.log, "warn");
    assert_eq!(config.topics.replication, 2);
    assert_eq!(
        given(file, &[listen], &[]).config().telemetry.listen,
        "variable:2"
    );
}

/// The type of the key decides what a text means, not what it looks like.
#[test]
fn texts_become_what_the_key_takes() {
    let variables = [
        ("RINGBACK_LOG__ENGINE", "kafka"),
        ("RINGBACK_LOG__KAFKA__CLIENT_ID", "17"),
        ("RINGBACK_LOG__KAFKA__PROPERTIES__SOCKET_TIMEOUT_MS", "9000"),
        ("RINGBACK_TOPICS__EVENT_PARTITIONS", "24"),
        ("RINGBACK_SCHEDULE__TIERS", r#"["1s", "5m"]"#),
        ("RINGBACK_ADMIN__FORBID_HTTP", "true"),
        ("RINGBACK_ADMIN__OPERATOR_TOKEN", ""),
        ("RINGBACK_TOKEN", "not ours"),
        ("RINGBACK_ADMIN_SERVICE_HOST", "10.0.0.1"),
    ];
    let flags = [
        "log.kafka.properties.group.protocol=consumer",
        "dispatcher.timeout=250ms",
    ];
    let config = given("", &variables, &flags).config();
    assert_eq!(config.log.engine, Engine::Kafka);
    assert_eq!(config.log.kafka.client_id, "17");
    assert_eq!(config.log.kafka.properties["socket.timeout.ms"], "9000");
    assert_eq!(config.log.kafka.properties["group.protocol"], "consumer");
    assert_eq!(config.topics.event_partitions, 24);
    assert_eq!(config.schedule.tiers(), [1, 300].map(Duration::from_secs));
    assert!(config.admin.forbid_http);
    assert_eq!(config.dispatcher.timeout, Duration::from_millis(250));
}

#[test]
fn every_mistake_is_reported_with_its_place() {
    let file = "\
[log]
engin = 'kafka'
bootstrap = 'localhost:9092'

[dispatchers]
slots = 17
timeout = '1s'

[dispatcher]
slots = 'many'
timeout = '15 seconds'

[schedule]
tiers = ['1s', '4m', '1s']
";
    let variables = [
        ("RINGBACK_LOG_ENGINE", "kafka"),
        ("RINGBACK_LOG__ENGINE", "kafak"),
        ("RINGBACK_TOPICS__REPLICATION", "-1"),
        ("RINGBACK_TELEMETRY", "no matter"),
    ];
    let flags = [
        "telemetry.listen=9464",
        "topics=7",
        "ingest.listen.port=80",
        "nonsense",
    ];
    let mistakes = given(file, &variables, &flags).mistakes();
    let expected = [
        "RINGBACK_LOG_ENGINE: is not read; two underscores stand for a dot: RINGBACK_LOG__ENGINE",
        "--set nonsense: is not of the form section.key=value, such as log.engine=kafka",
        "DIR/ringback.toml:2: log.engin: there is no such key; did you mean log.engine?",
        "DIR/ringback.toml:3: log.bootstrap: there is no such key; did you mean log.kafka.bootstrap?",
        "DIR/ringback.toml:6: dispatchers: there is no such key; did you mean dispatcher?",
        "DIR/ringback.toml:10: dispatcher.slots: invalid type: string \"many\", expected a whole number, not negative",
        "DIR/ringback.toml:11: dispatcher.timeout: \"15 seconds\" is not a duration such as 250ms, 32s, 4m, 2h or 7d",
        "RINGBACK_LOG__ENGINE: log.engine: unknown variant `kafak`, expected `local` or `kafka`",
        "RINGBACK_TOPICS__REPLICATION: topics.replication: invalid value: integer `-1`, expected a whole number of 0 to 65535",
        "--set topics: topics: is a section; its keys are topics.prefix, topics.event_partitions, topics.work_partitions, topics.replication, topics.retention",
        "--set ingest.listen.port: ingest.listen.port: ingest.listen is a value, not a section",
        "DIR/ringback.toml:14: schedule.tiers: two retry tiers last 1s; each needs its own length",
        "--set telemetry.listen: telemetry.listen: is not an address such as 127.0.0.1:8080 or [::]:8080",
    ];
    let missing: Vec<_> = expected
        .iter()
        .filter(|text| !mistakes.contains(&(**text).to_owned()))
        .collect();
    assert!(
        missing.is_empty() && mistakes.len() == expected.len(),
        "{missing:#?} of {mistakes:#?}"
    );
}

#[test]
fn broken_toml_is_named_by_line_and_does_not_hide_other_mistakes() {
    let file = "[telemetry]\nlog = 'info\nformat = 'txt'\n";
    let mistakes = given(file, &[("RINGBACK_LOG__ENGINE", "x")], &[]).mistakes();
    assert!(
        mistakes[0].starts_with("DIR/ringback.toml:2: "),
        "{mistakes:?}"
    );
    assert!(
        mistakes.iter().any(|text| text.contains("format")),
        "{mistakes:?}"
    );
    assert!(
        mistakes.iter().any(|text| text.contains("log.engine")),
        "{mistakes:?}"
    );
}

#[test]
fn a_named_file_must_exist() {
    let args = ConfigArgs {
        config: Some(PathBuf::from("/nowhere/x.toml")),
        set: vec![],
    };
    let failure = Config::read(&args, []).unwrap_err();
    assert!(
        failure.message.contains("/nowhere/x.toml: No such file"),
        "{failure}"
    );
}

#[test]
fn values_that_cannot_work_are_named() {
    let problems = |flags: &[&str]| given("", &[], flags).mistakes().join("\n");
    for (flag, says) in [
        ("log.kafka.bootstrap=kafka", "kafka-1:9092"),
        ("log.kafka.bootstrap=a:1,,b:2", "\"\" is not a broker"),
        ("log.kafka.properties.acks=0", "promises depend on it"),
        (
            "log.kafka.properties.sasl.password=x",
            "log.kafka.sasl.password",
        ),
        (
            "log.kafka.properties.no.such=x",
            "librdkafka does not take it",
        ),
        ("log.kafka.sasl.mechanism=plain", "sasl_ssl"),
        ("log.kafka.tls.ca=/x", "needs log.kafka.security_protocol"),
        ("log.local.dir=", "name the data directory"),
        ("topics.prefix=ring back", "use at most 200"),
        ("topics.event_partitions=0", "use 1 to 10000"),
        ("topics.retention=1h", "would be lost"),
        ("schedule.tiers=['0ms']", "at least 1ms"),
        ("telemetry.log=inof", "none of off, error"),
        ("dispatcher.slots=3", "use 16 to"),
        ("ingest.batch_events_max=0", "use at least 1"),
        ("secrets.primary=k1", "there is no secrets.keys.k1"),
    ] {
        let (key, _) = flag.split_once('=').unwrap();
        let report = problems(&[flag]);
        assert!(
            report.starts_with(&format!("--set {key}: {key}: ")),
            "{report}"
        );
        assert!(report.contains(says), "{report}");
    }
    let both = [
        "admin.operator_token=0123456789abcdef",
        "admin.operator_token_file=/x",
    ];
    assert!(problems(&both).contains("not both"));
}

/// What keeps Kafka from being reached shows before anything starts, all of it at once.
#[test]
fn all_mistakes_about_kafka_are_named_together() {
    let file = "\
[log]
engine = 'kafka'
[log.kafka]
security_protocol = 'sasl_ssl'
tls.ca = '/nowhere/ca.pem'
[log.kafka.sasl]
mechanism = 'scram-sha-512'
username = 'ringback'
password_file = '/nowhere/password'
";
    let mistakes = given(file, &[], &[]).mistakes();
    let expected = [
        "DIR/ringback.toml:5: log.kafka.tls.ca: /nowhere/ca.pem cannot be read: No such file or directory (os error 2)",
        "DIR/ringback.toml:9: log.kafka.sasl.password_file: /nowhere/password cannot be read: No such file or directory (os error 2)",
    ];
    assert_eq!(mistakes, expected);
    // Files matter where they are used.
    given(file, &[], &["log.engine=local"]).config();
    let flags = [
        "log.kafka.properties.acks=0",
        "log.kafka.properties.group.protocol=hunter2",
        "log.kafka.sasl.token_file=/x",
        "log.kafka.bootstrap=nonsense",
    ];
    let mistakes = given(file, &[], &flags).mistakes();
    assert_eq!(mistakes.len(), 4, "{mistakes:#?}");
    assert!(!mistakes.join(" ").contains("hunter2"), "{mistakes:#?}");
}

#[test]
fn secrets_open_and_are_never_shown() {
    let properties = "[log.kafka]\nsecurity_protocol = 'sasl_ssl'\ntls = { certificate = 'c', key = 'k', key_password = 'hunter2' }\n\
        sasl = { mechanism = 'plain', username = 'u', password = 'hunter2' }\n\
        [log.kafka.properties]\n'ssl.keystore.password' = 'hunter2'\n\
        [dispatcher]\nproxy = 'http://proxy:3128'\nproxy_username = 'u'\nproxy_password = 'hunter2'\n";
    let keys = format!("{properties}[secrets]\nprimary = 'k1'\n[secrets.keys]\nk1 = '{KEY}'\n");
    let config = given(
        &keys,
        &[],
        &[
            "admin.operator_token=hunter2-hunter2-hunter2",
            "admin.projection.url=postgresql://u:hunter2-hunter2-hunter2@h/d",
        ],
    )
    .config();
    config.key_ring().unwrap();
    let shown = format!("{config} {config:?}");
    assert!(
        !shown.contains("hunter2") && !shown.contains(KEY),
        "{shown}"
    );
    assert!(shown.contains("k1 = \"(hidden)\""), "{shown}");
    assert!(shown.contains("operator_token = \"(hidden)\""), "{shown}");
    assert!(shown.contains("proxy_password = \"(hidden)\""), "{shown}");

    let mut config = Config::default();
    assert_eq!(config.key_ring().unwrap_err().code, 64);
    config.secrets.set_only_key("own", KEY.to_owned());
    config.key_ring().unwrap();
}

/// Each raw topic is a table of its own, and names a row of the table of topics.
#[test]
fn raw_topics_are_tables() {
    let file = "\
[[ingest.raw]]
source = 'asterisk'
[ingest.raw.mapping]
type = 'cdr.completed'
tenant = 'acme'
id-from = ['uniqueid', 'sequence']

[[ingest.raw]]
source = 'kamailio'
mapping = { type-from = 'event', tenant-from = 'domain', types = { answer = 'call.leg.answered' } }
";
    let config = given(file, &[], &[]).config();
    assert_eq!(config.topics().raw, ["asterisk", "kamailio"]);
    assert_eq!(config.ingest.raw[0].mapping.id_from.len(), 2);
    let untyped = "[[ingest.raw]]\nsource = 'asterisk'\nmapping.tenant = 'acme'\n";
    let mistakes = given(untyped, &[], &[]).mistakes();
    assert!(
        mistakes[0].contains("\"asterisk\": nothing says the event type"),
        "{mistakes:?}"
    );
    let unknown = "[[ingest.raw]]\nsource = 'asterisk'\nmapping.typ = 'a'\n";
    let mistakes = given(unknown, &[], &[]).mistakes();
    assert!(
        mistakes[0].contains("ingest.raw") && mistakes[0].contains("typ"),
        "{mistakes:?}"
    );
}

/// Wherever a secret is misplaced, misspelt or malformed: no message repeats it.
#[test]
fn no_mistake_repeats_a_secret() {
    let file = "[admin]\noperator_token = 20252025\n[log.kafka]\nsasl.password = 20252025\n\
        sasl.pasword = 'hunter2'\ntls.key_password.x = 'hunter2'\n[secrets]\nkeys.k1 = 'hunter2'\nkeys.k2 = [20252025]\n\
        [log.kafka.properties]\n'sasl.password' = 20252025\n[admn]\noperator_token = 'hunter2'\n\
        [log.kafka.properties.a]\nb.c = 20252025\n";
    let broken = "[admin]\noperator_token = 'hunter2\n";
    let variables = [
        ("RINGBACK_SECRETS__KEYS__K3", "hunter2"),
        ("RINGBACK_SECRETS__KEY", "hunter2"),
    ];
    let flags = [
        "admin.operator_token.x=hunter2",
        "=hunter2",
        "hunter=hunter2",
    ];
    for file in [file, broken] {
        let mistakes = given(file, &variables, &flags).mistakes();
        assert!(mistakes.len() >= 5, "{mistakes:#?}");
        let shown = mistakes.join("\n");
        assert!(
            !shown.contains("hunter2") && !shown.contains("2025"),
            "{shown}"
        );
    }
}
