//! Many people's sessions: more than a slice asks for, and none of them in a cache.

use base64ct::{Base64, Encoding};
use serde::{Deserialize, Serialize};
use vestibule::secret::SigningKeys;

/// Sessions that are in Postgres, by number.
pub(crate) const COUNT: u64 = 200_000;

/// What makes them: the `n`th one's token says no more than `n`, so that Postgres can make them by itself.
pub(crate) const INSERT: &str = "
    INSERT INTO auth.user_sessions (id, token_hash, user_id, created_at, updated_at, expires_at, remembered)
    SELECT gen_random_uuid(), sha256(('bench-session-' || lpad(n::text, 20, '0'))::bytea), u.id,
        now(), now(), now() + interval '7 days', true
    FROM generate_series(0, $1::bigint - 1) AS n, (SELECT id FROM auth.users LIMIT 1) AS u";

/// The cookies of all of them, beginning with any.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Many {
    /// The cookie's name.
    pub(crate) name: String,
    pub(crate) secret: String,
    pub(crate) first: u64,
}

impl Many {
    /// The `n`th from the first.
    pub(crate) fn cookie(&self, n: u64) -> String {
        let token = format!("bench-session-{:020}", (self.first + n) % COUNT);
        let signature = SigningKeys::new([self.secret.as_bytes()]).sign(token.as_bytes());
        let signature = Base64::encode_string(&signature);
        let signature = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        format!("{}={token}.{signature}", self.name)
    }
}
