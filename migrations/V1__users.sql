-- Who there is, and how they may sign in.

CREATE TABLE users (
    -- UUIDv7, made by the gateway.
    id uuid NOT NULL,
    -- One spelling per address, or one person would have two accounts. The C collation folds ASCII alone, as the gateway does.
    email text NOT NULL,
    email_verified boolean NOT NULL DEFAULT false,
    name text NOT NULL,
    image text,
    roles text[] NOT NULL DEFAULT '{}',
    banned boolean NOT NULL DEFAULT false,
    ban_reason text,
    -- When the ban is over; null: never.
    ban_expires timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT users_pkey PRIMARY KEY (id),
    CONSTRAINT users_email_key UNIQUE (email),
    CONSTRAINT users_email_check CHECK (email = lower(email COLLATE "C") AND email ~ '^[^[:space:]@]+@[^[:space:]@]+$'),
    -- Each is [A-Za-z0-9._:-]{1,64}: roles travel comma-separated in a header, so none may hold a comma. Joining hides a comma
    -- within a role and a second dimension, therefore the count and the dimensions are compared too.
    CONSTRAINT users_roles_check CHECK (
        array_to_string(roles, ',', '!') ~ '^([A-Za-z0-9._:-]{1,64}(,[A-Za-z0-9._:-]{1,64})*)?$'
        AND cardinality(roles) = cardinality(string_to_array(array_to_string(roles, ',', '!'), ','))
        AND coalesce(array_ndims(roles), 1) = 1
    )
);

CREATE TABLE accounts (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    -- 'credential' (a password), or the name of an OAuth provider.
    provider_id text NOT NULL,
    -- The provider's name for the user; for 'credential' our own.
    account_id text NOT NULL,
    -- PHC string.
    password_hash text,
    -- Moves when the user chooses a password, not when the gateway hashes the same one anew: a sign-in that began before a
    -- change must not end after it.
    password_set_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT accounts_pkey PRIMARY KEY (id),
    CONSTRAINT accounts_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT accounts_provider_id_account_id_key UNIQUE (provider_id, account_id),
    CONSTRAINT accounts_credential_check CHECK (provider_id <> 'credential' OR account_id = user_id::text),
    CONSTRAINT accounts_password_check CHECK ((password_hash IS NULL) = (password_set_at IS NULL))
);

CREATE INDEX accounts_user_id_idx ON accounts (user_id);
