//! The mark in a local data directory that its content has gone elsewhere: how far, and where to.
//!
//! It is written before the first record is, so that `up` never runs again on deliveries that somebody
//! else may be delivering, and removed only by a person who knows that nobody does.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use ringback_core::time::Timestamp;
use ringback_log::moving::Progress;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::failure::Failure;

const FILE: &str = "moved.json";
const VERSION: u32 = 1;

/// Where to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Destination {
    pub(crate) bootstrap: String,
    /// Of the names of topics.
    pub(crate) prefix: String,
    pub(crate) group_prefix: String,
}

impl Destination {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            bootstrap: config.log.kafka.bootstrap.clone(),
            prefix: config.topics.prefix.clone(),
            group_prefix: config.log.kafka.group_prefix.clone(),
        }
    }

    /// The same topics and groups. Brokers may be named otherwise, and come and go.
    pub(crate) fn is(&self, other: &Self) -> bool {
        (&self.prefix, &self.group_prefix) == (&other.prefix, &other.group_prefix)
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kafka at {}, topics {}*", self.bootstrap, self.prefix)
    }
}

/// The mark.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Mark {
    version: u32,
    pub(crate) to: Destination,
    pub(crate) began: Timestamp,
    /// `None`: the move is not over.
    pub(crate) ended: Option<Timestamp>,
    pub(crate) progress: Progress,
}

impl Mark {
    pub(crate) fn new(to: Destination, began: Timestamp) -> Self {
        Self {
            version: VERSION,
            to,
            began,
            ended: None,
            progress: Progress::default(),
        }
    }

    /// The mark of a data directory, if there is one.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>, Failure> {
        let path = path(dir);
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(format!(
                "reading {}, which says that this installation was moved to Kafka: {error}",
                path.display()
            ))
        };
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&error)),
        };
        let mark: Self = serde_json::from_slice(&text).map_err(|error| failed(&error))?;
        match mark.version {
            VERSION => Ok(Some(mark)),
            other => Err(failed(&format!("version {other} is not known here"))),
        }
    }

    /// Writes it durably; a kill leaves the old one or the new one.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), std::io::Error> {
        let beside = dir.join("moved.new");
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        fs::rename(&beside, path(dir))?;
        File::open(dir)?.sync_all()
    }
}

/// Nothing runs on a data directory whose content was moved.
pub(crate) fn refuse_moved(dir: &Path) -> Result<(), Failure> {
    let Some(mark) = Mark::read(dir)? else {
        return Ok(());
    };
    let (to, file) = (&mark.to, path(dir));
    let back = format!(
        "To go back, first make sure that no dispatcher runs there; then remove {}, and what waited \
         here is delivered from here, including what was delivered there meanwhile",
        file.display()
    );
    Err(Failure::new(match mark.ended {
        Some(ended) => format!(
            "this installation was moved to {to} at {ended}: run it with log.engine = \"kafka\". {back}"
        ),
        None => format!(
            "this installation is half moved to {to} since {}: finish with `ringback move`. {back}",
            mark.began
        ),
    }))
}

fn path(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_and_refuses() {
        let dir = tempfile::tempdir().unwrap();
        refuse_moved(dir.path()).unwrap();
        let to = Destination {
            bootstrap: "kafka-1:9092".to_owned(),
            prefix: "ringback.".to_owned(),
            group_prefix: "ringback.".to_owned(),
        };
        let mut mark = Mark::new(to, Timestamp::from_millis(0));
        mark.write(dir.path()).unwrap();
        assert_eq!(Mark::read(dir.path()).unwrap().as_ref(), Some(&mark));
        let refused = refuse_moved(dir.path()).unwrap_err().message;
        assert!(
            refused.contains("half moved to Kafka at kafka-1:9092"),
            "{refused}"
        );
        mark.ended = Some(Timestamp::from_millis(1));
        mark.write(dir.path()).unwrap();
        let refused = refuse_moved(dir.path()).unwrap_err().message;
        assert!(refused.contains("moved.json"), "{refused}");
        // Half a file must not pass for none.
        fs::write(path(dir.path()), "{").unwrap();
        refuse_moved(dir.path()).unwrap_err();
    }
}
