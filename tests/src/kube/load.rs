//! A steady stream of events as a PBX would send it, and the books of what arrives.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::receiver::{Receiver, Request};

/// Between two events.
const PACE: Duration = Duration::from_millis(40);
/// Before an event that was not accepted is sent again, with the same id.
const AGAIN: Duration = Duration::from_millis(100);
/// Events under way to the ingest at a time.
const POSTS: usize = 64;
/// How long the last event of a chapter may take to arrive.
const PATIENCE: Duration = Duration::from_secs(240);

/// Goes on until it is dropped.
pub struct Load {
    receiver: Receiver,
    books: Arc<Mutex<Books>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Books {
    /// When each event was accepted.
    accepted: HashMap<String, Instant>,
    /// When the ingest did not accept one, and what it said.
    refused: Vec<(Instant, String)>,
}

/// What a chapter was like for receivers and senders.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Told {
    /// Events that were accepted.
    pub accepted: usize,
    /// The longest time in which nothing arrived.
    pub gap: Duration,
    /// The longest time from accepted to arrived.
    pub slowest: Duration,
    /// Accepted, and never arrived.
    pub lost: usize,
    /// Arrivals beyond the first of an event.
    pub repeated: usize,
    /// Posts that had to be made again.
    pub refused: usize,
}

impl Load {
    /// Sends to the ingest at this address, with this token; `receiver` gets what is delivered.
    pub fn start(ingest: &str, token: &str, receiver: Receiver) -> Self {
        let books = Arc::<Mutex<Books>>::default();
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(30));
        let client = client.build().unwrap();
        let (url, token) = (format!("{ingest}/v1/events"), token.to_owned());
        let noted = books.clone();
        let task = tokio::spawn(async move {
            let room = Arc::new(Semaphore::new(POSTS));
            let mut pace = tokio::time::interval(PACE);
            pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                pace.tick().await;
                let place = room.clone().acquire_owned().await.unwrap();
                let post = client.post(&url).bearer_auth(&token);
                let noted = noted.clone();
                tokio::spawn(async move {
                    deliver(post, &noted).await;
                    drop(place);
                });
            }
        });
        Self {
            receiver,
            books,
            task,
        }
    }

    /// Runs a chapter: what is done to the cluster meanwhile, and the time until all that was accepted
    /// has arrived. Prints its figures; nothing may be lost.
    pub fn chapter(&self, name: &str, deed: impl FnOnce()) -> Told {
        println!("--- {name}");
        self.more(20);
        let began = Instant::now();
        deed();
        let ended = Instant::now();
        // What was accepted meanwhile, and the delivery of some that came after.
        self.more(20);
        self.arrived(began, ended);
        let told = self.tell(began, ended);
        println!("figure kube.{name}.gap_ms {} ms", told.gap.as_millis());
        println!(
            "figure kube.{name}.slowest_ms {} ms",
            told.slowest.as_millis()
        );
        println!("figure kube.{name}.lost {} events", told.lost);
        println!("figure kube.{name}.repeated {} deliveries", told.repeated);
        println!("figure kube.{name}.refused {} posts", told.refused);
        println!(
            "{name}: {} events in {:.1} s",
            told.accepted,
            began.elapsed().as_secs_f64()
        );
        for (why, count) in self.refusals(began) {
            println!("{name}: {count} posts: {why}");
        }
        assert!(told.accepted > 20, "{name}: there was no load");
        assert_eq!(told.lost, 0, "{name}: events were lost");
        told
    }

    /// Waits until so many more arrived.
    fn more(&self, count: usize) {
        let wanted = self.receiver.books(|books| books.delivered()) + count;
        let deadline = Instant::now() + PATIENCE;
        while self.receiver.books(|books| books.delivered()) < wanted {
            assert!(Instant::now() < deadline, "nothing is delivered any more");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until everything that was accepted in this time has arrived, or for long.
    fn arrived(&self, began: Instant, ended: Instant) {
        let deadline = Instant::now() + PATIENCE;
        while self.tell(began, ended).lost > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Why posts were refused since then, and how many.
    fn refusals(&self, began: Instant) -> BTreeMap<String, usize> {
        let mut found = BTreeMap::new();
        let books = self.books.lock();
        for (_, why) in books.refused.iter().filter(|(at, _)| *at >= began) {
            *found.entry(why.clone()).or_default() += 1;
        }
        found
    }

    fn tell(&self, began: Instant, ended: Instant) -> Told {
        let (accepted, refused) = {
            let books = self.books.lock();
            let within = |at: &Instant| (began..=ended).contains(at);
            let accepted = books.accepted.iter().filter(|(_, at)| within(at));
            let accepted: HashMap<_, _> = accepted.map(|(id, at)| (id.clone(), *at)).collect();
            (
                accepted,
                books.refused.iter().filter(|(at, _)| within(at)).count(),
            )
        };
        let arrivals: Vec<(Instant, String)> = self.receiver.books(|books| {
            let arrival = |request: &Request| (request.at, request.id());
            // An event may arrive before its sender is told that it was accepted.
            let before = began.checked_sub(PATIENCE).unwrap_or(began);
            let from = books
                .requests
                .partition_point(|request| request.at < before);
            books.requests[from..].iter().map(arrival).collect()
        });
        let mut seen = HashSet::new();
        let (mut slowest, mut repeated) = (Duration::ZERO, 0);
        for (at, id) in &arrivals {
            match accepted.get(id) {
                _ if !seen.insert(id.as_str()) => repeated += usize::from(*at >= began),
                Some(accepted) => slowest = slowest.max(at.saturating_duration_since(*accepted)),
                None => {}
            }
        }
        let pairs = arrivals.windows(2).filter(|pair| pair[1].0 >= began);
        let gaps = pairs.map(|pair| pair[1].0.saturating_duration_since(pair[0].0));
        Told {
            accepted: accepted.len(),
            gap: gaps.max().unwrap_or_default(),
            slowest,
            lost: accepted
                .keys()
                .filter(|id| !seen.contains(id.as_str()))
                .count(),
            repeated,
            refused,
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Posts one event until it is accepted.
async fn deliver(post: reqwest::RequestBuilder, books: &Mutex<Books>) {
    let id = Uuid::now_v7().to_string();
    let event = json!({ "id": id, "type": "cdr.completed", "data": { "n": 1 } });
    let post = post.json(&event);
    loop {
        let why = match post.try_clone().unwrap().send().await {
            Ok(answer) if answer.status() == 202 => {
                books.lock().accepted.insert(id, Instant::now());
                return;
            }
            Ok(answer) => answer.status().to_string(),
            Err(error) => innermost(&error),
        };
        books.lock().refused.push((Instant::now(), why));
        tokio::time::sleep(AGAIN).await;
    }
}

/// What it all comes from.
fn innermost(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => innermost(source),
        None => error.to_string(),
    }
}
