//! What the doctor says: a line for each check, for people or as JSON.

use serde_json::{Value, json};

use crate::cli::clean;
use crate::failure::Failure;
use crate::out;

/// How a check ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Finding {
    Ok,
    /// It works, and may not for long or not for all.
    Warning,
    Failed,
}

impl Finding {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// The findings, in the order in which they were made.
pub(super) struct Report {
    json: bool,
    lines: Vec<Value>,
    failed: usize,
}

impl Report {
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            lines: Vec::new(),
            failed: 0,
        }
    }

    pub(super) fn ok(&mut self, check: &str, said: impl AsRef<str>) {
        self.add(check, Finding::Ok, said.as_ref(), None);
    }

    pub(super) fn warning(&mut self, check: &str, said: impl AsRef<str>, advice: &str) {
        self.add(check, Finding::Warning, said.as_ref(), Some(advice));
    }

    pub(super) fn failed(&mut self, check: &str, said: impl AsRef<str>, advice: &str) {
        self.add(check, Finding::Failed, said.as_ref(), Some(advice));
    }

    fn add(&mut self, check: &str, finding: Finding, said: &str, advice: Option<&str>) {
        self.failed += usize::from(finding == Finding::Failed);
        let (said, result) = (clean(said), finding.as_str());
        if !self.json {
            out!("{result:<7}  {check}: {said}");
            if let Some(advice) = advice {
                out!("         → {advice}");
            }
        }
        self.lines
            .push(json!({ "check": check, "result": result, "said": said, "advice": advice }));
    }

    /// Prints what is printed at the end; a failure when a check has failed.
    pub(super) fn end(self) -> Result<(), Failure> {
        let failed = self.failed;
        if self.json {
            let body = json!({ "ok": failed == 0, "checks": self.lines });
            out!(
                "{}",
                serde_json::to_string_pretty(&body).unwrap_or_default()
            );
        }
        match failed {
            0 => Ok(()),
            1 => Err(Failure::new("a check failed; it says what to do")),
            several => Err(Failure::new(format!(
                "{several} checks failed; each says what to do"
            ))),
        }
    }

    /// How the checks ended.
    #[cfg(test)]
    pub(super) fn results(&self) -> Vec<&str> {
        let lines = self.lines.iter();
        lines.filter_map(|line| line["result"].as_str()).collect()
    }
}
