//! Mails on their way: a real database, and a server that real SMTP is spoken with.

mod hostile;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use lettre::transport::smtp::client::Certificate;
use tokio::{net::TcpListener, runtime::Handle, time::sleep};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    clock::Clock,
    config::{Mail, SmtpSecurity, SmtpUrl},
    db::{self, Connector, Db, Pooler, Settings, migrate},
    dev::{
        postgres::Cluster,
        smtp::{self, Options, Received, Tls, TlsMode, Verdict},
    },
    lifecycle::Tasks,
    secret::{Secret, random},
};

/// Stops when the tests' process does.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::temporary().unwrap())
}

/// The same for everybody.
fn keys() -> SealingKeys {
    SealingKeys::new([b"what the tests of mails seal with".as_slice()])
}

/// A database, a mail server that keeps what it accepts, a clock.
struct World {
    database: Settings,
    db: Db,
    clock: Clock,
    tasks: Tasks,
    settings: Mail,
    kept: Arc<Mutex<Vec<Received>>>,
}

impl World {
    async fn new(options: Options, verdict: impl Fn(&Received) -> Verdict + Send + Sync + 'static) -> Self {
        let name = format!("mail_{:016x}", u64::from_be_bytes(random()));
        let (admin, connection) = tokio_postgres::connect(&cluster().url("postgres"), tokio_postgres::NoTls)
            .await
            .unwrap();
        let tasks = Tasks::new(Handle::current());
        tasks.spawn("admin", async move {
            let _ = connection.await;
        });
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let database = Settings {
            url: Secret::new(cluster().url(&name)),
            listen_url: None,
            ca: None,
            pooler: Pooler::None,
            pool_size: 16,
            acquire_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(10),
            schema: "auth".to_owned(),
        };
        let connector = Connector::new(&database, Handle::current()).unwrap();
        migrate::run(&connector, "auth").await.unwrap();

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = Mail {
            from: "Example <no-reply@example.com>".to_owned(),
            smtp: SmtpUrl {
                security: SmtpSecurity::Plain,
                host: "localhost".to_owned(),
                port: listener.local_addr().unwrap().port(),
                credentials: None,
            },
        };
        let kept: Arc<Mutex<Vec<Received>>> = Arc::default();
        let keep = {
            let kept = Arc::clone(&kept);
            move |mail: Received| {
                let verdict = verdict(&mail);
                if verdict == Verdict::Accept || verdict == Verdict::HangUp {
                    kept.lock().unwrap().push(mail);
                }
                verdict
            }
        };
        tasks.spawn("smtp", smtp::serve(listener, options, keep, tasks.clone()));
        Self {
            db: connector.pools(&database).unwrap(),
            database,
            clock: Clock::manual(Timestamp::from_secs(1_800_000_000)),
            tasks,
            settings,
            kept,
        }
    }

    async fn plain() -> Self {
        Self::new(Options::default(), |_| Verdict::Accept).await
    }

    fn worker(&self, roots: &[Certificate]) -> (OutboxBell, CancellationToken) {
        let bell = OutboxBell::default();
        let (db, clock) = (self.db.clone(), self.clock.clone());
        let outbox = Outbox::trusting(db, &self.settings, keys(), clock, bell.clone(), roots).unwrap();
        let stop = CancellationToken::new();
        self.tasks.spawn("outbox", outbox.run(stop.clone()));
        (bell, stop)
    }

    async fn enqueue(&self, to: &str) {
        self.enqueue_with(to, Duration::from_hours(30 * 24)).await;
    }

    async fn enqueue_with(&self, to: &str, expires_in: Duration) {
        let mut client = self.db.client().await.unwrap();
        let tx = db::begin(&mut client).await.unwrap();
        let message = Message::VerifyEmail {
            name: "Ada",
            link: "https://app.example.com/?token=S3CR3T",
            expires_in,
        };
        enqueue(&tx, &keys(), to, &message, self.clock.now()).await.unwrap();
        db::commit(tx).await.unwrap();
    }

    async fn count(&self, condition: &str) -> i64 {
        let mut client = self.db.client().await.unwrap();
        let tx = db::begin(&mut client).await.unwrap();
        let sql = format!("SELECT count(*) FROM mail_outbox WHERE {condition}");
        tx.raw().query_one(&sql, &[]).await.unwrap().get(0)
    }

    async fn until(&self, condition: &str, count: i64) {
        for _ in 0..1000 {
            if self.count(condition).await == count {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("{} mails with {condition}, not {count}", self.count(condition).await);
    }

    fn kept(&self) -> Vec<Received> {
        self.kept.lock().unwrap().clone()
    }
}

fn message_id(mail: &Received) -> String {
    let text = String::from_utf8(mail.data.clone()).unwrap();
    let line = text.lines().find(|line| line.starts_with("Message-ID:"));
    line.unwrap_or_else(|| panic!("no Message-ID in {text}")).to_owned()
}

#[tokio::test]
async fn a_mail_is_sent_at_the_ring_and_its_body_erased() {
    let world = World::plain().await;
    let (bell, _stop) = world.worker(&[]);
    world.enqueue("ada@example.com").await;
    bell.ring();
    world
        .until("sent_at IS NOT NULL AND body_text IS NULL AND body_html IS NULL", 1)
        .await;
    let kept = world.kept();
    let text = String::from_utf8(kept[0].data.clone()).unwrap();
    assert_eq!(kept[0].to, ["ada@example.com"]);
    for part in [
        "Subject: Confirm your e-mail address",
        "S3CR3T",
        "Auto-Submitted: auto-generated",
        "text/html",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert!(message_id(&kept[0]).ends_with("@example.com>"));
}

#[tokio::test]
async fn a_refusal_for_now_is_tried_again_and_one_for_good_is_not() {
    let verdict = |mail: &Received| match mail.to[0].as_str() {
        "full@example.com" => Verdict::Refuse(452, "4.2.2 full".to_owned()),
        "gone@example.com" => Verdict::Refuse(550, "5.1.1 nobody".to_owned()),
        "policy@example.com" => Verdict::Refuse(535, "5.7.8 wrong password".to_owned()),
        _ => Verdict::Accept,
    };
    let world = World::new(Options::default(), verdict).await;
    let (bell, _stop) = world.worker(&[]);
    for to in ["full", "gone", "policy"] {
        world.enqueue(&format!("{to}@example.com")).await;
    }
    let open = "body_text LIKE '%S3CR3T%' OR body_html LIKE '%S3CR3T%'";
    assert_eq!(world.count(open).await, 0, "a body lies open");
    bell.ring();
    world
        .until(
            "failed_at IS NOT NULL AND body_text IS NULL AND last_error LIKE '%550%'",
            1,
        )
        .await;
    world
        .until("attempts = 1 AND body_text IS NOT NULL AND last_error IS NOT NULL", 2)
        .await;
    bell.ring();
    sleep(Duration::from_millis(200)).await;
    assert_eq!(world.count("attempts = 1").await, 3, "tried again before it was due");
    world.clock.advance(Duration::from_secs(6));
    bell.ring();
    world.until("attempts = 2", 2).await;
    world.clock.advance(Duration::from_hours(6 * 24));
    world.until("failed_at IS NOT NULL AND body_text IS NULL", 3).await;
    assert!(world.kept().is_empty());
}

#[tokio::test]
async fn a_mail_that_another_secret_sealed_waits_for_whoever_has_it() {
    let world = World::plain().await;
    world.enqueue("ada@example.com").await;
    let bell = OutboxBell::default();
    let strangers = SealingKeys::new([b"a secret of another gateway's".as_slice()]);
    let (db, clock) = (world.db.clone(), world.clock.clone());
    let outbox = Outbox::trusting(db, &world.settings, strangers, clock, bell.clone(), &[]).unwrap();
    let stop = CancellationToken::new();
    world.tasks.spawn("outbox", outbox.run(stop.clone()));
    world.until("attempts = 1 AND last_error LIKE '%auth.secret%'", 1).await;
    stop.cancel();
    assert!(world.kept().is_empty());

    world.clock.advance(Duration::from_secs(6));
    let (bell, _stop) = world.worker(&[]);
    bell.ring();
    world.until("sent_at IS NOT NULL", 1).await;
}

#[tokio::test]
async fn what_a_server_repeats_of_a_mail_is_not_kept() {
    let verdict = |mail: &Received| {
        let text = String::from_utf8_lossy(&mail.data).into_owned();
        let link = text
            .split_whitespace()
            .find(|word| word.contains("token="))
            // As filters quote it: decoded.
            .map(|word| word.replace("=3D", "="))
            .unwrap();
        Verdict::Refuse(554, format!("5.7.1 blocked: <{link}> in your mail"))
    };
    let world = World::new(Options::default(), verdict).await;
    let (bell, _stop) = world.worker(&[]);
    world.enqueue("ada@example.com").await;
    bell.ring();
    world
        .until(
            "attempts = 1 AND last_error LIKE '%5.7.1 blocked: [withheld] in your mail%'",
            1,
        )
        .await;
    assert_eq!(world.count("last_error LIKE '%S3CR3T%'").await, 0);
}

#[tokio::test]
async fn a_mail_whose_link_is_dead_is_not_sent() {
    let world = World::new(Options::default(), |mail| match mail.to[0].as_str() {
        "late@example.com" => Verdict::Refuse(451, "4.3.0 later".to_owned()),
        _ => Verdict::Accept,
    })
    .await;
    // One is tried in time and again too late, one is found too late, one lives.
    world.enqueue_with("late@example.com", Duration::from_mins(15)).await;
    let (bell, stop) = world.worker(&[]);
    world.until("attempts = 1 AND last_error LIKE '%later%'", 1).await;
    stop.cancel();
    drop(bell);
    world.enqueue_with("found@example.com", Duration::from_mins(15)).await;
    world.enqueue_with("lives@example.com", Duration::from_mins(16)).await;
    world.clock.advance(Duration::from_mins(15));
    let (bell, _stop) = world.worker(&[]);
    bell.ring();
    world
        .until(
            "failed_at IS NOT NULL AND last_error = 'expired' AND body_text IS NULL",
            2,
        )
        .await;
    world.until("sent_at IS NOT NULL", 1).await;
    let kept = world.kept();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].to, ["lives@example.com"]);
}

#[tokio::test]
async fn a_thousand_mails_arrive_though_a_worker_is_killed() {
    let world = World::plain().await;
    for number in 0..1000 {
        world.enqueue(&format!("user{number}@example.com")).await;
    }
    // A gateway of its own runtime, which ends in the middle of things.
    let other = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let outbox = {
        let _entered = other.enter();
        let connector = Connector::new(&world.database, other.handle().clone()).unwrap();
        Outbox::new(
            connector.pools(&world.database).unwrap(),
            &world.settings,
            keys(),
            world.clock.clone(),
            OutboxBell::default(),
        )
        .unwrap()
    };
    Tasks::new(other.handle().clone()).spawn("killed", outbox.run(CancellationToken::new()));
    while world.kept().len() < 300 {
        sleep(Duration::from_millis(2)).await;
    }
    other.shutdown_background();
    let (first, stop_first) = world.worker(&[]);
    let (second, stop_second) = world.worker(&[]);
    first.ring();
    second.ring();
    // All but what the dead one had in hand, since the clock stands still.
    world.until("attempts = 0", 0).await;
    world.clock.advance(Duration::from_secs(31));
    world.until("sent_at IS NOT NULL AND body_text IS NULL", 1000).await;

    let mut copies: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for mail in world.kept() {
        copies.entry(mail.to[0].clone()).or_default().insert(message_id(&mail));
    }
    assert_eq!(copies.len(), 1000);
    assert!(
        copies.values().all(|ids| ids.len() == 1),
        "a second copy looks like another mail"
    );
    // What three workers may have had in hand when the lease ended is all that may have come twice.
    let sent = world.kept().len();
    assert!((1000..=1000 + 3 * 8).contains(&sent), "{sent} mails");
    stop_first.cancel();
    stop_second.cancel();
    world.tasks.stop.soft.cancel();
}

/// What a server shows, and who is to be trusted for it.
fn of_localhost() -> (Arc<rustls::ServerConfig>, Certificate) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let root = Certificate::from_der(made.cert.der().to_vec()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (Arc::new(config), root)
}

#[tokio::test]
async fn a_mail_travels_encrypted_or_not_at_all() {
    let (config, root) = of_localhost();
    let login = ("user".to_owned(), "pa55".to_owned());
    for (security, mode) in [
        (SmtpSecurity::StartTls, Some(TlsMode::StartTls)),
        (SmtpSecurity::Tls, Some(TlsMode::Implicit)),
        (SmtpSecurity::StartTls, None),
    ] {
        let options = Options {
            tls: mode.map(|mode| Tls {
                config: Arc::clone(&config),
                mode,
            }),
            credentials: Some(login.clone()),
        };
        let mut world = World::new(options, |_| Verdict::Accept).await;
        world.settings.smtp.security = security;
        world.settings.smtp.credentials = Some((login.0.clone(), Secret::new(login.1.clone())));
        let (bell, _stop) = world.worker(std::slice::from_ref(&root));
        world.enqueue("ada@example.com").await;
        bell.ring();
        if mode.is_some() {
            world.until("sent_at IS NOT NULL", 1).await;
            let kept = world.kept();
            assert!(kept[0].encrypted && kept[0].user.as_deref() == Some("user"));
        } else {
            world.until("last_error LIKE '%STARTTLS%'", 1).await;
            assert!(world.kept().is_empty());
        }
    }
}
