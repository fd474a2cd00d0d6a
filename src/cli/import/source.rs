//! Reads a better-auth database: one snapshot, page by page, in the order of ids.
//!
//! The statements stand here and not in `db/`: they are about tables of somebody else's, whose names are only known when
//! they have been found, so none could be a constant that a test prepares. Nothing is ever written: the transaction is
//! read-only.
//!
//! Every value is brought to one type on the server, whatever type the column has. What a row may be large in is cut off
//! there as well, so that a page has a bound.

use std::{future::Future, time::Duration};

use anyhow::{Context, bail};
use tokio::time::timeout;
use tokio_postgres::{Row, types::ToSql};

use super::{
    failure,
    tables::{ACCOUNT, Catalogue, Column, Names, PASSKEY, SESSION, Table, USER, find},
};
use crate::{
    clock::Timestamp,
    db::{self, Client, Transaction},
    secret::Secret,
};

/// How long one statement may take: ranking the addresses of millions sorts them all.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_mins(10);

/// Rows that lose to another of their name; with more of them something else is wrong.
const MOST_LOSERS: i64 = 100_000;

/// Columns that are looked at, of all tables of the schema.
const MOST_COLUMNS: i64 = 50_000;

/// Bytes of an image: some sites store the picture itself in place of its address.
const MAX_IMAGE: usize = 64 * 1024;
/// Characters of a name, and of why somebody was banned.
const MAX_TEXT: usize = 1_000;
/// As the gateway clips them.
const MAX_USER_AGENT: usize = 512;
/// No hash that can be verified is longer, nor is a session's token.
const MAX_SECRET: usize = 512;
/// Bytes of a provider's token, encrypted perhaps: what says which groups somebody is in has thousands.
const MAX_TOKEN: usize = 32 * 1024;
/// Bytes of a list of scopes, and of an issuer.
const MAX_SCOPE: usize = 4_096;
const MAX_ISSUER: usize = 1_024;

/// A snapshot of the source.
pub(super) struct Source<'c> {
    tx: Transaction<'c>,
    pub(super) user: Table,
    pub(super) account: Table,
    /// `None`: they are to be left behind.
    pub(super) session: Option<Table>,
    passkey: Option<Table>,
    schema: String,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "a row has as many flags as the tables there"
)]
pub(super) struct SourceUser {
    pub(super) id: String,
    pub(super) email: String,
    pub(super) email_verified: bool,
    pub(super) name: String,
    pub(super) name_is_cut: bool,
    pub(super) image: Option<String>,
    pub(super) image_is_left: bool,
    pub(super) role: Option<String>,
    pub(super) banned: bool,
    pub(super) ban_reason: Option<String>,
    pub(super) ban_expires: Option<Timestamp>,
    pub(super) two_factor: bool,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
}

pub(super) struct SourceAccount {
    pub(super) id: String,
    /// `None`: there is no such user.
    pub(super) user_id: Option<String>,
    pub(super) provider_id: String,
    pub(super) account_id: String,
    pub(super) password: Option<String>,
    /// Encrypted perhaps.
    pub(super) access_token: Option<Secret<String>>,
    pub(super) refresh_token: Option<Secret<String>>,
    pub(super) id_token: Option<Secret<String>>,
    /// One of them is too large to be taken along.
    pub(super) token_is_left: bool,
    pub(super) access_token_expires_at: Option<Timestamp>,
    pub(super) refresh_token_expires_at: Option<Timestamp>,
    pub(super) scope: String,
    pub(super) issuer: String,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
}

pub(super) struct SourceSession {
    pub(super) id: String,
    /// `None`: there is no such user.
    pub(super) user_id: Option<String>,
    pub(super) token: String,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) ip_address: Option<String>,
    pub(super) user_agent: String,
    pub(super) impersonated: bool,
}

impl<'c> Source<'c> {
    /// Finds the tables; says everything that is wrong with them.
    pub(super) async fn find(
        tx: Transaction<'c>,
        schema: &str,
        names: &Names,
        with_sessions: bool,
    ) -> anyhow::Result<Self> {
        let catalogue = catalogue(&tx, schema).await?;
        let mut wrong = Vec::new();
        let mut wanted = |model, instead: &str| {
            let found = find(model, &catalogue, names);
            found.map_err(|why| wrong.push(format!("\n  {why}{instead}"))).ok()
        };
        let (user, account) = (wanted(&USER, ""), wanted(&ACCOUNT, ""));
        let session = with_sessions.then(|| wanted(&SESSION, "; or leave sessions behind with --without-sessions"));
        let (Some(user), Some(account), true) = (user, account, wrong.is_empty()) else {
            bail!(
                "schema {schema:?} of the source is not better-auth's:{}",
                wrong.concat()
            );
        };
        Ok(Self {
            user,
            account,
            session: session.flatten(),
            passkey: find(&PASSKEY, &catalogue, names).ok(),
            schema: schema.to_owned(),
            tx,
        })
    }

    pub(super) async fn count(&self, table: &Table) -> anyhow::Result<u64> {
        let sql = format!("SELECT count(*) FROM {}", self.from(table));
        let row = answered("count rows", self.tx.raw().query_one(&sql, &[])).await?;
        let count: i64 = row.try_get(0)?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    pub(super) async fn passkeys(&self) -> anyhow::Result<u64> {
        match &self.passkey {
            Some(table) => self.count(table).await,
            None => Ok(0),
        }
    }

    /// Users who share their address with another: all but the one who verified it, or was first.
    pub(super) async fn users_of_shared_addresses(&self) -> anyhow::Result<Vec<String>> {
        let of = Expressions(&self.user);
        let address = format!("lower({} COLLATE \"C\")", of.text("email"));
        let verified = of.flag("emailVerified");
        let order = format!("coalesce({verified}, false) DESC, {}", of.time("createdAt"));
        self.losers("look for shared addresses", &self.user, &address, &order)
            .await
    }

    /// Accounts that a newer account of the same provider, or a newer password of the same user, has replaced.
    pub(super) async fn replaced_accounts(&self) -> anyhow::Result<Vec<String>> {
        let of = Expressions(&self.account);
        let (provider, user, account) = (of.text("providerId"), of.text("userId"), of.text("accountId"));
        let name = format!("{provider}, CASE {provider} WHEN 'credential' THEN {user} ELSE {account} END");
        let order = format!("{} DESC NULLS LAST", of.time("updatedAt"));
        self.losers("look for accounts that occur twice", &self.account, &name, &order)
            .await
    }

    /// The rows of `table` that are not the first, by `order`, of those with the same `name`.
    async fn losers(&self, doing: &'static str, table: &Table, name: &str, order: &str) -> anyhow::Result<Vec<String>> {
        let (id, from) = (Expressions(table).raw("id"), self.from(table));
        let sql = format!(
            "SELECT own_id::text
            FROM (
                SELECT {id} AS own_id, row_number() OVER (PARTITION BY {name} ORDER BY {order}, {id}) AS place
                FROM {from} AS t
            ) AS ranked
            WHERE place > 1
            LIMIT $1"
        );
        let rows = answered(doing, self.tx.raw().query(&sql, &[&(MOST_LOSERS + 1)])).await?;
        if rows.len() > usize::try_from(MOST_LOSERS).unwrap_or(usize::MAX) {
            bail!("more than {MOST_LOSERS} rows of the source have a name that another row has");
        }
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    pub(super) async fn users(&self, after: Option<&str>, at_most: i64) -> anyhow::Result<Vec<SourceUser>> {
        let of = Expressions(&self.user);
        let columns = [
            (of.text("id"), "id"),
            (of.text("email"), "email"),
            (
                format!("coalesce({}, false)", of.flag("emailVerified")),
                "email_verified",
            ),
            (cut(&of.text("name"), MAX_TEXT), "name"),
            (
                format!("coalesce(length({}) > {MAX_TEXT}, false)", of.text("name")),
                "name_is_cut",
            ),
            (
                format!(
                    "CASE WHEN octet_length({0}) <= {MAX_IMAGE} THEN {0} END",
                    of.text("image")
                ),
                "image",
            ),
            (
                format!("coalesce(octet_length({}) > {MAX_IMAGE}, false)", of.text("image")),
                "image_is_left",
            ),
            (of.list("role"), "role"),
            (format!("coalesce({}, false)", of.flag("banned")), "banned"),
            (format!("left({}, {MAX_TEXT})", of.text("banReason")), "ban_reason"),
            (of.time("banExpires"), "ban_expires"),
            (
                format!("coalesce({}, false)", of.flag("twoFactorEnabled")),
                "two_factor",
            ),
            (of.made_at(), "created_at"),
            (of.changed_at(), "updated_at"),
        ];
        let rows = self
            .page("read users", &self.user, &columns, "", after, at_most)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(SourceUser {
                    id: row.try_get("id")?,
                    email: row.try_get::<_, Option<_>>("email")?.unwrap_or_default(),
                    email_verified: row.try_get("email_verified")?,
                    name: row.try_get("name")?,
                    name_is_cut: row.try_get("name_is_cut")?,
                    image: row.try_get("image")?,
                    image_is_left: row.try_get("image_is_left")?,
                    role: row.try_get("role")?,
                    banned: row.try_get("banned")?,
                    ban_reason: row.try_get("ban_reason")?,
                    ban_expires: row.try_get("ban_expires")?,
                    two_factor: row.try_get("two_factor")?,
                    created_at: row.try_get("created_at")?,
                    updated_at: row.try_get("updated_at")?,
                })
            })
            .collect()
    }

    pub(super) async fn accounts(&self, after: Option<&str>, at_most: i64) -> anyhow::Result<Vec<SourceAccount>> {
        let of = Expressions(&self.account);
        let bounded = |field: &str, most| format!("CASE WHEN octet_length({0}) <= {most} THEN {0} END", of.text(field));
        let is_left = |field: &str| format!("coalesce(octet_length({}) > {MAX_TOKEN}, false)", of.text(field));
        let columns = [
            (of.text("id"), "id"),
            (Expressions(&self.user).text_of("id", "u"), "user_id"),
            (format!("coalesce({}, '')", of.text("providerId")), "provider_id"),
            (format!("coalesce({}, '')", of.text("accountId")), "account_id"),
            (format!("left({}, {MAX_SECRET})", of.text("password")), "password"),
            (bounded("accessToken", MAX_TOKEN), "access_token"),
            (bounded("refreshToken", MAX_TOKEN), "refresh_token"),
            (bounded("idToken", MAX_TOKEN), "id_token"),
            (
                ["accessToken", "refreshToken", "idToken"].map(is_left).join(" OR "),
                "token_is_left",
            ),
            (of.time("accessTokenExpiresAt"), "access_token_expires_at"),
            (of.time("refreshTokenExpiresAt"), "refresh_token_expires_at"),
            (format!("coalesce({}, '')", bounded("scope", MAX_SCOPE)), "scope"),
            (format!("coalesce({}, '')", bounded("issuer", MAX_ISSUER)), "issuer"),
            (of.made_at(), "created_at"),
            (of.changed_at(), "updated_at"),
        ];
        let rows = self
            .page(
                "read accounts",
                &self.account,
                &columns,
                &self.owner(&of),
                after,
                at_most,
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(SourceAccount {
                    id: row.try_get("id")?,
                    user_id: row.try_get("user_id")?,
                    provider_id: row.try_get("provider_id")?,
                    account_id: row.try_get("account_id")?,
                    password: row.try_get("password")?,
                    access_token: token(row, "access_token")?,
                    refresh_token: token(row, "refresh_token")?,
                    id_token: token(row, "id_token")?,
                    token_is_left: row.try_get("token_is_left")?,
                    access_token_expires_at: row.try_get("access_token_expires_at")?,
                    refresh_token_expires_at: row.try_get("refresh_token_expires_at")?,
                    scope: row.try_get("scope")?,
                    issuer: row.try_get("issuer")?,
                    created_at: row.try_get("created_at")?,
                    updated_at: row.try_get("updated_at")?,
                })
            })
            .collect()
    }

    pub(super) async fn sessions(
        &self,
        table: &Table,
        after: Option<&str>,
        at_most: i64,
    ) -> anyhow::Result<Vec<SourceSession>> {
        let of = Expressions(table);
        let columns = [
            (of.text("id"), "id"),
            (Expressions(&self.user).text_of("id", "u"), "user_id"),
            (
                format!("coalesce(left({}, {MAX_SECRET}), '')", of.text("token")),
                "token",
            ),
            (of.made_at(), "created_at"),
            (of.changed_at(), "updated_at"),
            (of.time("expiresAt"), "expires_at"),
            (of.text("ipAddress"), "ip_address"),
            (cut(&of.text("userAgent"), MAX_USER_AGENT), "user_agent"),
            (
                format!("coalesce({} <> '', false)", of.text("impersonatedBy")),
                "impersonated",
            ),
        ];
        let rows = self
            .page("read sessions", table, &columns, &self.owner(&of), after, at_most)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(SourceSession {
                    id: row.try_get("id")?,
                    user_id: row.try_get("user_id")?,
                    token: row.try_get("token")?,
                    created_at: row.try_get("created_at")?,
                    updated_at: row.try_get("updated_at")?,
                    expires_at: row.try_get("expires_at")?,
                    ip_address: row.try_get("ip_address")?,
                    user_agent: row.try_get("user_agent")?,
                    impersonated: row.try_get("impersonated")?,
                })
            })
            .collect()
    }

    /// The next rows of `table` behind the id `after`.
    async fn page(
        &self,
        doing: &'static str,
        table: &Table,
        columns: &[(String, &str)],
        join: &str,
        after: Option<&str>,
        at_most: i64,
    ) -> anyhow::Result<Vec<Row>> {
        let of = Expressions(table);
        let columns: Vec<_> = columns
            .iter()
            .map(|(value, name)| format!("{value} AS {name}"))
            .collect();
        let (id, from) = (of.raw("id"), self.from(table));
        // Compared in its own type, so that its index answers.
        let beyond = match (after, table.column("id")) {
            (Some(_), Some(column)) => format!("WHERE {id} > $2::text::{}", column.type_name),
            _ => String::new(),
        };
        let sql = format!(
            "SELECT {} FROM {from} AS t {join} {beyond} ORDER BY {id} LIMIT $1",
            columns.join(", ")
        );
        let parameters: Vec<&(dyn ToSql + Sync)> = match &after {
            Some(after) => vec![&at_most, after],
            None => vec![&at_most],
        };
        answered(doing, self.tx.raw().query(&sql, &parameters)).await
    }

    /// Joins the user whom a row names: where nothing enforces it, there may be none. By their own types where they have
    /// one, so that an index answers.
    fn owner(&self, of: &Expressions<'_>) -> String {
        let user = Expressions(&self.user);
        let type_of = |column: Option<&Column>| column.map(|column| column.type_name.clone());
        let condition = if type_of(self.user.column("id")) == type_of(of.0.column("userId")) {
            format!("{} = {}", user.raw_of("id", "u"), of.raw("userId"))
        } else {
            format!("{} = {}", user.text_of("id", "u"), of.text("userId"))
        };
        format!("LEFT JOIN {} AS u ON {condition}", self.from(&self.user))
    }

    fn from(&self, table: &Table) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&table.name))
    }
}

/// Begins a snapshot that nothing can be written in.
pub(super) async fn begin(client: &mut Client) -> anyhow::Result<Transaction<'_>> {
    let begun = db::begin_reading(client).await;
    begun
        .map_err(failure::of_db)
        .context("could not begin reading in the source")
}

/// The tables of a schema that this user may read something of.
async fn catalogue(tx: &Transaction<'_>, schema: &str) -> anyhow::Result<Catalogue> {
    let sql = "
        SELECT table_name::text, column_name::text, data_type::text, udt_schema::text, udt_name::text
        FROM information_schema.columns
        WHERE table_schema = $1
        ORDER BY table_name, ordinal_position
        LIMIT $2";
    let rows = answered("look at the tables", tx.raw().query(sql, &[&schema, &MOST_COLUMNS])).await?;
    let mut catalogue = Catalogue::new();
    for row in rows {
        let (type_schema, type_name): (String, String) = (row.try_get(3)?, row.try_get(4)?);
        catalogue.entry(row.try_get(0)?).or_default().push(Column {
            name: row.try_get(1)?,
            data_type: row.try_get(2)?,
            type_name: format!("{}.{}", quoted(&type_schema), quoted(&type_name)),
        });
    }
    Ok(catalogue)
}

/// Columns of a table as values of one type each; of what is not there, nulls.
struct Expressions<'t>(&'t Table);

impl Expressions<'_> {
    fn raw(&self, field: &str) -> String {
        self.raw_of(field, "t")
    }

    fn raw_of(&self, field: &str, alias: &str) -> String {
        match self.0.column(field) {
            Some(column) => format!("{alias}.{}", quoted(&column.name)),
            None => "NULL".to_owned(),
        }
    }

    fn text(&self, field: &str) -> String {
        self.text_of(field, "t")
    }

    fn text_of(&self, field: &str, alias: &str) -> String {
        format!("{}::text", self.raw_of(field, alias))
    }

    /// Joined by commas, if it is an array.
    fn list(&self, field: &str) -> String {
        match self.0.column(field) {
            Some(column) if column.data_type == "ARRAY" => format!("array_to_string({}, ',')", self.raw(field)),
            _ => self.text(field),
        }
    }

    fn flag(&self, field: &str) -> String {
        format!("{}::boolean", self.raw(field))
    }

    /// Times without a zone are UTC: so Prisma and Drizzle write them. One that is infinite is none.
    fn time(&self, field: &str) -> String {
        let time = match self.0.column(field) {
            Some(column) if column.data_type == "timestamp without time zone" => {
                format!("({} AT TIME ZONE 'UTC')", self.raw(field))
            }
            _ => format!("{}::timestamptz", self.raw(field)),
        };
        format!("(CASE WHEN isfinite({time}) THEN {time} END)")
    }

    fn made_at(&self) -> String {
        format!(
            "coalesce({}, {}, 'epoch')",
            self.time("createdAt"),
            self.time("updatedAt")
        )
    }

    fn changed_at(&self) -> String {
        format!(
            "coalesce({}, {}, 'epoch')",
            self.time("updatedAt"),
            self.time("createdAt")
        )
    }
}

/// An empty one is none.
fn token(row: &Row, name: &str) -> anyhow::Result<Option<Secret<String>>> {
    let token: Option<String> = row.try_get(name)?;
    Ok(token.filter(|token| !token.is_empty()).map(Secret::new))
}

fn cut(text: &str, at_most: usize) -> String {
    format!("coalesce(left({text}, {at_most}), '')")
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Waits for the source: longer than it may take itself, and no longer.
async fn answered<T>(
    doing: &'static str,
    answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> anyhow::Result<T> {
    let limit = STATEMENT_TIMEOUT + Duration::from_secs(5);
    let answer = timeout(limit, answer).await;
    let answer = answer.with_context(|| format!("the source did not answer within {limit:?}"))?;
    answer
        .map_err(failure::of_postgres)
        .with_context(|| format!("could not {doing} in the source"))
}
