-- What falls due next is found without looking at every session.
CREATE INDEX session_by_expiry ON session ((created_at + ttl));
CREATE INDEX session_by_idleness ON session (last_activity) WHERE NOT persistent;
