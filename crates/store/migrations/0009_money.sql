-- Money and usage. Amounts are whole micro-credits; nothing is ever changed or taken from ledger_entry.

-- Who pays for a turn, and which token started it.
ALTER TABLE turn ADD COLUMN caller TEXT NOT NULL DEFAULT '';
ALTER TABLE turn ADD COLUMN ledger TEXT;

-- What an account holds: the sum of its entries, kept in the transactions that make them.
CREATE TABLE ledger_account (
    ledger  TEXT NOT NULL,
    account TEXT NOT NULL,
    balance BIGINT NOT NULL,
    PRIMARY KEY (ledger, account)
);

-- Double entry: the rows of one posting sum to zero. A posting's name says what it is for, so that nothing is posted
-- twice: 'opening/<ledger>', 'admin/<ledger>/<key>', 'call/<turn>/<number>/<kind>'.
CREATE TABLE ledger_entry (
    posting TEXT NOT NULL,
    account TEXT NOT NULL,
    ledger  TEXT NOT NULL,
    kind    TEXT NOT NULL,
    amount  BIGINT NOT NULL,
    reason  TEXT NOT NULL,
    at      DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (posting, account)
);
CREATE INDEX ledger_entry_by_time ON ledger_entry (ledger, account, at);

-- What each model call used and costs, written with the answer. The turn's end posts them, unless it was cancelled.
CREATE TABLE metered_call (
    turn_id          TEXT NOT NULL,
    call             BIGINT NOT NULL,
    kind             TEXT NOT NULL,
    tenant           TEXT NOT NULL,
    model            TEXT NOT NULL,
    input_tokens     BIGINT NOT NULL,
    cached_tokens    BIGINT NOT NULL,
    output_tokens    BIGINT NOT NULL,
    reasoning_tokens BIGINT NOT NULL,
    cost             BIGINT NOT NULL,
    at               DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (turn_id, call, kind)
);

-- What running turns of hard ledgers have set aside: what they have used and what their next call may cost.
CREATE TABLE hold (
    turn_id TEXT PRIMARY KEY,
    ledger  TEXT NOT NULL,
    amount  BIGINT NOT NULL
);
CREATE INDEX hold_by_ledger ON hold (ledger);

-- Usage by the minute: a window is a sum over a bounded number of rows.
CREATE TABLE usage_minute (
    tenant TEXT NOT NULL,
    caller TEXT NOT NULL,
    bucket TEXT NOT NULL,
    minute BIGINT NOT NULL,
    turns  BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    PRIMARY KEY (tenant, caller, bucket, minute)
);
CREATE INDEX usage_minute_by_age ON usage_minute (minute);

CREATE TABLE audit_event (
    id               TEXT PRIMARY KEY,
    at               DOUBLE PRECISION NOT NULL,
    tenant           TEXT NOT NULL,
    caller           TEXT NOT NULL,
    event_type       TEXT NOT NULL,
    session_id       TEXT NOT NULL,
    response_id      TEXT NOT NULL,
    name             TEXT NOT NULL,
    input_tokens     BIGINT NOT NULL,
    cached_tokens    BIGINT NOT NULL,
    output_tokens    BIGINT NOT NULL,
    reasoning_tokens BIGINT NOT NULL,
    micro_credits    BIGINT NOT NULL,
    outcome          TEXT NOT NULL
);
CREATE INDEX audit_event_by_time ON audit_event (at, id);

-- One row that every write about money or usage holds until its transaction ends: several servers write groups of
-- such writes, and would otherwise wait for each other's rows in a circle.
CREATE TABLE money_lock (
    id BIGINT PRIMARY KEY
);
INSERT INTO money_lock (id) VALUES (1);
