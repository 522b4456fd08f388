-- A key names one turn of one tenant; it is written in the transaction that starts the turn.
CREATE TABLE idempotency_key (
    tenant     TEXT NOT NULL,
    key        TEXT NOT NULL,
    session_id TEXT NOT NULL,
    body_hash  TEXT NOT NULL,
    turn_id    TEXT NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (tenant, key)
);
CREATE INDEX idempotency_key_by_age ON idempotency_key (created_at);

-- What clients answered to calls of their tools, until the turn has taken it up.
CREATE TABLE client_result (
    turn_id  TEXT NOT NULL,
    call_id  TEXT NOT NULL,
    content  TEXT NOT NULL,
    is_error BOOLEAN NOT NULL,
    PRIMARY KEY (turn_id, call_id)
);
