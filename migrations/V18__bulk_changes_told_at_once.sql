-- A change of very many sessions or users, typed into psql, is told of as one of everything from the 2,001st row of its
-- transaction on: a word for each would fill Postgres's queue of notifications, and take gateways longer to hear than asking for
-- everybody anew. The program's own statements change a thousand at most.
--
-- The count is a setting of the transaction, which begins at nothing, and what a rolled back savepoint counted goes with it.
-- Postgres sends what is said twice in a transaction once. Statement-level triggers would do with one call, but would
-- have all rows of each last-seen batch kept and compared.

CREATE OR REPLACE FUNCTION notify_session_changed() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    told integer := coalesce(nullif(current_setting('vestibule.told', true), ''), '0')::integer;
BEGIN
    IF told >= 2000 THEN
        PERFORM pg_notify('vestibule_' || TG_TABLE_SCHEMA, 'all');
        RETURN NULL;
    END IF;
    PERFORM set_config('vestibule.told', (told + 1)::text, true);
    PERFORM pg_notify('vestibule_' || TG_TABLE_SCHEMA, 's:' || encode(OLD.token_hash, 'hex'));
    -- A gateway may remember the new hash as that of nobody.
    IF TG_OP = 'UPDATE' AND NEW.token_hash <> OLD.token_hash THEN
        PERFORM pg_notify('vestibule_' || TG_TABLE_SCHEMA, 's:' || encode(NEW.token_hash, 'hex'));
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION notify_user_changed() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    told integer := coalesce(nullif(current_setting('vestibule.told', true), ''), '0')::integer;
BEGIN
    IF told >= 2000 THEN
        PERFORM pg_notify('vestibule_' || TG_TABLE_SCHEMA, 'all');
        RETURN NULL;
    END IF;
    PERFORM set_config('vestibule.told', (told + 1)::text, true);
    PERFORM pg_notify('vestibule_' || TG_TABLE_SCHEMA, 'u:' || OLD.id);
    RETURN NULL;
END
$$;
