//! Which of several hosts a connection leads to.
//!
//! A URL may name several servers, of which one takes writes; after a failover it is another. They are tried one after
//! the other, beginning with the one that was the right one last: all connections of a gateway go there, the one that
//! listens for revocations too. Each has its share of the time, or a server that is frozen, which accepts connections
//! and says nothing, would keep the others from being tried.

use std::{fmt, sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};
use tokio_postgres::{
    Client, Config, Connection, Error, Socket,
    config::{Host, SslMode},
    tls::MakeTlsConnect,
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// What has to be driven for a [`Client`] to get anywhere.
pub(super) type Driven = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// For all of several hosts together: whoever listens for revocations has no more patience, whatever `acquire_timeout` is.
const MOST: Duration = Duration::from_secs(2);

/// One way to connect. A clone is the same: where one connection got through, the next of the other begins.
#[derive(Clone)]
pub(super) struct Hosts {
    whole: Config,
    /// The same with a host each.
    each: Arc<[Config]>,
    right: watch::Sender<usize>,
    tls: MakeRustlsConnect,
    /// For all of them, shared among them.
    within: Duration,
}

impl Hosts {
    pub(super) fn new(whole: Config, tls: MakeRustlsConnect, within: Duration) -> Self {
        let count = whole.get_hosts().len().max(whole.get_hostaddrs().len());
        let each = (0..count).map(|index| only(&whole, index)).collect();
        Self {
            whole,
            each,
            right: watch::Sender::new(0),
            tls,
            within: within.min(MOST),
        }
    }

    pub(super) const fn config(&self) -> &Config {
        &self.whole
    }

    /// The number of the host to which connections lead.
    pub(super) fn moves(&self) -> watch::Receiver<usize> {
        self.right.subscribe()
    }

    /// Connects, to the host of this number. Whoever asks sets the limit for the last of the hosts.
    pub(super) async fn connect(&self) -> Result<(Client, Driven, usize), Error> {
        let right = *self.right.borrow();
        let count = self.each.len();
        let share = self.within / u32::try_from(count).unwrap_or(u32::MAX).max(1);
        let turns = (right..count).chain(0..right);
        for (tried, index) in turns.enumerate() {
            let Some(host) = self.each.get(index) else { continue };
            let attempt = host.connect(self.tls.clone());
            let is_last = tried + 1 == count;
            let outcome = if is_last {
                attempt.await
            } else {
                match timeout(share, attempt).await {
                    Ok(outcome) => outcome,
                    Err(_) => continue,
                }
            };
            match outcome {
                Ok((client, driven)) => {
                    self.right
                        .send_if_modified(|right| std::mem::replace(right, index) != index);
                    return Ok((client, driven, index));
                }
                Err(error) if is_last => return Err(error),
                Err(_) => {}
            }
        }
        // No host at all: it says so.
        let (client, driven) = self.whole.connect(self.tls.clone()).await?;
        Ok((client, driven, right))
    }
}

impl fmt::Debug for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hosts({:?})", self.whole.get_hosts())
    }
}

/// `whole` with one of its hosts, a socket of this machine without TLS, as libpq has it: there is no taking away what has been put into one.
fn only(whole: &Config, index: usize) -> Config {
    let mut one = Config::new();
    match whole.get_hosts().get(index) {
        Some(Host::Tcp(name)) => one.host(name),
        Some(Host::Unix(folder)) => one.host_path(folder),
        None => &mut one,
    };
    if let Some(address) = whole.get_hostaddrs().get(index) {
        one.hostaddr(*address);
    }
    let ports = whole.get_ports();
    if let Some(port) = ports.get(index).or(ports.first()) {
        one.port(*port);
    }
    if let Some(user) = whole.get_user() {
        one.user(user);
    }
    if let Some(password) = whole.get_password() {
        one.password(password);
    }
    if let Some(name) = whole.get_dbname() {
        one.dbname(name);
    }
    if let Some(options) = whole.get_options() {
        one.options(options);
    }
    if let Some(name) = whole.get_application_name() {
        one.application_name(name);
    }
    if let Some(timeout) = whole.get_connect_timeout() {
        one.connect_timeout(*timeout);
    }
    if let Some(timeout) = whole.get_tcp_user_timeout() {
        one.tcp_user_timeout(*timeout);
    }
    if let Some(interval) = whole.get_keepalives_interval() {
        one.keepalives_interval(interval);
    }
    if let Some(retries) = whole.get_keepalives_retries() {
        one.keepalives_retries(retries);
    }
    // An address is where it goes, whatever the host says.
    let is_socket =
        matches!(whole.get_hosts().get(index), Some(Host::Unix(_))) && whole.get_hostaddrs().get(index).is_none();
    let tls = if is_socket {
        SslMode::Disable
    } else {
        whole.get_ssl_mode()
    };
    one.ssl_mode(tls)
        .ssl_negotiation(whole.get_ssl_negotiation())
        .keepalives(whole.get_keepalives())
        .keepalives_idle(whole.get_keepalives_idle())
        .target_session_attrs(whole.get_target_session_attrs())
        .channel_binding(whole.get_channel_binding())
        .load_balance_hosts(whole.get_load_balance_hosts());
    one
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use super::*;

    #[test]
    fn each_host_has_everything_but_the_others() {
        let config = |hosts: &str| {
            let all_else = "user=u password=p dbname=d options='-c x=y' application_name=n sslmode=require \
                sslnegotiation=direct connect_timeout=3 tcp_user_timeout=4 keepalives=0 keepalives_idle=5 \
                keepalives_interval=6 keepalives_retries=7 target_session_attrs=read-write channel_binding=require \
                load_balance_hosts=random";
            Config::from_str(&format!("{hosts} {all_else}")).unwrap()
        };
        assert!(only(&config("host=a,b port=1,2"), 1) == config("host=b port=2"));
        assert!(only(&config("host=a,b port=1"), 1) == config("host=b port=1"));
        assert!(only(&config("hostaddr=::1,::2"), 0) == config("hostaddr=::1"));
        assert!(only(&config("host=a,b hostaddr=::1,::2"), 1) == config("host=b hostaddr=::2"));
        for (hosts, index, tls) in [
            ("host=/run/postgresql,b", 0, SslMode::Disable),
            ("host=/run/postgresql,b", 1, SslMode::Require),
            ("host=/run/postgresql hostaddr=127.0.0.1", 0, SslMode::Require),
        ] {
            assert_eq!(only(&config(hosts), index).get_ssl_mode(), tls, "{hosts}");
        }
    }
}
