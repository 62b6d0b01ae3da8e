//! Lists of configuration, cut into pages.

/// Entries in one answer, at most.
pub(crate) const PAGE_MAX: usize = 1000;

/// The first of these, and the key of the last one if more come after it: what `after` takes.
pub(crate) fn page<T, K>(
    all: impl IntoIterator<Item = T>,
    limit: usize,
    key: impl Fn(&T) -> K,
) -> (Vec<T>, Option<K>) {
    let mut all = all.into_iter();
    let page: Vec<_> = all.by_ref().take(limit).collect();
    let next = all.next().and_then(|_| page.last().map(key));
    (page, next)
}
