-- For whoever reads users and the audit log from the command line; no request asks for any of this. Built in the ordinary way, since
-- nothing was released before it: no table is large yet.

-- Who has a role. The first role is everybody's, and no index finds everybody faster; the others are few.
CREATE INDEX users_roles_idx ON users USING gin (roles);
-- Both stay small, and are in the order in which users are listed.
CREATE INDEX users_banned_idx ON users (id) WHERE banned;
CREATE INDEX users_email_unverified_idx ON users (id) WHERE NOT email_verified;

CREATE INDEX audit_log_action_at_idx ON audit_log (action, at);
-- Addresses and, since `inet` sorts by prefix, networks.
CREATE INDEX audit_log_ip_address_at_idx ON audit_log (ip_address, at);
CREATE INDEX audit_log_session_id_at_idx ON audit_log (session_id, at) WHERE session_id IS NOT NULL;
-- What led to nobody.
CREATE INDEX audit_log_email_at_idx ON audit_log (email, at) WHERE email IS NOT NULL;
-- What somebody did to somebody else; what people do to themselves is found by the subject.
CREATE INDEX audit_log_actor_id_at_idx ON audit_log (actor_id, at)
    WHERE actor_id IS NOT NULL AND actor_id IS DISTINCT FROM subject_id;
