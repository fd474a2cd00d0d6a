//! `audit_log`: who did what, from where, and how it ended. Written in the transaction of the change it records.

use std::net::IpAddr;

use deadpool_postgres::GenericClient;
use uuid::Uuid;

use super::{DbError, Query};
use crate::{
    clock::Timestamp,
    identity::{SessionId, UserId},
};

/// What was done or tried; the name stands in `audit_log.action`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    SignUp,
    SignIn,
    SignOut,
    SendVerificationMail,
    VerifyEmail,
    RevokeSession,
    SendMail,
}

impl Action {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SignUp => "sign-up",
            Self::SignIn => "sign-in",
            Self::SignOut => "sign-out",
            Self::SendVerificationMail => "send-verification-mail",
            Self::VerifyEmail => "verify-email",
            Self::RevokeSession => "revoke-session",
            Self::SendMail => "send-mail",
        }
    }
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

/// Where a request came from: the part of an [`Entry`] that is the same for all that one request does.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    pub ip_address: IpAddr,
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

pub const ALL: &[Query] = &[INSERT];
