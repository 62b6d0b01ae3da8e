//! Lines of files and of standard input, one at a time: no file is held in memory.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::fs::File;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, BufReader};

use crate::failure::Failure;

/// Longest line that is read; the ingest takes less.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// A line and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) file: Arc<str>,
    /// From 1.
    pub(crate) number: u64,
    /// Without the line's end. Cut when it is longer than the ingest would take.
    pub(crate) text: Vec<u8>,
}

pub(crate) struct Lines {
    files: std::vec::IntoIter<PathBuf>,
    current: Option<(Arc<str>, u64, Box<dyn AsyncBufRead + Send + Unpin>)>,
}

impl Lines {
    pub(crate) fn read(mut files: Vec<PathBuf>) -> Self {
        if files.is_empty() {
            files.push("-".into());
        }
        Self {
            files: files.into_iter(),
            current: None,
        }
    }

    /// The next line that is not blank.
    pub(crate) async fn next(&mut self) -> Result<Option<Line>, Failure> {
        loop {
            let Some((file, number, reader)) = &mut self.current else {
                let Some(path) = self.files.next() else {
                    return Ok(None);
                };
                self.current = Some(open(path).await?);
                continue;
            };
            let failed = |error| Failure::new(format!("reading {file}: {error}"));
            let text = read_line(reader).await.map_err(failed)?;
            let Some(text) = text else {
                self.current = None;
                continue;
            };
            *number += 1;
            let text = text.trim_ascii();
            if !text.is_empty() {
                let text = text.to_vec();
                return Ok(Some(Line {
                    file: file.clone(),
                    number: *number,
                    text,
                }));
            }
        }
    }
}

async fn open(
    path: PathBuf,
) -> Result<(Arc<str>, u64, Box<dyn AsyncBufRead + Send + Unpin>), Failure> {
    if path.as_os_str() == "-" {
        let reader = BufReader::new(tokio::io::stdin());
        return Ok(("standard input".into(), 0, Box::new(reader)));
    }
    let name = path.display().to_string();
    let file = File::open(&path)
        .await
        .map_err(|error| Failure::new(format!("opening {name}: {error}")))?;
    Ok((
        name.into(),
        0,
        Box::new(BufReader::with_capacity(65_536, file)),
    ))
}

/// A line to its end; of a longer one than [`LINE_BYTES_MAX`], a little more than that.
async fn read_line(
    reader: &mut (dyn AsyncBufRead + Send + Unpin),
) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    loop {
        let available = reader.fill_buf().await?;
        if available.is_empty() {
            return Ok((!line.is_empty()).then_some(line));
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let part = &available[..end.unwrap_or(available.len())];
        if line.len() <= LINE_BYTES_MAX {
            line.extend_from_slice(part);
        }
        let used = part.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() {
            return Ok(Some(line));
        }
    }
}
