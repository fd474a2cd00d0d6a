-- Every auth event, written in the transaction of the change that it records.
-- No foreign keys: the log outlives what it speaks of.

CREATE TABLE audit_log (
    -- UUIDv7: in order of time.
    id uuid NOT NULL,
    at timestamptz NOT NULL,
    -- sign-up, sign-in, sign-out, …
    action text NOT NULL,
    -- 'done', or 'refused' with the reason.
    outcome text NOT NULL,
    -- Why it was refused, or which kind of the action it was.
    reason text,
    -- Who did it; null where nobody was signed in.
    actor_id uuid,
    -- Whom it concerns.
    subject_id uuid,
    -- The address that was given, where it led to nobody.
    email text,
    session_id uuid,
    ip_address inet,
    user_agent text NOT NULL DEFAULT '',
    request_id text NOT NULL,
    CONSTRAINT audit_log_pkey PRIMARY KEY (id),
    CONSTRAINT audit_log_outcome_check CHECK (outcome IN ('done', 'refused'))
);

CREATE INDEX audit_log_at_idx ON audit_log (at);
CREATE INDEX audit_log_subject_id_at_idx ON audit_log (subject_id, at);
