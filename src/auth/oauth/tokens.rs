//! get-access-token, refresh-token and account-info: a provider's tokens, for the user whose they are.
