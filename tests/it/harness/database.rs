//! A database for each test, copied from one that was migrated once.
//!
//! One private cluster serves the whole run; it is started by the first test that asks, and ends with the process. A
//! schema per test would not do: notifications are per database. A database goes when its test ends: each takes ten
//! megabytes of the disk, and those of a whole run fill one that others use, too.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{OnceCell, mpsc};
use tokio_postgres::{Client, NoTls, error::SqlState};
use vestibule::{
    db::{Connector, Pooler, Settings, migrate},
    dev::postgres::Cluster,
    secret::Secret,
};

/// Where the gateway keeps its tables.
pub(crate) const SCHEMA: &str = "auth";

const TEMPLATE: &str = "vestibule_template";

/// How long a database outlives its test: a gateway that was dropped is still putting things away.
const LINGERING: Duration = Duration::from_secs(2);

/// For removing one.
const PATIENCE: Duration = Duration::from_mins(2);

static CLUSTER: OnceCell<Shared> = OnceCell::const_new();
static NEXT: AtomicUsize = AtomicUsize::new(1);

/// The cluster, and whom to tell of databases that nobody needs any more.
struct Shared {
    cluster: Cluster,
    finished: mpsc::UnboundedSender<Finished>,
}

struct Finished {
    name: String,
    since: Instant,
}

/// A copy in the shared cluster, for as long as somebody may use it.
struct Copy {
    name: String,
    finished: mpsc::UnboundedSender<Finished>,
}

impl Drop for Copy {
    fn drop(&mut self) {
        // Nobody listens any more if a database could not be removed: the next test that wants one says so.
        let _ = self.finished.send(Finished {
            name: std::mem::take(&mut self.name),
            since: Instant::now(),
        });
    }
}

#[derive(Clone)]
pub(crate) struct Database {
    url: Arc<str>,
    /// `None` on a server of the test's own.
    copy: Option<Arc<Copy>>,
}

impl Database {
    /// Migrated, without a row.
    pub(crate) async fn fresh() -> Self {
        Self::copy_of(TEMPLATE).await
    }

    /// Nothing in it: for tests of migrations.
    pub(crate) async fn empty() -> Self {
        Self::copy_of("template0").await
    }

    async fn copy_of(template: &str) -> Self {
        let Shared { cluster, finished } = CLUSTER.get_or_init(prepare).await;
        assert!(!finished.is_closed(), "databases of finished tests are removed no more");
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let client = connect(&cluster.url("postgres")).await;
        // `wal_log` copies block by block: no checkpoint, which the other strategy forces twice.
        let create = format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log");
        client.batch_execute(&create).await.unwrap();
        Self {
            url: cluster.url(&name).into(),
            copy: Some(Arc::new(Copy {
                name,
                finished: finished.clone(),
            })),
        }
    }

    /// On a server of the test's own.
    pub(crate) fn at(url: &str) -> Self {
        Self {
            url: url.into(),
            copy: None,
        }
    }

    /// The same database by another way, or as somebody else.
    pub(crate) fn by(&self, url: &str) -> Self {
        Self {
            url: url.into(),
            copy: self.copy.clone(),
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// A connection of the test's own, as psql would have it.
    pub(crate) async fn client(&self) -> Client {
        let client = connect(&self.url).await;
        client
            .batch_execute(&format!("SET search_path TO {SCHEMA}"))
            .await
            .unwrap();
        client
    }

    /// Connections as the gateway makes them.
    pub(crate) fn connector(&self) -> Connector {
        Connector::new(&self.settings(), tokio::runtime::Handle::current()).unwrap()
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            url: Secret::new(self.url.to_string()),
            listen_url: None,
            ca: None,
            pooler: Pooler::None,
            pool_size: 4,
            acquire_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_mins(1),
            schema: SCHEMA.to_owned(),
        }
    }

    /// Runs statements by hand.
    pub(crate) async fn run(&self, sql: &str) {
        self.client().await.batch_execute(sql).await.unwrap();
    }

    /// The same with what tells gateways of changed sessions switched off.
    pub(crate) async fn run_untold(&self, sql: &str) {
        self.run(&format!(
            "ALTER TABLE user_sessions DISABLE TRIGGER USER;
             {sql};
             ALTER TABLE user_sessions
                 ENABLE ALWAYS TRIGGER user_sessions_updated,
                 ENABLE ALWAYS TRIGGER user_sessions_deleted,
                 ENABLE ALWAYS TRIGGER user_sessions_truncated"
        ))
        .await;
    }

    /// Postgres is away, as far as this database is concerned: connections end, and no new ones come about.
    pub(crate) async fn shut(&self) {
        let (server, name) = self.server_and_name();
        let shut = format!(
            "ALTER DATABASE {name} ALLOW_CONNECTIONS false;
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        );
        Self::at(&server).run(&shut).await;
    }

    /// It is back.
    pub(crate) async fn reopen(&self) {
        let (server, name) = self.server_and_name();
        let reopen = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true");
        Self::at(&server).run(&reopen).await;
    }

    fn server_and_name(&self) -> (String, &str) {
        let (server, name) = self.url.rsplit_once('/').unwrap();
        (format!("{server}/postgres"), name.split('?').next().unwrap())
    }

    /// The one number that a query answers with.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        self.client().await.query_one(sql, &[]).await.unwrap().get(0)
    }
}

/// Starts the cluster and migrates the template.
async fn prepare() -> Shared {
    let started = tokio::task::spawn_blocking(Cluster::temporary).await.unwrap();
    let cluster = started.unwrap_or_else(|error| panic!("the tests need a Postgres of their own: {error}"));
    let url = cluster.url("postgres");
    let password = url::Url::parse(&url).unwrap().password().unwrap().to_owned();
    super::canary::secret("the password of the database", password);
    let client = connect(&url).await;
    client
        .batch_execute(&format!("CREATE DATABASE {TEMPLATE}"))
        .await
        .unwrap();
    let template = Database::at(&cluster.url(TEMPLATE));
    migrate::run(&template.connector(), SCHEMA).await.unwrap();
    // A database that somebody is connected to can't be copied, and closing takes a moment.
    let connected = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1";
    super::eventually(super::SOON, async || {
        client
            .query_one(connected, &[&TEMPLATE])
            .await
            .unwrap()
            .get::<_, i64>(0)
            == 0
    })
    .await;
    let (finished, received) = mpsc::unbounded_channel();
    let remover = thread::Builder::new().name("database-remover".to_owned());
    remover.spawn(move || remove(&url, received)).unwrap();
    Shared { cluster, finished }
}

/// Removes databases that nobody needs any more, one by one; `url` is of another in their cluster.
fn remove(url: &str, mut finished: mpsc::UnboundedReceiver<Finished>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(async {
        let client = connect(url).await;
        while let Some(Finished { name, since }) = finished.recv().await {
            tokio::time::sleep_until((since + LINGERING).into()).await;
            let remove = format!("DROP DATABASE {name} WITH (FORCE)");
            // Postgres gives up itself where a backend takes longer than five seconds to go.
            let removing = async {
                while let Err(error) = client.batch_execute(&remove).await {
                    let code = error.code();
                    assert_eq!(
                        code,
                        Some(&SqlState::OBJECT_IN_USE),
                        "{name} could not be removed: {error:?}"
                    );
                }
            };
            let removed = tokio::time::timeout(PATIENCE, removing).await;
            removed.unwrap_or_else(|_| panic!("{name} was not removed within {PATIENCE:?}"));
        }
    });
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .expect("the tests' Postgres answers");
    tokio::spawn(connection);
    client
}
