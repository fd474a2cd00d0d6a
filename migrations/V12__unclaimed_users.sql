-- Users whom somebody made by signing up with an address, while nobody has shown that the address is theirs.

-- Of such a user, name and password are those of the sign-up whose link is opened. Everybody else has an account of their
-- own, verified or not (made by an operator, imported, in use, with a password from a reset): no sign-up changes it.
ALTER TABLE users ADD COLUMN unclaimed boolean NOT NULL DEFAULT false;

UPDATE users
SET unclaimed = true
WHERE NOT email_verified
    AND EXISTS (SELECT 1 FROM one_time_tokens AS t WHERE t.user_id = users.id AND t.password_hash IS NOT NULL)
    AND NOT EXISTS (SELECT 1 FROM user_sessions AS s WHERE s.user_id = users.id);
