-- Signing in at OAuth providers: whose subject an account is, the provider's tokens, and flows that are under way.

-- Whose subject `account_id` is: the same one at another issuer is somebody else, who does not get in. Empty for a password, and
-- for accounts that were brought from elsewhere, until they are used.
ALTER TABLE accounts ADD COLUMN issuer text NOT NULL DEFAULT '';
-- Sealed with keys made from `auth.secret`; see src/secret/sealed.rs for the form. Each is bound to its row and column.
ALTER TABLE accounts ADD COLUMN access_token bytea;
ALTER TABLE accounts ADD COLUMN refresh_token bytea;
ALTER TABLE accounts ADD COLUMN id_token bytea;
ALTER TABLE accounts ADD COLUMN access_token_expires_at timestamptz;
ALTER TABLE accounts ADD COLUMN refresh_token_expires_at timestamptz;
-- What the provider granted.
ALTER TABLE accounts ADD COLUMN scopes text[] NOT NULL DEFAULT '{}';
-- While one gateway refreshes the tokens the others wait: a refresh token may be good only once.
ALTER TABLE accounts ADD COLUMN refreshing_until timestamptz;

-- A sign-up at a provider asks for a name as well, and for no password.
ALTER TABLE one_time_tokens DROP CONSTRAINT one_time_tokens_sign_up_check;
ALTER TABLE one_time_tokens ADD CONSTRAINT one_time_tokens_sign_up_check CHECK (password_hash IS NULL OR name IS NOT NULL);

-- What is remembered between sending a browser to a provider and its coming back.
CREATE TABLE oauth_flows (
    -- SHA-256 of `state`.
    state_hash bytea NOT NULL,
    -- SHA-256 of the browser's cookie: the flow goes on in that browser alone.
    browser_hash bytea NOT NULL,
    provider_id text NOT NULL,
    -- Sealed: PKCE verifier, nonce, and where to go afterwards.
    payload bytea NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT oauth_flows_pkey PRIMARY KEY (state_hash),
    CONSTRAINT oauth_flows_state_hash_check CHECK (octet_length(state_hash) = 32),
    CONSTRAINT oauth_flows_browser_hash_check CHECK (octet_length(browser_hash) = 32)
);

CREATE INDEX oauth_flows_browser_hash_created_at_idx ON oauth_flows (browser_hash, created_at);
CREATE INDEX oauth_flows_expires_at_idx ON oauth_flows (expires_at);
