-- A change of address goes on only while the session lives in which it was asked for: whoever was signed out could take the
-- account along. NULL: a link that does not depend on one (any more), or of the release before.
--
-- A link that an operator had printed says nothing of who reads the address.

ALTER TABLE one_time_tokens ADD COLUMN session_id uuid;
ALTER TABLE one_time_tokens ADD COLUMN printed boolean NOT NULL DEFAULT false;
