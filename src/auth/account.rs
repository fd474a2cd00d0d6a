//! What users change about their own account: profile, password, address, ways to sign in, and its end.
//!
//! Each needs a session. What would let a thief of one keep the account needs more: the password, a fresh session, or
//! a link that is mailed to the address.

pub(super) mod change_email;
pub(super) mod change_password;
pub(super) mod delete_user;
pub(super) mod profile;
pub(super) mod ways_in;
