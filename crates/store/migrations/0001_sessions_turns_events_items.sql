-- Sessions, their turns, the event log and the conversation. One text for every engine: $N parameters, plain types.

CREATE TABLE session (
    id            TEXT PRIMARY KEY,
    tenant        TEXT NOT NULL,
    created_at    DOUBLE PRECISION NOT NULL,
    last_activity DOUBLE PRECISION NOT NULL,
    persistent    BOOLEAN NOT NULL,
    ttl           BIGINT NOT NULL,
    metadata      TEXT NOT NULL,
    file_access   TEXT NOT NULL,
    model         TEXT NOT NULL,
    -- What the session was created with and keeps: the agent's context and the skills it sees.
    context       TEXT NOT NULL
);
CREATE INDEX session_by_tenant ON session (tenant, created_at);

CREATE TABLE turn (
    id         TEXT PRIMARY KEY,
    session_id TEXT NOT NULL,
    state      TEXT NOT NULL,
    -- The number of the attempt that owns the turn; every commit names it.
    generation BIGINT NOT NULL,
    started_at DOUBLE PRECISION NOT NULL,
    ended_at   DOUBLE PRECISION
);
-- Busy has one source of truth: a session has at most one running turn, and this index is what says so.
CREATE UNIQUE INDEX turn_running ON turn (session_id) WHERE state = 'running';
CREATE INDEX turn_by_session ON turn (session_id, started_at);

-- A rowid table with a unique index: measured several times faster at the 99th percentile than WITHOUT ROWID.
CREATE TABLE event (
    turn_id TEXT NOT NULL,
    seq     BIGINT NOT NULL,
    kind    TEXT NOT NULL,
    data    TEXT NOT NULL
);
CREATE UNIQUE INDEX event_by_turn ON event (turn_id, seq);

CREATE TABLE item (
    session_id TEXT NOT NULL,
    idx        BIGINT NOT NULL,
    turn_id    TEXT NOT NULL,
    body       TEXT NOT NULL
);
CREATE UNIQUE INDEX item_by_session ON item (session_id, idx);
