//! Figures of the local engine, as lines `figure NAME VALUE UNIT`.
//!
//! `cargo run --release -p ringback-bench --bin log [DIRECTORY]`: the directory says which disk is
//! measured; without one it is where temporary files go.

use std::error::Error;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ringback_core::catalogue::Family;
use ringback_core::log::{
    Append, AppendError, Appended, Appender, AppenderOptions, Assignment, Committed, Completion,
    Consumer, Handler, Header, Log, Record,
};
use ringback_core::topics::{Partition, Role, TopicId, Topics, TopicsConfig};
use ringback_log::local::{LocalLog, LocalOptions};

type Outcome<T> = Result<T, Box<dyn Error>>;

const THROUGHPUT_RUN: Duration = Duration::from_secs(4);
const LATENCY_RUN: Duration = Duration::from_secs(4);
const IDLE_RUN: Duration = Duration::from_secs(2);
/// 200 records a second.
const PACE: Duration = Duration::from_millis(5);

fn main() -> Outcome<()> {
    let parent = std::env::args_os()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(parent)?;
    let topics = Topics::new(&TopicsConfig::default(), &[]);
    let log = LocalLog::open(&dir.path().join("log"), topics, LocalOptions::default())?;
    log.create_topics()?;
    let cdr = log
        .topics()
        .find(Role::Events(Family::Cdr))
        .ok_or("the table has no cdr topic")?;

    figure("log.local.idle_cpu", idle(&log, cdr)? * 100.0, "%")?;
    for waiting in [64, 512] {
        let rate = appends_per_second(&log, cdr, waiting)?;
        figure(&format!("log.local.appends_{waiting}"), rate, "1/s")?;
    }
    // The disk before and after, because others use it too.
    let mut syncs = syncs(dir.path())?;
    let mut latencies = latencies(&log, cdr)?;
    syncs.extend(self::syncs(dir.path())?);
    let (sync, latency) = (percentile(&mut syncs, 50), percentile(&mut latencies, 50));
    figure("log.local.fdatasync_p50", millis(sync), "ms")?;
    figure("log.local.append_to_consume_p50", millis(latency), "ms")?;
    figure(
        "log.local.append_to_consume_p99",
        millis(percentile(&mut latencies, 99)),
        "ms",
    )?;
    figure(
        "log.local.append_to_consume_per_fdatasync",
        millis(latency) / millis(sync),
        "x",
    )?;
    Ok(())
}

fn figure(name: &str, value: f64, unit: &str) -> Outcome<()> {
    writeln!(std::io::stdout(), "figure {name} {value:.2} {unit}")?;
    Ok(())
}

/// Reports each end through a channel.
struct Told(mpsc::SyncSender<Result<(), AppendError>>);

impl Completion for Told {
    type Token = ();

    fn done(&self, (): (), result: Result<Appended, AppendError>) {
        // As large as what may be waiting, so it is never full.
        let _ = self.0.try_send(result.map(|_| ()));
    }
}

/// An event as it is in production: 1 KiB of data and its CloudEvents headers.
fn append<A: Appender<Told>>(appender: &A, topic: TopicId, n: u64, value: &[u8]) -> Outcome<()> {
    let id = format!("0198c0de-0000-7000-8000-{n:012x}");
    let key = format!("tenant-{}/call/{}", n % 50, n % 1000);
    let headers = [
        Header {
            name: "content-type",
            value: b"application/json",
        },
        Header {
            name: "ce_specversion",
            value: b"1.0",
        },
        Header {
            name: "ce_id",
            value: id.as_bytes(),
        },
        Header {
            name: "ce_source",
            value: b"/pbx/one",
        },
        Header {
            name: "ce_type",
            value: b"cdr.completed",
        },
        Header {
            name: "ce_time",
            value: b"2026-11-21T09:30:00Z",
        },
        Header {
            name: "ce_subject",
            value: b"call/1234567890",
        },
        Header {
            name: "ce_tenant",
            value: b"tenant-1",
        },
    ];
    let record = Append {
        topic,
        key: Some(key.as_bytes()),
        headers: &headers,
        value: Some(value),
    };
    appender
        .append(record, ())
        .map_err(|((), error)| error.into())
}

/// Acknowledged appends a second while `waiting` of them are always under way.
fn appends_per_second(log: &LocalLog, topic: TopicId, waiting: usize) -> Outcome<f64> {
    let (told, ends) = mpsc::sync_channel(waiting);
    let appender = log.appender(AppenderOptions::default(), Told(told))?;
    let value = vec![b'x'; 1024];
    let began = Instant::now();
    for n in 0..waiting as u64 {
        append(&appender, topic, n, &value)?;
    }
    let mut count = 0;
    while began.elapsed() < THROUGHPUT_RUN {
        ends.recv()??;
        count += 1;
        append(&appender, topic, count, &value)?;
    }
    let rate = count as f64 / began.elapsed().as_secs_f64();
    if !appender.flush(Duration::from_secs(10)) {
        return Err("appends did not end".into());
    }
    Ok(rate)
}

/// From the call of `append` to the record's arrival at a consumer, at 200 a second.
fn latencies(log: &LocalLog, topic: TopicId) -> Outcome<Vec<Duration>> {
    let mut consumer = log.consumer("latency", &[topic])?;
    let began = Instant::now();
    // The backlog first; what counts begins after it.
    let mut arrivals = Arrivals {
        began,
        latencies: Vec::new(),
    };
    loop {
        let before = arrivals.latencies.len();
        consumer.poll(Duration::ZERO, &mut arrivals)?;
        if arrivals.latencies.len() == before {
            break;
        }
    }
    arrivals.latencies.clear();
    let waker = consumer.waker();
    let (stop, stopped) = mpsc::channel::<()>();
    let consuming = std::thread::spawn(move || {
        while stopped.try_recv().is_err() {
            if consumer
                .poll(Duration::from_secs(10), &mut arrivals)
                .is_err()
            {
                break;
            }
        }
        arrivals.latencies
    });
    let (told, ends) = mpsc::sync_channel(1024);
    let appender = log.appender(AppenderOptions::default(), Told(told))?;
    let mut value = vec![b'x'; 1024];
    let mut due = Instant::now();
    let mut count = 0;
    while began.elapsed() < LATENCY_RUN {
        due += PACE;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let sent = u64::try_from(began.elapsed().as_nanos())?;
        value[..8].copy_from_slice(&sent.to_le_bytes());
        append(&appender, topic, count, &value)?;
        count += 1;
        while let Ok(end) = ends.try_recv() {
            end?;
        }
    }
    appender.flush(Duration::from_secs(10));
    stop.send(())?;
    waker.wake();
    consuming.join().map_err(|_| "the consumer failed".into())
}

struct Arrivals {
    began: Instant,
    latencies: Vec<Duration>,
}

impl Handler for Arrivals {
    fn assigned(&mut self, _: Assignment) {}

    fn room(&mut self, _: Partition) -> usize {
        usize::MAX
    }

    fn record(&mut self, record: Record<'_>) {
        let sent = record.value.and_then(|value| value.first_chunk::<8>());
        let sent = Duration::from_nanos(u64::from_le_bytes(*sent.unwrap_or(&[0; 8])));
        self.latencies
            .push(self.began.elapsed().saturating_sub(sent));
    }

    fn revoking(&mut self, _: Partition) -> bool {
        true
    }

    fn revoked(&mut self, _: Partition) -> Option<Committed> {
        None
    }

    fn lost(&mut self, _: Partition) {}
}

/// What writing and flushing 4 KiB costs on this disk: appended like the first round of a WAL, and
/// in place like all later ones.
fn syncs(dir: &Path) -> Outcome<Vec<Duration>> {
    let mut file = std::fs::File::create(dir.join("sync"))?;
    let page = [b'x'; 4096];
    let mut times = Vec::new();
    for n in 0..400 {
        if n == 200 {
            file.seek(SeekFrom::Start(0))?;
        }
        let began = Instant::now();
        file.write_all(&page)?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    Ok(times)
}

/// The share of a core that a log uses with a consumer waiting and nothing to do.
fn idle(log: &LocalLog, topic: TopicId) -> Outcome<f64> {
    let mut consumer = log.consumer("idle", &[topic])?;
    let mut arrivals = Arrivals {
        began: Instant::now(),
        latencies: Vec::new(),
    };
    consumer.poll(Duration::ZERO, &mut arrivals)?;
    let (before, began) = (cpu()?, Instant::now());
    consumer.poll(IDLE_RUN, &mut arrivals)?;
    Ok((cpu()? - before).as_secs_f64() / began.elapsed().as_secs_f64())
}

/// CPU time of this process so far, to the nanosecond, from all its threads.
fn cpu() -> Outcome<Duration> {
    let mut sum = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let stat = std::fs::read_to_string(task?.path().join("schedstat"))?;
        let nanos = stat.split_whitespace().next().ok_or("schedstat is empty")?;
        sum += nanos.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(sum))
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let index = times.len() * percent / 100;
    times
        .get(index.min(times.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
