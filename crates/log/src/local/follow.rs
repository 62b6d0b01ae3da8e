//! Following a compacted topic, and reading anywhere.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringback_core::log::{Follower, LogError, Offset, Reader, Record};
use ringback_core::topics::{Partition, TopicId};

use super::Engine;
use super::news::News;
use super::read::Reads;

/// Records per query: short transactions, so that the writer can empty its WAL.
const TURN: usize = 1024;

/// A follower of the local log.
pub struct LocalFollower {
    _engine: Arc<Engine>,
    reads: Reads,
    news: Arc<News>,
    slot: usize,
    position: Offset,
}

impl LocalFollower {
    pub(super) fn new(engine: Arc<Engine>, topic: TopicId) -> Result<Self, LogError> {
        let slot = engine.state.slot(Partition { topic, index: 0 })?;
        if engine.state.existing(topic) != 1 {
            let name = &engine.state.topics.spec(topic).full_name;
            return Err(LogError::permanent(
                format!("following topic {name}"),
                "it has more than one partition; use a consumer",
            ));
        }
        let news = Arc::new(News::default());
        engine.state.partitions[slot].listen(&news, 0);
        Ok(Self {
            reads: Reads::new(engine.state.clone()),
            _engine: engine,
            news,
            slot,
            position: 0,
        })
    }

    /// Reads to the end; `true` when there was something.
    fn catch_up(&mut self, handler: &mut dyn FnMut(Record<'_>)) -> Result<bool, LogError> {
        let mut any = false;
        loop {
            // Without an upper bound: a record that moves to the end meanwhile must not be missed.
            let count =
                self.reads
                    .read(self.slot, &mut self.position, Offset::MAX, TURN, handler)?;
            any |= count > 0;
            if count < TURN {
                return Ok(any);
            }
        }
    }
}

impl Follower for LocalFollower {
    fn poll(
        &mut self,
        timeout: Duration,
        handler: &mut dyn FnMut(Record<'_>),
    ) -> Result<bool, LogError> {
        self.reads.refresh();
        self.news.take(|_| {});
        if !self.catch_up(handler)? {
            self.news.wait(Instant::now().checked_add(timeout), |_| {});
            self.catch_up(handler)?;
        }
        Ok(true)
    }
}

/// A reader of the local log.
pub struct LocalReader {
    engine: Arc<Engine>,
    reads: Reads,
}

impl LocalReader {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self {
            reads: Reads::new(engine.state.clone()),
            engine,
        }
    }
}

impl Reader for LocalReader {
    fn bounds(&mut self, partition: Partition) -> Result<Range<Offset>, LogError> {
        let slot = self.engine.state.slot(partition)?;
        let state = &self.engine.state.partitions[slot];
        // The end first: the start only grows, and never beyond the end.
        let end = state.end();
        Ok(state.start().min(end)..end)
    }

    fn read(
        &mut self,
        partition: Partition,
        range: Range<Offset>,
        handler: &mut dyn FnMut(Record<'_>),
    ) -> Result<(), LogError> {
        self.reads.refresh();
        let slot = self.engine.state.slot(partition)?;
        let to = range.end.min(self.engine.state.partitions[slot].end());
        let mut from = range.start;
        while from < to && self.reads.read(slot, &mut from, to, TURN, handler)? == TURN {}
        Ok(())
    }
}
