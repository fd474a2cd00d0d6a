//! Every statement of the program, prepared against a migrated database: a typo, a renamed column or a changed type
//! fails here before any handler runs.

use std::{collections::BTreeSet, fmt::Write};

use vestibule::{
    db::{all_queries, sessions},
    session::lookup::MOST_AT_ONCE,
};

use crate::harness::{Database, golden};

#[tokio::test]
async fn every_query_prepares_and_keeps_its_types() {
    let db = Database::fresh().await;
    let client = db.client().await;
    let mut list = String::new();
    for query in all_queries() {
        let prepared = client.prepare(query.sql).await;
        let prepared = prepared.unwrap_or_else(|error| panic!("{}: {error:?}", query.name));
        let parameters: Vec<_> = prepared.params().iter().map(ToString::to_string).collect();
        let columns = prepared.columns().iter();
        let columns: Vec<_> = columns
            .map(|column| format!("{} {}", column.name(), column.type_()))
            .collect();
        let (parameters, columns) = (parameters.join(", "), columns.join(", "));
        writeln!(list, "{}({parameters}) -> {columns}", query.name).unwrap();
    }
    golden::same("../../src/db/types.txt", &list);
}

#[tokio::test]
async fn no_two_queries_share_a_name() {
    let mut names = BTreeSet::new();
    for query in all_queries() {
        assert!(names.insert(query.name), "two queries are called {}", query.name);
    }
}

#[tokio::test]
async fn the_hot_query_is_answered_by_its_index() {
    let db = Database::fresh().await;
    let client = db.client().await;
    // An empty table is always scanned unless that is forbidden; a generic plan is what a cached statement gets.
    let explain = format!(
        "SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan;
         PREPARE hot (bytea[], timestamptz) AS {};
         EXPLAIN EXECUTE hot (ARRAY['\\x00'::bytea], '2026-11-21')",
        sessions::FIND.sql
    );
    let plan = plan(&client, &explain).await;
    assert!(plan.contains("user_sessions_token_hash_key"), "{plan}");
    assert!(!plan.contains("Seq Scan"), "{plan}");
}

/// As planned for a table that has been looked at, whether for one session or for as many as are asked for at once.
#[tokio::test]
async fn the_hot_query_is_answered_by_its_index_however_many_sessions_it_asks_for() {
    let db = Database::fresh().await;
    let client = db.client().await;
    let rows = "
        INSERT INTO users (id, email, name, created_at, updated_at)
        SELECT gen_random_uuid(), 'person' || n || '@example.com', 'Person', now(), now()
        FROM generate_series(1, 20000) AS n;
        INSERT INTO user_sessions (id, token_hash, user_id, created_at, updated_at, expires_at)
        SELECT gen_random_uuid(), sha256(id::text::bytea), id, now(), now(), '2027-01-01'
        FROM users;
        ANALYZE users, user_sessions";
    client.batch_execute(rows).await.unwrap();
    for (asked, mode) in [
        (1, "force_custom_plan"),
        (MOST_AT_ONCE, "force_custom_plan"),
        (MOST_AT_ONCE, "force_generic_plan"),
    ] {
        let some = format!(
            "SELECT array_agg(token_hash)::text FROM (SELECT token_hash FROM user_sessions LIMIT {asked}) AS asked"
        );
        let some: String = client.query_one(&some, &[]).await.unwrap().get(0);
        let explain = format!(
            "DEALLOCATE ALL; SET plan_cache_mode = {mode};
             PREPARE hot (bytea[], timestamptz) AS {};
             EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) EXECUTE hot ('{some}', '2026-11-21')",
            sessions::FIND.sql
        );
        let plan = plan(&client, &explain).await;
        assert!(plan.contains("user_sessions_token_hash_key"), "{asked}, {mode}: {plan}");
        assert!(!plan.contains("Seq Scan on user_sessions"), "{asked}, {mode}: {plan}");
    }
}

async fn plan(client: &tokio_postgres::Client, explain: &str) -> String {
    let mut plan = String::new();
    for message in client.simple_query(explain).await.unwrap() {
        if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
            plan.push_str(row.get(0).unwrap());
            plan.push('\n');
        }
    }
    plan
}

#[tokio::test]
async fn a_second_migration_changes_nothing() {
    use vestibule::db::migrate::{self, SchemaState};

    let db = Database::fresh().await;
    let connector = db.connector();
    assert_eq!(
        migrate::run(&connector, crate::harness::database::SCHEMA)
            .await
            .unwrap(),
        Vec::<String>::new()
    );
    let state = migrate::check(&connector, crate::harness::database::SCHEMA)
        .await
        .unwrap();
    assert_eq!(state, SchemaState::UpToDate);
}

#[tokio::test]
async fn gateways_that_migrate_at_once_take_turns() {
    let db = Database::empty().await;
    let connector = db.connector();
    let run = || vestibule::db::migrate::run(&connector, crate::harness::database::SCHEMA);
    let (first, second, third) = tokio::join!(run(), run(), run());
    let applied = [first.unwrap(), second.unwrap(), third.unwrap()];
    let ran = applied.iter().filter(|applied| !applied.is_empty()).count();
    assert_eq!(ran, 1, "one applied all, the others found nothing to do: {applied:?}");
}

/// Postgres quotes the row that it refuses, and rows hold password hashes.
#[tokio::test]
async fn what_the_log_says_of_a_failure_quotes_no_row() {
    use vestibule::{
        chain::Chain,
        clock::Timestamp,
        db::{Query, users},
    };

    const BROKEN: Query = Query {
        name: "test.broken",
        sql: "INSERT INTO users (id, email, name, created_at, updated_at)
            VALUES (gen_random_uuid(), $1, 'S3CRET name', $2, $2)",
    };
    let db = Database::fresh().await;
    let pools = db.connector().pools(&db.settings()).unwrap();
    let client = pools.client().await.unwrap();
    let error = BROKEN
        .run(&client, &[&"S3CRET@EXAMPLE.COM", &Timestamp::from_secs(0)])
        .await
        .unwrap_err();
    let told = Chain(&error).to_string();
    assert!(told.contains("users_email_check") && told.contains("23514"), "{told}");
    assert!(!told.contains("S3CRET"), "{told}");
    assert_eq!(users::by_email(&client, "s3cret@example.com").await.unwrap(), None);
}
