//! Lines of files and of standard input, one at a time: no file is held in memory.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::fs::File;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, BufReader};

use crate::failure::Failure;

/// Longest line that is read; the ingest takes less.
pub(super) const LINE_BYTES_MAX: usize = 1024 * 1024;

/// A line and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) file: Arc<str>,
    /// From 1.
    pub(crate) number: u64,
    /// Without the line's end. Cut somewhere beyond [`LINE_BYTES_MAX`] when it is longer.
    pub(crate) text: Vec<u8>,
}

pub(crate) struct Lines {
    files: VecDeque<PathBuf>,
    current: Option<Input>,
}

struct Input {
    name: Arc<str>,
    /// Of the lines that were read.
    number: u64,
    reader: Box<dyn AsyncBufRead + Send + Unpin>,
    /// The beginning of the next line.
    partial: Vec<u8>,
}

impl Lines {
    pub(crate) fn read(files: Vec<PathBuf>) -> Self {
        let mut files = VecDeque::from(files);
        if files.is_empty() {
            files.push_back("-".into());
        }
        Self {
            files,
            current: None,
        }
    }

    #[cfg(test)]
    pub(super) fn of(name: &str, reader: impl AsyncBufRead + Send + Unpin + 'static) -> Self {
        Self {
            files: VecDeque::new(),
            current: Some(Input::new(name, reader)),
        }
    }

    /// The next line that is not blank. Cancel safe: nothing that was read is lost.
    pub(crate) async fn next(&mut self) -> Result<Option<Line>, Failure> {
        loop {
            let Some(input) = &mut self.current else {
                let Some(path) = self.files.front() else {
                    return Ok(None);
                };
                self.current = Some(open(path).await?);
                self.files.pop_front();
                continue;
            };
            let read = input.line().await.map_err(|error| {
                let (name, number) = (&input.name, input.number + 1);
                Failure::new(format!("reading {name}, line {number}: {error}"))
            })?;
            let Some(text) = read else {
                self.current = None;
                continue;
            };
            if !text.is_empty() {
                return Ok(Some(Line {
                    file: input.name.clone(),
                    number: input.number,
                    text,
                }));
            }
        }
    }
}

async fn open(path: &Path) -> Result<Input, Failure> {
    if path.as_os_str() == "-" {
        let reader = BufReader::new(tokio::io::stdin());
        return Ok(Input::new("standard input", reader));
    }
    let name = path.display().to_string();
    let file = File::open(path)
        .await
        .map_err(|error| Failure::new(format!("opening {name}: {error}")))?;
    Ok(Input::new(&name, BufReader::with_capacity(65_536, file)))
}

impl Input {
    fn new(name: &str, reader: impl AsyncBufRead + Send + Unpin + 'static) -> Self {
        Self {
            name: name.into(),
            number: 0,
            reader: Box::new(reader),
            partial: Vec::new(),
        }
    }

    /// The next line without white space around it; `None` at the end.
    async fn line(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        loop {
            let available = self.reader.fill_buf().await?;
            if available.is_empty() {
                return Ok((!self.partial.is_empty()).then(|| self.take()));
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let part = &available[..end.unwrap_or(available.len())];
            if self.partial.len() <= LINE_BYTES_MAX {
                self.partial.extend_from_slice(part);
            }
            let used = part.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if end.is_some() {
                return Ok(Some(self.take()));
            }
        }
    }

    fn take(&mut self) -> Vec<u8> {
        self.number += 1;
        let line = std::mem::take(&mut self.partial);
        let mut text = line.as_slice();
        if self.number == 1 {
            // Windows programs mark UTF-8 so.
            text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        }
        text.trim_ascii().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_numbered_as_in_an_editor() {
        let long = "x".repeat(LINE_BYTES_MAX + 200_000);
        let text = format!("\u{feff}a\r\n\n  \nb\n{long}\nc");
        let mut lines = Lines::of("f", BufReader::new(std::io::Cursor::new(text)));
        let mut read = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            read.push((line.number, line.text));
        }
        assert_eq!(read.len(), 4);
        assert_eq!(read[0], (1, b"a".to_vec()));
        assert_eq!(read[1], (4, b"b".to_vec()));
        assert_eq!(read[2].0, 5);
        assert!(read[2].1.len() > LINE_BYTES_MAX && read[2].1.len() < long.len());
        assert_eq!(read[3], (6, b"c".to_vec()));
    }
}
