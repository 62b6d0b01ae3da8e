//! A server of the API on a free port, its log, and a client with the operator's token.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use ringback_admin::{AdminState, Config, Projecting, Projection, ProjectionConfig, serve};
use ringback_core::address::{AddressPolicy, Opening};
use ringback_core::log::{
    Append, AppendError, Appended, Appender, AppenderOptions, Completion, GroupView, Log, LogError,
    Reader, Record, Revision, TopicProblem, WriteError,
};
use ringback_core::schedule::Schedule;
use ringback_core::secret::KeyRing;
use ringback_core::target::Reach;
use ringback_core::topics::{Role, TopicId, Topics, TopicsConfig};
use ringback_log::batch::{Acknowledgement, Batch};
use ringback_log::directory::LiveDirectory;
use ringback_log::local::{LocalLog, LocalOptions};
use ringback_telemetry::Metrics;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub(crate) const TOKEN: &str = "operator-token-of-the-tests";

pub(crate) struct Rig {
    pub(crate) log: LocalLog,
    pub(crate) directory: Arc<LiveDirectory>,
    pub(crate) url: String,
    pub(crate) client: reqwest::Client,
    shutdown: CancellationToken,
    show: Box<dyn Fn(Projection) + Send + Sync>,
    projecting: Option<Projecting>,
    pub(crate) metrics: Metrics,
    pub(crate) dir: Option<tempfile::TempDir>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) etag: Option<String>,
    pub(crate) text: String,
    pub(crate) body: Value,
}

pub(crate) fn keys(primary: &str) -> KeyRing {
    let first = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let second = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    KeyRing::new(primary, [("first", first), ("second", second)]).unwrap()
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with(Config::default()).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let topics = Topics::new(&TopicsConfig::default(), Schedule::default().tiers());
        let log = LocalLog::open(dir.path(), topics, LocalOptions::default()).unwrap();
        assert_eq!(log.create_topics().unwrap(), []);
        let mut rig = Self::serving(log.clone(), log, config, keys("first")).await;
        rig.dir = Some(dir);
        rig
    }

    /// Lists come from a projection.
    pub(crate) async fn projecting() -> Self {
        let mut rig = Self::new().await;
        let files = rig.files();
        rig.project(&files);
        rig.until("projecting").await;
        rig
    }

    /// Where the projection's files are.
    pub(crate) fn files(&self) -> PathBuf {
        self.dir.as_ref().unwrap().path().join("projection")
    }

    /// Starts a projection to this directory.
    pub(crate) fn project(&mut self, files: &Path) {
        self.project_as(&ProjectionConfig::default(), files);
    }

    /// The same with a configuration.
    pub(crate) fn project_as(&mut self, config: &ProjectionConfig, files: &Path) {
        let clock = ringback_log::system_clock();
        let projection = Projection::new(config, "test", files, clock).unwrap();
        self.projecting = Some(projection.start(&self.log, &self.metrics).unwrap());
        (self.show)(projection);
    }

    /// Waits until the projection is in this state, and says all of it.
    pub(crate) async fn until(&self, state: &str) -> Value {
        loop {
            let status = self.get("/v1/projection").await;
            if status.body["state"] == state {
                return status.body;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// One more server on the same log, with another configuration.
    pub(crate) async fn beside(&self, config: Config, keys: KeyRing) -> Self {
        Self::serving(self.log.clone(), self.log.clone(), config, keys).await
    }

    /// A server that works on `log`, whose records are in `local`.
    pub(crate) async fn serving<L: Log>(
        local: LocalLog,
        log: L,
        mut config: Config,
        keys: KeyRing,
    ) -> Self {
        // A second call finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        config.operator_token = TOKEN.to_owned().into();
        config.reach = Reach::new(AddressPolicy::opening(vec![Opening::LOOPBACK]), vec![]);
        let roles = ringback_admin::ROLES;
        let directory = Arc::new(LiveDirectory::start(&log, &roles, || {}).unwrap());
        assert!(directory.wait_fresh(Duration::from_secs(30)));
        let metrics = Metrics::new();
        let state = AdminState::new(log, directory.clone(), keys, config, metrics.clone()).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        tokio::spawn(serve(listener, state.clone(), None, shutdown.clone()));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            log: local,
            directory,
            url,
            client,
            shutdown,
            show: Box::new(move |projection| state.show(projection)),
            projecting: None,
            metrics,
            dir: None,
        }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(TOKEN)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        send(self.request(Method::POST, path).json(&body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        send(self.request(Method::DELETE, path)).await
    }

    /// `PATCH` or `PUT` with a precondition.
    pub(crate) async fn change(
        &self,
        method: Method,
        path: &str,
        precondition: (&str, &str),
        body: Value,
    ) -> Answer {
        let (name, value) = precondition;
        send(self.request(method, path).header(name, value).json(&body)).await
    }

    /// A tenant `acme` with webhook `cdr`; the webhook as the API shows it.
    pub(crate) async fn acme(&self) -> Value {
        let tenant = self
            .post("/v1/tenants", serde_json::json!({"id": "acme"}))
            .await;
        tenant.expect(StatusCode::CREATED);
        let form = serde_json::json!({"preset": "cdr", "url": "https://crm.example.com/cdr"});
        let webhook = self.post("/v1/tenants/acme/webhooks", form).await;
        webhook.expect(StatusCode::CREATED).body.clone()
    }

    /// Writes a webhook's record as another release would, and waits until it is read.
    pub(crate) fn put(&self, key: &str, revision: Revision, record: &Value) {
        let topic = self.log.topics().find(Role::Webhooks).unwrap();
        let bytes = serde_json::to_vec(record).unwrap();
        let revision = self
            .log
            .compare_and_set(topic, key, Some(revision), Some(&bytes))
            .unwrap();
        let wait = Duration::from_secs(30);
        assert!(self.directory.wait_applied(Role::Webhooks, revision, wait));
    }

    /// Appends a record and waits for the log's word.
    pub(crate) fn append(
        &self,
        role: Role,
        key: Option<&str>,
        headers: &[ringback_core::log::Header<'_>],
        value: &[u8],
    ) -> Appended {
        let options = AppenderOptions::default();
        let appender = self.log.appender(options, Acknowledgement).unwrap();
        let record = Append {
            topic: self.log.topics().find(role).unwrap(),
            key: key.map(str::as_bytes),
            headers,
            value: Some(value),
        };
        let mut batch = Batch::new(&appender);
        batch.append(record).unwrap();
        batch.finish().unwrap().unwrap()
    }

    /// What `pick` makes of every record of a topic, in order of its partitions.
    pub(crate) fn records<T>(&self, role: Role, mut pick: impl FnMut(Record<'_>) -> T) -> Vec<T> {
        let topic = self.log.topics().find(role).unwrap();
        let mut reader = self.log.reader().unwrap();
        let mut records = Vec::new();
        for partition in self.log.topics().partitions(topic) {
            let bounds = reader.bounds(partition).unwrap();
            reader
                .read(partition, bounds, &mut |record| records.push(pick(record)))
                .unwrap();
        }
        records
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.shutdown.cancel();
        // Before the directory goes.
        self.projecting = None;
    }
}

impl Answer {
    #[track_caller]
    pub(crate) fn expect(&self, status: StatusCode) -> &Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// Expects a problem with this status and code.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.body["code"], code, "{}", self.text);
        assert_eq!(self.body["status"], status, "{}", self.text);
        assert!(
            self.body["detail"]
                .as_str()
                .is_some_and(|detail| !detail.is_empty())
        );
    }

    pub(crate) fn etag(&self) -> &str {
        self.etag.as_deref().unwrap()
    }
}

pub(crate) async fn send(request: reqwest::RequestBuilder) -> Answer {
    let (client, request) = request.build_split();
    let request = request.unwrap();
    let asked = (
        request.method().to_string(),
        request.url().path().to_owned(),
    );
    let response = client.execute(request).await.unwrap();
    let status = response.status();
    let header = |name: &str| {
        response
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    let etag = header("etag");
    let media = header("content-type").unwrap_or_default();
    if media == "text/event-stream" {
        // It has no end.
        assert!(status.is_success());
        return Answer {
            status,
            etag,
            text: String::new(),
            body: Value::Null,
        };
    }
    let expected = if status.is_success() {
        "application/json"
    } else {
        "application/problem+json"
    };
    assert_eq!(header("cache-control").as_deref(), Some("no-store"));
    let text = response.text().await.unwrap();
    assert_eq!(media, expected, "{status} {text}");
    let body = serde_json::from_str(&text).unwrap();
    crate::document::check(&asked.0, &asked.1, status.as_u16(), &body);
    Answer {
        status,
        etag,
        text,
        body,
    }
}

/// The local log, whose appender stops working after some appends.
#[derive(Clone)]
pub(crate) struct Failing {
    pub(crate) log: LocalLog,
    pub(crate) after: Arc<std::sync::atomic::AtomicI64>,
}

pub(crate) struct FailingAppender<C: Completion> {
    appender: <LocalLog as Log>::Appender<C>,
    after: Arc<std::sync::atomic::AtomicI64>,
}

impl<C: Completion> Clone for FailingAppender<C> {
    fn clone(&self) -> Self {
        Self {
            appender: self.appender.clone(),
            after: self.after.clone(),
        }
    }
}

impl<C: Completion> Appender<C> for FailingAppender<C> {
    fn append(&self, record: Append<'_>, token: C::Token) -> Result<(), (C::Token, AppendError)> {
        if self
            .after
            .fetch_sub(1, std::sync::atomic::Ordering::Relaxed)
            <= 0
        {
            let topic = "ringback.replay".to_owned();
            let reason = "no broker answers".to_owned();
            return Err((token, AppendError::Unavailable { topic, reason }));
        }
        self.appender.append(record, token)
    }

    fn flush(&self, timeout: Duration) -> bool {
        self.appender.flush(timeout)
    }
}

impl Log for Failing {
    type Appender<C: Completion> = FailingAppender<C>;
    type Consumer = <LocalLog as Log>::Consumer;
    type Follower = <LocalLog as Log>::Follower;
    type Reader = <LocalLog as Log>::Reader;

    fn topics(&self) -> &Arc<Topics> {
        self.log.topics()
    }

    fn appender<C: Completion>(
        &self,
        options: AppenderOptions,
        completion: C,
    ) -> Result<FailingAppender<C>, LogError> {
        let appender = self.log.appender(options, completion)?;
        Ok(FailingAppender {
            appender,
            after: self.after.clone(),
        })
    }

    fn consumer(&self, group: &str, topics: &[TopicId]) -> Result<Self::Consumer, LogError> {
        self.log.consumer(group, topics)
    }

    fn follower(&self, topic: TopicId) -> Result<Self::Follower, LogError> {
        self.log.follower(topic)
    }

    fn reader(&self) -> Result<Self::Reader, LogError> {
        self.log.reader()
    }

    fn group(&self, group: &str, topics: &[TopicId]) -> Result<GroupView, LogError> {
        self.log.group(group, topics)
    }

    fn compare_and_set_beside(
        &self,
        topic: TopicId,
        key: &str,
        expected: Option<Revision>,
        value: Option<&[u8]>,
        beside: Option<Append<'_>>,
    ) -> Result<Revision, WriteError> {
        self.log
            .compare_and_set_beside(topic, key, expected, value, beside)
    }

    fn create_topics(&self) -> Result<Vec<TopicProblem>, LogError> {
        self.log.create_topics()
    }

    fn check_topics(&self) -> Result<Vec<TopicProblem>, LogError> {
        self.log.check_topics()
    }
}
