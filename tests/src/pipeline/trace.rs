//! What happened, in order: as a number to compare, and as text for whoever looks for a fault.

use std::fmt;

/// The story of a simulation.
#[derive(Default)]
pub(super) struct Trace {
    hash: u64,
    happenings: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// Keeps the text as well.
    pub(super) fn verbose() -> Self {
        Self {
            lines: Some(Vec::new()),
            ..Self::default()
        }
    }

    /// The next happening: what, and the numbers that tell it from others; `text` says more.
    pub(super) fn add(&mut self, what: &'static str, numbers: &[u64], text: fmt::Arguments<'_>) {
        let bytes = what.bytes().map(u64::from);
        for number in bytes.chain(numbers.iter().copied()) {
            self.hash = (self.hash.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
        self.happenings += 1;
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{what}: {text}"));
        }
    }

    /// Equal for equal stories.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// How much happened.
    pub(super) fn happenings(&self) -> u64 {
        self.happenings
    }

    /// The text, where it was kept.
    pub(super) fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}
