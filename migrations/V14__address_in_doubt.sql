-- Users whose verified address may be somebody else's: nobody knows who opened the link that made it theirs.

-- A change of address counts whoever opens its link, mail scanners included: so somebody could have given a user an address that its
-- owner knows nothing of. Until whoever has the user shows that they read its mail, an account at a provider that proves the address
-- is not linked to that user: it would be the owner's, in a stranger's hands.
ALTER TABLE users ADD COLUMN address_in_doubt boolean NOT NULL DEFAULT false;
