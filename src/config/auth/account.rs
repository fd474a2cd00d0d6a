//! `[auth.account]`: what users may change about their account, and how they prove that it is theirs.

use crate::config::{
    kind::{boolean, choice},
    section::Section,
};

#[derive(Clone, Copy, Debug)]
pub struct Account {
    pub change_email: ChangeEmail,
    pub delete_user: DeleteUser,
    /// At sign-in, an address that a provider proves is a way into the account that has it verified.
    pub link_by_email: bool,
    /// Users may link an account at a provider that has another address than they have here.
    pub link_different_emails: bool,
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
        let link_by_email = s
            .key(
                "link_by_email",
                "Whether somebody who signs in at a provider with an address that it proves comes into the account here \
                 that has this address, verified. false: only after they linked the two while signed in here.",
                boolean(),
            )
            .or("true");
        let link_different_emails = s
            .key(
                "link_different_emails",
                "Whether users who are signed in may link an account at a provider that has another address than they \
                 have here.",
                boolean(),
            )
            .or("false");
        Some(Self {
            change_email: change_email?,
            delete_user: delete_user?,
            link_by_email: link_by_email?,
            link_different_emails: link_different_emails?,
        })
    }
}
