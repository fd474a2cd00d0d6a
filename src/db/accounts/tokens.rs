//! `accounts`: what providers gave for their users, sealed.

use crate::clock::Timestamp;

/// A provider's tokens as they are stored.
#[derive(Clone, Debug, Default)]
pub struct SealedTokens {
    pub access: Option<Vec<u8>>,
    pub refresh: Option<Vec<u8>>,
    pub id: Option<Vec<u8>>,
    pub access_expires_at: Option<Timestamp>,
    pub refresh_expires_at: Option<Timestamp>,
    pub scopes: Vec<String>,
}
