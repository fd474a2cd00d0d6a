//! The configuration in force, compiled: what a request needs of it, loaded once per request.
//!
//! Each worker has a [`Snapshot`] of its own, with its own reference counts and its own connections to upstreams, so
//! that workers share nothing that they write. Replacing a configuration is one pointer store a worker; requests in
//! flight keep what they took.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::{
    config::{Config, Route},
    identity::Session,
    lifecycle::Tasks,
    policy::{self, client::ClientRules, origin::TrustedOrigins, path::NormalPath, routes::RouteTable},
    session::streams::About,
    upstream::{Pool, Upstream},
};

/// What one worker judges and forwards by.
#[derive(Debug)]
pub struct Snapshot {
    pub config: Arc<Config>,
    pub clients: ClientRules,
    pub routes: RouteTable,
    pub origins: TrustedOrigins,
    /// In the order of [`Config::upstreams`].
    pub pools: Vec<Arc<Pool>>,
}

impl Snapshot {
    /// `tasks` are those of the worker.
    pub fn new(config: &Arc<Config>, upstreams: &[Arc<Upstream>], tasks: &Tasks) -> Self {
        // Routes of its own as well: a request counts references to its route.
        let routes: Vec<_> = config.routes.iter().cloned().map(Arc::new).collect();
        Self {
            config: Arc::clone(config),
            clients: ClientRules::new(config),
            routes: RouteTable::build(&routes),
            origins: TrustedOrigins::new(&config.server.public_url, &config.auth.trusted_origins),
            pools: upstreams
                .iter()
                .map(|upstream| Arc::new(Pool::new(Arc::clone(upstream), tasks.clone())))
                .collect(),
        }
    }
}

impl Snapshot {
    /// The worker's connections to a route's upstream.
    #[expect(
        clippy::indexing_slicing,
        reason = "the configuration resolves upstreams to indexes of this very list"
    )]
    pub fn pool(&self, route: &Route) -> &Arc<Pool> {
        &self.pools[route.upstream]
    }

    /// Whether a stream could begin now as it did, for whoever has `session` or nobody.
    pub fn allows(&self, stream: &About, session: Option<&Session>) -> bool {
        let Ok(path) = NormalPath::from_target(stream.path.clone()) else {
            return false;
        };
        let route = self.routes.find(&stream.host, &path, &stream.method);
        route.is_ok_and(|route| policy::judge(route, session).is_ok())
    }
}

/// A worker's present snapshot.
#[derive(Debug)]
pub struct Live(ArcSwap<Snapshot>);

impl Live {
    pub fn new(snapshot: Snapshot) -> Self {
        Self(ArcSwap::from_pointee(snapshot))
    }

    pub fn load(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }
}
