//! Signing in, and linking, with an id_token that an app got by itself.
