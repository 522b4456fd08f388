-- Turns whose end could be written only without their debit: a session must not stay busy for an account that does not
-- add up. `credits check` names them until an operator has put things right.
CREATE TABLE unsettled_turn (
    turn_id TEXT PRIMARY KEY,
    at      DOUBLE PRECISION NOT NULL,
    why     TEXT NOT NULL
);
