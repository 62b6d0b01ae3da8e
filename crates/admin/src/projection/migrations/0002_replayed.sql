-- What became of what replays asked for, so that nobody counts rows: delivered, or parked again.
CREATE TABLE replayed@ (
    replay BYTES NOT NULL,
    failed BIGINT NOT NULL,
    n BIGINT NOT NULL,
    PRIMARY KEY (replay, failed)
);
