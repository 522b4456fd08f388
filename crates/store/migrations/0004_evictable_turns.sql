-- Turns whose events may go, and since when: those that ended, and those whose session was deleted. The sweep
-- looks here and nowhere else, so that its cost is the work there is.
CREATE TABLE evictable_turn (
    turn_id TEXT PRIMARY KEY,
    since   DOUBLE PRECISION NOT NULL
);
CREATE INDEX evictable_turn_by_age ON evictable_turn (since);
INSERT INTO evictable_turn (turn_id, since) SELECT id, ended_at FROM turn WHERE ended_at IS NOT NULL;
