//! What of a better-auth row becomes a row here, and why something doesn't. Pure: what it is given decides.
//!
//! Nothing is guessed: a user who can't be told apart, an address that nobody could sign in with, a hash that can't be
//! verified stay behind, and the report says so. How somebody signed in is not recorded there, so imported sessions
//! say nothing of it.

use std::{collections::HashSet, net::IpAddr, time::Duration};

use super::{
    ids,
    provider_tokens::Sealer,
    source::{SourceAccount, SourceSession, SourceUser},
};
use crate::{
    auth::{FIRST_ROLE, email::EmailAddress, password},
    clock::Timestamp,
    config,
    db::{
        accounts::tokens::SealedTokens,
        imports::{ImportedAccount, ImportedUser, Kept},
        sessions::StoredSession,
        users::User,
    },
    identity::{AccountId, Place, UserId},
    secret::{Secret, SessionToken},
    session::device,
};

/// better-auth's name for a password among accounts, and ours.
const CREDENTIAL: &str = "credential";

/// What a session lasts that is not to be remembered, there as here; and a little, since two readings of a clock made it.
const NOT_REMEMBERED: Duration = Duration::from_hours(24);
const LENIENCE: Duration = Duration::from_mins(1);

/// Why a row stays behind, or comes over otherwise than it was.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Reason {
    AddressNotAccepted,
    AddressShared,
    AddressTaken,
    SecondFactor,
    SecondFactorSince,
    IdTaken,
    NewAddressTaken,
    RolesKept,
    BanKept,
    RoleNotAccepted,
    NameTooLong,
    ImageTooLarge,
    UserLeft,
    NoUser,
    NoPassword,
    HashUnknown,
    NoProviderId,
    AccountReplaced,
    AccountTaken,
    TokenLeft,
    Expired,
    TokenNotAccepted,
    Impersonation,
    SessionTaken,
}

impl Reason {
    /// For scripts.
    pub(super) const fn code(self) -> &'static str {
        self.both().0
    }

    /// For people; reads on from "12 users: ".
    pub(super) const fn text(self) -> &'static str {
        self.both().1
    }

    pub(super) const fn of(kept: Kept) -> Self {
        match kept {
            Kept::Address => Self::NewAddressTaken,
            Kept::Roles => Self::RolesKept,
            Kept::Ban => Self::BanKept,
        }
    }

    const fn both(self) -> (&'static str, &'static str) {
        match self {
            Self::AddressNotAccepted => (
                "address-not-accepted",
                "the address is not one that the gateway accepts",
            ),
            Self::AddressShared => (
                "address-shared",
                "another user has the same address but for upper and lower case; who verified it or was first is taken",
            ),
            Self::AddressTaken => ("address-taken", "the address is that of a user here who came otherwise"),
            Self::SecondFactor => (
                "second-factor",
                "has a second factor, which can't be taken along: --drop-second-factors takes the user without it",
            ),
            Self::SecondFactorSince => (
                "second-factor-since",
                "is here already, without the second factor that they have there now",
            ),
            Self::IdTaken => ("id-taken", "the id is that of another user here"),
            Self::NewAddressTaken => (
                "new-address-taken",
                "changed there to an address that another user has here; but for roles and a ban left as it was",
            ),
            Self::RolesKept => (
                "roles-kept",
                "has other roles there, but changed here later: `vestibule user set-role` if they are to be the same",
            ),
            Self::BanKept => (
                "ban-kept",
                "is banned here for longer than there: no import lifts a ban, `vestibule user unban` does",
            ),
            Self::RoleNotAccepted => (
                "role-not-accepted",
                "without a role that has characters a role can't have here",
            ),
            Self::NameTooLong => ("name-too-long", "with the first 1,000 characters of the name"),
            Self::ImageTooLarge => ("image-too-large", "without the image, which is larger than 64 KiB"),
            Self::UserLeft => ("user-left", "the user was left out"),
            Self::NoUser => ("no-user", "there is no such user"),
            Self::NoPassword => ("no-password", "there is no password in it"),
            Self::HashUnknown => (
                "hash-unknown",
                "the password's hash has a format or a cost that the gateway does not verify: a reset helps",
            ),
            Self::NoProviderId => ("no-provider-id", "the provider, or its name for the user, is empty"),
            Self::AccountReplaced => ("account-replaced", "a newer one of the same name is taken"),
            Self::AccountTaken => ("account-taken", "another user has it here"),
            Self::TokenLeft => (
                "provider-token-left",
                "without a token of the provider: it is encrypted, and no auth.secret opens it, or larger than 32 KiB",
            ),
            Self::Expired => ("expired", "it has expired, or never would"),
            Self::TokenNotAccepted => ("token-not-accepted", "its token has another form than better-auth's"),
            Self::Impersonation => ("impersonation", "an administrator acts as the user in it"),
            Self::SessionTaken => ("session-taken", "another user has it here"),
        }
    }
}

/// A row for here, and what was changed about it; or why there is none.
pub(super) type Judged<T> = Result<(T, Vec<Reason>), Reason>;

/// Users who stay behind, with all that is theirs.
pub(super) type Left = HashSet<UserId>;

pub(super) fn user(row: SourceUser) -> Judged<ImportedUser> {
    let Some(email) = EmailAddress::parse(&row.email) else {
        return Err(Reason::AddressNotAccepted);
    };
    let mut changed = Vec::new();
    let (roles, all) = roles(row.role.as_deref());
    if !all {
        changed.push(Reason::RoleNotAccepted);
    }
    if row.name_is_cut {
        changed.push(Reason::NameTooLong);
    }
    if row.image_is_left {
        changed.push(Reason::ImageTooLarge);
    }
    let user = User {
        id: ids::user(&row.id),
        email: email.as_str().to_owned(),
        email_verified: row.email_verified,
        name: row.name,
        image: row.image,
        roles,
        banned: row.banned,
        ban_reason: row.ban_reason,
        ban_expires: row.ban_expires,
        created_at: row.created_at,
        updated_at: row.updated_at,
    };
    let imported_id = row.id;
    let imported = ImportedUser {
        user,
        imported_id,
        may_be_new: true,
    };
    Ok((imported, changed))
}

/// Joined by commas there; without one a user has the default role. Whether all were good.
fn roles(joined: Option<&str>) -> (Vec<String>, bool) {
    let Some(joined) = joined.filter(|joined| !joined.is_empty()) else {
        return (vec![FIRST_ROLE.to_owned()], true);
    };
    let named = || joined.split(',').map(str::trim).filter(|role| !role.is_empty());
    let mut roles: Vec<String> = Vec::new();
    for role in named().filter(|role| is_role(role)) {
        if !roles.iter().any(|known| known == role) {
            roles.push(role.to_owned());
        }
    }
    (roles, named().all(is_role))
}

/// As the table demands.
fn is_role(role: &str) -> bool {
    (1..=64).contains(&role.len())
        && role
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'))
}

/// Tokens of a provider come along as far as they can be read.
pub(super) fn account(
    row: SourceAccount,
    left: &Left,
    cost: config::Argon2,
    sealer: &Sealer<'_>,
) -> Judged<ImportedAccount> {
    let user_id = owner(row.user_id.as_deref(), left)?;
    let common = |id, provider_id, account_id| ImportedAccount {
        id,
        user_id,
        provider_id,
        account_id,
        issuer: String::new(),
        password_hash: None,
        tokens: SealedTokens::default(),
        created_at: row.created_at,
        updated_at: row.updated_at,
    };
    if row.provider_id == CREDENTIAL {
        let hash = row.password.filter(|hash| !hash.is_empty()).ok_or(Reason::NoPassword)?;
        password::check_stored(&hash, cost).map_err(|_| Reason::HashUnknown)?;
        let account_id = user_id.to_string();
        let id = ids::account(user_id, CREDENTIAL, &account_id);
        let account = ImportedAccount {
            password_hash: Some(Secret::new(hash)),
            ..common(id, row.provider_id, account_id)
        };
        return Ok((account, Vec::new()));
    }
    if row.provider_id.is_empty() || row.account_id.is_empty() {
        return Err(Reason::NoProviderId);
    }
    let id = ids::account(user_id, &row.provider_id, &row.account_id);
    let (tokens, all) = sealer.seal(AccountId(id), &row);
    let account = ImportedAccount {
        issuer: sealer.issuer(&row.provider_id, &row.issuer),
        tokens,
        ..common(id, row.provider_id, row.account_id)
    };
    Ok((account, if all { Vec::new() } else { vec![Reason::TokenLeft] }))
}

pub(super) fn session(row: SourceSession, left: &Left, now: Timestamp) -> Judged<StoredSession> {
    let user_id = owner(row.user_id.as_deref(), left)?;
    let expires_at = row.expires_at.filter(|end| *end > now).ok_or(Reason::Expired)?;
    // It looks like the user's own here, and would be one of theirs on every list.
    if row.impersonated {
        return Err(Reason::Impersonation);
    }
    let token = SessionToken::parse(&row.token).ok_or(Reason::TokenNotAccepted)?;
    let token_hash = token.hash();
    let ip_address: Option<IpAddr> = row.ip_address.and_then(|text| text.trim().parse().ok());
    let session = StoredSession {
        device: device::of(&row.user_agent),
        place: Place::default(),
        last_seen_at: Some(row.updated_at),
        id: ids::session(&token_hash),
        token_hash,
        user_id,
        created_at: row.created_at,
        updated_at: row.updated_at,
        expires_at,
        // better-auth notes it in the browser alone. A session that lasts longer than a day from its beginning was
        // remembered, or has been extended, which happens to no other.
        remembered: expires_at.since(row.created_at) > NOT_REMEMBERED + LENIENCE,
        methods: Vec::new(),
        ip_address: ip_address.map(|address| address.to_canonical()),
        user_agent: row.user_agent,
    };
    Ok((session, Vec::new()))
}

fn owner(user_id: Option<&str>, left: &Left) -> Result<UserId, Reason> {
    let id = ids::user(user_id.ok_or(Reason::NoUser)?);
    if left.contains(&id) {
        return Err(Reason::UserLeft);
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADE: Timestamp = Timestamp::from_secs(1_795_000_000);

    fn a_session(lasts: Duration) -> SourceSession {
        SourceSession {
            id: "1".to_owned(),
            user_id: Some("ada".to_owned()),
            token: "aTokenOfThirtyTwoCharactersExact".to_owned(),
            created_at: MADE,
            updated_at: MADE,
            expires_at: Some(MADE.plus(lasts)),
            ip_address: Some(" ::ffff:192.0.2.7 ".to_owned()),
            user_agent: String::new(),
            impersonated: false,
        }
    }

    #[test]
    fn roles_are_told_apart_and_odd_ones_left_out() {
        for (joined, roles_here, all) in [
            (None, &["user"][..], true),
            (Some(""), &["user"], true),
            (Some("admin"), &["admin"], true),
            (Some(" admin , editor,,admin"), &["admin", "editor"], true),
            (Some("two words,admin"), &["admin"], false),
            (Some("ädmin"), &[], false),
        ] {
            assert_eq!(
                roles(joined),
                (roles_here.iter().map(ToString::to_string).collect(), all),
                "{joined:?}"
            );
        }
        assert!(!roles(Some(&"x".repeat(65))).1);
    }

    #[test]
    fn a_session_of_a_day_was_not_to_be_remembered() {
        for (lasts, remembered) in [
            (Duration::from_hours(24), false),
            (Duration::from_hours(24) + Duration::from_secs(1), false),
            (Duration::from_hours(25), true),
            (Duration::from_hours(7 * 24), true),
        ] {
            let (session, _) = session(a_session(lasts), &Left::new(), MADE).unwrap();
            assert_eq!(session.remembered, remembered, "{lasts:?}");
            assert_eq!(session.ip_address, Some("192.0.2.7".parse().unwrap()));
            assert!(session.methods.is_empty());
        }
    }

    #[test]
    fn what_is_over_or_nobodys_stays_behind() {
        let day = Duration::from_hours(24);
        let judged = |row, left: &Left, now| session(row, left, now).err();
        assert_eq!(
            judged(a_session(day), &Left::new(), MADE.plus(day)),
            Some(Reason::Expired)
        );
        let left = Left::from([ids::user("ada")]);
        assert_eq!(judged(a_session(day), &left, MADE), Some(Reason::UserLeft));
        let nobodys = SourceSession {
            user_id: None,
            ..a_session(day)
        };
        assert_eq!(judged(nobodys, &Left::new(), MADE), Some(Reason::NoUser));
        let endless = SourceSession {
            expires_at: None,
            ..a_session(day)
        };
        assert_eq!(judged(endless, &Left::new(), MADE), Some(Reason::Expired));
    }
}
