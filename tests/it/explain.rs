//! What a million users cost: no statement that runs for a request or a sign-in reads a table from end to end.

use std::fmt::Write;

use tokio_postgres::{Client, SimpleQueryMessage};
use vestibule::db::all_queries;

use crate::harness::Database;

/// Statements that may read a whole table when planned for whatever values come, and why.
const MAY_SCAN: &[(&str, &str)] = &[
    (
        "audit.list",
        "an operator's search with a dozen filters, run once and so planned for its own: see operator_audit.rs",
    ),
    (
        "users.list",
        "as above; its order depends on a filter, which no plan for whatever values come can know",
    ),
];

/// A million of each, as they look after a week: most sessions live, a few tokens and mails under way.
const FILL: &str = "
    SET work_mem = '256MB';
    SET maintenance_work_mem = '256MB';
    INSERT INTO users (id, email, email_verified, name, created_at, updated_at)
    SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'user' || n || '@example.com', true,
        'User', '2026-11-01', '2026-11-01'
    FROM generate_series(1, 1000000) AS n;
    INSERT INTO accounts (id, user_id, provider_id, account_id, password_hash, password_set_at, created_at, updated_at)
    SELECT id, id, 'credential', id::text, 'x', created_at, created_at, created_at
    FROM users;
    INSERT INTO user_sessions (id, token_hash, user_id, created_at, updated_at, expires_at)
    SELECT id, sha256(id::text::bytea), id, created_at, created_at, '2026-11-28'::timestamptz + random() * '7d'::interval
    FROM users;
    INSERT INTO one_time_tokens (token_hash, purpose, user_id, email, created_at, expires_at)
    SELECT sha256(email::bytea), 'reset-password', id, email, created_at, '2026-11-28'::timestamptz
    FROM users
    LIMIT 100000;
    INSERT INTO mail_outbox (id, message, recipient, subject, created_at, due_at, sent_at)
    SELECT id, 'verify_email', email, 'x', created_at, created_at, created_at
    FROM users
    LIMIT 100000;
    INSERT INTO audit_log (id, at, action, outcome, subject_id, request_id)
    SELECT id, created_at, 'sign-in', 'done', id, 'r'
    FROM users
    LIMIT 100000;
    INSERT INTO known_addresses (user_id, network, last_signed_in_at)
    SELECT id, '203.0.113.7', created_at
    FROM users
    LIMIT 100000;
    INSERT INTO rate_limits (key, count, last_at, expires_at)
    SELECT sha256(email::bytea), 1, created_at, created_at
    FROM users
    LIMIT 100000;
    INSERT INTO oauth_flows (state_hash, browser_hash, provider_id, payload, created_at, expires_at)
    SELECT sha256(email::bytea), sha256(name::bytea || (random() * 50000)::int::text::bytea), 'google', '', created_at,
        created_at
    FROM users
    LIMIT 100000;
    INSERT INTO acme_accounts (directory, credentials, contact, created_at)
    SELECT email, '', '{}', created_at
    FROM users
    LIMIT 100000;
    INSERT INTO acme_certificates (directory, domain, due_at)
    SELECT 'https://acme.example.com/directory', email, created_at
    FROM users
    LIMIT 100000;
    ANALYZE;
";

#[tokio::test]
async fn with_a_million_users_every_query_has_its_index() {
    let db = Database::fresh().await;
    let client = db.client().await;
    client.batch_execute(FILL).await.unwrap();
    let mut scans = String::new();
    for query in all_queries() {
        let plan = generic_plan(&client, query.sql).await;
        let may_scan = MAY_SCAN.iter().any(|(name, _)| *name == query.name);
        let is_scan = |line: &&str| line.contains("Seq Scan on") && !is_small(line);
        let scan: Vec<_> = plan.lines().filter(is_scan).collect();
        if !may_scan && !scan.is_empty() {
            writeln!(scans, "{}: {scan:?}\n{plan}", query.name).unwrap();
        }
    }
    assert!(scans.is_empty(), "{scans}");
}

/// Tables that have a handful of rows whatever the number of users.
fn is_small(line: &str) -> bool {
    line.contains("refinery_schema_history") || line.contains("signing_keys") || line.contains("pg_")
}

/// As a statement that is prepared once is planned: for whatever values come.
async fn generic_plan(client: &Client, sql: &str) -> String {
    let parameters = client.prepare(sql).await.unwrap().params().len();
    let nulls = vec!["NULL"; parameters].join(", ");
    let execute = if nulls.is_empty() {
        "q".to_owned()
    } else {
        format!("q({nulls})")
    };
    let explain = format!(
        "DEALLOCATE ALL; SET plan_cache_mode = force_generic_plan; PREPARE q AS {sql}; EXPLAIN EXECUTE {execute}"
    );
    let mut plan = String::new();
    for message in client
        .simple_query(&explain)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    {
        if let SimpleQueryMessage::Row(row) = message {
            plan.push_str(row.get(0).unwrap());
            plan.push('\n');
        }
    }
    plan
}
