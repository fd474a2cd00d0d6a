//! How connections come to be: the URL, TLS, and which runtime drives them.
//!
//! A connection's own task must not run on a thread of the data path, whoever asked for the connection first:
//! [`Connector`] spawns it on the runtime of cold work.

use std::{fmt, future::Future, pin::Pin, str::FromStr, time::Duration};

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio::{runtime::Handle, task::JoinHandle};
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::warn;

use super::{Db, answer};
use crate::{chain::Chain, secret::Secret};

/// What is needed to reach Postgres.
#[derive(Clone, Debug)]
pub struct Settings {
    pub url: Secret<String>,
    /// Connections of both pools together: a quarter, at least two, is kept for session look-ups.
    pub pool_size: usize,
    /// For a connection out of the pool, and for making one.
    pub acquire_timeout: Duration,
    pub statement_timeout: Duration,
    /// Where our tables are; a plain identifier.
    pub schema: String,
}

/// Makes connections, each with the schema as its search path and the statement time-out set.
#[derive(Clone)]
pub struct Connector {
    config: Config,
    tls: MakeRustlsConnect,
    runtime: Handle,
}

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("database.url is not a Postgres URL")]
    Url(#[source] tokio_postgres::Error),
    #[error("the pool can't be built")]
    Pool(#[from] deadpool_postgres::BuildError),
}

impl Connector {
    pub fn new(settings: &Settings, runtime: Handle) -> Result<Self, SettingsError> {
        let mut config = Config::from_str(settings.url.expose()).map_err(SettingsError::Url)?;
        let statement_timeout_ms = settings.statement_timeout.as_millis();
        let options = format!(
            "{} -c search_path={} -c statement_timeout={statement_timeout_ms}",
            config.get_options().unwrap_or_default(),
            settings.schema,
        );
        config
            .options(options.trim())
            .application_name("vestibule")
            .connect_timeout(settings.acquire_timeout)
            .keepalives_idle(Duration::from_secs(15));
        let answer_within = answer::allow(settings.statement_timeout);
        // What the other side never acknowledges breaks the connection, rather than the kernel's quarter of an hour.
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(answer_within);
        }
        Ok(Self {
            config,
            tls: MakeRustlsConnect::new(tls_config()),
            runtime,
        })
    }

    /// The parsed URL, with our options.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    pub fn tls(&self) -> MakeRustlsConnect {
        self.tls.clone()
    }

    /// A connection outside of the pools.
    pub async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.config.connect(self.tls.clone()).await?;
        self.runtime.spawn(async move {
            // The client's next call fails with the same cause.
            let _ = connection.await;
        });
        Ok(client)
    }

    /// Both pools; nothing is connected yet.
    pub fn pools(&self, settings: &Settings) -> Result<Db, SettingsError> {
        let hot = (settings.pool_size / 4).max(2);
        let cold = settings.pool_size.saturating_sub(hot).max(2);
        Ok(Db {
            hot: self.pool(hot, settings.acquire_timeout)?,
            cold: self.pool(cold, settings.acquire_timeout)?,
        })
    }

    fn pool(&self, size: usize, acquire_timeout: Duration) -> Result<Pool, SettingsError> {
        let recycling_method = RecyclingMethod::Fast;
        let manager = Manager::from_connect(self.config.clone(), self.clone(), ManagerConfig { recycling_method });
        let unless_suspect = Hook::sync_fn(|_, metrics| {
            if answer::is_suspect(metrics.created) {
                Err(HookError::message("Postgres left a question unanswered since"))
            } else {
                Ok(())
            }
        });
        let pool = Pool::builder(manager)
            .pre_recycle(unless_suspect)
            .max_size(size)
            .wait_timeout(Some(acquire_timeout))
            .create_timeout(Some(acquire_timeout))
            .recycle_timeout(Some(acquire_timeout))
            .runtime(Runtime::Tokio1)
            .build()?;
        Ok(pool)
    }
}

impl deadpool_postgres::Connect for Connector {
    fn connect(
        &self,
        config: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), tokio_postgres::Error>> + Send + '_>> {
        let config = config.clone();
        Box::pin(async move {
            // A socket belongs to the runtime on which it was connected: that must be ours too, whoever asks.
            let (ours, tls) = (config.clone(), self.tls.clone());
            let (client, connection) = match self.runtime.spawn(async move { ours.connect(tls).await }).await {
                Ok(connected) => connected?,
                // That runtime is going down, and everything with it.
                Err(_) => config.connect(self.tls.clone()).await?,
            };
            let driving = self.runtime.spawn(async move {
                if let Err(error) = connection.await {
                    warn!(error = %Chain(&error), "a connection to Postgres broke");
                }
            });
            Ok((client, driving))
        })
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `Config`'s own Debug hides the password; the host list is enough here.
        write!(f, "Connector({:?})", self.config.get_hosts())
    }
}

/// Verifies servers against the system's certificates. `sslmode` in the URL decides whether TLS is used.
fn tls_config() -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth()
}
