-- The snapshots of skills that a session keeps, as a JSON list of names, so that those that no session keeps can be removed.
-- NULL for sessions that were made before this was written down: theirs stand in `context` alone.
ALTER TABLE session ADD COLUMN snapshots TEXT;
