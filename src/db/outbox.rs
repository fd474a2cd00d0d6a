//! Table `mail_outbox`: mails that are to be sent, being sent, sent, or given up.
//!
//! A claim is a lease: `due_at` moves to its end, so a mail whose gateway died is due again by itself. `attempts`
//! counts claims, and names one: who claimed a mail long ago can't put back or give up what another has claimed
//! since. That a mail *was* sent is written whoever has it now: it is the truth, and spares a duplicate.

use tokio_postgres::Row;
use uuid::Uuid;

use super::{DbError, GenericClient, Params, Query, column};
use crate::clock::Timestamp;

pub const ALL: &[Query] = &[INSERT, CLAIM, SENT, RETRY, FAILED, SWEEP];

pub const INSERT: Query = Query {
    name: "mail_outbox.insert",
    sql: "
        INSERT INTO mail_outbox (id, message, recipient, subject, body_text, body_html, created_at, due_at, useless_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8)
    ",
};

/// Takes up to `$3` mails that are due at `$1`, until `$2`. Answered by `mail_outbox_due`; what another worker is
/// taking at this moment is passed over. The common table keeps the limit from being evaluated more than once.
pub const CLAIM: Query = Query {
    name: "mail_outbox.claim",
    sql: "
        WITH due AS MATERIALIZED (
            SELECT id
            FROM mail_outbox
            WHERE sent_at IS NULL AND failed_at IS NULL AND due_at <= $1
            ORDER BY due_at
            LIMIT $3
            FOR UPDATE SKIP LOCKED
        )
        UPDATE mail_outbox AS mail
        SET due_at = $2, attempts = mail.attempts + 1
        FROM due
        WHERE mail.id = due.id
        RETURNING mail.id, mail.message, mail.recipient, mail.subject, mail.body_text, mail.body_html,
            mail.created_at, mail.useless_at, mail.attempts
    ",
};

/// Answered by the primary key, as are the next two.
pub const SENT: Query = Query {
    name: "mail_outbox.sent",
    sql: "
        UPDATE mail_outbox
        SET sent_at = $2, body_text = NULL, body_html = NULL, last_error = NULL
        WHERE id = $1 AND sent_at IS NULL AND failed_at IS NULL
    ",
};

pub const RETRY: Query = Query {
    name: "mail_outbox.retry",
    sql: "
        UPDATE mail_outbox
        SET due_at = $3, last_error = $4
        WHERE id = $1 AND attempts = $2 AND sent_at IS NULL AND failed_at IS NULL
    ",
};

pub const FAILED: Query = Query {
    name: "mail_outbox.failed",
    sql: "
        UPDATE mail_outbox
        SET failed_at = $3, last_error = $4, body_text = NULL, body_html = NULL
        WHERE id = $1 AND attempts = $2 AND sent_at IS NULL AND failed_at IS NULL
    ",
};

/// Removes mails that ended before `$1`. Answered by `mail_outbox_ended`.
pub const SWEEP: Query = Query {
    name: "mail_outbox.sweep",
    sql: "
        DELETE FROM mail_outbox
        WHERE COALESCE(sent_at, failed_at) < $1 AND (sent_at IS NOT NULL OR failed_at IS NOT NULL)
    ",
};

/// A mail as it is put in.
#[derive(Clone, Copy)]
pub struct NewMail<'m> {
    pub id: Uuid,
    pub message: &'m str,
    pub recipient: &'m str,
    pub subject: &'m str,
    /// Sealed, as is the next.
    pub text: &'m str,
    pub html: &'m str,
    /// When sending it makes no sense any more.
    pub useless_at: Option<Timestamp>,
}

crate::secret::unprinted!(NewMail<'a>);

/// A mail in hand. Its bodies are sealed; all the same it does not print.
pub struct Claimed {
    pub id: Uuid,
    pub message: String,
    pub recipient: String,
    pub subject: String,
    pub text: String,
    pub html: String,
    pub created_at: Timestamp,
    pub useless_at: Option<Timestamp>,
    /// How often it was claimed, this time included; names the claim.
    pub attempts: i32,
}

impl std::fmt::Debug for Claimed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Claimed({} {}, attempt {})", self.message, self.id, self.attempts)
    }
}

impl Claimed {
    fn from_row(row: &Row) -> Result<Self, DbError> {
        Ok(Self {
            id: column(&CLAIM, row, "id")?,
            message: column(&CLAIM, row, "message")?,
            recipient: column(&CLAIM, row, "recipient")?,
            subject: column(&CLAIM, row, "subject")?,
            text: column(&CLAIM, row, "body_text")?,
            html: column(&CLAIM, row, "body_html")?,
            created_at: column(&CLAIM, row, "created_at")?,
            useless_at: column(&CLAIM, row, "useless_at")?,
            attempts: column(&CLAIM, row, "attempts")?,
        })
    }
}

pub async fn insert(client: &impl GenericClient, mail: NewMail<'_>, now: Timestamp) -> Result<(), DbError> {
    let values: Params<'_> = &[
        &mail.id,
        &mail.message,
        &mail.recipient,
        &mail.subject,
        &mail.text,
        &mail.html,
        &now,
        &mail.useless_at,
    ];
    INSERT.run(client, values).await?;
    Ok(())
}

/// Up to `limit` mails that are due, taken until `until`.
pub async fn claim(
    client: &impl GenericClient,
    now: Timestamp,
    until: Timestamp,
    limit: usize,
) -> Result<Vec<Claimed>, DbError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = CLAIM.rows(client, &[&now, &until, &limit]).await?;
    rows.iter().map(Claimed::from_row).collect()
}

pub async fn sent(client: &impl GenericClient, id: Uuid, now: Timestamp) -> Result<(), DbError> {
    SENT.run(client, &[&id, &now]).await?;
    Ok(())
}

/// Puts a mail back, to be tried again at `due_at`.
pub async fn retry(client: &impl GenericClient, mail: &Claimed, due_at: Timestamp, error: &str) -> Result<(), DbError> {
    RETRY.run(client, &[&mail.id, &mail.attempts, &due_at, &error]).await?;
    Ok(())
}

/// Gives a mail up for good.
pub async fn failed(client: &impl GenericClient, mail: &Claimed, now: Timestamp, error: &str) -> Result<(), DbError> {
    FAILED.run(client, &[&mail.id, &mail.attempts, &now, &error]).await?;
    Ok(())
}

/// Removes what ended before `before`; says how many.
pub async fn sweep(client: &impl GenericClient, before: Timestamp) -> Result<u64, DbError> {
    SWEEP.run(client, &[&before]).await
}
