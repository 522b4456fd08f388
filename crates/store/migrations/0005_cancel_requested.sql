-- A cancel that was acknowledged holds through a crash: whoever takes the turn over ends it.
ALTER TABLE turn ADD COLUMN cancel_requested BOOLEAN NOT NULL DEFAULT FALSE;
