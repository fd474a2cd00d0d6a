//! `audit_log`: who did what, from where, and how it ended. Written in the transaction of the change it records.

use std::net::IpAddr;

use ipnet::IpNet;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{DbError, GenericClient, Params, Query, column};
use crate::{
    clock::Timestamp,
    identity::{SessionId, UserId},
};

macro_rules! actions {
    ($($name:ident = $text:literal;)*) => {
        /// What was done or tried; the name stands in `audit_log.action`.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum Action {
            $($name,)*
        }

        impl Action {
            /// By name, for whoever asks what there is.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

actions! {
    SignUp = "sign-up";
    SignIn = "sign-in";
    SignOut = "sign-out";
    SendVerificationMail = "send-verification-mail";
    VerifyEmail = "verify-email";
    RevokeSession = "revoke-session";
    RequestPasswordReset = "request-password-reset";
    ResetPassword = "reset-password";
    ChangePassword = "change-password";
    SetPassword = "set-password";
    VerifyPassword = "verify-password";
    RemovePassword = "remove-password";
    UpdateUser = "update-user";
    RequestEmailChange = "request-email-change";
    ApproveEmailChange = "approve-email-change";
    ChangeEmail = "change-email";
    RequestDeletion = "request-deletion";
    DeleteUser = "delete-user";
    LinkAccount = "link-account";
    UnlinkAccount = "unlink-account";
    SwitchUser = "switch-user";
    CreateUser = "create-user";
    SetRole = "set-role";
    Ban = "ban";
    Unban = "unban";
    SendMail = "send-mail";
    RotateKeys = "rotate-keys";
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    Done,
    Refused,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
        }
    }
}

/// Where a request, or a command, came from: the part of an [`Entry`] that is the same for all that one request does.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// `None`: it came from no network, but from the command line.
    pub ip_address: Option<IpAddr>,
    pub user_agent: &'a str,
    pub request_id: &'a str,
}

/// One event.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    pub action: Action,
    pub outcome: Outcome,
    /// Why it was refused, or which kind of the action it was.
    pub reason: Option<&'a str>,
    pub actor: Option<UserId>,
    pub subject: Option<UserId>,
    /// The address that was given, where it led to nobody.
    pub email: Option<&'a str>,
    pub session: Option<SessionId>,
}

impl<'a> Entry<'a> {
    /// Somebody did something to themselves: the usual case.
    pub const fn done(action: Action, user: UserId) -> Self {
        Self {
            action,
            outcome: Outcome::Done,
            reason: None,
            actor: Some(user),
            subject: Some(user),
            email: None,
            session: None,
        }
    }

    /// Somebody who is signed in tried something with themselves and was refused.
    pub const fn refused_to(user: UserId, action: Action, reason: &'a str) -> Self {
        Self {
            outcome: Outcome::Refused,
            reason: Some(reason),
            ..Self::done(action, user)
        }
    }

    /// Somebody unproven tried something and was refused.
    pub const fn refused(action: Action, reason: &'a str) -> Self {
        Self {
            action,
            outcome: Outcome::Refused,
            reason: Some(reason),
            actor: None,
            subject: None,
            email: None,
            session: None,
        }
    }
}

pub const INSERT: Query = Query {
    name: "audit.insert",
    sql: "
        INSERT INTO audit_log (id, at, action, outcome, reason, actor_id, subject_id, email, session_id, ip_address,
            user_agent, request_id)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
    ",
};

pub async fn insert(
    client: &impl GenericClient,
    id: Uuid,
    entry: &Entry<'_>,
    origin: Origin<'_>,
    now: Timestamp,
) -> Result<(), DbError> {
    INSERT
        .run(
            client,
            &[
                &id,
                &now,
                &entry.action.as_str(),
                &entry.outcome.as_str(),
                &entry.reason,
                &entry.actor.map(|id| id.0),
                &entry.subject.map(|id| id.0),
                &entry.email,
                &entry.session.map(|id| id.0),
                &origin.ip_address,
                &origin.user_agent,
                &origin.request_id,
            ],
        )
        .await
        .map(drop)
}

/// Which events to list; by default all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Whom it concerns, or who did it to somebody else.
    pub user: Option<UserId>,
    /// The address that was given, where it led to nobody. Beside `user`, one of the two is enough.
    pub email: Option<String>,
    /// One of these names.
    pub actions: Option<Vec<&'static str>>,
    pub outcome: Option<Outcome>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
    /// From this network.
    pub network: Option<IpNet>,
    pub session: Option<SessionId>,
    /// Only what is behind this event: the last of the page before.
    pub after: Option<Uuid>,
}

/// An event, as it was written down.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub id: Uuid,
    pub at: Timestamp,
    pub action: String,
    pub outcome: String,
    pub reason: Option<String>,
    pub actor: Option<UserId>,
    pub subject: Option<UserId>,
    /// What the subject's address is now; `None` for somebody who is gone, and for nobody.
    pub subject_email: Option<String>,
    pub email: Option<String>,
    pub session: Option<SessionId>,
    pub ip_address: Option<IpAddr>,
    pub user_agent: String,
    pub request_id: String,
}

impl Recorded {
    fn from_row(row: &Row) -> Result<Self, DbError> {
        let actor: Option<Uuid> = column(&LIST, row, "actor_id")?;
        let subject: Option<Uuid> = column(&LIST, row, "subject_id")?;
        let session: Option<Uuid> = column(&LIST, row, "session_id")?;
        Ok(Self {
            id: column(&LIST, row, "id")?,
            at: column(&LIST, row, "at")?,
            action: column(&LIST, row, "action")?,
            outcome: column(&LIST, row, "outcome")?,
            reason: column(&LIST, row, "reason")?,
            actor: actor.map(UserId),
            subject: subject.map(UserId),
            subject_email: column(&LIST, row, "subject_email")?,
            email: column(&LIST, row, "email")?,
            session: session.map(SessionId),
            ip_address: column(&LIST, row, "ip_address")?,
            user_agent: column(&LIST, row, "user_agent")?,
            request_id: column(&LIST, row, "request_id")?,
        })
    }
}

/// Events, the newest first. Without a filter answered by `audit_log_at_idx`, read backwards; by whom it concerns,
/// with `audit_log_subject_id_at_idx`, `audit_log_actor_id_at_idx` and `audit_log_email_at_idx` together; by action,
/// network and session, with the index of that name. A statement that is run once is planned for its very values, so
/// that a filter which is not given costs nothing.
pub const LIST: Query = Query {
    name: "audit.list",
    sql: "
        SELECT a.id, a.at, a.action, a.outcome, a.reason, a.actor_id, a.subject_id, u.email AS subject_email, a.email,
            a.session_id, a.ip_address, a.user_agent, a.request_id
        FROM audit_log AS a
        LEFT JOIN users AS u ON u.id = a.subject_id
        WHERE (
                ($1::uuid IS NULL AND $2::text IS NULL)
                OR a.subject_id = $1
                OR (a.actor_id = $1 AND a.actor_id IS DISTINCT FROM a.subject_id)
                OR a.email = $2
            )
            AND ($3::text[] IS NULL OR a.action = ANY($3))
            AND ($4::text IS NULL OR a.outcome = $4)
            AND ($5::timestamptz IS NULL OR a.at >= $5)
            AND ($6::timestamptz IS NULL OR a.at < $6)
            AND ($7::text IS NULL OR a.ip_address <<= $7::text::inet)
            AND ($8::uuid IS NULL OR a.session_id = $8)
            AND ($9::uuid IS NULL OR (a.at, a.id) < ((SELECT at FROM audit_log WHERE id = $9), $9))
        ORDER BY a.at DESC, a.id DESC
        LIMIT $10
    ",
};

pub async fn list(client: &impl GenericClient, filter: &Filter, limit: usize) -> Result<Vec<Recorded>, DbError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let network = filter.network.map(|network| network.to_string());
    let params: Params<'_> = &[
        &filter.user.map(|id| id.0),
        &filter.email,
        &filter.actions,
        &filter.outcome.map(Outcome::as_str),
        &filter.since,
        &filter.until,
        &network,
        &filter.session.map(|id| id.0),
        &filter.after,
        &limit,
    ];
    let rows = LIST.rows(client, params).await?;
    rows.iter().map(Recorded::from_row).collect()
}

/// Many ends of sessions at once: a user may have any number.
pub const INSERT_ENDS: Query = Query {
    name: "audit.insert_ends",
    sql: "
        INSERT INTO audit_log (id, at, action, outcome, reason, actor_id, subject_id, session_id, ip_address, user_agent,
            request_id)
        SELECT e.id, $2, $3, 'done', $4, e.user_id, e.user_id, e.session_id, $5, $6, $7
        FROM unnest($1::uuid[], $8::uuid[], $9::uuid[]) AS e (id, user_id, session_id)
    ",
};

/// That a session ended.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// Of the line in the log.
    pub id: Uuid,
    pub user: UserId,
    pub session: SessionId,
}

/// Why they ended stands as the reason.
pub async fn insert_ends(
    client: &impl GenericClient,
    ends: &[End],
    reason: &str,
    origin: Origin<'_>,
    now: Timestamp,
) -> Result<(), DbError> {
    if ends.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = ends.iter().map(|end| end.id).collect();
    let users: Vec<Uuid> = ends.iter().map(|end| end.user.0).collect();
    let sessions: Vec<Uuid> = ends.iter().map(|end| end.session.0).collect();
    INSERT_ENDS
        .run(
            client,
            &[
                &ids,
                &now,
                &Action::RevokeSession.as_str(),
                &reason,
                &origin.ip_address,
                &origin.user_agent,
                &origin.request_id,
                &users,
                &sessions,
            ],
        )
        .await
        .map(drop)
}

pub const ALL: &[Query] = &[INSERT, INSERT_ENDS, LIST];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_actions_share_a_name() {
        for (at, action) in Action::ALL.iter().enumerate() {
            let same = Action::ALL.iter().position(|other| other.as_str() == action.as_str());
            assert_eq!(same, Some(at), "{action:?}");
        }
    }
}
