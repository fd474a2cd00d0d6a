//! What strangers wrote into the other database is shown as a terminal may be shown it.

use serde_json::Value;

use super::{HASH, Move, Source, named};

/// An old id that a terminal would obey: an escape sequence, one that begins with C1, and a reversal of the text.
const ODD_ID: &str = "odd\u{1b}[2J\u{9b}31m\u{202e}";

#[tokio::test]
async fn old_ids_cannot_command_the_terminal() {
    let source = Source::of_users(1).await;
    source
        .run(&format!(
            "INSERT INTO \"user\" (id, name, email, \"emailVerified\", \"createdAt\", \"updatedAt\")
             VALUES ('{ODD_ID}', 'Odd', 'no address', true, '2026-01-01', '2026-01-01')"
        ))
        .await;
    let moving = Move::new(source).await;
    let people = moving.run(&["--dry-run"]).await;
    assert_eq!(people.code, Some(0), "{people:?}");
    assert!(
        people.stdout.contains("(odd\\u{1b}[2J\\u{9b}31m\\u{202e})"),
        "{}",
        people.stdout
    );
    assert!(people.stdout.ends_with("this was a dry run.\n"));

    let scripts = moving.run(&["--dry-run", "--json"]).await;
    for said in [&people.stdout, &scripts.stdout] {
        let obeyed = said
            .chars()
            .find(|c| *c != '\n' && (c.is_control() || *c == '\u{202e}'));
        assert_eq!(obeyed, None, "{said:?}");
    }
    let report: Value = serde_json::from_str(&scripts.stdout).unwrap();
    assert_eq!(
        named(&report, "address-not-accepted"),
        [ODD_ID],
        "and JSON means the same by it"
    );
}

#[tokio::test]
async fn a_failure_at_the_source_says_no_value() {
    let source = Source::of_users(1).await;
    source
        .run(&format!(
            "ALTER TABLE \"user\" ALTER \"emailVerified\" TYPE text USING '{HASH} \"\u{1b}[2J\"'"
        ))
        .await;
    let moving = Move::new(source).await;
    // It looks for the hash itself.
    let ended = moving.run(&[]).await;
    assert_eq!(ended.code, Some(1));
    assert_eq!(
        ended.stderr,
        "vestibule: could not look for shared addresses in the source: invalid input syntax for type boolean: \"…\" (22P02)\n"
    );
}

#[tokio::test]
async fn a_source_that_refuses_is_quoted_harmlessly() {
    let moving = Move::new(Source::of_users(1).await).await;
    let url = moving.source.db.url();
    let (server, _) = url.rsplit_once('/').unwrap();
    let elsewhere = format!("{server}/nowhere%1B%5B2J");
    let arguments = moving.arguments(&[]);
    let arguments: Vec<&str> = arguments
        .iter()
        .map(|argument| if argument == url { &elsewhere } else { argument.as_str() })
        .collect();
    let ended = super::run(&arguments, &[], moving.folder.path()).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let said = &ended.stderr;
    assert!(said.contains("could not connect to the source"), "{said}");
    assert!(said.contains("nowhere\\u{1b}[2J"), "{said}");
    assert!(!said.contains('\u{1b}'), "{said:?}");
}
