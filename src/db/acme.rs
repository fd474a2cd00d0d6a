//! `acme_accounts` and `acme_certificates`: certificates that gateways order for themselves, and what they must know of
//! each other meanwhile.
//!
//! A certificate's row is also the lease on ordering it: whoever has set `held_by` orders, until `held_until`. Times are
//! parameters: those of the gateway that asks.

use uuid::Uuid;

use super::{DbError, GenericClient, Params, Query, column};
use crate::clock::Timestamp;

/// An account at an authority.
#[derive(Debug)]
pub struct Account {
    /// Sealed.
    pub credentials: Vec<u8>,
    pub contact: Vec<String>,
    pub eab_key_id: Option<String>,
}

/// The account at a directory. Answered by `acme_accounts_pkey`.
pub const ACCOUNT: Query = Query {
    name: "acme_accounts.find",
    sql: "
        SELECT credentials, contact, eab_key_id
        FROM acme_accounts
        WHERE directory = $1
    ",
};

pub async fn account(client: &impl GenericClient, directory: &str) -> Result<Option<Account>, DbError> {
    let Some(row) = ACCOUNT.row(client, &[&directory]).await? else {
        return Ok(None);
    };
    Ok(Some(Account {
        credentials: column(&ACCOUNT, &row, "credentials")?,
        contact: column(&ACCOUNT, &row, "contact")?,
        eab_key_id: column(&ACCOUNT, &row, "eab_key_id")?,
    }))
}

/// Keeps a new account, unless another gateway was first. Decided by `acme_accounts_pkey`.
pub const OPEN_ACCOUNT: Query = Query {
    name: "acme_accounts.insert",
    sql: "
        INSERT INTO acme_accounts (directory, credentials, contact, eab_key_id, created_at)
        VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (directory) DO NOTHING
    ",
};

/// Whether it was kept; else there is one already.
pub async fn open_account(
    client: &impl GenericClient,
    directory: &str,
    account: &Account,
    now: Timestamp,
) -> Result<bool, DbError> {
    let params: Params<'_> = &[
        &directory,
        &account.credentials,
        &account.contact,
        &account.eab_key_id,
        &now,
    ];
    OPEN_ACCOUNT.run(client, params).await.map(|rows| rows > 0)
}

/// Replaces what is known of an account, if it is still the one that was read. Answered by `acme_accounts_pkey`.
pub const CHANGE_ACCOUNT: Query = Query {
    name: "acme_accounts.change",
    sql: "
        UPDATE acme_accounts
        SET credentials = $3, contact = $4
        WHERE directory = $1 AND credentials = $2
    ",
};

pub async fn change_account(
    client: &impl GenericClient,
    directory: &str,
    before: &[u8],
    account: &Account,
) -> Result<(), DbError> {
    let params: Params<'_> = &[&directory, &before, &account.credentials, &account.contact];
    CHANGE_ACCOUNT.run(client, params).await.map(drop)
}

/// Forgets an account that is of no use any more, if it is still the one that was read. Answered by `acme_accounts_pkey`.
pub const FORGET_ACCOUNT: Query = Query {
    name: "acme_accounts.forget",
    sql: "
        DELETE FROM acme_accounts
        WHERE directory = $1 AND credentials = $2
    ",
};

pub async fn forget_account(client: &impl GenericClient, directory: &str, credentials: &[u8]) -> Result<(), DbError> {
    FORGET_ACCOUNT.run(client, &[&directory, &credentials]).await.map(drop)
}

/// Which certificate: whose, and from where.
#[derive(Clone, Copy, Debug)]
pub struct Of<'a> {
    pub directory: &'a str,
    pub domain: &'a str,
}

/// Makes a row for each domain that has none. Decided by `acme_certificates_pkey`.
pub const ENROL: Query = Query {
    name: "acme_certificates.enrol",
    sql: "
        INSERT INTO acme_certificates (directory, domain, due_at)
        SELECT $1, domain, $3
        FROM unnest($2::text[]) AS domain
        ON CONFLICT (directory, domain) DO NOTHING
    ",
};

pub async fn enrol(
    client: &impl GenericClient,
    directory: &str,
    domains: &[String],
    now: Timestamp,
) -> Result<(), DbError> {
    ENROL.run(client, &[&directory, &domains, &now]).await.map(drop)
}

/// How a domain stands, without its key.
#[derive(Clone, Debug)]
pub struct Standing {
    pub domain: String,
    pub issued_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub due_at: Timestamp,
    pub ask_at: Option<Timestamp>,
    pub failures: u32,
    pub held_until: Option<Timestamp>,
    /// Token and key authorisation.
    pub challenge: Option<(String, String)>,
}

/// What each gateway looks at every second. Answered by `acme_certificates_pkey`.
pub const LOOK: Query = Query {
    name: "acme_certificates.look",
    sql: "
        SELECT domain, issued_at, expires_at, due_at, ask_at, failures, held_until, challenge_token, challenge_answer
        FROM acme_certificates
        WHERE directory = $1 AND domain = ANY ($2)
    ",
};

pub async fn look(client: &impl GenericClient, directory: &str, domains: &[String]) -> Result<Vec<Standing>, DbError> {
    let rows = LOOK.rows(client, &[&directory, &domains]).await?;
    rows.iter()
        .map(|row| {
            let failures: i32 = column(&LOOK, row, "failures")?;
            let token: Option<String> = column(&LOOK, row, "challenge_token")?;
            Ok(Standing {
                domain: column(&LOOK, row, "domain")?,
                issued_at: column(&LOOK, row, "issued_at")?,
                expires_at: column(&LOOK, row, "expires_at")?,
                due_at: column(&LOOK, row, "due_at")?,
                ask_at: column(&LOOK, row, "ask_at")?,
                failures: u32::try_from(failures).unwrap_or(0),
                held_until: column(&LOOK, row, "held_until")?,
                challenge: token.zip(column(&LOOK, row, "challenge_answer")?),
            })
        })
        .collect()
}

/// A certificate as it is kept.
#[derive(Debug)]
pub struct Kept {
    pub chain: String,
    /// Sealed.
    pub private_key: Vec<u8>,
    pub issued_at: Timestamp,
}

/// A domain's certificate and key. Answered by `acme_certificates_pkey`.
pub const LOAD: Query = Query {
    name: "acme_certificates.load",
    sql: "
        SELECT chain, private_key, issued_at
        FROM acme_certificates
        WHERE directory = $1 AND domain = $2 AND chain IS NOT NULL
    ",
};

pub async fn load(client: &impl GenericClient, of: Of<'_>) -> Result<Option<Kept>, DbError> {
    let Some(row) = LOAD.row(client, &[&of.directory, &of.domain]).await? else {
        return Ok(None);
    };
    Ok(Some(Kept {
        chain: column(&LOAD, &row, "chain")?,
        private_key: column(&LOAD, &row, "private_key")?,
        issued_at: column(&LOAD, &row, "issued_at")?,
    }))
}

/// Takes the order of a domain's next certificate upon this gateway, if one is due and nobody else has it; or if the one
/// that was issued at `$6` is of no use, and ordering another has not failed yet. Answered by `acme_certificates_pkey`.
pub const HOLD: Query = Query {
    name: "acme_certificates.hold",
    sql: "
        UPDATE acme_certificates
        SET held_by = $3, held_until = $5, challenge_token = NULL, challenge_answer = NULL
        WHERE directory = $1 AND domain = $2
            AND (held_until IS NULL OR held_until <= $4)
            AND (due_at <= $4 OR (issued_at = $6 AND failures = 0))
    ",
};

/// Whether this gateway has it now, until `until`.
pub async fn hold(
    client: &impl GenericClient,
    of: Of<'_>,
    by: Uuid,
    now: Timestamp,
    until: Timestamp,
    useless: Option<Timestamp>,
) -> Result<bool, DbError> {
    let params: Params<'_> = &[&of.directory, &of.domain, &by, &now, &until, &useless];
    HOLD.run(client, params).await.map(|rows| rows > 0)
}

/// Shows all gateways what to answer. Answered by `acme_certificates_pkey`.
pub const CHALLENGE: Query = Query {
    name: "acme_certificates.challenge",
    sql: "
        UPDATE acme_certificates
        SET challenge_token = $4, challenge_answer = $5
        WHERE directory = $1 AND domain = $2 AND held_by = $3
    ",
};

/// Whether this gateway still had the order.
pub async fn challenge(
    client: &impl GenericClient,
    of: Of<'_>,
    by: Uuid,
    token: &str,
    answer: &str,
) -> Result<bool, DbError> {
    let params: Params<'_> = &[&of.directory, &of.domain, &by, &token, &answer];
    CHALLENGE.run(client, params).await.map(|rows| rows > 0)
}

/// A certificate that came.
#[derive(Debug)]
pub struct Issued<'a> {
    pub chain: &'a str,
    /// Sealed.
    pub private_key: &'a [u8],
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
    pub due_at: Timestamp,
    pub ask_at: Option<Timestamp>,
}

/// Keeps a certificate, whoever ordered it, and ends the order. Answered by `acme_certificates_pkey`.
pub const KEEP: Query = Query {
    name: "acme_certificates.keep",
    sql: "
        UPDATE acme_certificates
        SET chain = $3, private_key = $4, issued_at = $5, expires_at = $6, due_at = $7, ask_at = $8,
            failures = 0, last_error = NULL, held_by = NULL, held_until = NULL,
            challenge_token = NULL, challenge_answer = NULL
        WHERE directory = $1 AND domain = $2
    ",
};

pub async fn keep(client: &impl GenericClient, of: Of<'_>, issued: &Issued<'_>) -> Result<(), DbError> {
    let params: Params<'_> = &[
        &of.directory,
        &of.domain,
        &issued.chain,
        &issued.private_key,
        &issued.issued_at,
        &issued.expires_at,
        &issued.due_at,
        &issued.ask_at,
    ];
    KEEP.run(client, params).await.map(drop)
}

/// Ends an order that failed. Answered by `acme_certificates_pkey`.
pub const FAIL: Query = Query {
    name: "acme_certificates.fail",
    sql: "
        UPDATE acme_certificates
        SET failures = failures + 1, last_error = $4, due_at = $5, held_by = NULL, held_until = NULL,
            challenge_token = NULL, challenge_answer = NULL
        WHERE directory = $1 AND domain = $2 AND held_by = $3
    ",
};

pub async fn fail(
    client: &impl GenericClient,
    of: Of<'_>,
    by: Uuid,
    error: &str,
    again_at: Timestamp,
) -> Result<(), DbError> {
    let params: Params<'_> = &[&of.directory, &of.domain, &by, &error, &again_at];
    FAIL.run(client, params).await.map(drop)
}

/// Lets an order go that this gateway won't finish. Answered by `acme_certificates_pkey`.
pub const LET_GO: Query = Query {
    name: "acme_certificates.let_go",
    sql: "
        UPDATE acme_certificates
        SET held_by = NULL, held_until = NULL, challenge_token = NULL, challenge_answer = NULL
        WHERE directory = $1 AND domain = $2 AND held_by = $3
    ",
};

pub async fn let_go(client: &impl GenericClient, of: Of<'_>, by: Uuid) -> Result<(), DbError> {
    LET_GO.run(client, &[&of.directory, &of.domain, &by]).await.map(drop)
}

/// Takes asking the authority about a certificate upon this gateway, if that is due. Answered by
/// `acme_certificates_pkey`.
pub const ASK: Query = Query {
    name: "acme_certificates.ask",
    sql: "
        UPDATE acme_certificates
        SET ask_at = $4
        WHERE directory = $1 AND domain = $2 AND ask_at <= $3
    ",
};

pub async fn ask(
    client: &impl GenericClient,
    of: Of<'_>,
    now: Timestamp,
    again_at: Timestamp,
) -> Result<bool, DbError> {
    let params: Params<'_> = &[&of.directory, &of.domain, &now, &again_at];
    ASK.run(client, params).await.map(|rows| rows > 0)
}

/// Moves a renewal to where the authority would have it; not one that failed, whose pause must stand. Answered by
/// `acme_certificates_pkey`.
pub const MOVE: Query = Query {
    name: "acme_certificates.move",
    sql: "
        UPDATE acme_certificates
        SET due_at = $4, ask_at = $5
        WHERE directory = $1 AND domain = $2 AND issued_at = $3 AND failures = 0
    ",
};

/// Of the certificate issued at `issued_at` alone.
pub async fn move_renewal(
    client: &impl GenericClient,
    of: Of<'_>,
    issued_at: Timestamp,
    due_at: Timestamp,
    ask_at: Timestamp,
) -> Result<(), DbError> {
    let params: Params<'_> = &[&of.directory, &of.domain, &issued_at, &due_at, &ask_at];
    MOVE.run(client, params).await.map(drop)
}

/// Replaces a sealed key by the same one sealed anew. Answered by `acme_certificates_pkey`.
pub const RESEAL: Query = Query {
    name: "acme_certificates.reseal",
    sql: "
        UPDATE acme_certificates
        SET private_key = $4
        WHERE directory = $1 AND domain = $2 AND private_key = $3
    ",
};

pub async fn reseal(client: &impl GenericClient, of: Of<'_>, before: &[u8], after: &[u8]) -> Result<(), DbError> {
    let params: Params<'_> = &[&of.directory, &of.domain, &before, &after];
    RESEAL.run(client, params).await.map(drop)
}

pub const ALL: &[Query] = &[
    ACCOUNT,
    OPEN_ACCOUNT,
    CHANGE_ACCOUNT,
    FORGET_ACCOUNT,
    ENROL,
    LOOK,
    LOAD,
    HOLD,
    CHALLENGE,
    KEEP,
    FAIL,
    LET_GO,
    ASK,
    MOVE,
    RESEAL,
];
