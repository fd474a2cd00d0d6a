//! `vestibule audit`, and what answers the questions of operators: an index, however long the log and the list of users
//! are.

use std::collections::BTreeSet;

use serde_json::Value;
use vestibule::db::{Query, audit, users};

use crate::harness::{
    Database,
    desk::{Desk, text},
};

#[tokio::test]
async fn events_are_found_by_whom_what_when_and_where() {
    let desk = Desk::new().await;
    let sql = "INSERT INTO audit_log (id, at, action, outcome, reason, actor_id, subject_id, email, session_id,
            ip_address, user_agent, request_id)
        SELECT ('00000000-0000-7000-8000-00000000000' || n)::uuid, at::timestamptz, action,
            CASE WHEN reason IS NULL THEN 'done' ELSE 'refused' END, reason, actor::uuid, subject::uuid, email,
            session::uuid, ip::inet, 'agent', 'r' || n
        FROM (VALUES
            (1, '2026-01-01', 'sign-in', 'NO', NULL, NULL, 'bob@example.com', NULL, '192.0.2.1'),
            (2, '2026-01-02', 'sign-up', NULL, 'b', 'b', NULL, NULL, '192.0.2.200'),
            (3, '2026-01-03', 'sign-in', NULL, 'b', 'b', NULL, 'c', '198.51.100.1'),
            (4, '2026-01-04', 'ban', NULL, 'a', 'b', NULL, NULL, NULL),
            (5, '2026-01-05', 'sign-in', 'NO', NULL, 'b', NULL, NULL, '2001:db8::1'),
            (6, '2026-01-05', 'sign-out', NULL, 'a', 'a', NULL, 'c', '192.0.2.1')
        ) AS e (n, at, action, reason, actor, subject, email, session, ip)";
    let mut sql = sql.to_owned();
    for letter in ["a", "b", "c"] {
        sql = sql.replace(&format!("'{letter}'"), &format!("'{}'", uuid(letter)));
    }
    desk.gateway.db().run(&format!("SET TIME ZONE 'UTC'; {sql}")).await;
    desk.gateway
        .db()
        .run(&format!(
            "INSERT INTO users (id, email, name, created_at, updated_at)
            VALUES ('{}', 'bob@example.com', 'Bob', now(), now())",
            uuid("b")
        ))
        .await;
    let found = async |args: &[&str]| {
        let events = desk.json(&[&["audit"], args].concat()).await;
        let events = events.as_array().unwrap().iter();
        events
            .map(|event| text(&event["requestId"]).trim_start_matches('r').to_owned())
            .collect::<String>()
    };
    let (a, b, c) = (uuid("a"), uuid("b"), uuid("c"));
    for (args, expected) in [
        (&[] as &[_], "654321"),
        (&["--user", &b], "5432"),
        (&["--user", "Bob@example.com"], "54321"),
        (&["--user", &a], "64"),
        (&["--user", "nobody@example.com"], ""),
        (&["--action", "sign-in"], "531"),
        (&["--action", "sign-in", "--action", "ban"], "5431"),
        (&["--outcome", "refused"], "51"),
        (&["--outcome", "done", "--user", &b], "432"),
        (&["--since", "2026-01-04T00:00:00Z"], "654"),
        (&["--until", "2026-01-02T01:00:00+01:00"], "1"),
        (
            &["--since", "2026-01-02T00:00:00Z", "--until", "2026-01-04T00:00:00Z"],
            "32",
        ),
        (&["--since", "10m"], ""),
        (&["--ip", "192.0.2.1"], "61"),
        (&["--ip", "192.0.2.0/24"], "621"),
        (&["--ip", "192.0.2.9/24"], "621"),
        (&["--ip", "2001:db8::/32"], "5"),
        (&["--session", &c], "63"),
        (&["--after", "00000000-0000-7000-8000-000000000006"], "54321"),
        (
            &["--after", "00000000-0000-7000-8000-000000000005", "--limit", "2"],
            "43",
        ),
    ] {
        assert_eq!(found(args).await, expected, "{args:?}");
    }

    let first = desk.run(&["audit", "--limit", "3", "--json"]).await;
    assert!(
        first
            .stderr
            .contains("there is more: --after 00000000-0000-7000-8000-000000000004"),
        "{}",
        first.stderr
    );
    let events: Value = serde_json::from_str(&first.stdout).unwrap();
    let keys: Vec<&String> = events[0].as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "action",
            "actorId",
            "at",
            "email",
            "id",
            "ipAddress",
            "outcome",
            "reason",
            "requestId",
            "sessionId",
            "subjectEmail",
            "subjectId",
            "userAgent"
        ]
    );
    assert_eq!(text(&events[1]["subjectEmail"]), "bob@example.com");
    let table = desk.says(&["audit", "--user", &b]).await;
    assert!(
        table.starts_with("AT (UTC) ") && table.contains("2026-01-05 00:00:00  sign-in"),
        "{table}"
    );
    assert_eq!(desk.says(&["audit", "--action", "unban"]).await, "nothing\n");
}

/// The same digit everywhere.
fn uuid(digit: &str) -> String {
    [8, 4, 4, 4, 12].map(|length| digit.repeat(length)).join("-")
}

/// How a statement that is run once is answered, with these values. `parameters` are their types.
async fn plan(db: &Database, query: Query, parameters: &str, values: &str) -> String {
    let client = db.client().await;
    let explain = format!(
        "PREPARE q ({parameters}) AS {}; EXPLAIN EXECUTE q ({values})",
        query.sql
    );
    let mut plan = String::new();
    for message in client.simple_query(&explain).await.unwrap() {
        if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
            plan.push_str(row.get(0).unwrap());
            plan.push('\n');
        }
    }
    plan
}

fn indexes(plan: &str) -> BTreeSet<&str> {
    let words = plan.split_whitespace();
    words
        .filter(|word| word.ends_with("_idx") || word.ends_with("_pkey"))
        .collect()
}

#[tokio::test]
async fn every_filter_of_the_audit_log_is_answered_by_an_index() {
    let db = Database::fresh().await;
    let fill = "INSERT INTO audit_log (id, at, action, outcome, actor_id, subject_id, email, session_id, ip_address,
            request_id)
        SELECT gen_random_uuid(), '2026-01-01'::timestamptz + n * interval '1 minute',
            CASE WHEN n % 5000 = 0 THEN 'ban' ELSE 'sign-in' END, 'done',
            md5((n % 2500)::text)::uuid, md5((n % 2500 + (n % 5000 = 0)::int)::text)::uuid,
            CASE WHEN n % 7 = 0 THEN 'nobody' || n || '@example.com' END, md5(n::text)::uuid,
            '10.0.0.0'::inet + n, 'r'
        FROM generate_series(1, 50000) AS n;
        ANALYZE audit_log";
    db.run(fill).await;
    let parameters = "uuid, text, text[], text, timestamptz, timestamptz, text, uuid, uuid, int8";
    let some = "'00000000-0000-7000-8000-000000000001'";
    let (by_whom, both) = (
        ["audit_log_subject_id_at_idx", "audit_log_actor_id_at_idx"],
        [
            "audit_log_subject_id_at_idx",
            "audit_log_actor_id_at_idx",
            "audit_log_email_at_idx",
        ],
    );
    for (values, expected) in [
        (
            "NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 101".to_owned(),
            &["audit_log_at_idx"] as &[_],
        ),
        (
            format!("{some}, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 101"),
            &by_whom,
        ),
        (
            format!("{some}, 'a@b.c', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 101"),
            &both,
        ),
        (
            "NULL, 'a@b.c', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 101".to_owned(),
            &["audit_log_email_at_idx"],
        ),
        (
            "NULL, NULL, '{ban}', NULL, NULL, NULL, NULL, NULL, NULL, 101".to_owned(),
            &["audit_log_action_at_idx"],
        ),
        (
            "NULL, NULL, NULL, NULL, '2026-01-02', '2026-01-03', NULL, NULL, NULL, 101".to_owned(),
            &["audit_log_at_idx"],
        ),
        (
            "NULL, NULL, NULL, NULL, NULL, NULL, '10.0.0.7/32', NULL, NULL, 101".to_owned(),
            &["audit_log_ip_address_at_idx"],
        ),
        (
            "NULL, NULL, NULL, NULL, NULL, NULL, '10.0.7.0/28', NULL, NULL, 101".to_owned(),
            &["audit_log_ip_address_at_idx"],
        ),
        (
            format!("NULL, NULL, NULL, NULL, NULL, NULL, NULL, {some}, NULL, 101"),
            &["audit_log_session_id_at_idx"],
        ),
        (
            format!("NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, {some}, 101"),
            &["audit_log_at_idx", "audit_log_pkey"],
        ),
    ] {
        let plan = plan(&db, audit::LIST, parameters, &values).await;
        assert!(!plan.contains("Seq Scan on audit_log"), "{values}:\n{plan}");
        let used: BTreeSet<&str> = indexes(&plan)
            .into_iter()
            .filter(|name| *name != "users_pkey")
            .collect();
        assert_eq!(used, expected.iter().copied().collect(), "{values}:\n{plan}");
    }
}

#[tokio::test]
async fn every_filter_of_users_but_a_text_is_answered_by_an_index() {
    let db = Database::fresh().await;
    let fill = "INSERT INTO users (id, email, email_verified, name, roles, banned, created_at, updated_at)
        SELECT gen_random_uuid(), 'user' || n || '@example.com', n % 2000 <> 0, 'Somebody',
            CASE WHEN n % 2000 = 1 THEN '{user,admin}'::text[] ELSE '{user}' END, n % 2000 = 2, now(), now()
        FROM generate_series(1, 20000) AS n;
        ANALYZE users";
    db.run(fill).await;
    let parameters = "uuid, text, text, boolean, timestamptz, boolean, int8";
    for (values, expected) in [
        ("NULL, NULL, NULL, false, now(), false, 51", "users_pkey"),
        (
            "'80000000-0000-7000-8000-000000000001', NULL, NULL, false, now(), false, 51",
            "users_pkey",
        ),
        ("NULL, NULL, 'admin', false, now(), false, 51", "users_roles_idx"),
        ("NULL, NULL, NULL, true, now(), false, 51", "users_banned_idx"),
        ("NULL, NULL, NULL, false, now(), true, 51", "users_email_unverified_idx"),
    ] {
        let plan = plan(&db, users::LIST, parameters, values).await;
        assert!(!plan.contains("Seq Scan"), "{values}:\n{plan}");
        assert_eq!(indexes(&plan), BTreeSet::from([expected]), "{values}:\n{plan}");
    }
}
