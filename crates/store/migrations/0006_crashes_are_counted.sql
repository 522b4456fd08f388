-- How often the server died under the turn. A server that stops in good order releases its turns, and whoever takes
-- a released one over counts no crash.
ALTER TABLE turn ADD COLUMN crashes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE turn ADD COLUMN released BOOLEAN NOT NULL DEFAULT FALSE;
