//! What becomes of somebody who comes from a provider, as a function of what is known of them: nothing is asked here, and
//! nothing done.

use crate::{db::accounts::linked::Linked, identity::UserId};

/// Whom the account belongs to, by provider, issuer and subject.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::auth::oauth) enum Holder {
    /// A user of ours.
    User(UserId),
    /// Another issuer's subject of the same name holds the place.
    OtherIssuer,
    Nobody,
}

impl Holder {
    pub(in crate::auth::oauth) fn of(known: Option<&Linked>, issuer: &str) -> Self {
        match known {
            None => Self::Nobody,
            // What was brought from elsewhere had no issuer: it is adopted.
            Some(known) if known.issuer.is_empty() || known.issuer == issuer => Self::User(known.user),
            Some(_) => Self::OtherIssuer,
        }
    }
}

/// What is known here of whether a user's address is theirs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Standing {
    Unverified,
    /// It is verified, but nobody knows by whom: see `account/change_email.rs`.
    InDoubt,
    Verified,
}

/// All that decides what becomes of somebody who comes to sign in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) holder: Holder,
    /// The provider's word on the address; `None`: it tells none.
    pub(super) is_address_proven: Option<bool>,
    /// Of the local user of that address; `None`: there is none.
    pub(super) local: Option<Standing>,
    /// That user is somebody at this provider already: another subject, then, to whom the provider gave the address
    /// since.
    pub(super) is_local_known_there: bool,
    pub(super) links_by_email: bool,
    pub(super) may_sign_up: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    Enter,
    /// Into the account of the address's user.
    LinkByAddress,
    MakeUser,
    NotLinked,
    SignUpDisabled,
    EmailNotFound,
    UnableToLink,
}

pub(super) const fn decide(facts: Facts) -> Step {
    let is_proven = match (facts.holder, facts.is_address_proven) {
        (Holder::User(_), _) => return Step::Enter,
        (Holder::OtherIssuer, _) => return Step::UnableToLink,
        (Holder::Nobody, None) => return Step::EmailNotFound,
        (Holder::Nobody, Some(is_proven)) => is_proven,
    };
    match facts.local {
        Some(_) if facts.is_local_known_there => Step::NotLinked,
        Some(Standing::Verified) if is_proven && facts.links_by_email => Step::LinkByAddress,
        Some(Standing::Unverified | Standing::InDoubt | Standing::Verified) => Step::NotLinked,
        None if facts.may_sign_up => Step::MakeUser,
        None => Step::SignUpDisabled,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::identity::AccountId;

    const ADA: UserId = UserId(Uuid::from_u128(1));

    #[test]
    fn an_address_leads_in_only_where_both_sides_have_proven_it() {
        use Standing::{Unverified, Verified};
        use Step::{EmailNotFound, LinkByAddress, MakeUser, NotLinked, SignUpDisabled};
        // What the provider says, what is verified here, links by address, new users wanted.
        for (address, local, links, sign_up, step) in [
            (Some(true), Some(Verified), true, false, LinkByAddress),
            (Some(true), Some(Verified), false, true, NotLinked),
            (Some(true), Some(Unverified), true, true, NotLinked),
            (Some(false), Some(Verified), true, true, NotLinked),
            (Some(false), Some(Unverified), true, true, NotLinked),
            (Some(true), None, true, true, MakeUser),
            (Some(false), None, true, true, MakeUser),
            (Some(true), None, true, false, SignUpDisabled),
            (None, None, true, true, EmailNotFound),
        ] {
            let mut facts = Facts {
                holder: Holder::Nobody,
                is_address_proven: address,
                local,
                is_local_known_there: false,
                links_by_email: links,
                may_sign_up: sign_up,
            };
            assert_eq!(decide(facts), step, "{facts:?}");
            // Who is known is known by the subject, whatever the address.
            facts.holder = Holder::User(ADA);
            assert_eq!(decide(facts), Step::Enter, "{facts:?}");
            facts.holder = Holder::OtherIssuer;
            assert_eq!(decide(facts), Step::UnableToLink, "{facts:?}");
            // Where the provider gave an address to somebody else, they do not get its first owner's account.
            if step == LinkByAddress {
                facts.holder = Holder::Nobody;
                facts.is_local_known_there = true;
                assert_eq!(decide(facts), NotLinked, "{facts:?}");
                // Nor does the owner get an account that a stranger gave the address.
                facts.is_local_known_there = false;
                facts.local = Some(Standing::InDoubt);
                assert_eq!(decide(facts), NotLinked, "{facts:?}");
            }
        }
    }

    #[test]
    fn a_subject_is_its_issuers() {
        let known = |issuer: &str| Linked {
            id: AccountId(Uuid::nil()),
            user: ADA,
            issuer: issuer.to_owned(),
        };
        let here = "https://login.example.com";
        assert_eq!(Holder::of(None, here), Holder::Nobody);
        assert_eq!(Holder::of(Some(&known(here)), here), Holder::User(ADA));
        assert_eq!(Holder::of(Some(&known("")), here), Holder::User(ADA));
        for other in [
            "https://login.example.com/",
            "https://LOGIN.example.com",
            "https://evil.example",
        ] {
            assert_eq!(Holder::of(Some(&known(other)), here), Holder::OtherIssuer, "{other}");
        }
    }
}
