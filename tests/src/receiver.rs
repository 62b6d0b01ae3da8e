//! A receiver that keeps the books: what came, when, with which headers, and what it answered.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// One request as it came in.
#[derive(Clone, Debug)]
pub struct Request {
    /// When its body was complete.
    pub at: Instant,
    pub method: Method,
    /// The path, without the leading slash.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// What was answered.
    pub answer: Answer,
}

impl Request {
    /// The value of a header, as text.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The event's id in the body.
    pub fn id(&self) -> String {
        self.json()["id"].as_str().unwrap_or_default().to_owned()
    }
}

/// What to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Status(u16),
    /// A status with headers, such as a redirect.
    With(u16, Vec<(&'static str, String)>),
    /// Answers 200 after this long.
    After(Duration),
}

type Behaviour = Arc<dyn Fn(&Books, &str, &str) -> Answer + Send + Sync>;

/// Everything that was received, in order.
#[derive(Default)]
pub struct Books {
    pub requests: Vec<Request>,
    by_id: HashMap<String, usize>,
}

impl Books {
    /// How often this event came to this path.
    pub fn count(&self, path: &str, id: &str) -> usize {
        self.requests
            .iter()
            .filter(|request| request.path == path && request.id() == id)
            .count()
    }

    /// The requests of a path.
    pub fn at(&self, path: &str) -> Vec<Request> {
        self.requests
            .iter()
            .filter(|request| request.path == path)
            .cloned()
            .collect()
    }

    /// Distinct ids that were answered with 200.
    pub fn delivered(&self) -> usize {
        self.by_id.len()
    }

    /// Answers with 200 beyond the first of each id.
    pub fn duplicates(&self) -> usize {
        self.by_id.values().map(|count| count - 1).sum()
    }

    /// How often events outside of these were answered with 200 beyond the first time.
    pub fn duplicates_outside(&self, of: &HashSet<String>) -> usize {
        let others = self.by_id.iter().filter(|(id, _)| !of.contains(*id));
        others.map(|(_, count)| count - 1).sum()
    }

    /// Of these, how many were delivered.
    pub fn delivered_of(&self, of: &HashSet<String>) -> usize {
        of.iter().filter(|id| self.is_delivered(id)).count()
    }

    pub fn is_delivered(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }
}

struct Shared {
    books: Mutex<Books>,
    news: Notify,
    behaviours: Mutex<HashMap<String, Behaviour>>,
}

/// A running receiver; stops when dropped.
pub struct Receiver {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Receiver {
    /// Listens on a free loopback port and answers 200 to everything.
    pub async fn start() -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into()).await
    }

    /// The same at another of the machine's addresses.
    pub async fn start_at(host: IpAddr) -> Self {
        let shared = Arc::new(Shared {
            books: Mutex::default(),
            news: Notify::new(),
            behaviours: Mutex::default(),
        });
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/{*path}", axum::routing::any(receive));
        let router = router.with_state(shared.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            shared,
            task,
        }
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// Says what to answer on a path: a function of the books so far, the path and the event's id.
    pub fn behave(
        &self,
        path: &str,
        behaviour: impl Fn(&Books, &str, &str) -> Answer + Send + Sync + 'static,
    ) {
        self.shared
            .behaviours
            .lock()
            .insert(path.to_owned(), Arc::new(behaviour));
    }

    /// Answers the first `answers.len()` requests of each event like this, then 200.
    pub fn first(&self, path: &str, answers: Vec<Answer>) {
        self.behave(path, move |books, path, id| {
            answers
                .get(books.count(path, id))
                .cloned()
                .unwrap_or(Answer::Status(200))
        });
    }

    /// Begins new books.
    pub fn forget(&self) {
        *self.shared.books.lock() = Books::default();
    }

    /// Looks into the books.
    pub fn books<R>(&self, look: impl FnOnce(&Books) -> R) -> R {
        look(&self.shared.books.lock())
    }

    /// Waits until the books are as they should be; fails loudly after a generous time.
    pub async fn wait(&self, what: &str, done: impl Fn(&Books) -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(90), async {
            loop {
                let news = self.shared.news.notified();
                tokio::pin!(news);
                news.as_mut().enable();
                if done(&self.shared.books.lock()) {
                    return;
                }
                news.await;
            }
        });
        if waited.await.is_err() {
            let books = self.shared.books.lock();
            let seen: Vec<_> = books
                .requests
                .iter()
                .rev()
                .take(20)
                .map(|request| format!("{} {} {:?}", request.path, request.id(), request.answer))
                .collect();
            panic!(
                "waited in vain until {what}; {} requests, the last: {seen:#?}",
                books.requests.len()
            );
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<String>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let id = serde_json::from_slice::<serde_json::Value>(&body)
        .ok()
        .and_then(|json| json["id"].as_str().map(str::to_owned))
        .unwrap_or_default();
    let behaviour = shared.behaviours.lock().get(&path).cloned();
    let answer = {
        let mut books = shared.books.lock();
        let answer = behaviour.map_or(Answer::Status(200), |behave| behave(&books, &path, &id));
        let at = Instant::now();
        let ok = matches!(answer, Answer::Status(200) | Answer::With(200, _));
        let request = Request {
            at,
            method,
            path,
            headers,
            body,
            answer: answer.clone(),
        };
        books.requests.push(request);
        if ok {
            *books.by_id.entry(id).or_default() += 1;
        }
        answer
    };
    shared.news.notify_waiters();
    let (status, headers) = match answer {
        Answer::Status(status) => (status, vec![]),
        Answer::With(status, headers) => (status, headers),
        Answer::After(time) => {
            tokio::time::sleep(time).await;
            (200, vec![])
        }
    };
    let mut response = Response::builder().status(StatusCode::from_u16(status).unwrap());
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response.body(Body::from("noted")).unwrap()
}
