-- What a user was called where they came from, as text: `users.id` is a uuid, and other servers name users otherwise.
-- Applications that stored the old ids find the new ones here. Null for everybody who signed up here.
ALTER TABLE users ADD COLUMN imported_id text;

-- Partial, so that building it on a large table reads the rows and writes nothing: nobody has one yet.
CREATE UNIQUE INDEX users_imported_id_key ON users (imported_id) WHERE imported_id IS NOT NULL;
