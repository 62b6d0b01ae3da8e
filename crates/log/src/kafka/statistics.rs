//! What librdkafka counts of its clients, by kind of client, for metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;

/// How often librdkafka tells, in milliseconds.
pub(super) const INTERVAL_MS: &str = "15000";

/// What a client is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ClientKind {
    /// Appends.
    Appender,
    /// Is a member of a group.
    Consumer,
    /// Follows a topic of the configuration, or reads anywhere.
    Reader,
}

impl ClientKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Appender, Self::Consumer, Self::Reader];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Appender => "appender",
            Self::Consumer => "consumer",
            Self::Reader => "reader",
        }
    }
}

/// What the clients of a kind did, and how it is with their brokers.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct ClientFigures {
    /// Requests sent, ever.
    pub requests: u64,
    /// Connections made, ever.
    pub connections: u64,
    /// 99 % of requests were answered within this; of the slowest broker, in seconds.
    pub round_trip: f64,
    /// The longest that a broker put us off, in seconds.
    pub throttled: f64,
    /// Requests that wait to be sent or answered.
    pub waiting: u64,
    /// Records that are not acknowledged.
    pub queued: u64,
}

impl ClientFigures {
    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.connections += other.connections;
        self.round_trip = self.round_trip.max(other.round_trip);
        self.throttled = self.throttled.max(other.throttled);
        self.waiting += other.waiting;
        self.queued += other.queued;
    }

    /// What is left of a client that has ended.
    fn ended(self) -> Self {
        Self {
            requests: self.requests,
            connections: self.connections,
            ..Self::default()
        }
    }

    /// Reads librdkafka's own words, <https://github.com/confluentinc/librdkafka/blob/master/STATISTICS.md>.
    fn read(json: &[u8]) -> Result<Self, serde_json::Error> {
        if json.first() != Some(&b'{') {
            // Of a list the members would be taken in their order.
            return Err(serde::de::Error::custom("this is no object"));
        }
        let told: Told = serde_json::from_slice(json)?;
        let mut figures = Self {
            queued: told.msg_cnt.unsigned_abs(),
            ..Self::default()
        };
        for broker in told.brokers.values() {
            figures.add(&Self {
                requests: broker.tx,
                connections: broker.connects.unsigned_abs(),
                round_trip: broker.rtt.p99 as f64 / 1e6,
                throttled: broker.throttle.max as f64 / 1e3,
                // Negative when it has no connection.
                waiting: broker.outbuf_cnt.max(0).unsigned_abs()
                    + broker.waitresp_cnt.max(0).unsigned_abs(),
                queued: 0,
            });
        }
        Ok(figures)
    }
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Told {
    msg_cnt: i64,
    brokers: BTreeMap<String, Broker>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Broker {
    tx: u64,
    connects: i64,
    rtt: Window,
    throttle: Window,
    outbuf_cnt: i64,
    waitresp_cnt: i64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Window {
    max: i64,
    p99: i64,
}

/// Of all clients of a log. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Statistics(Arc<Mutex<Clients>>);

#[derive(Default)]
struct Clients {
    made: u64,
    live: BTreeMap<u64, (ClientKind, ClientFigures)>,
    ended: BTreeMap<ClientKind, ClientFigures>,
}

impl Statistics {
    /// A client begins, and ends with what is returned.
    pub(super) fn client(&self, kind: ClientKind) -> Client {
        let mut clients = self.0.lock();
        clients.made += 1;
        Client {
            statistics: self.clone(),
            id: clients.made,
            kind,
        }
    }

    /// Of each kind of which there was a client.
    pub(super) fn figures(&self) -> BTreeMap<ClientKind, ClientFigures> {
        let clients = self.0.lock();
        let mut figures = clients.ended.clone();
        for (kind, told) in clients.live.values() {
            figures.entry(*kind).or_default().add(told);
        }
        figures
    }
}

/// One client.
pub(super) struct Client {
    statistics: Statistics,
    id: u64,
    kind: ClientKind,
}

impl Client {
    /// librdkafka tells.
    pub(super) fn told(&self, json: &[u8]) {
        match ClientFigures::read(json) {
            Ok(figures) => {
                let mut clients = self.statistics.0.lock();
                clients.live.insert(self.id, (self.kind, figures));
            }
            Err(error) => {
                tracing::debug!(target: "ringback::kafka", "statistics cannot be read: {error}");
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut clients = self.statistics.0.lock();
        if let Some((kind, figures)) = clients.live.remove(&self.id) {
            clients.ended.entry(kind).or_default().add(&figures.ended());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: &[u8] = br#"{"name": "x", "msg_cnt": 7, "brokers": {
        "a/1": {"tx": 100, "connects": 1, "rtt": {"p99": 2000, "max": 9000}, "throttle": {"max": 0},
                "outbuf_cnt": 1, "waitresp_cnt": 2, "toppars": {}},
        "b/2": {"tx": 11, "connects": 3, "rtt": {"p99": 50000}, "throttle": {"max": 250},
                "outbuf_cnt": -1, "waitresp_cnt": -1},
        "GroupCoordinator": {"tx": 0}}, "topics": {}}"#;

    #[test]
    fn brokers_of_a_client_and_clients_of_a_kind_are_added_up() {
        let statistics = Statistics::default();
        let (one, two) = (
            statistics.client(ClientKind::Reader),
            statistics.client(ClientKind::Reader),
        );
        assert!(statistics.figures().is_empty());
        one.told(TOLD);
        let expected = ClientFigures {
            requests: 111,
            connections: 4,
            round_trip: 0.05,
            throttled: 0.25,
            waiting: 3,
            queued: 7,
        };
        assert_eq!(statistics.figures()[&ClientKind::Reader], expected);
        // What is told is a total.
        one.told(TOLD);
        two.told(TOLD);
        let both = statistics.figures()[&ClientKind::Reader];
        assert_eq!(
            (both.requests, both.waiting, both.round_trip),
            (222, 6, 0.05)
        );
        // A counter does not go back when a client ends; what is now, ends.
        drop((one, two));
        let ended = ClientFigures {
            requests: 222,
            connections: 8,
            ..ClientFigures::default()
        };
        assert_eq!(statistics.figures()[&ClientKind::Reader], ended);
        assert!(statistics.0.lock().live.is_empty());
    }

    #[test]
    fn what_cannot_be_read_changes_nothing() {
        let statistics = Statistics::default();
        let client = statistics.client(ClientKind::Appender);
        client.told(TOLD);
        let before = statistics.figures();
        for nonsense in [&b""[..], b"[]", b"{\"brokers\": 7}", b"\xff"] {
            client.told(nonsense);
            assert_eq!(statistics.figures(), before);
        }
    }
}
