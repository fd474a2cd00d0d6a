//! `one_time_tokens`: what travels in mails, stored as hashes, each for one purpose.

use tokio_postgres::Row;
use uuid::Uuid;

use super::{DbError, GenericClient, Params, Query, column};
use crate::{
    clock::Timestamp,
    identity::{SessionId, UserId},
    secret::{
        ApproveEmailChange, ConfirmEmailChange, DeleteAccount, OneTimeToken, Purpose, ResetPassword, Secret, TokenHash,
        VerifyEmail,
    },
};

/// A token to be issued.
#[derive(Debug)]
pub struct Issue<'a> {
    pub user: UserId,
    /// The address that the mail goes to.
    pub email: &'a str,
    /// The mark of the browser that asked.
    pub browser: Option<TokenHash>,
    /// What was asked for in a sign-up that was made in that browser.
    pub sign_up: Option<&'a SignUp>,
    /// The address that is to be the user's.
    pub new_email: Option<&'a str>,
    /// The session that asked, if the link is good only while that lives.
    pub session: Option<SessionId>,
    /// Handed over by an operator, not mailed: it tells nothing of who reads the address.
    pub is_printed: bool,
    pub expires_at: Timestamp,
}

/// What somebody asked for who signed up: in force once the link is opened.
#[derive(Clone, Debug)]
pub struct SignUp {
    pub name: String,
    /// `None`: they signed up at a provider, and their account there is the user's already.
    pub password_hash: Option<Secret<String>>,
}

impl SignUp {
    fn from_row(query: &Query, row: &Row) -> Result<Option<Self>, DbError> {
        let name: Option<String> = column(query, row, "name")?;
        let password_hash: Option<String> = column(query, row, "password_hash")?;
        Ok(name.map(|name| Self {
            name,
            password_hash: password_hash.map(Secret::new),
        }))
    }
}

/// A new token.
pub const INSERT: Query = Query {
    name: "one_time_tokens.insert",
    sql: "
        INSERT INTO one_time_tokens (token_hash, purpose, user_id, email, browser_hash, name, password_hash, created_at,
            expires_at, new_email, session_id, printed)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
    ",
};

pub async fn insert<P: Purpose>(
    client: &impl GenericClient,
    token: &OneTimeToken<P>,
    issue: &Issue<'_>,
    now: Timestamp,
) -> Result<(), DbError> {
    let hash = token.hash();
    let browser = issue.browser.as_ref().map(|hash| hash.as_bytes().as_slice());
    let name = issue.sign_up.map(|sign_up| sign_up.name.as_str());
    let password_hash = issue.sign_up.and_then(|sign_up| sign_up.password_hash.as_ref());
    let password_hash = password_hash.map(|hash| hash.expose().as_str());
    INSERT
        .run(
            client,
            &[
                &hash.as_bytes().as_slice(),
                &P::NAME,
                &issue.user.0,
                &issue.email,
                &browser,
                &name,
                &password_hash,
                &now,
                &issue.expires_at,
                &issue.new_email,
                &issue.session.map(|session| session.0),
                &issue.is_printed,
            ],
        )
        .await
        .map(drop)
}

/// A token that exists, whatever has become of it.
#[derive(Clone, Debug)]
pub struct Issued {
    /// `None`: the user is gone.
    pub user: Option<UserId>,
    pub email: String,
    pub browser: Option<TokenHash>,
    pub sign_up: Option<SignUp>,
    pub new_email: Option<String>,
    pub session: Option<SessionId>,
    pub is_printed: bool,
    pub expires_at: Timestamp,
    pub is_consumed: bool,
}

/// A token by its hash, if it has this purpose. Answered by the primary key.
///
/// Not locked: what must happen but once is decided by [`CONSUME`], and whoever locks does so from the user down.
pub const FIND: Query = Query {
    name: "one_time_tokens.find",
    sql: "
        SELECT user_id, email, browser_hash, name, password_hash, new_email, session_id, printed, expires_at,
            consumed_at IS NOT NULL AS is_consumed
        FROM one_time_tokens
        WHERE token_hash = $1 AND purpose = $2
    ",
};

pub async fn find<P: Purpose>(client: &impl GenericClient, token: &OneTimeToken<P>) -> Result<Option<Issued>, DbError> {
    let hash = token.hash();
    let Some(row) = FIND.row(client, &[&hash.as_bytes().as_slice(), &P::NAME]).await? else {
        return Ok(None);
    };
    let user: Option<Uuid> = column(&FIND, &row, "user_id")?;
    let browser: Option<&[u8]> = column(&FIND, &row, "browser_hash")?;
    let session: Option<Uuid> = column(&FIND, &row, "session_id")?;
    Ok(Some(Issued {
        user: user.map(UserId),
        email: column(&FIND, &row, "email")?,
        browser: browser
            .and_then(|bytes| bytes.try_into().ok())
            .map(TokenHash::from_bytes),
        sign_up: SignUp::from_row(&FIND, &row)?,
        new_email: column(&FIND, &row, "new_email")?,
        session: session.map(SessionId),
        is_printed: column(&FIND, &row, "printed")?,
        expires_at: column(&FIND, &row, "expires_at")?,
        is_consumed: column(&FIND, &row, "is_consumed")?,
    }))
}

/// What a token is good for, whatever its purpose. Answered by the primary key.
pub const PURPOSE_OF: Query = Query {
    name: "one_time_tokens.purpose_of",
    sql: "
        SELECT purpose
        FROM one_time_tokens
        WHERE token_hash = $1
    ",
};

/// For links of several purposes that lead to one endpoint; whoever acts on it looks the token up by that purpose.
pub async fn purpose_of(client: &impl GenericClient, hash: &TokenHash) -> Result<Option<String>, DbError> {
    let row = PURPOSE_OF.row(client, &[&hash.as_bytes().as_slice()]).await?;
    row.map(|row| column(&PURPOSE_OF, &row, "purpose")).transpose()
}

/// What was asked for in the latest sign-up from a browser. Answered by `one_time_tokens_user_id_idx`.
pub const SIGN_UP_OF: Query = Query {
    name: "one_time_tokens.sign_up_of",
    sql: "
        SELECT name, password_hash
        FROM one_time_tokens
        WHERE user_id = $1 AND purpose = $2 AND browser_hash = $3 AND name IS NOT NULL
        ORDER BY created_at DESC
        LIMIT 1
    ",
};

/// `None` if nobody signed up in that browser, or too long ago to be on record.
pub async fn sign_up_of<P: Purpose>(
    client: &impl GenericClient,
    user: UserId,
    browser: &TokenHash,
) -> Result<Option<SignUp>, DbError> {
    let params: Params<'_> = &[&user.0, &P::NAME, &browser.as_bytes().as_slice()];
    let Some(row) = SIGN_UP_OF.row(client, params).await? else {
        return Ok(None);
    };
    SignUp::from_row(&SIGN_UP_OF, &row)
}

/// Whether other people's sign-ups for a user are on record. Each has its own hash, since hashes are salted; those of
/// the browser that made the one in question are its own. Answered by `one_time_tokens_user_id_idx`.
pub const HAS_RIVALS: Query = Query {
    name: "one_time_tokens.has_rivals",
    sql: "
        SELECT 1
        FROM one_time_tokens
        WHERE user_id = $1 AND purpose = $2 AND consumed_at IS NULL
            AND name IS NOT NULL AND password_hash IS DISTINCT FROM $3
            AND browser_hash IS DISTINCT FROM $4
        LIMIT 1
    ",
};

/// Whether there is a sign-up with a hash other than `hash`, made in another browser than `browser`; its link may be over.
pub async fn has_rivals<P: Purpose>(
    client: &impl GenericClient,
    user: UserId,
    hash: Option<&Secret<String>>,
    browser: Option<&TokenHash>,
) -> Result<bool, DbError> {
    let hash = hash.map(|hash| hash.expose().as_str());
    let browser = browser.map(|hash| hash.as_bytes().as_slice());
    let row = HAS_RIVALS.row(client, &[&user.0, &P::NAME, &hash, &browser]).await?;
    Ok(row.is_some())
}

/// Whether a sign-up from a browser had this hash. Answered by `one_time_tokens_user_id_idx`.
pub const HAS_SIGN_UP: Query = Query {
    name: "one_time_tokens.has_sign_up",
    sql: "
        SELECT 1
        FROM one_time_tokens
        WHERE user_id = $1 AND purpose = $2 AND password_hash = $3 AND browser_hash = $4
        LIMIT 1
    ",
};

pub async fn has_sign_up<P: Purpose>(
    client: &impl GenericClient,
    user: UserId,
    hash: &Secret<String>,
    browser: &TokenHash,
) -> Result<bool, DbError> {
    let params: Params<'_> = &[&user.0, &P::NAME, hash.expose(), &browser.as_bytes().as_slice()];
    Ok(HAS_SIGN_UP.row(client, params).await?.is_some())
}

/// Uses a token up. Answered by the primary key.
pub const CONSUME: Query = Query {
    name: "one_time_tokens.consume",
    sql: "
        UPDATE one_time_tokens
        SET consumed_at = $2
        WHERE token_hash = $1 AND consumed_at IS NULL
    ",
};

/// Whether it could still be used.
pub async fn consume<P: Purpose>(
    client: &impl GenericClient,
    token: &OneTimeToken<P>,
    now: Timestamp,
) -> Result<bool, DbError> {
    let hash = token.hash();
    let touched = CONSUME.run(client, &[&hash.as_bytes().as_slice(), &now]).await?;
    Ok(touched == 1)
}

/// Uses up every other token that a user has for a purpose. Answered by `one_time_tokens_user_id_idx`.
pub const CONSUME_OTHERS: Query = Query {
    name: "one_time_tokens.consume_others",
    sql: "
        UPDATE one_time_tokens
        SET consumed_at = $4
        WHERE user_id = $1 AND purpose = $2 AND token_hash <> $3 AND consumed_at IS NULL
    ",
};

pub async fn consume_others<P: Purpose>(
    client: &impl GenericClient,
    user: UserId,
    token: &OneTimeToken<P>,
    now: Timestamp,
) -> Result<(), DbError> {
    let hash = token.hash();
    CONSUME_OTHERS
        .run(client, &[&user.0, &P::NAME, &hash.as_bytes().as_slice(), &now])
        .await
        .map(drop)
}

/// Voids whatever a user has for some purposes and has not used: it counts as expired, where a used one can still be told
/// to have done its work. Answered by `one_time_tokens_user_id_idx`.
pub const VOID: Query = Query {
    name: "one_time_tokens.void",
    sql: "
        UPDATE one_time_tokens
        SET consumed_at = $3, expires_at = LEAST(expires_at, $3)
        WHERE user_id = $1 AND purpose = ANY($2) AND consumed_at IS NULL
    ",
};

/// By mail somebody could take the account away with these from whoever has it.
pub const TAKING: &[&str] = &[
    ResetPassword::NAME,
    ApproveEmailChange::NAME,
    ConfirmEmailChange::NAME,
    DeleteAccount::NAME,
];

/// All that is mailed: void once the address is another one, or somebody else's than it was taken to be.
pub const MAILED: &[&str] = &[
    VerifyEmail::NAME,
    ResetPassword::NAME,
    ApproveEmailChange::NAME,
    ConfirmEmailChange::NAME,
    DeleteAccount::NAME,
];

/// What makes another address the user's.
pub const CHANGING: &[&str] = &[ApproveEmailChange::NAME, ConfirmEmailChange::NAME];

/// Voids every link of these purposes that was mailed to a user so far.
pub async fn void(client: &impl GenericClient, user: UserId, purposes: &[&str], now: Timestamp) -> Result<(), DbError> {
    VOID.run(client, &[&user.0, &purposes, &now]).await.map(drop)
}

/// Leaves links good without the sessions in which they were asked for. Answered by `one_time_tokens_user_id_idx`.
pub const DETACH: Query = Query {
    name: "one_time_tokens.detach",
    sql: "
        UPDATE one_time_tokens
        SET session_id = NULL
        WHERE user_id = ANY($1) AND session_id = ANY($2)
    ",
};

/// For when those who asked end these sessions of these users themselves.
pub async fn detach(client: &impl GenericClient, users: &[UserId], sessions: &[SessionId]) -> Result<(), DbError> {
    let users: Vec<Uuid> = users.iter().map(|user| user.0).collect();
    let sessions: Vec<Uuid> = sessions.iter().map(|session| session.0).collect();
    DETACH.run(client, &[&users, &sessions]).await.map(drop)
}

/// Voids changes of a user's address, but for what was begun in one session (`$2`), or all (null). Answered by
/// `one_time_tokens_user_id_idx`.
pub const VOID_CHANGES: Query = Query {
    name: "one_time_tokens.void_changes",
    sql: "
        UPDATE one_time_tokens
        SET consumed_at = $4, expires_at = LEAST(expires_at, $4)
        WHERE user_id = $1 AND ($2::uuid IS NULL OR session_id IS DISTINCT FROM $2) AND purpose = ANY($3)
            AND consumed_at IS NULL
    ",
};

/// For when all sessions of a user end but that one: also where whoever began a change has signed out of it since. The user must
/// be locked.
pub async fn void_changes(
    client: &impl GenericClient,
    user: UserId,
    except: Option<SessionId>,
    now: Timestamp,
) -> Result<(), DbError> {
    let except = except.map(|session| session.0);
    VOID_CHANGES
        .run(client, &[&user.0, &except, &CHANGING, &now])
        .await
        .map(drop)
}

/// Leaves the links of sign-ups good for verifying alone. Answered by `one_time_tokens_user_id_idx`.
pub const DROP_SIGN_UPS: Query = Query {
    name: "one_time_tokens.drop_sign_ups",
    sql: "
        UPDATE one_time_tokens
        SET name = NULL, password_hash = NULL
        WHERE user_id = $1 AND name IS NOT NULL
    ",
};

/// For when a user has chosen a password otherwise: no link may put that of a sign-up in force any more.
pub async fn drop_sign_ups(client: &impl GenericClient, user: UserId) -> Result<(), DbError> {
    DROP_SIGN_UPS.run(client, &[&user.0]).await.map(drop)
}

/// Deletes some tokens that are over. Answered by `one_time_tokens_expires_at_idx`, then by the primary key.
pub const DELETE_EXPIRED: Query = Query {
    name: "one_time_tokens.delete_expired",
    sql: "
        DELETE FROM one_time_tokens
        WHERE token_hash = ANY (ARRAY(
            SELECT token_hash
            FROM one_time_tokens
            WHERE expires_at < $1
            ORDER BY expires_at
            LIMIT $2
            FOR UPDATE SKIP LOCKED
        ))
    ",
};

pub async fn delete_expired(client: &impl GenericClient, before: Timestamp, at_most: i64) -> Result<u64, DbError> {
    DELETE_EXPIRED.run(client, &[&before, &at_most]).await
}

pub const ALL: &[Query] = &[
    INSERT,
    FIND,
    PURPOSE_OF,
    SIGN_UP_OF,
    HAS_RIVALS,
    HAS_SIGN_UP,
    CONSUME,
    CONSUME_OTHERS,
    VOID,
    DETACH,
    VOID_CHANGES,
    DROP_SIGN_UPS,
    DELETE_EXPIRED,
];
