-- The tables of one slice. `@` is the slice where an engine has all slices in one database (PostgreSQL)
-- and nothing where each has a file (SQLite); ROWKEY and BYTES are the engine's words for a 64-bit
-- primary key and for bytes. A slice that exists is never changed by editing this file: the next
-- number is.

-- `id` is the record's place in the log: partition * 2^44 + offset.
CREATE TABLE attempts@ (
    id ROWKEY,
    appended BIGINT NOT NULL,
    webhook BYTES NOT NULL,
    event BYTES NOT NULL,
    tenant TEXT NOT NULL,
    failed BIGINT NOT NULL,
    -- The status, or what there was instead of one.
    code BIGINT NOT NULL,
    -- How many successes it stands for; 1 unless they were sampled.
    stands_for BIGINT NOT NULL,
    record TEXT NOT NULL
);
CREATE INDEX attempts_failed@ ON attempts@ (webhook, failed, appended);
CREATE INDEX attempts_code@ ON attempts@ (webhook, code, appended);
CREATE INDEX attempts_event@ ON attempts@ (event, webhook);

CREATE TABLE parked@ (
    id ROWKEY,
    appended BIGINT NOT NULL,
    webhook BYTES NOT NULL,
    event BYTES NOT NULL,
    tenant TEXT NOT NULL,
    run BIGINT NOT NULL,
    reason TEXT NOT NULL,
    record TEXT NOT NULL
);
CREATE INDEX parked_webhook@ ON parked@ (webhook, appended);
CREATE INDEX parked_reason@ ON parked@ (webhook, reason, appended);
CREATE INDEX parked_event@ ON parked@ (event, webhook);

-- Runs that somebody asked for.
CREATE TABLE replays@ (
    id ROWKEY,
    appended BIGINT NOT NULL,
    webhook BYTES NOT NULL,
    event BYTES NOT NULL,
    tenant TEXT NOT NULL,
    run BIGINT NOT NULL
);
CREATE INDEX replays_event@ ON replays@ (event, webhook);

-- What was parked, so that nobody counts rows.
CREATE TABLE parked_counts@ (
    webhook BYTES NOT NULL,
    reason TEXT NOT NULL,
    n BIGINT NOT NULL,
    PRIMARY KEY (webhook, reason)
);

-- Attempts by webhook, minute and class, those that were not kept included; `bN` is how many took no
-- longer than the Nth bound, and longer than the one before.
CREATE TABLE minutes@ (
    webhook BYTES NOT NULL,
    minute BIGINT NOT NULL,
    class BIGINT NOT NULL,
    n BIGINT NOT NULL,
    ms BIGINT NOT NULL,
    b0 BIGINT NOT NULL,
    b1 BIGINT NOT NULL,
    b2 BIGINT NOT NULL,
    b3 BIGINT NOT NULL,
    b4 BIGINT NOT NULL,
    b5 BIGINT NOT NULL,
    b6 BIGINT NOT NULL,
    b7 BIGINT NOT NULL,
    b8 BIGINT NOT NULL,
    PRIMARY KEY (webhook, minute, class)
);

-- How far the log was read when this slice was written last. The furthest of all slices counts.
CREATE TABLE positions@ (
    topic TEXT NOT NULL,
    part BIGINT NOT NULL,
    next BIGINT NOT NULL,
    -- Records that retention dropped before they were read, and such that could not be read.
    lost BIGINT NOT NULL,
    unreadable BIGINT NOT NULL,
    PRIMARY KEY (topic, part)
);
