//! A better-auth database, made by its own DDL.

use crate::harness::Database;

/// The password of everybody.
pub(super) const WORD: &str = "correct horse battery";

/// Made of [`WORD`] by better-auth 1.7.7.
pub(super) const HASH: &str = "18e319aa276adfb8259f941c57f722a3:7ff496ca6b1027e76e2a1a33f3fe569f130ce0ec0e71829f9db0231\
    7ccce10cfa9d3a6ddc839a5d6a5b5d141031fdc10bf31b71ef57c60cba327472d8179850f";

/// Of the first user's sessions: one that is remembered, one that isn't.
pub(super) const TOKENS: [&str; 2] = ["tokenOfTheFirstUserWhoIsSignedIn", "tokenOfTheFirstUserForOneDayOnly"];

const TABLES: &str = include_str!("better-auth-1.7.7.sql");

/// As Prisma names tables, with its type for times.
pub(super) const PRISMA: &str = r#"
    ALTER TABLE "user" ALTER "createdAt" TYPE timestamp(3) USING "createdAt" AT TIME ZONE 'UTC',
        ALTER "updatedAt" TYPE timestamp(3) USING "updatedAt" AT TIME ZONE 'UTC';
    ALTER TABLE session ALTER "expiresAt" TYPE timestamp(3) USING "expiresAt" AT TIME ZONE 'UTC';
    ALTER TABLE "user" RENAME TO "User";
    ALTER TABLE account RENAME TO "Account";
    ALTER TABLE session RENAME TO "Session";
    -- Whose zone must not count.
    DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone TO ''Asia/Tokyo''', current_database()); END $$;
"#;

/// As Drizzle names them, with `usePlural`; and roles as an array.
pub(super) const DRIZZLE: &str = r#"
    ALTER TABLE "user" RENAME TO users;
    ALTER TABLE users RENAME "emailVerified" TO email_verified;
    ALTER TABLE users RENAME "createdAt" TO created_at;
    ALTER TABLE users RENAME "updatedAt" TO updated_at;
    ALTER TABLE users RENAME "banExpires" TO ban_expires;
    ALTER TABLE users ALTER role TYPE text[] USING string_to_array(role, ',');
    ALTER TABLE account RENAME TO accounts;
    ALTER TABLE accounts RENAME "userId" TO user_id;
    ALTER TABLE accounts RENAME "accountId" TO account_id;
    ALTER TABLE accounts RENAME "providerId" TO provider_id;
    ALTER TABLE session RENAME TO sessions;
    ALTER TABLE sessions RENAME "userId" TO user_id;
    ALTER TABLE sessions RENAME "expiresAt" TO expires_at;
    ALTER TABLE sessions RENAME "createdAt" TO created_at;
"#;

/// `generateId: "uuid"`.
pub(super) const UUIDS: &str = r#"
    ALTER TABLE session DROP CONSTRAINT "session_userId_fkey";
    ALTER TABLE account DROP CONSTRAINT "account_userId_fkey";
    ALTER TABLE "twoFactor" DROP CONSTRAINT "twoFactor_userId_fkey";
    ALTER TABLE "user" ALTER id TYPE uuid USING md5(id)::uuid;
    ALTER TABLE session ALTER "userId" TYPE uuid USING md5("userId")::uuid;
    ALTER TABLE account ALTER "userId" TYPE uuid USING md5("userId")::uuid;
"#;

/// `generateId: "serial"`; and flags as numbers, as they come out of databases without booleans.
pub(super) const NUMBERS: &str = r#"
    ALTER TABLE session DROP CONSTRAINT "session_userId_fkey";
    ALTER TABLE account DROP CONSTRAINT "account_userId_fkey";
    ALTER TABLE "twoFactor" DROP CONSTRAINT "twoFactor_userId_fkey";
    ALTER TABLE "user" ALTER id TYPE integer USING split_part(id, '-', 2)::integer,
        ALTER "emailVerified" TYPE integer USING "emailVerified"::integer;
    ALTER TABLE session ALTER "userId" TYPE bigint USING split_part("userId", '-', 2)::bigint;
    ALTER TABLE account ALTER "userId" TYPE integer USING split_part("userId", '-', 2)::integer;
"#;

/// Names of a site's own.
pub(super) const OWN_NAMES: &str = r#"
    CREATE SCHEMA "Old App";
    ALTER TABLE "user" SET SCHEMA "Old App";
    ALTER TABLE account SET SCHEMA "Old App";
    ALTER TABLE session SET SCHEMA "Old App";
    ALTER TABLE "Old App"."user" RENAME TO people;
    ALTER TABLE "Old App".people RENAME email TO mail;
    CREATE TABLE "Old App".users (id text, name text);
"#;

#[derive(Clone)]
pub(super) struct Source {
    pub(super) db: Database,
}

impl Source {
    /// The tables, empty.
    async fn new() -> Self {
        let db = Database::empty().await;
        db.run(&format!("SET search_path TO public; {TABLES}")).await;
        Self { db }
    }

    /// Users `user-1` and so on, verified, each with a password.
    pub(super) async fn of_users(count: i64) -> Self {
        let source = Self::new().await;
        source.add_users(1, count).await;
        source
    }

    pub(super) async fn add_users(&self, from: i64, to: i64) {
        self.run(&format!(
            r#"
            INSERT INTO "user" (id, name, email, "emailVerified", "createdAt", "updatedAt", role)
            SELECT 'user-' || n, 'Person ' || n, 'user-' || n || '@example.test', true, '2026-11-20T08:00:00Z',
                '2026-11-20T08:00:00Z', 'user'
            FROM generate_series({from}, {to}) AS n;
            INSERT INTO account (id, "accountId", "providerId", "userId", password, "createdAt", "updatedAt")
            SELECT 'account-' || n, 'user-' || n, 'credential', 'user-' || n, '{HASH}', '2026-11-20T08:00:00Z',
                '2026-11-20T08:00:00Z'
            FROM generate_series({from}, {to}) AS n
            "#
        ))
        .await;
    }

    /// Four of the first user's: remembered, for a day, expired, and of an administrator who acts as the user.
    pub(super) async fn add_sessions(&self) {
        let [remembered, one_day] = TOKENS;
        self.run(&format!(
            r#"
            INSERT INTO session (id, "expiresAt", token, "createdAt", "updatedAt", "ipAddress", "userAgent", "userId",
                "impersonatedBy")
            VALUES
                ('1', '2099-01-01T00:00:00Z', '{remembered}', '2026-11-20T08:00:00Z', '2026-11-20T08:00:00Z', '192.0.2.7',
                    'Mozilla/5.0', 'user-1', NULL),
                ('2', '2098-12-01T00:00:00Z', '{one_day}', '2098-11-30T00:00:00Z', '2098-11-30T00:00:00Z', '', NULL,
                    'user-1', NULL),
                ('3', '2020-01-01T00:00:00Z', 'tokenOfTheFirstUserThatIsOverNow', '2019-12-25T00:00:00Z',
                    '2019-12-25T00:00:00Z', NULL, NULL, 'user-1', NULL),
                ('4', '2099-01-01T00:00:00Z', 'tokenOfAnAdminWhoActsAsThisUser1', '2026-11-20T08:00:00Z',
                    '2026-11-20T08:00:00Z', NULL, NULL, 'user-1', 'user-2')
            "#
        ))
        .await;
    }

    /// One of each oddity.
    pub(super) async fn odd() -> Self {
        let source = Self::new().await;
        source
            .run(&format!(
                r#"
                INSERT INTO "user" (id, name, email, "emailVerified", "createdAt", "updatedAt") VALUES
                    ('plain', 'Plain', 'plain@example.test', true, '2026-01-01', '2026-01-01'),
                    ('upper', '', 'Upper@Example.TEST', false, '2026-01-01', '2026-01-01'),
                    ('space', 'Space', 'sp ace@example.test', true, '2026-01-01', '2026-01-01'),
                    ('umlaut', 'Ümlaut', 'ümlaut@example.test', true, '2026-01-01', '2026-01-01'),
                    ('shared-unverified', 'Shared', 'SHARED@example.test', false, '2025-01-01', '2025-01-01'),
                    ('shared-later', 'Shared', 'shared@example.test', true, '2026-02-01', '2026-02-01'),
                    ('shared-first', 'Shared', 'Shared@example.test', true, '2026-01-01', '2026-01-01'),
                    ('roles', 'Roles', 'roles@example.test', true, '2026-01-01', '2026-01-01'),
                    ('banned', 'Banned', 'banned@example.test', true, '2026-01-01', '2026-01-01'),
                    ('image', 'Image', 'image@example.test', true, '2026-01-01', '2026-01-01');
                UPDATE "user" SET role = 'admin, editor,,two words,admin' WHERE id = 'roles';
                UPDATE "user" SET banned = true, "banReason" = 'Spam', "banExpires" = '2099-01-01Z' WHERE id = 'banned';
                UPDATE "user" SET image = repeat('x', 70000) WHERE id = 'image';
                UPDATE "user" SET "twoFactorEnabled" = true WHERE id = 'banned';
                INSERT INTO account (id, "accountId", "providerId", "userId", password, "accessToken", "createdAt",
                    "updatedAt")
                VALUES
                    ('account-of-plain', 'plain', 'credential', 'plain', '{HASH}', NULL, '2026-01-01', '2026-01-02'),
                    ('account-older', 'plain', 'credential', 'plain', 'older', NULL, '2026-01-01', '2026-01-01'),
                    ('account-of-google', '1234', 'google', 'plain', NULL, 'an-access-token', '2026-01-01', '2026-01-01'),
                    ('account-of-unknown-hash', 'roles', 'credential', 'roles', 'sha1:xyz', NULL, '2026-01-01', '2026-01-01'),
                    ('account-without-password', 'image', 'credential', 'image', NULL, NULL, '2026-01-01', '2026-01-01'),
                    ('account-of-space', 'space', 'credential', 'space', '{HASH}', NULL, '2026-01-01', '2026-01-01');
                INSERT INTO session (id, "expiresAt", token, "createdAt", "updatedAt", "ipAddress", "userId",
                    "impersonatedBy")
                VALUES
                    ('session-of-plain', '2099-01-01', 'tokenOfPlainWhichIsRemembered012', '2026-01-01', '2026-01-01',
                        '::ffff:192.0.2.7', 'plain', NULL),
                    ('session-of-a-day', '2099-01-02', 'tokenOfPlainWhichIsForOneDay0123', '2099-01-01', '2099-01-01',
                        'unknown', 'plain', NULL),
                    ('session-of-other-token', '2099-01-01', 'short', '2026-01-01', '2026-01-01', NULL, 'plain', NULL),
                    ('session-of-admin', '2099-01-01', 'tokenOfAnAdminWhoActsAsPlain0123', '2026-01-01', '2026-01-01',
                        NULL, 'plain', 'roles'),
                    ('session-expired', '2020-01-01', 'tokenOfPlainWhichIsOver012345678', '2019-01-01', '2019-01-01', NULL,
                        'plain', NULL);
                "#
            ))
            .await;
        source
    }

    pub(super) async fn run(&self, sql: &str) {
        self.db.run(&format!("SET search_path TO public; {sql}")).await;
    }
}
