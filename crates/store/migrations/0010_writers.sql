-- Each writing connection counts the groups that it has committed, in the groups themselves: so it can find out whether
-- one was, when the answer to its COMMIT was lost.
CREATE TABLE writer (
    id     TEXT PRIMARY KEY,
    server TEXT NOT NULL,
    groups BIGINT NOT NULL
);
