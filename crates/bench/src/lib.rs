//! Benchmarks of the parts; each is a binary that prints lines `figure NAME VALUE UNIT`.
