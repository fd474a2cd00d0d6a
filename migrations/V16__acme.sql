-- Certificates that the gateway orders for itself (ACME, RFC 8555), shared by all gateways on this database.

-- The gateways' account at a certificate authority, by the URL of its directory.
CREATE TABLE acme_accounts (
    directory text NOT NULL,
    -- Sealed with keys made from `auth.secret`: the account's URL and its private key.
    credentials bytea NOT NULL,
    contact text[] NOT NULL,
    -- Which account elsewhere it is bound to (RFC 8555, section 7.3.4).
    eab_key_id text,
    created_at timestamptz NOT NULL,
    CONSTRAINT acme_accounts_pkey PRIMARY KEY (directory)
);

-- A certificate a domain, and what is known of getting its next one.
CREATE TABLE acme_certificates (
    directory text NOT NULL,
    domain text NOT NULL,
    -- In PEM, the domain's own certificate first; NULL until there is one.
    chain text,
    -- Sealed: PKCS #8.
    private_key bytea,
    issued_at timestamptz,
    expires_at timestamptz,
    -- When the next one is to be ordered: at once, at two thirds of the life of this one, or when a failure was long enough ago.
    due_at timestamptz NOT NULL,
    -- When the authority is to be asked again when it would have this one renewed (RFC 9773); NULL: never.
    ask_at timestamptz,
    -- Since the last that succeeded.
    failures integer NOT NULL DEFAULT 0,
    last_error text,
    -- The gateway that orders one just now, and until when nobody else may.
    held_by uuid,
    held_until timestamptz,
    -- What any gateway answers when the authority looks (RFC 8555, section 8.3; RFC 8737).
    challenge_token text,
    challenge_answer text,
    CONSTRAINT acme_certificates_pkey PRIMARY KEY (directory, domain),
    CONSTRAINT acme_certificates_chain_check CHECK (
        (chain IS NULL) = (private_key IS NULL) AND (chain IS NULL) = (issued_at IS NULL) AND (chain IS NULL) = (expires_at IS NULL)
    ),
    CONSTRAINT acme_certificates_challenge_check CHECK ((challenge_token IS NULL) = (challenge_answer IS NULL))
);
