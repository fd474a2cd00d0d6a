-- Gateways are told of revocations also by what a logical subscription applies, and by sessions with
-- session_replication_role = replica: by default triggers are silent there.

ALTER TABLE user_sessions
    ENABLE ALWAYS TRIGGER user_sessions_updated,
    ENABLE ALWAYS TRIGGER user_sessions_deleted,
    ENABLE ALWAYS TRIGGER user_sessions_truncated;

ALTER TABLE users
    ENABLE ALWAYS TRIGGER users_updated,
    ENABLE ALWAYS TRIGGER users_deleted,
    ENABLE ALWAYS TRIGGER users_truncated;

ALTER TABLE signing_keys ENABLE ALWAYS TRIGGER signing_keys_changed;
