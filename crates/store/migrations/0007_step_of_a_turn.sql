-- The last event of the turn's latest finished step: what a take-over says again comes after it.
ALTER TABLE turn ADD COLUMN step_seq BIGINT NOT NULL DEFAULT 0;
