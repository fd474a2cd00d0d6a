//! The gateway is killed while people sign up: whoever was told "yes" is there, once, and gets their mail, once.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;

use crate::harness::{
    Database, SOON, Setup,
    client::Call,
    eventually,
    gateway::SITE,
    mailbox::{Mail, Mailbox},
    people::PASSWORD,
    program::Program,
    upstream::Upstream,
};

const PEOPLE: usize = 1_000;

/// Who sign up at the same time.
const AT_ONCE: usize = 16;

/// For a thousand sign-ups, or mails, on a machine that does much else.
const A_WHILE: Duration = Duration::from_mins(2);

/// How many mails a gateway has in hand at once, and may have handed over without having written it down.
const IN_HAND: usize = 8;

#[tokio::test]
async fn nobody_who_was_told_yes_is_lost() {
    let db = Database::fresh().await;
    let (mailbox, upstream) = (Mailbox::start().await, Upstream::start().await);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("gateway.toml");
    let setup = Setup::default().with("[database]\nacquire_timeout = '10s'\n[auth.password]\nqueue = 1024");
    std::fs::write(&config, setup.text(&db, mailbox.addr(), upstream.addr())).unwrap();
    let everybody: Vec<String> = (0..PEOPLE).map(|n| format!("person{n:04}@example.com")).collect();

    let (gateway, addr, _) = Program::serve(&config).await;
    let attempts = Attempts::new(&everybody);
    let hands: Vec<_> = (0..AT_ONCE).map(|_| tokio::spawn(attempts.clone().go(addr))).collect();
    eventually(A_WHILE, async || attempts.told_yes().len() >= PEOPLE / 2).await;
    gateway.kill().await;
    for hand in hands {
        hand.await.unwrap();
    }
    let told_yes = attempts.told_yes();
    assert!(
        (PEOPLE / 2..PEOPLE).contains(&told_yes.len()),
        "it was killed in between"
    );

    // Nobody is there twice; whoever was told yes is there, and of the others only those who were about to be told.
    let users = users(&db).await;
    let known: BTreeSet<String> = users.iter().cloned().collect();
    assert_eq!(known.len(), users.len(), "each exists once");
    assert!(told_yes.is_subset(&known), "lost: {:?}", told_yes.difference(&known));
    let unsaid: BTreeSet<String> = known.difference(&told_yes).cloned().collect();
    assert!(unsaid.len() <= AT_ONCE, "{unsaid:?}");
    let whole = "SELECT count(*) FROM users AS u WHERE (SELECT count(*) FROM accounts AS a WHERE a.user_id = u.id) = 1";
    assert_eq!(usize::try_from(db.count(whole).await).unwrap(), users.len());

    // Those whom the dead gateway had in its hands would be sent when its claim on them has run out.
    db.run("UPDATE mail_outbox SET due_at = created_at WHERE sent_at IS NULL")
        .await;
    let (again, addr, _) = Program::serve(&config).await;
    eventually(A_WHILE, async || mailbox.recipients().is_superset(&known)).await;
    let unsent = "SELECT count(*) FROM mail_outbox WHERE sent_at IS NULL";
    eventually(SOON, async || db.count(unsent).await == 0).await;
    let mut copies = 0;
    for email in &known {
        let mails = mailbox.to(email);
        let ids: BTreeSet<&str> = mails.iter().map(Mail::message_id).collect();
        assert_eq!(ids.len(), 1, "{email}: a second copy looks like another mail");
        copies += mails.len() - 1;
    }
    assert!(copies <= IN_HAND, "{copies} mails came twice");

    // And nobody is stuck half way: who was told nothing tries again.
    let rest: Vec<String> = everybody
        .iter()
        .filter(|email| !told_yes.contains(*email))
        .cloned()
        .collect();
    let attempts = Attempts::new(&rest);
    for hand in (0..AT_ONCE)
        .map(|_| tokio::spawn(attempts.clone().go(addr)))
        .collect::<Vec<_>>()
    {
        hand.await.unwrap();
    }
    assert_eq!(attempts.told_yes().len(), rest.len());
    assert_eq!(
        users_by_email(&db).await,
        everybody.iter().map(|email| (email.clone(), 1)).collect()
    );
    again.signal("TERM").await;
    assert_eq!(again.ended().await.code, Some(0));
}

/// People who each try once.
#[derive(Clone)]
struct Attempts {
    people: Arc<[String]>,
    next: Arc<AtomicUsize>,
    told_yes: Arc<Mutex<BTreeSet<String>>>,
}

impl Attempts {
    fn new(people: &[String]) -> Self {
        Self {
            people: people.into(),
            next: Arc::default(),
            told_yes: Arc::default(),
        }
    }

    fn told_yes(&self) -> BTreeSet<String> {
        self.told_yes.lock().unwrap().clone()
    }

    /// One hand: signs up whoever is next.
    async fn go(self, addr: SocketAddr) {
        while let Some(email) = self.people.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            match sign_up(addr, email).await {
                Some(200) => {
                    self.told_yes.lock().unwrap().insert(email.clone());
                }
                Some(other) => panic!("{email}: {other}"),
                None => {}
            }
        }
    }
}

/// The status; `None` when the connection broke before the whole answer was there.
async fn sign_up(addr: SocketAddr, email: &str) -> Option<u16> {
    let body = json!({ "name": "A Person", "email": email, "password": PASSWORD });
    let call = Call::new(addr, SITE, "POST", "/api/auth/sign-up/email").json(&body);
    Some(call.attempt().await?.status())
}

async fn users(db: &Database) -> Vec<String> {
    let rows = db
        .client()
        .await
        .query("SELECT lower(email) FROM users", &[])
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn users_by_email(db: &Database) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for email in users(db).await {
        *counted.entry(email).or_default() += 1;
    }
    counted
}
