-- Links that change a user's address.

-- The address that is to be the user's; only of such links.
ALTER TABLE one_time_tokens ADD COLUMN new_email text;
