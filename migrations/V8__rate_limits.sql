-- How often somebody asked lately, and where users sign in from.

-- Unlogged: counts are written often and worth little. After a crash of the server it is empty; standbys have none of it.
CREATE UNLOGGED TABLE rate_limits (
    -- What is counted, of whom: a keyed hash, so that no address of anybody stands here.
    key bytea NOT NULL,
    -- How many were allowed since the window began.
    count integer NOT NULL,
    -- When the last was allowed.
    last_at timestamptz NOT NULL,
    -- When the row may go; a full hour, so that it seldom changes: updates then touch no index.
    expires_at timestamptz NOT NULL,
    CONSTRAINT rate_limits_pkey PRIMARY KEY (key),
    CONSTRAINT rate_limits_key_check CHECK (octet_length(key) = 32)
)
WITH (fillfactor = 70);

CREATE INDEX rate_limits_expires_at_idx ON rate_limits (expires_at);

-- From where a user has signed in lately: whoever guesses passwords elsewhere can't lock the user out there.
CREATE TABLE known_addresses (
    user_id uuid NOT NULL,
    -- '203.0.113.7', or of IPv6 the '2001:db8:1:2::/64'.
    network text NOT NULL,
    last_signed_in_at timestamptz NOT NULL,
    CONSTRAINT known_addresses_pkey PRIMARY KEY (user_id, network),
    CONSTRAINT known_addresses_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
);

CREATE INDEX known_addresses_last_signed_in_at_idx ON known_addresses (last_signed_in_at);
