-- The keys that sign what upstreams are told of a session (assertions), shared by all gateways.

CREATE TABLE signing_keys (
    -- The JWK thumbprint of the public key (RFC 7638).
    kid text NOT NULL,
    -- As in a JWT's header.
    algorithm text NOT NULL,
    -- The public key as a JWK, ready to be published.
    public_key text NOT NULL,
    -- PKCS#8, sealed by a key that auth.secret gives: whoever reads the database can sign nothing.
    private_key bytea NOT NULL,
    created_at timestamptz NOT NULL,
    -- From then on it signs: later than it is published, so that whoever verifies has it by then.
    activates_at timestamptz NOT NULL,
    -- From then on another signs.
    retires_at timestamptz,
    -- From then on nothing that it signed is good any more, and it is published no longer.
    expires_at timestamptz,
    CONSTRAINT signing_keys_pkey PRIMARY KEY (kid),
    CONSTRAINT signing_keys_algorithm_check CHECK (algorithm IN ('EdDSA', 'ES256'))
);

-- Gateways hear of a change as they hear of revocations; one that is older than this takes it to mean everything.
CREATE FUNCTION notify_keys_changed() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pg_notify('vestibule_' || TG_TABLE_SCHEMA, 'keys');
    RETURN NULL;
END
$$;

CREATE TRIGGER signing_keys_changed
AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON signing_keys
FOR EACH STATEMENT
EXECUTE FUNCTION notify_keys_changed();
