//! How the writer tells those who read that there is something new: no polling, no idle work.

use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// What one consumer or follower has not seen yet.
#[derive(Default)]
pub(super) struct News {
    state: Mutex<Marks>,
    changed: Condvar,
}

#[derive(Default)]
struct Marks {
    /// Tags with news, each once.
    tags: Vec<usize>,
    marked: Vec<bool>,
    woken: bool,
}

impl News {
    /// Something is new under this tag.
    pub(super) fn mark(&self, tag: usize) {
        let mut marks = self.state.lock();
        if marks.marked.len() <= tag {
            marks.marked.resize(tag + 1, false);
        }
        if !std::mem::replace(&mut marks.marked[tag], true) {
            marks.tags.push(tag);
            drop(marks);
            self.changed.notify_one();
        }
    }

    /// Ends the wait that is under way, or else the next one.
    pub(super) fn wake(&self) {
        self.state.lock().woken = true;
        self.changed.notify_one();
    }

    /// Takes what is new without waiting: hands each tag over, and says whether it was woken.
    pub(super) fn take(&self, tag: impl FnMut(usize)) -> bool {
        self.state.lock().take(tag)
    }

    /// Waits for news, a wake or the deadline (`None`: none), then takes what is new. The second
    /// value says whether the time is over.
    pub(super) fn wait(&self, deadline: Option<Instant>, tag: impl FnMut(usize)) -> (bool, bool) {
        let mut marks = self.state.lock();
        let mut over = false;
        while marks.tags.is_empty() && !marks.woken && !over {
            match deadline {
                Some(deadline) => over = self.changed.wait_until(&mut marks, deadline).timed_out(),
                None => self.changed.wait(&mut marks),
            }
        }
        (marks.take(tag), over)
    }
}

impl Marks {
    fn take(&mut self, mut tag: impl FnMut(usize)) -> bool {
        for marked in self.tags.drain(..) {
            if let Some(mark) = self.marked.get_mut(marked) {
                *mark = false;
            }
            tag(marked);
        }
        std::mem::take(&mut self.woken)
    }
}
