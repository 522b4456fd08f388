-- Servers that share the database: each counts its beats, and one whose count stands still is taken for dead.
CREATE TABLE server (
    id    TEXT PRIMARY KEY,
    beats BIGINT NOT NULL
);
-- The server that drives the turn; one that is not entered drives nothing.
ALTER TABLE turn ADD COLUMN owner TEXT NOT NULL DEFAULT '';
-- Something to hold while a tenant's sessions are counted.
CREATE TABLE tenant_lock (
    tenant TEXT PRIMARY KEY
);
