//! `[auth.account]`: what users may change about their account, and how they prove that it is theirs.

use crate::config::{kind::choice, section::Section};

#[derive(Clone, Copy, Debug)]
pub struct Account {
    pub change_email: ChangeEmail,
    pub delete_user: DeleteUser,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChangeEmail {
    /// The old address approves, then the new one confirms. An address that was never verified has no say.
    Both,
    /// Only the new address confirms.
    New,
    Off,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DeleteUser {
    /// By the password, or in a fresh session.
    Session,
    /// By a link that is mailed, opened in a session of the user.
    Mail,
    Off,
}

impl Account {
    pub(super) fn read(s: &mut Section<'_>) -> Option<Self> {
        let change_email = s
            .key(
                "change_email",
                "How a user's address is changed. \"both\": the old address approves, then the new one confirms; \
                 \"new\": only the new one confirms; \"off\": not at all.",
                choice(&[
                    ("both", ChangeEmail::Both),
                    ("new", ChangeEmail::New),
                    ("off", ChangeEmail::Off),
                ]),
            )
            .or("both");
        let delete_user = s
            .key(
                "delete_user",
                "How users delete their account. \"session\": by their password or in a fresh session; \"mail\": \
                 by a mailed link as well; \"off\": not at all.",
                choice(&[
                    ("session", DeleteUser::Session),
                    ("mail", DeleteUser::Mail),
                    ("off", DeleteUser::Off),
                ]),
            )
            .or("session");
        Some(Self {
            change_email: change_email?,
            delete_user: delete_user?,
        })
    }
}
