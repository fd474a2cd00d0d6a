//! How often somebody may ask, guess and have mails sent; and who is not kept out by it.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use vestibule::dev::postgres::Cluster;

use crate::harness::{
    Database, Gateway, SOON, Setup,
    client::{Call, Response},
    eventually,
    people::{PASSWORD, User},
};

/// Switched on; the peers of the tests are proxies that are believed, so that a test can come from anywhere.
const LIMITED: &str = "[server]\ntrusted_proxies = ['127.0.0.1']\n[auth.rate_limit]\nenabled = true";

const SIGN_IN: &str = "/api/auth/sign-in/email";
const SIGN_UP: &str = "/api/auth/sign-up/email";
const RESEND: &str = "/api/auth/send-verification-email";
const GET_SESSION: &str = "/api/auth/get-session";

fn limited() -> Setup {
    Setup::default().with(LIMITED)
}

/// Somewhere in the world.
fn address(number: usize) -> String {
    format!("198.18.{}.{}", number / 250, number % 250 + 1)
}

trait From {
    fn from(self, address: &str) -> Call;
}

impl From for Call {
    fn from(self, address: &str) -> Call {
        self.header("X-Forwarded-For", address)
    }
}

fn guess(gateway: &Gateway, email: &str, password: &str) -> Call {
    gateway
        .post(SIGN_IN)
        .json(&json!({ "email": email, "password": password }))
}

fn wrong(gateway: &Gateway, email: &str) -> Call {
    guess(gateway, email, "not the password")
}

/// That a request was refused because there were too many, and how long to wait, in seconds.
#[track_caller]
fn too_many(answer: &Response) -> u64 {
    assert_eq!(answer.status(), 429, "{}", answer.text());
    let Value::Object(mut body) = answer.json() else {
        panic!("no object: {}", answer.text());
    };
    assert!(body.remove("requestId").is_some_and(|id| id.is_string()));
    let message = json!({ "message": "Too many requests. Please try again later." });
    assert_eq!(Value::Object(body), message);
    let wait = answer.head.one("x-retry-after").expect("X-Retry-After");
    assert_eq!(answer.head.one("retry-after"), Some(wait));
    wait.parse().expect("whole seconds")
}

/// The statuses of calls that are made one after the other.
async fn statuses(calls: impl IntoIterator<Item = Call>) -> Vec<u16> {
    let mut statuses = Vec::new();
    for call in calls {
        statuses.push(call.await.status());
    }
    statuses
}

/// The answers to calls that are made at once.
async fn at_once(calls: impl IntoIterator<Item = Call>) -> Vec<Response> {
    let running: Vec<_> = calls.into_iter().map(|call| tokio::spawn(call.into_future())).collect();
    let mut answers = Vec::new();
    for call in running {
        answers.push(call.await.unwrap());
    }
    answers
}

fn count(answers: &[Response], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status() == status).count()
}

/// What a rule has refused, by the metrics.
async fn refused_by(gateway: &Gateway, rule: &str) -> u64 {
    let metrics = gateway.admin_get("/metrics").await;
    let name = format!("vestibule_rate_limited_total{{rule=\"{rule}\"}} ");
    let mut lines = metrics.text().lines();
    let count = lines.find_map(|line| line.strip_prefix(&name));
    count.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

async fn rows(gateway: &Gateway) -> i64 {
    gateway.db().count("SELECT count(*) FROM rate_limits").await
}

#[tokio::test]
async fn each_path_has_the_limit_of_the_contract() {
    for storage in ["database", "memory"] {
        let over =
            format!("[auth.rate_limit]\nstorage = '{storage}'\naccount_failures.limit = 1000\nmails.limit = 1000");
        let gateway = limited().with(&over).start().await;
        let body = json!({});
        for (method, path, rule, limit, secs) in [
            ("POST", SIGN_IN, "sign-in", 3, 10),
            ("POST", SIGN_UP, "sign-up", 3, 10),
            ("POST", RESEND, "mail", 3, 60),
            ("GET", GET_SESSION, "other", 100, 10),
        ] {
            let call = || gateway.call(method, path).json(&body).from("203.0.113.7");
            for number in 0..limit {
                assert_ne!(call().await.status(), 429, "{path} {number}");
            }
            let before = refused_by(&gateway, rule).await;
            assert_eq!(too_many(&call().await), secs, "{path}");
            assert_eq!(refused_by(&gateway, rule).await, before + 1, "{path}");
            // Another path and another address have counts of their own.
            assert_ne!(call().from("203.0.113.8").await.status(), 429, "{path}");
            assert_eq!(
                gateway
                    .get("/api/auth/list-sessions")
                    .from("203.0.113.7")
                    .await
                    .status(),
                401
            );
        }
        assert_eq!(rows(&gateway).await > 0, storage == "database");
    }
}

#[tokio::test]
async fn a_window_is_over_when_the_last_that_was_allowed_is_so_long_ago() {
    let gateway = limited().start().await;
    let call = || wrong(&gateway, "nobody@example.com");
    assert_eq!(call().await.status(), 401);
    gateway.clock().advance(Duration::from_secs(4));
    assert_eq!(statuses([call(), call()]).await, [401, 401]);
    // Refused ones do not count: the wait grows shorter whatever is asked meanwhile.
    for wait in [10, 9, 8, 7, 6, 5, 4, 3, 2, 1] {
        assert_eq!(too_many(&call().await), wait);
        gateway.clock().advance(Duration::from_secs(1));
    }
    assert_eq!(statuses([call(), call(), call(), call()]).await, [401, 401, 401, 429]);
    gateway.clock().advance(Duration::from_millis(8_500));
    assert_eq!(too_many(&call().await), 2, "rounded up");
}

#[tokio::test]
async fn gateways_on_one_database_share_what_may_be_asked() {
    let db = Database::fresh().await;
    let one = limited().start_on(&db).await;
    let two = limited().clock(one.clock()).start_on(&db).await;
    let email = "nobody@example.com";
    let asked = statuses([wrong(&one, email), wrong(&two, email), wrong(&one, email)]).await;
    assert_eq!(asked, [401, 401, 401]);
    assert_eq!(too_many(&wrong(&two, email).await), 10);
    assert_eq!(too_many(&wrong(&one, email).await), 10);

    // The general limit is counted alone at first: both together allow no more than a quarter too much each.
    let calls = (0..125).flat_map(|_| [one.get(GET_SESSION), two.get(GET_SESSION)]);
    let allowed = statuses(calls)
        .await
        .into_iter()
        .filter(|status| *status == 200)
        .count();
    assert!((100..=150).contains(&allowed), "{allowed}");
}

#[tokio::test]
async fn an_ordinary_visitor_causes_no_write() {
    let gateway = limited().start().await;
    for visitor in 0..20 {
        for _ in 0..25 {
            assert_eq!(gateway.get(GET_SESSION).from(&address(visitor)).await.status(), 200);
        }
        assert_eq!(
            gateway.get("/api/auth/nothing").from(&address(visitor)).await.status(),
            404
        );
    }
    assert_eq!(rows(&gateway).await, 0);
    // Who asks more often is written down, together with what went before.
    assert_eq!(gateway.get(GET_SESSION).from(&address(0)).await.status(), 200);
    assert_eq!(gateway.get(GET_SESSION).from(&address(0)).await.status(), 200);
    assert_eq!(gateway.db().count("SELECT count::bigint FROM rate_limits").await, 27);
}

#[tokio::test]
async fn a_flood_of_refused_requests_asks_postgres_nothing() {
    let gateway = limited().start().await;
    let call = || wrong(&gateway, "nobody@example.com");
    assert_eq!(statuses([call(), call(), call(), call()]).await, [401, 401, 401, 429]);
    // Whoever asked Postgres would wait for this.
    let lock = gateway.db().client().await;
    lock.batch_execute("BEGIN; LOCK TABLE rate_limits, users IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    for answer in at_once((0..200).map(|_| call())).await {
        too_many(&answer);
    }
    lock.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test]
async fn backends_and_preflights_are_not_limited() {
    let gateway = limited().start().await;
    let calls = (0..120).flat_map(|_| [gateway.get("/api/auth/verify-token"), gateway.call("OPTIONS", SIGN_IN)]);
    assert!(!statuses(calls).await.contains(&429));
    assert_eq!(wrong(&gateway, "nobody@example.com").await.status(), 401);
}

#[tokio::test]
async fn what_nothing_is_at_is_limited_as_one() {
    let gateway = limited().start().await;
    let calls = (0..100).map(|number| gateway.get(&format!("/api/auth/nothing/{number}")));
    assert!(statuses(calls).await.iter().all(|status| *status == 404));
    too_many(&gateway.get("/api/auth/another").await);
    // Somebody else's page can't use up what a person may sign in with.
    assert_eq!(
        statuses((0..4).map(|_| gateway.get(SIGN_IN))).await,
        [404, 404, 404, 429]
    );
    assert_eq!(wrong(&gateway, "nobody@example.com").await.status(), 401);
}

/// RATE-01: a client that makes up where it comes from is one source.
#[tokio::test]
async fn rate_01_a_forged_x_forwarded_for_is_not_believed() {
    let gateway = Setup::default().with("[auth.rate_limit]\nenabled = true").start().await;
    let calls = (0..100).map(|number| wrong(&gateway, "ada@example.com").from(&address(number)));
    let answers = at_once(calls).await;
    assert_eq!((count(&answers, 401), count(&answers, 429)), (3, 97));
}

#[tokio::test]
async fn a_network_of_ipv6_is_one_source() {
    let gateway = limited().start().await;
    let call = |address: &str| wrong(&gateway, "nobody@example.com").from(address);
    let of_one = ["2001:db8:1:2::1", "2001:db8:1:2:ffff::2", "2001:db8:1:2:a:b:c:d"];
    assert_eq!(statuses(of_one.map(call)).await, [401, 401, 401]);
    too_many(&call("2001:db8:1:2::4").await);
    assert_eq!(call("2001:db8:1:3::1").await.status(), 401);
    // The same address in two spellings.
    let mapped = ["::ffff:203.0.113.7", "203.0.113.7", "::ffff:cb00:7107"];
    assert_eq!(statuses(mapped.map(call)).await, [401, 401, 401]);
    too_many(&call("203.0.113.7").await);
}

/// RATE-03: of many guesses at once no more are evaluated than of as many in a row.
#[tokio::test]
async fn rate_03_a_hundred_guesses_at_once_are_counted_like_a_hundred_in_a_row() {
    for storage in ["database", "memory"] {
        let over = format!("[database]\nacquire_timeout = '15s'\n[auth.rate_limit]\nstorage = '{storage}'");
        let gateway = limited().with(&over).start().await;
        gateway.verified("ada@example.com").await;
        let calls = (0..100).map(|number| wrong(&gateway, "ada@example.com").from(&address(number)));
        let answers = at_once(calls).await;
        assert_eq!((count(&answers, 401), count(&answers, 429)), (10, 90), "{storage}");
        let refused = answers.iter().find(|answer| answer.status() == 429).unwrap();
        assert_eq!(too_many(refused), 15 * 60);
        let evaluated = "SELECT count(*) FROM audit_log WHERE reason = 'INVALID_EMAIL_OR_PASSWORD'";
        assert_eq!(gateway.db().count(evaluated).await, 10);
        assert_eq!(refused_by(&gateway, "account").await, 90);
        // The right one does not get through either, from where nobody knows the user; later it does.
        let right = guess(&gateway, "ada@example.com", PASSWORD).from(&address(101));
        too_many(&right.await);
        gateway.clock().advance(Duration::from_mins(15));
        let right = guess(&gateway, "ada@example.com", PASSWORD).from(&address(102));
        assert_eq!(right.await.status(), 200);
    }
}

/// RATE-07: whoever guesses elsewhere keeps nobody out.
#[tokio::test]
async fn rate_07_a_victim_signs_in_from_a_known_address_whatever_is_guessed_elsewhere() {
    for storage in ["database", "memory"] {
        let over = format!("[auth.rate_limit]\nstorage = '{storage}'");
        let gateway = limited().with(&over).start().await;
        gateway.verified("ada@example.com").await;
        let (home, new) = ("203.0.113.7", "203.0.113.8");
        let right = || guess(&gateway, "ada@example.com", PASSWORD);
        let ada = User::of(&gateway, &right().from(home).await);

        for number in 0..200 {
            let answer = wrong(&gateway, "ada@example.com").from(&address(number)).await;
            assert_eq!(answer.status(), if number < 10 { 401 } else { 429 }, "{number}");
        }
        assert_eq!(gateway.get("/api/me").with(&ada).await.status(), 200, "sessions go on");
        assert_eq!(right().from(home).await.status(), 200);
        too_many(&right().from(new).await);
        // Nor is the known address a way to guess on.
        gateway.clock().advance(Duration::from_secs(10));
        let mut statuses = Vec::new();
        for _ in 0..12 {
            statuses.push(wrong(&gateway, "ada@example.com").from(home).await.status());
            gateway.clock().advance(Duration::from_secs(10));
        }
        assert_eq!(statuses, [vec![401; 10], vec![429; 2]].concat());
        // Nobody is kept out for longer than the delay.
        gateway.clock().advance(Duration::from_mins(15));
        assert_eq!(right().from(new).await.status(), 200);
        assert_eq!(right().from(home).await.status(), 200);
    }
}

/// What ARCHITECTURE.md admits under "Known limits", and no more than that.
#[tokio::test]
async fn only_from_a_network_of_the_user_can_it_be_told_that_there_is_one() {
    let gateway = limited().start().await;
    gateway.verified("ada@example.com").await;
    let (shared, other) = ("203.0.113.7", "203.0.113.8");
    let right = guess(&gateway, "ada@example.com", PASSWORD).from(shared);
    assert_eq!(right.await.status(), 200);
    for number in 0..10 {
        for email in ["ada@example.com", "nobody@example.com"] {
            assert_eq!(wrong(&gateway, email).from(&address(number)).await.status(), 401);
        }
    }
    let tried = async |email: &str, from: &str| wrong(&gateway, email).from(from).await.status();
    assert_eq!(tried("ada@example.com", other).await, 429);
    assert_eq!(tried("nobody@example.com", other).await, 429);
    assert_eq!(tried("nobody@example.com", shared).await, 429);
    assert_eq!(tried("ada@example.com", shared).await, 401);
}

#[tokio::test]
async fn an_address_is_known_for_thirty_days() {
    let gateway = limited().start().await;
    gateway.verified("ada@example.com").await;
    let home = "2001:db8:1:2::7";
    let right = || guess(&gateway, "ada@example.com", PASSWORD);
    assert_eq!(right().from(home).await.status(), 200);
    let attack = async |from: usize| {
        for number in from..from + 10 {
            let answer = wrong(&gateway, "ada@example.com").from(&address(number)).await;
            assert_eq!(answer.status(), 401);
        }
    };
    gateway.clock().advance(Duration::from_hours(30 * 24 - 1));
    attack(0).await;
    assert_eq!(
        right().from("2001:db8:1:2:3::8").await.status(),
        200,
        "of its network too"
    );
    gateway.clock().advance(Duration::from_hours(30 * 24));
    attack(100).await;
    too_many(&right().from(home).await);
    let known = "SELECT count(*) FROM known_addresses WHERE network = '2001:db8:1:2::/64'";
    assert_eq!(gateway.db().count(known).await, 1);
}

#[tokio::test]
async fn right_passwords_use_nothing_up() {
    let gateway = limited().start().await;
    gateway.verified("ada@example.com").await;
    for number in 0..30 {
        let right = guess(&gateway, "ada@example.com", PASSWORD).from(&address(number));
        assert_eq!(right.await.status(), 200, "{number}");
    }
    for number in 0..9 {
        let answer = wrong(&gateway, "ada@example.com").from(&address(100 + number)).await;
        assert_eq!(answer.status(), 401);
    }
    let right = guess(&gateway, "ada@example.com", PASSWORD).from(&address(200));
    assert_eq!(right.await.status(), 200);
}

#[tokio::test]
async fn old_typos_are_forgotten_however_often_the_right_password_is_given() {
    for storage in ["database", "memory"] {
        let over = format!("[auth.rate_limit]\nstorage = '{storage}'");
        let gateway = limited().with(&over).start().await;
        gateway.verified("ada@example.com").await;
        let home = "203.0.113.7";
        let typo = || wrong(&gateway, "ada@example.com").from(home);
        let right = || guess(&gateway, "ada@example.com", PASSWORD).from(home);
        assert_eq!(right().await.status(), 200);
        for _ in 0..3 {
            gateway.clock().advance(Duration::from_secs(10));
            assert_eq!(statuses([typo(), typo(), typo()]).await, [401, 401, 401]);
        }
        // Never fifteen minutes without.
        for _ in 0..2 {
            gateway.clock().advance(Duration::from_mins(8));
            assert_eq!(right().await.status(), 200, "{storage}");
        }
        for _ in 0..3 {
            gateway.clock().advance(Duration::from_secs(10));
            assert_eq!(statuses([typo(), typo(), typo()]).await, [401, 401, 401], "{storage}");
        }
        gateway.clock().advance(Duration::from_mins(5));
        assert_eq!(typo().await.status(), 401);
        // Ten: until a quarter of an hour after the first of them.
        assert_eq!(too_many(&typo().await), 10 * 60 - 20, "{storage}");
    }
}

#[tokio::test]
async fn what_could_not_be_tested_is_not_counted() {
    // A hash takes long enough for all to come while the first is tested.
    let slow = "[auth.password]\nqueue = 1\nargon2 = { memory = '64MiB', iterations = 8 }";
    let gateway = limited().with(slow).start().await;
    let calls = (0..10).map(|number| wrong(&gateway, "nobody@example.com").from(&address(number)));
    let answers = at_once(calls).await;
    let (tested, busy) = (count(&answers, 401), count(&answers, 503));
    assert_eq!(tested + busy, 10);
    // The first, and one that waits, unless all came before the first was taken up.
    assert!(tested >= 1 && busy > 0, "{tested} tested, {busy} not");
    // Each address has asked once; what is more is the account's.
    let counted = "SELECT max(count)::bigint FROM rate_limits";
    assert_eq!(usize::try_from(gateway.db().count(counted).await).unwrap(), tested);
}

/// ENUM-02: an account is throttled alike whether there is one or not.
#[tokio::test]
async fn an_address_without_a_user_is_throttled_like_one_with() {
    let gateway = limited().start().await;
    gateway.verified("ada@example.com").await;
    let mut told = Vec::new();
    for email in ["ada@example.com", "nobody@example.com"] {
        let mut answers = Vec::new();
        for number in 0..12 {
            // However it is written.
            let email = if number % 2 == 0 {
                email.to_owned()
            } else {
                email.to_uppercase()
            };
            let answer = wrong(&gateway, &email).from(&address(number)).await;
            let mut body = answer.json();
            body["requestId"] = json!("the request's");
            answers.push((answer.status(), body, answer.head.one("retry-after").map(str::to_owned)));
        }
        told.push(answers);
        gateway.clock().advance(Duration::from_secs(10));
    }
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0][9].0, 401);
    assert_eq!(told[0][10].0, 429);
    // The log knows whose account it was, and that it was refused, once.
    let refused = "SELECT count(*) FROM audit_log WHERE action = 'sign-in' AND reason = 'TOO_MANY_REQUESTS'";
    assert_eq!(gateway.db().count(refused).await, 2);
    let of_ada = format!("{refused} AND subject_id = (SELECT id FROM users WHERE email = 'ada@example.com')");
    assert_eq!(gateway.db().count(&of_ada).await, 1);
}

#[tokio::test]
async fn the_table_of_counts_names_nobody() {
    let gateway = limited().start().await;
    gateway.sign_up("ada@example.com").await;
    wrong(&gateway, "ada@example.com").from("203.0.113.7").await;
    let client = gateway.db().client().await;
    let rows = client
        .query("SELECT encode(key, 'escape') FROM rate_limits", &[])
        .await
        .unwrap();
    let keys: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    // Two addresses on two paths, one account, one mailbox.
    assert_eq!(keys.len(), 4);
    assert!(keys.iter().all(|key| !key.contains("ada") && !key.contains("203.0")));
}

/// RESET-12: whoever asks from wherever, a mailbox gets what the configuration says; and nobody is told.
#[tokio::test]
async fn reset_12_a_mailbox_gets_so_many_mails_however_many_are_asked_for() {
    for storage in ["database", "memory"] {
        let over = format!("[database]\nacquire_timeout = '15s'\n[auth.rate_limit]\nstorage = '{storage}'");
        let gateway = limited().with(&over).start().await;
        assert_eq!(gateway.sign_up("ada@example.com").await.status(), 200);
        let ask = |number: usize, email: &str| {
            let body = json!({ "email": email });
            gateway.post(RESEND).json(&body).from(&address(number % 100))
        };
        let mut answers = Vec::new();
        for hundred in 0..3 {
            answers.extend(at_once((0..100).map(|number| ask(hundred * 100 + number, "ada@example.com"))).await);
        }
        // Two more each, so that none is refused for its address.
        gateway.clock().advance(Duration::from_mins(1));
        for hundred in 3..5 {
            answers.extend(at_once((0..100).map(|number| ask(hundred * 100 + number, "ada@example.com"))).await);
        }
        assert_eq!(answers.len(), 500);
        let unknown = ask(0, "nobody@example.com").await;
        for answer in &answers {
            assert_eq!((answer.status(), answer.text()), (unknown.status(), unknown.text()));
            let names = |answer: &Response| answer.set_cookie("__Host-vestibule.sign_up").is_some();
            assert_eq!(names(answer), names(&unknown));
        }
        let mails = "SELECT count(*) FROM mail_outbox WHERE recipient = 'ada@example.com'";
        assert_eq!(
            gateway.db().count(mails).await,
            5,
            "{storage}: of the sign-up and four more"
        );
        let left_out = "SELECT count(*) FROM audit_log AS a JOIN users AS u ON u.id = a.subject_id
            WHERE a.action = 'send-mail' AND a.outcome = 'refused' AND a.reason = 'TOO_MANY_REQUESTS'";
        assert_eq!(gateway.db().count(left_out).await, 496);
        assert_eq!(refused_by(&gateway, "mailbox").await, 496);
        // Signing up again is answered as ever, too; an hour later there are mails again.
        assert_eq!(gateway.sign_up("ada@example.com").await.status(), 200);
        assert_eq!(gateway.db().count(mails).await, 5);
        gateway.clock().advance(Duration::from_hours(1));
        assert_eq!(ask(0, "ada@example.com").await.status(), 200);
        assert_eq!(gateway.db().count(mails).await, 6);
    }
}

/// What stands behind a plus sign is one's own to choose.
#[tokio::test]
async fn an_address_with_something_behind_a_plus_is_the_same_mailbox() {
    let gateway = limited().start().await;
    for number in 0..20 {
        gateway.clock().advance(Duration::from_mins(1));
        let address = format!("ada+{number}@example.com");
        assert_eq!(gateway.sign_up(&address).await.status(), 200);
    }
    let mails = "SELECT count(*) FROM mail_outbox WHERE recipient LIKE 'ada+%'";
    assert_eq!(gateway.db().count(mails).await, 5);
    assert_eq!(gateway.sign_up("bob@example.com").await.status(), 200);
    let mails = "SELECT count(*) FROM mail_outbox WHERE recipient LIKE 'bob%'";
    assert_eq!(gateway.db().count(mails).await, 1);
}

/// Whoever has no password yet, and takes each away again, makes nobody hash for ever.
#[tokio::test]
async fn new_passwords_of_one_user_are_counted() {
    let gateway = limited().start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let mut statuses = Vec::new();
    for _ in 0..32 {
        gateway
            .db()
            .run("DELETE FROM accounts WHERE provider_id = 'credential'")
            .await;
        let body = json!({ "newPassword": PASSWORD });
        statuses.push(
            gateway
                .post("/api/auth/set-password")
                .with(&ada)
                .json(&body)
                .await
                .status(),
        );
    }
    let hashed = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!((hashed, statuses.last()), (30, Some(&429)), "{statuses:?}");
}

#[tokio::test]
async fn a_mailbox_gets_mails_again_one_window_after_the_first() {
    for storage in ["database", "memory"] {
        let over = format!("[auth.rate_limit]\nstorage = '{storage}'");
        let gateway = limited().with(&over).start().await;
        assert_eq!(gateway.sign_up("ada@example.com").await.status(), 200);
        let mails = "SELECT count(*) FROM mail_outbox WHERE recipient = 'ada@example.com'";
        let body = json!({ "email": "ada@example.com" });
        for (mins, sent) in [(20, 2), (20, 3), (10, 4), (5, 5), (4, 5), (1, 6)] {
            gateway.clock().advance(Duration::from_mins(mins));
            assert_eq!(gateway.post(RESEND).json(&body).await.status(), 200);
            assert_eq!(gateway.db().count(mails).await, sent, "{storage}");
        }
    }
}

#[tokio::test]
async fn strangers_keep_nobody_from_mails_that_are_asked_for_at_home() {
    for storage in ["database", "memory"] {
        let over = format!("[auth.rate_limit]\nstorage = '{storage}'");
        let gateway = limited().with(&over).start().await;
        gateway.verified("ada@example.com").await;
        let (home, new) = ("2001:db8:1:2::7", "203.0.113.8");
        let right = guess(&gateway, "ada@example.com", PASSWORD).from(home);
        assert_eq!(right.await.status(), 200);
        let mails = async || {
            let mails = "SELECT count(*) FROM mail_outbox WHERE message = 'reset_password'";
            gateway.db().count(mails).await
        };
        let ask = async |from: &str| {
            let body = json!({ "email": "ada@example.com", "redirectTo": "/reset" });
            let answer = gateway.post("/api/auth/request-password-reset").json(&body).from(from);
            assert_eq!(answer.await.status(), 200);
        };
        // However long they go on, and whoever is first when a window begins.
        for hour in 0..3 {
            let before = mails().await;
            for number in 0..20 {
                ask(&address(number)).await;
            }
            let strangers = if hour == 0 { 4 } else { 5 };
            assert_eq!(mails().await, before + strangers, "{storage}: one is the sign-up's");
            ask(new).await;
            assert_eq!(mails().await, before + strangers, "{storage}");
            ask(home).await;
            assert_eq!(mails().await, before + strangers + 1, "{storage}");
            gateway.clock().advance(Duration::from_hours(1));
        }
        // Nor has home more than its share.
        let before = mails().await;
        for _ in 0..4 {
            ask("2001:db8:1:2:3::8").await;
            ask(home).await;
            gateway.clock().advance(Duration::from_mins(1));
        }
        assert_eq!(mails().await, before + 5, "{storage}");
    }
}

/// Where nobody need verify an address, whoever signs up with somebody else's signs in with it from anywhere.
#[tokio::test]
async fn strangers_who_signed_up_with_an_address_are_strangers() {
    let open = "[auth.email_verification]\nrequired = false";
    let gateway = limited().with(open).start().await;
    assert_eq!(gateway.sign_up("ada@example.com").await.status(), 200);
    let body = json!({ "email": "ada@example.com" });
    for number in 0..10 {
        let from = address(number);
        let right = guess(&gateway, "ada@example.com", PASSWORD).from(&from);
        assert_eq!(right.await.status(), 200);
        assert_eq!(gateway.post(RESEND).json(&body).from(&from).await.status(), 200);
    }
    let mails = "SELECT count(*) FROM mail_outbox WHERE recipient = 'ada@example.com'";
    assert_eq!(gateway.db().count(mails).await, 5);
}

#[tokio::test]
async fn mails_that_are_left_out_leave_the_last_link_good() {
    let gateway = limited().start().await;
    gateway.verified("ada@example.com").await;
    let reset = "/api/auth/request-password-reset";
    let ask = |number: usize, email: &str| {
        let body = json!({ "email": email, "redirectTo": "/reset" });
        gateway.post(reset).json(&body).from(&address(number))
    };
    let unknown = ask(0, "nobody@example.com").await;
    for answer in at_once((0..50).map(|number| ask(number, "ada@example.com"))).await {
        assert_eq!((answer.status(), answer.text()), (200, unknown.text()));
    }
    // One is that of the sign-up.
    let links = "SELECT count(*) FROM mail_outbox WHERE message = 'reset_password'";
    assert_eq!(gateway.db().count(links).await, 4);
    eventually(SOON, async || gateway.mailbox().to("ada@example.com").len() == 5).await;
    let mails = gateway.mailbox().to("ada@example.com");
    let mut statuses = Vec::new();
    for mail in mails.iter().filter(|mail| mail.resets()) {
        let token = mail.token();
        let body = json!({ "token": token, "newPassword": "another horse battery" });
        statuses.push(gateway.post("/api/auth/reset-password").json(&body).await.status());
    }
    statuses.sort_unstable();
    assert_eq!(
        statuses,
        [200, 400, 400, 400],
        "the newest that was sent works, those before are void"
    );
}

/// Else many requests at once would take longer for an address with a user, whose row each of them locks in turn.
#[tokio::test]
async fn where_no_mail_is_sent_nobody_waits_for_the_user() {
    let gateway = limited().start().await;
    gateway.verified("ada@example.com").await;
    gateway.sign_up("bob@example.com").await;
    let ask = async |path: &str, email: &str, number: usize| {
        let body = json!({ "name": "A", "email": email, "password": PASSWORD });
        let path = format!("/api/auth/{path}");
        gateway.post(&path).json(&body).from(&address(number)).await.status()
    };
    for number in 0..6 {
        assert_eq!(ask("request-password-reset", "ada@example.com", number).await, 200);
        assert_eq!(ask("send-verification-email", "bob@example.com", number).await, 200);
    }
    let mails = "SELECT count(*) FROM mail_outbox";
    assert_eq!(gateway.db().count(mails).await, 10, "all that two may have");
    let holder = gateway.db().client().await;
    holder
        .batch_execute("BEGIN; SELECT 1 FROM users FOR UPDATE")
        .await
        .unwrap();
    assert_eq!(ask("request-password-reset", "ada@example.com", 10).await, 200);
    assert_eq!(ask("send-verification-email", "ada@example.com", 11).await, 200);
    assert_eq!(ask("send-verification-email", "bob@example.com", 12).await, 200);
    assert_eq!(ask("sign-up/email", "ada@example.com", 13).await, 200);
    holder.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(gateway.db().count(mails).await, 10);
    let left_out = "SELECT count(*) FROM audit_log WHERE action = 'send-mail'";
    assert_eq!(gateway.db().count(left_out).await, 2 + 2 + 3, "and each is noted");
}

/// Whoever has got hold of a session has as few guesses as anybody.
#[tokio::test]
async fn wrong_passwords_with_a_session_count_like_those_without() {
    let gateway = limited().start().await;
    gateway.verified("ada@example.com").await;
    let home = "203.0.113.7";
    let right = guess(&gateway, "ada@example.com", PASSWORD).from(home).await;
    let ada = User::of(&gateway, &right);
    let ask = |path: &str, body: Value, from: &str| {
        let path = format!("/api/auth/{path}");
        gateway.post(&path).with(&ada).json(&body).from(from)
    };
    let verify = |password: &str, from: &str| ask("verify-password", json!({ "password": password }), from);
    let change = json!({ "currentPassword": "not the password", "newPassword": "another horse battery" });
    for number in 0..5 {
        let tried = [
            verify("not the password", &address(number)),
            ask("change-password", change.clone(), &address(number)),
        ];
        assert_eq!(statuses(tried).await, [400, 400], "{number}");
    }
    too_many(&verify("not the password", &address(6)).await);
    too_many(&verify(PASSWORD, &address(6)).await);
    too_many(&ask("change-password", change, &address(6)).await);
    too_many(&guess(&gateway, "ada@example.com", PASSWORD).from(&address(6)).await);
    // At home nothing has changed.
    assert_eq!(verify(PASSWORD, home).await.status(), 200);
    let known = "SELECT count(*) FROM audit_log WHERE action = 'verify-password' AND reason = 'TOO_MANY_REQUESTS'";
    assert_eq!(gateway.db().count(known).await, 1);
}

/// Whoever knows one password keeps nobody else waiting for a hash.
#[tokio::test]
async fn right_passwords_of_one_user_are_tested_so_often_in_a_minute() {
    let gateway = limited().start().await;
    gateway.verified("ada@example.com").await;
    gateway.verified("bob@example.com").await;
    let home = "203.0.113.7";
    let ada = User::of(&gateway, &guess(&gateway, "ada@example.com", PASSWORD).from(home).await);
    let bob = User::of(&gateway, &guess(&gateway, "bob@example.com", PASSWORD).from(home).await);
    let ask = |user: &User, path: &str, password: &str, from: &str| {
        let body = json!({ "password": password });
        gateway.post(path).with(user).json(&body).from(from)
    };
    let verify = |user: &User, from: &str| ask(user, "/api/auth/verify-password", PASSWORD, from);

    // Whoever has only a session can't use it up.
    for number in 0..60 {
        let answer = ask(&ada, "/api/auth/verify-password", "not the password", &address(number)).await;
        assert_eq!(answer.status(), if number < 10 { 400 } else { 429 }, "{number}");
    }
    assert_eq!(verify(&ada, home).await.status(), 200);
    gateway.clock().advance(Duration::from_mins(1));
    for number in 0..30 {
        assert_eq!(verify(&ada, home).await.status(), 200, "{number}");
    }
    let before = refused_by(&gateway, "session").await;
    assert_eq!(too_many(&verify(&ada, home).await), 60);
    assert_eq!(too_many(&verify(&ada, "203.0.113.8").await), 60, "from anywhere");
    let delete = ask(&ada, "/api/auth/delete-user", PASSWORD, home);
    assert_eq!(too_many(&delete.await), 60);
    assert_eq!(refused_by(&gateway, "session").await, before + 3);
    assert_eq!(verify(&bob, home).await.status(), 200, "others go on");
    assert_eq!(
        guess(&gateway, "ada@example.com", PASSWORD).from(home).await.status(),
        200
    );
    gateway.clock().advance(Duration::from_mins(1));
    assert_eq!(verify(&ada, home).await.status(), 200);
}

#[tokio::test]
async fn without_postgres_the_general_limit_counts_on() {
    let cluster = tokio::task::spawn_blocking(Cluster::temporary).await.unwrap().unwrap();
    let db = Database::at(&cluster.url("postgres"));
    let gateway = limited().with("[database]\nacquire_timeout = '1s'").start_on(&db).await;
    assert_eq!(wrong(&gateway, "nobody@example.com").await.status(), 401);
    tokio::task::spawn_blocking(|| cluster.stop()).await.unwrap().unwrap();
    let asked = statuses((0..101).map(|_| gateway.get(GET_SESSION))).await;
    assert_eq!(asked, [vec![200; 100], vec![429]].concat());
    // What tests a secret is not let through uncounted.
    assert_eq!(wrong(&gateway, "nobody@example.com").await.status(), 503);
}

#[tokio::test]
async fn what_can_not_matter_any_more_is_removed() {
    let db = Database::fresh().await;
    let before = Gateway::on(&db).await;
    before.verified("ada@example.com").await;
    drop(before);
    // The clock stands at 08:00 on the 21st of November.
    db.run(
        "INSERT INTO rate_limits (key, count, last_at, expires_at) VALUES
             (sha256('over'), 3, '2026-11-21T05:59Z', '2026-11-21T07:00Z'),
             (sha256('in force'), 3, '2026-11-21T07:59Z', '2026-11-21T09:00Z');
         INSERT INTO known_addresses (user_id, network, last_signed_in_at)
         SELECT id, network, last_signed_in_at::timestamptz
         FROM users, (VALUES ('192.0.2.1', '2026-10-22T07:59Z'), ('192.0.2.2', '2026-10-22T08:01Z'))
             AS known (network, last_signed_in_at)",
    )
    .await;
    let gateway = limited().start_on(&db).await;
    eventually(SOON, async || rows(&gateway).await == 1).await;
    let known = "SELECT count(*) FROM known_addresses";
    eventually(SOON, async || db.count(known).await == 1).await;
    let last_at = "SELECT count(*) FROM rate_limits WHERE last_at = '2026-11-21T07:59Z'";
    assert_eq!(db.count(last_at).await, 1);
    assert_eq!(db.count(&format!("{known} WHERE network = '192.0.2.2'")).await, 1);
}

#[tokio::test]
async fn switched_off_nothing_is_limited() {
    let gateway = Gateway::start().await;
    gateway.verified("ada@example.com").await;
    let calls = (0..20).map(|_| wrong(&gateway, "ada@example.com"));
    assert_eq!(statuses(calls).await, [401; 20]);
    assert_eq!(gateway.sign_in("ada@example.com").await.status(), 200);
    assert_eq!(rows(&gateway).await, 0);
    // Where people sign in from is noted all the same, for the day when it is switched on.
    assert_eq!(gateway.db().count("SELECT count(*) FROM known_addresses").await, 1);
}
