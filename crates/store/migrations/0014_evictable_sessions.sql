-- Sessions that are gone and whose conversations may go: in small bites, so that a long one keeps no other write waiting.
CREATE TABLE evictable_session (
    session_id TEXT PRIMARY KEY
);
