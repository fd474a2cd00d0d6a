-- With what and from where people are signed in, for the list of their sessions. Written when a session begins and
-- behind its uses; nothing is decided by them, so the triggers stay silent: they compare the columns that they name.
-- Constant defaults: no row is written again for these.
ALTER TABLE user_sessions
    -- Families as the User-Agent says, without versions: Chrome, Windows. Null: it doesn't say.
    ADD COLUMN browser text,
    ADD COLUMN os text,
    -- desktop, mobile, tablet, bot or other.
    ADD COLUMN device text NOT NULL DEFAULT 'other',
    -- Of ip_address: ISO 3166-1 code, and the English name. Null: not known, or no file was configured.
    ADD COLUMN country text,
    ADD COLUMN city text;
