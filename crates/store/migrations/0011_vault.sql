-- The vault. Keys are wrapped and values sealed before they come here; what is text is bound to them, so that a changed
-- row opens no more.

-- One row: which key encryption key is in use, and whether every server has to forget it.
CREATE TABLE vault (
    id        BIGINT PRIMARY KEY,
    name      TEXT NOT NULL,
    kek       BIGINT NOT NULL,
    is_sealed BOOLEAN NOT NULL
);

-- What is known of key encryption keys: never the keys. More than one only while one is being replaced.
CREATE TABLE vault_kek (
    generation  BIGINT PRIMARY KEY,
    kind        TEXT NOT NULL,
    salt        TEXT NOT NULL,
    iterations  BIGINT NOT NULL,
    check_value TEXT NOT NULL
);

-- The version counts every change of a tenant's credentials; the manifest is a seal over all of them.
CREATE TABLE vault_tenant (
    tenant   TEXT PRIMARY KEY,
    version  BIGINT NOT NULL,
    data_key BIGINT NOT NULL,
    manifest TEXT NOT NULL
);

CREATE TABLE vault_data_key (
    tenant  TEXT NOT NULL,
    version BIGINT NOT NULL,
    kek     BIGINT NOT NULL,
    wrapped TEXT NOT NULL,
    PRIMARY KEY (tenant, version, kek)
);

CREATE TABLE vault_credential (
    tenant   TEXT NOT NULL,
    name     TEXT NOT NULL,
    version  BIGINT NOT NULL,
    data_key BIGINT NOT NULL,
    settings TEXT NOT NULL,
    fields   TEXT NOT NULL,
    PRIMARY KEY (tenant, name)
);

-- Which server is renewing a credential, so that no other does at the same time.
CREATE TABLE vault_renewal (
    tenant TEXT NOT NULL,
    name   TEXT NOT NULL,
    server TEXT NOT NULL,
    until  DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (tenant, name)
);
