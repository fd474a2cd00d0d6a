//! The way there: sign-in/social and link-social.
