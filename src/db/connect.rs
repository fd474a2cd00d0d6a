//! How connections come to be: the URLs, TLS, and which runtime drives them.
//!
//! Connections of the pools go where `url` says. What can't go through a pooler goes past it, where `listen_url` says, or
//! the same way if there is none: `LISTEN`, migrations, whatever holds a lock longer than a transaction.
//!
//! A connection's own task must not run on a thread of the data path, whoever asked for the connection first:
//! [`Connector`] spawns it on the runtime of cold work.

use std::{error::Error as _, fmt, future::Future, io, path::Path, pin::Pin, sync::Arc, time::Duration};

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, RecyclingMethod, Runtime};
use rustls::{
    CertificateError,
    pki_types::{CertificateDer, pem, pem::PemObject as _},
};
use tokio::{runtime::Handle, task::JoinHandle};
use tokio_postgres::{Client, Config, config::TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::{
    Db, Pool,
    answer::Answers,
    client::{Settled, Way},
    hosts::Hosts,
    server::{self, Expected},
};
use crate::{
    chain::Chain,
    postgres_url::{self, PostgresUrl, Unreadable},
    secret::Secret,
};

/// What is needed to reach Postgres.
#[derive(Clone, Debug)]
pub struct Settings {
    pub url: Secret<String>,
    /// Past a pooler, to the same database.
    pub listen_url: Option<Secret<String>>,
    /// Who may have signed the server's certificate, in place of the system's authorities and of what the URLs say.
    pub ca: Option<Vec<CertificateDer<'static>>>,
    /// What stands at `url`.
    pub pooler: Pooler,
    /// Connections of both pools together: a quarter, at least two, is kept for session look-ups.
    pub pool_size: usize,
    /// For a connection out of the pool, and for making one.
    pub acquire_timeout: Duration,
    pub statement_timeout: Duration,
    /// Where our tables are; a plain identifier.
    pub schema: String,
}

/// Who hands out connections before the server does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pooler {
    /// Nobody, or somebody who lets each client have one until it leaves.
    None,
    /// Somebody who takes it back after each transaction.
    Transaction,
}

/// Makes connections, each with the schema as its search path and the statement time-out set.
#[derive(Clone)]
pub struct Connector {
    /// As those of the pools go.
    pooled: Hosts,
    /// Past the pooler.
    direct: Hosts,
    way: Arc<Way>,
    /// Where revocations are heard.
    expected: Arc<Expected>,
    runtime: Handle,
}

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("database.url is not a Postgres URL")]
    Url(#[source] Unreadable),
    #[error("database.listen_url is not a Postgres URL")]
    ListenUrl(#[source] Unreadable),
    #[error("the certificates that sslrootcert names can't be read")]
    Authorities(#[source] pem::Error),
    #[error("the pool can't be built")]
    Pool(#[from] deadpool_postgres::BuildError),
}

impl Connector {
    pub fn new(settings: &Settings, runtime: Handle) -> Result<Self, SettingsError> {
        let answers = Answers::new(settings.statement_timeout);
        let url = postgres_url::parse(settings.url.expose()).map_err(SettingsError::Url)?;
        let listen_url = settings
            .listen_url
            .as_ref()
            .map(|url| postgres_url::parse(url.expose()));
        let listen_url = listen_url.transpose().map_err(SettingsError::ListenUrl)?;
        let names_authorities = settings.ca.is_some()
            || url.names_authorities
            || listen_url.as_ref().is_some_and(|url| url.names_authorities);
        let hosts = |mut url: PostgresUrl, pooler: Pooler| -> Result<Hosts, SettingsError> {
            if names_authorities {
                url.insist_on_tls();
            }
            let tls = tls(settings.ca.as_deref(), url.root_certificate.as_deref())?;
            let config = completed(url.config, settings, pooler, answers.limit());
            Ok(Hosts::new(config, tls, settings.acquire_timeout))
        };
        let pooled = hosts(url, settings.pooler)?;
        let direct = match listen_url {
            Some(url) => hosts(url, Pooler::None)?,
            None => pooled.clone(),
        };
        let settled = match settings.pooler {
            Pooler::None => Settled::PerConnection,
            Pooler::Transaction => Settled::per_transaction(&settings.schema, settings.statement_timeout),
        };
        Ok(Self {
            pooled,
            direct,
            way: Arc::new(Way {
                answers,
                settings: settled,
            }),
            expected: Arc::default(),
            runtime,
        })
    }

    /// What leads past the pooler.
    pub(super) const fn direct(&self) -> &Hosts {
        &self.direct
    }

    /// A connection outside of the pools, past the pooler.
    pub async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        self.drive(&self.direct).await
    }

    /// A connection outside of the pools, where they lead.
    pub(super) async fn connect_as_pools_do(&self) -> Result<Client, tokio_postgres::Error> {
        self.drive(&self.pooled).await
    }

    /// Connections that were made until now are not used any more.
    pub(super) fn distrust(&self) {
        self.way.answers.distrust();
    }

    /// Where connections of the pools are to lead, and that one did not.
    pub(super) fn expected(&self) -> &Expected {
        &self.expected
    }

    /// What [`super::acquire`] goes by.
    pub(super) fn found(&self, is_reachable: bool) {
        self.way.answers.found(is_reachable);
    }

    /// Whether a server that only reads is not to be used.
    pub(super) fn wants_writes(&self) -> bool {
        let wants = |hosts: &Hosts| hosts.config().get_target_session_attrs() == TargetSessionAttrs::ReadWrite;
        wants(&self.pooled) || wants(&self.direct)
    }

    async fn drive(&self, hosts: &Hosts) -> Result<Client, tokio_postgres::Error> {
        let (client, connection, _) = hosts.connect().await?;
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
        let config = self.pooled.config().clone();
        let manager = Manager::from_connect(config, self.clone(), ManagerConfig { recycling_method });
        let way = Arc::clone(&self.way);
        let unless_suspect = Hook::sync_fn(move |_, metrics| {
            if way.answers.is_suspect(metrics.created) {
                Err(HookError::message("it may not lead to the right server any more"))
            } else {
                Ok(())
            }
        });
        let pool = deadpool_postgres::Pool::builder(manager)
            .pre_recycle(unless_suspect)
            .max_size(size)
            .wait_timeout(Some(acquire_timeout))
            .create_timeout(Some(acquire_timeout))
            .recycle_timeout(Some(acquire_timeout))
            .runtime(Runtime::Tokio1)
            .build()?;
        Ok(Pool::new(pool, Arc::clone(&self.way)))
    }
}

impl deadpool_postgres::Connect for Connector {
    fn connect(
        &self,
        _: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), tokio_postgres::Error>> + Send + '_>> {
        Box::pin(async move {
            // A socket belongs to the runtime on which it was connected: that must be ours too, whoever asks.
            let ours = self.pooled.clone();
            // Whoever asks may give up: so does this, or connections to a server that accepts them and says nothing would pile up.
            let connecting = AbortOnDropHandle::new(self.runtime.spawn(async move { ours.connect().await }));
            let (client, connection, _) = match connecting.await {
                Ok(connected) => connected?,
                // That runtime is going down, and everything with it.
                Err(_) => self.pooled.connect().await?,
            };
            let driving = self.runtime.spawn(async move {
                if let Err(error) = connection.await {
                    warn!(error = %Chain(&error), "a connection to Postgres broke");
                }
            });
            if let Some(server) = server::of(&client).await
                && !self.expected.is(&server)
            {
                // This one is of afterwards.
                self.distrust();
            }
            Ok((client, driving))
        })
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connector({:?})", self.pooled)
    }
}

/// What a URL says, with what is ours.
fn completed(mut config: Config, settings: &Settings, pooler: Pooler, answer_within: Duration) -> Config {
    if pooler == Pooler::None {
        let statement_timeout_ms = settings.statement_timeout.as_millis();
        let options = format!(
            "{} -c search_path={} -c statement_timeout={statement_timeout_ms} \
             -c default_transaction_isolation=read\\ committed",
            config.get_options().unwrap_or_default(),
            settings.schema,
        );
        config.options(options.trim());
    }
    config
        .application_name("vestibule")
        .connect_timeout(settings.acquire_timeout)
        .keepalives_idle(Duration::from_secs(15));
    // What the other side never acknowledges breaks the connection, rather than the kernel's quarter of an hour.
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(answer_within);
    }
    config
}

/// Verifies servers, their names included. `sslmode` in the URL decides whether TLS is used.
fn tls(ca: Option<&[CertificateDer<'static>]>, file: Option<&Path>) -> Result<MakeRustlsConnect, SettingsError> {
    let mut roots = rustls::RootCertStore::empty();
    match (ca, file) {
        (Some(ca), _) => roots.add_parsable_certificates(ca.iter().cloned()),
        (None, Some(file)) => {
            let certificates = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            roots.add_parsable_certificates(certificates.map_err(SettingsError::Authorities)?)
        }
        (None, None) => roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    };
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// What TLS has against a connection: it comes within an `io::Error`.
pub(super) fn of_tls(error: &tokio_postgres::Error) -> Option<&rustls::Error> {
    error.source()?.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()
}

/// What an operator can do about a connection that did not come about, where that is known; to follow what is said of it.
pub(super) fn advice(error: &tokio_postgres::Error) -> &'static str {
    if error
        .as_db_error()
        .is_some_and(|said| said.message().contains("unsupported startup parameter"))
    {
        return ", where a pooler stands: say database.pooler = \"transaction\", and database.listen_url";
    }
    match of_tls(error) {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            ", whose certificate is of an authority that is not the system's: name it in database.ca"
        }
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(other)))
            if other.to_string().contains("CaUsedAsEndEntity") =>
        {
            ", whose certificate is an authority's: it needs one that is not (basicConstraints = CA:FALSE)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt as _, net::TcpListener, time::timeout};

    use super::*;

    /// For a machine that does much else.
    const SOON: Duration = Duration::from_secs(15);

    /// The kernel accepts them, as that of a server that is frozen does.
    #[tokio::test]
    async fn a_connection_that_nobody_waits_for_any_more_is_given_up() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = Settings {
            url: Secret::new(format!(
                "postgres://{}/none?sslmode=disable",
                server.local_addr().unwrap()
            )),
            listen_url: None,
            ca: None,
            pooler: Pooler::None,
            pool_size: 4,
            acquire_timeout: Duration::from_millis(100),
            statement_timeout: Duration::from_secs(1),
            schema: "auth".to_owned(),
        };
        let pools = Connector::new(&settings, Handle::current()).unwrap().pools(&settings);
        let asked = pools.unwrap().client().await;
        assert!(asked.is_err());
        let (mut connection, _) = server.accept().await.unwrap();
        let mut said = Vec::new();
        let whole = timeout(SOON, connection.read_to_end(&mut said)).await;
        assert!(whole.is_ok(), "it stays open");
    }
}
