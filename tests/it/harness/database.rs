//! A database for each test, copied from one that was migrated once.
//!
//! One private cluster serves the whole run; it is started by the first test that asks, and ends with the process. A
//! schema per test would not do: notifications are per database.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};
use vestibule::{
    db::{Connector, Pooler, Settings, migrate},
    dev::postgres::Cluster,
    secret::Secret,
};

/// Where the gateway keeps its tables.
pub(crate) const SCHEMA: &str = "auth";

const TEMPLATE: &str = "vestibule_template";

static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
static NEXT: AtomicUsize = AtomicUsize::new(1);

#[derive(Clone)]
pub(crate) struct Database {
    url: Arc<str>,
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
        let cluster = CLUSTER.get_or_init(prepare).await;
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let client = connect(&cluster.url("postgres")).await;
        // `wal_log` copies block by block: no checkpoint, which the other strategy forces twice.
        let create = format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log");
        client.batch_execute(&create).await.unwrap();
        Self {
            url: cluster.url(&name).into(),
        }
    }

    /// On a server of the test's own.
    pub(crate) fn at(url: &str) -> Self {
        Self { url: url.into() }
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
async fn prepare() -> Cluster {
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
    let template = Database {
        url: cluster.url(TEMPLATE).into(),
    };
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
    cluster
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .expect("the tests' Postgres answers");
    tokio::spawn(connection);
    client
}
