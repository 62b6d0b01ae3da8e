//! One process at a time: the lock on the directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use ringback_core::log::LogError;

/// Holds the directory until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub(super) struct DirLock {
    _file: File,
}

/// Who holds the directory, if anybody does.
pub(super) fn holder(dir: &Path) -> Option<String> {
    let mut file = File::open(dir.join("lock")).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(named(&mut file)),
        _ => None,
    }
}

/// The holder, as its file names it.
fn named(file: &mut File) -> String {
    let mut holder = String::new();
    let _ = file.read_to_string(&mut holder);
    match holder.trim() {
        "" => "another process".to_owned(),
        pid => format!("process {pid}"),
    }
}

impl DirLock {
    pub(super) fn acquire(dir: &Path) -> Result<Self, LogError> {
        let doing = || format!("locking the local log in {}", dir.display());
        let fail = |error: std::io::Error| LogError::permanent(doing(), error);
        // Not truncated here: until the lock is ours, the content is the holder's.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join("lock"))
            .map_err(fail)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = named(&mut file);
                return Err(LogError::permanent(
                    doing(),
                    format!(
                        "{holder} has it open; the local log serves one process. Stop that process, \
                         give this one a directory of its own, or use Kafka"
                    ),
                ));
            }
            Err(TryLockError::Error(error)) => return Err(fail(error)),
        }
        // The pid is a courtesy to the next one who asks: on a full disk it is left out.
        let _ = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| write!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}
