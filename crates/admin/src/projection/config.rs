//! `[admin.projection]` of the configuration.

use std::path::PathBuf;
use std::time::Duration;

use ringback_core::time::duration_text;
use serde::{Deserialize, Serialize};

const HOUR: Duration = Duration::from_secs(3600);

/// Where attempts and parked deliveries are kept for reading.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProjectionConfig {
    /// The database, or none: then the log itself is read.
    pub engine: Engine,
    /// The directory of SQLite's files. Whoever starts it says where it is otherwise.
    pub dir: Option<PathBuf>,
    /// How long it keeps what it shows.
    #[serde(with = "duration_text")]
    pub retention: Duration,
    /// What is dropped as a whole when it is old.
    #[serde(with = "duration_text")]
    pub slice: Duration,
    /// Attempts per second from which on successes are sampled.
    pub full_rate: u32,
}

/// Which database.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Files of this process.
    #[default]
    Sqlite,
    /// None.
    None,
}

impl Default for ProjectionConfig {
    fn default() -> Self {
        Self {
            engine: Engine::default(),
            dir: None,
            retention: 7 * 24 * HOUR,
            slice: 24 * HOUR,
            full_rate: 2000,
        }
    }
}

impl ProjectionConfig {
    /// What cannot work, as `key: problem`.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let whole = self.slice.as_nanos().is_multiple_of(HOUR.as_nanos());
        if !whole || self.slice < HOUR || self.slice > 31 * 24 * HOUR {
            problems.push("slice: use whole hours, from 1h to 31d".to_owned());
        }
        if self.retention < HOUR || self.retention > 3660 * 24 * HOUR {
            problems.push("retention: use 1h to 3660d".to_owned());
        }
        if self.full_rate == 0 {
            problems.push("full_rate: use at least 1".to_owned());
        }
        let empty = |dir: &PathBuf| dir.as_os_str().is_empty();
        if self.dir.as_ref().is_some_and(empty) {
            problems.push("dir: is empty; name a directory, or leave it out".to_owned());
        }
        problems
    }
}
