//! A second run keeps who is here in step: what guards somebody there must not be weaker here.

use serde_json::json;

use super::{Move, Source, counts, named, sign_in};
use crate::harness::Gateway;

/// Another password, as better-auth may have kept it: bcrypt.
const OTHER_HASH: &str = "$2b$04$drattOnGaAQL744Gehc.nOrKw3.8Gv0ssx5.5XbLQyeF18P5y2TOC";

/// Of all users, in their order.
async fn access(moving: &Move) -> String {
    let sql =
        "SELECT string_agg(concat(array_to_string(roles, '+'), ' ', banned, ' ', ban_reason, ' ', date(ban_expires)),
        ', ' ORDER BY imported_id) FROM users";
    moving.text(sql).await
}

#[tokio::test]
async fn who_has_a_second_factor_there_since_is_kept_in_step() {
    let moving = Move::new(Source::of_users(2).await).await;
    moving.import(&[]).await;
    moving.source.add_users(3, 3).await;
    moving.source.add_sessions().await;
    moving
        .source
        .run(&format!(
            "UPDATE \"user\" SET \"twoFactorEnabled\" = true, name = 'Guarded', \"updatedAt\" = '2026-11-21';
             UPDATE \"user\" SET banned = true, \"banReason\" = 'Spam' WHERE id = 'user-2';
             UPDATE account SET password = '{OTHER_HASH}', \"updatedAt\" = '2026-11-21' WHERE \"userId\" = 'user-1'"
        ))
        .await;

    let foretold = moving.import(&["--dry-run"]).await;
    let report = moving.import(&[]).await;
    assert_eq!(foretold["notes"], report["notes"]);
    assert_eq!(counts(&report, "users"), [3, 0, 2, 0, 1], "{report:#}");
    assert_eq!(counts(&report, "accounts"), [3, 0, 1, 1, 1], "{report:#}");
    assert_eq!(counts(&report, "sessions")[1], 2, "{report:#}");
    assert_eq!(named(&report, "second-factor"), ["user-3"], "only who is not here");
    assert_eq!(named(&report, "second-factor-since"), ["user-1", "user-2"]);
    assert_eq!(report["notImported"]["usersWithSecondFactor"], json!(2));
    assert_eq!(access(&moving).await, "user f  , user t Spam ");
    let names = "SELECT string_agg(name, ' ') FROM users";
    assert_eq!(moving.text(names).await, "Guarded Guarded");
    let hashes = format!("SELECT count(*) FROM accounts WHERE password_hash = '{OTHER_HASH}'");
    assert_eq!(moving.target.count(&hashes).await, 1, "the leaked password is gone");
}

#[tokio::test]
async fn roles_and_bans_come_over_without_a_time_of_change() {
    let moving = Move::new(Source::of_users(4).await).await;
    moving.source.run("UPDATE \"user\" SET role = 'admin'").await;
    moving.import(&[]).await;
    moving
        .source
        .run(
            "UPDATE \"user\" SET role = 'user' WHERE id IN ('user-1', 'user-4');
             UPDATE \"user\" SET banned = true, \"banReason\" = 'Spam', \"banExpires\" = '2099-01-01Z'
                WHERE id IN ('user-2', 'user-4');
             UPDATE \"user\" SET banned = true, \"banExpires\" = '2020-01-01Z' WHERE id = 'user-3'",
        )
        .await;
    // Here the last one has another name meanwhile.
    let here = "UPDATE users SET name = 'Here', updated_at = '2026-11-22' WHERE imported_id = 'user-4'";
    moving.target.run(here).await;

    let report = moving.import(&[]).await;
    assert_eq!(counts(&report, "users"), [4, 0, 3, 1, 0], "{report:#}");
    assert_eq!(
        access(&moving).await,
        "user f  , admin t Spam 2099-01-01, admin f  , admin t Spam 2099-01-01"
    );
    assert_eq!(
        named(&report, "roles-kept"),
        ["user-4"],
        "who gave them is not known, so it is said"
    );
    let name = "SELECT name FROM users WHERE imported_id = 'user-4'";
    assert_eq!(moving.text(name).await, "Here");

    let report = moving.import(&[]).await;
    assert_eq!(counts(&report, "users"), [4, 0, 0, 4, 0], "{report:#}");
}

#[tokio::test]
async fn no_import_lifts_a_ban() {
    let moving = Move::new(Source::of_users(4).await).await;
    moving.import(&[]).await;
    moving
        .target
        .run(
            "UPDATE users SET banned = true, ban_reason = 'Here', updated_at = '2026-11-21';
             UPDATE users SET ban_expires = '2099-01-01Z' WHERE imported_id IN ('user-2', 'user-3');
             UPDATE users SET ban_expires = '2020-01-01Z' WHERE imported_id = 'user-4'",
        )
        .await;
    // All change there later; of two a ban, which ends before that here or never.
    moving
        .source
        .run(
            "UPDATE \"user\" SET name = 'There', role = 'editor', \"updatedAt\" = '2026-11-22';
             UPDATE \"user\" SET banned = true, \"banReason\" = 'There', \"banExpires\" = '2098-01-01Z' WHERE id = 'user-2';
             UPDATE \"user\" SET banned = true, \"banReason\" = 'There' WHERE id = 'user-3'",
        )
        .await;
    let report = moving.import(&[]).await;
    assert_eq!(counts(&report, "users"), [4, 0, 4, 0, 0], "{report:#}");
    assert_eq!(
        access(&moving).await,
        "editor t Here , editor t Here 2099-01-01, editor t There , editor t Here 2020-01-01"
    );
    assert_eq!(named(&report, "ban-kept"), ["user-1", "user-2"], "{report:#}");
}

#[tokio::test]
async fn a_ban_comes_over_where_the_new_address_cannot() {
    let moving = Move::new(Source::of_users(1).await).await;
    moving.import(&[]).await;
    Gateway::on(&moving.target).await.verified("taken@example.test").await;
    moving
        .source
        .run("UPDATE \"user\" SET email = 'taken@example.test', banned = true, \"updatedAt\" = '2026-11-21'")
        .await;
    let report = moving.import(&[]).await;
    assert_eq!(named(&report, "new-address-taken"), ["user-1"]);
    assert_eq!(counts(&report, "users"), [1, 0, 1, 0, 0]);
    let here = "SELECT concat_ws(' ', email, banned) FROM users WHERE imported_id = 'user-1'";
    assert_eq!(moving.text(here).await, "user-1@example.test t");
}

#[tokio::test]
async fn signing_in_with_the_old_password_does_not_keep_it() {
    let moving = Move::new(Source::of_users(1).await).await;
    moving.import(&[]).await;
    moving
        .source
        .run(&format!(
            "UPDATE account SET password = '{OTHER_HASH}', \"updatedAt\" = '2026-11-21'"
        ))
        .await;
    let gateway = Gateway::on(&moving.target).await;
    assert_eq!(
        sign_in(&gateway, "user-1@example.test").await,
        200,
        "hashed anew by that"
    );
    // Whatever the clock of this machine says: after the change there.
    moving.target.run("UPDATE accounts SET updated_at = '2026-12-01'").await;
    let report = moving.import(&[]).await;
    assert_eq!(counts(&report, "accounts"), [1, 0, 1, 0, 0]);
    let hash = "SELECT password_hash FROM accounts";
    assert_eq!(moving.text(hash).await, OTHER_HASH);
}
