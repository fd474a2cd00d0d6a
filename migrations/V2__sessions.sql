-- Who is signed in, and how every gateway learns that somebody no longer is.

CREATE TABLE user_sessions (
    -- UUIDv7, public: what upstreams and session lists show.
    id uuid NOT NULL,
    -- SHA-256 of the token. The token itself is nowhere in the database.
    token_hash bytea NOT NULL,
    user_id uuid NOT NULL,
    -- When the user signed in.
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    -- false: ends after a day and is never extended.
    remembered boolean NOT NULL DEFAULT true,
    -- How the user proved who they are, in the words of RFC 8176: pwd, otp, …
    methods text[] NOT NULL DEFAULT '{}',
    ip_address inet,
    user_agent text NOT NULL DEFAULT '',
    last_seen_at timestamptz,
    CONSTRAINT user_sessions_pkey PRIMARY KEY (id),
    CONSTRAINT user_sessions_token_hash_key UNIQUE (token_hash),
    CONSTRAINT user_sessions_token_hash_check CHECK (octet_length(token_hash) = 32),
    CONSTRAINT user_sessions_methods_check CHECK (
        array_position(methods, NULL) IS NULL AND coalesce(array_ndims(methods), 1) = 1
    ),
    CONSTRAINT user_sessions_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
)
-- Last-seen times are written often and no index holds them: with room on the page such an update touches no index.
WITH (fillfactor = 85);

CREATE INDEX user_sessions_user_id_created_at_idx ON user_sessions (user_id, created_at);
CREATE INDEX user_sessions_expires_at_idx ON user_sessions (expires_at);

-- What backends need that validate tokens themselves: look up by sha256(token). The server's clock decides here,
-- since whoever asks has no other.
CREATE VIEW active_sessions AS
SELECT
    s.id,
    s.token_hash,
    s.user_id,
    s.created_at,
    s.expires_at,
    s.methods,
    u.email,
    u.email_verified,
    u.name,
    u.image,
    u.roles
FROM user_sessions AS s
JOIN users AS u ON u.id = s.user_id
WHERE s.revoked_at IS NULL
    AND s.expires_at > statement_timestamp()
    AND (NOT u.banned OR u.ban_expires <= statement_timestamp());

-- Revocations. Every gateway listens on vestibule_<schema>; the payload says what to forget:
--   s:<token_hash in hexadecimal>   a session ended or changed
--   u:<user id>                     a user changed or is gone
--   all                             everything
-- Triggers rather than code, so that a statement typed into psql counts. They fire on the change of a value, not on the
-- mention of a column, and stay silent where nothing that a gateway may have cached is affected: last-seen times, and an
-- expiry that moves away. A new row needs no word: nobody can have asked for its token before.

CREATE FUNCTION notify_session_changed() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pg_notify('vestibule_' || TG_TABLE_SCHEMA, 's:' || encode(OLD.token_hash, 'hex'));
    -- A gateway may remember the new hash as that of nobody.
    IF TG_OP = 'UPDATE' AND NEW.token_hash <> OLD.token_hash THEN
        PERFORM pg_notify('vestibule_' || TG_TABLE_SCHEMA, 's:' || encode(NEW.token_hash, 'hex'));
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION notify_user_changed() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pg_notify('vestibule_' || TG_TABLE_SCHEMA, 'u:' || OLD.id);
    RETURN NULL;
END
$$;

CREATE FUNCTION notify_all_changed() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pg_notify('vestibule_' || TG_TABLE_SCHEMA, 'all');
    RETURN NULL;
END
$$;

CREATE TRIGGER user_sessions_updated
AFTER UPDATE ON user_sessions
FOR EACH ROW
WHEN (
    NEW.expires_at < OLD.expires_at
    OR (NEW.id, NEW.token_hash, NEW.user_id, NEW.created_at, NEW.revoked_at, NEW.remembered, NEW.methods)
        IS DISTINCT FROM
        (OLD.id, OLD.token_hash, OLD.user_id, OLD.created_at, OLD.revoked_at, OLD.remembered, OLD.methods)
)
EXECUTE FUNCTION notify_session_changed();

CREATE TRIGGER user_sessions_deleted
AFTER DELETE ON user_sessions
FOR EACH ROW
-- Of a revoked one everybody knows.
WHEN (OLD.revoked_at IS NULL)
EXECUTE FUNCTION notify_session_changed();

CREATE TRIGGER user_sessions_truncated
AFTER TRUNCATE ON user_sessions
FOR EACH STATEMENT
EXECUTE FUNCTION notify_all_changed();

CREATE TRIGGER users_updated
AFTER UPDATE ON users
FOR EACH ROW
WHEN (
    (NEW.id, NEW.email, NEW.email_verified, NEW.name, NEW.roles, NEW.banned, NEW.ban_expires)
        IS DISTINCT FROM
        (OLD.id, OLD.email, OLD.email_verified, OLD.name, OLD.roles, OLD.banned, OLD.ban_expires)
)
EXECUTE FUNCTION notify_user_changed();

CREATE TRIGGER users_deleted
AFTER DELETE ON users
FOR EACH ROW
EXECUTE FUNCTION notify_user_changed();

CREATE TRIGGER users_truncated
AFTER TRUNCATE ON users
FOR EACH STATEMENT
EXECUTE FUNCTION notify_all_changed();
