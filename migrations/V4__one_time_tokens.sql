-- Tokens that travel in mails. Only their hashes are here; a token of one purpose is nothing to another.

CREATE TABLE one_time_tokens (
    token_hash bytea NOT NULL,
    purpose text NOT NULL,
    -- Null once the user is gone: the link can still be told from one that never was.
    user_id uuid,
    -- The address that was written to; the token proves nothing about another.
    email text NOT NULL,
    -- SHA-256 of the mark in the browser that asked for it: only that browser is signed in by the link.
    browser_hash bytea,
    -- What the sign-up asked for whose mail this is; null where no sign-up did. Several people may sign up with one address
    -- before its owner clicks: the link decides whose name and password count.
    name text,
    password_hash text,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    -- When it did what it can do but once. The row stays until it expires, so that a second visit can be told the truth.
    consumed_at timestamptz,
    CONSTRAINT one_time_tokens_pkey PRIMARY KEY (token_hash),
    CONSTRAINT one_time_tokens_token_hash_check CHECK (octet_length(token_hash) = 32),
    CONSTRAINT one_time_tokens_browser_hash_check CHECK (octet_length(browser_hash) = 32),
    CONSTRAINT one_time_tokens_sign_up_check CHECK ((name IS NULL) = (password_hash IS NULL)),
    CONSTRAINT one_time_tokens_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE SET NULL
);

CREATE INDEX one_time_tokens_user_id_idx ON one_time_tokens (user_id);
CREATE INDEX one_time_tokens_expires_at_idx ON one_time_tokens (expires_at);
