//! The configuration in force, compiled: what a request needs of it, loaded once per request.
//!
//! Each worker has a [`Snapshot`] of its own, with its own reference counts and its own connections to upstreams, so
//! that workers share nothing that they write. Replacing a configuration is one pointer store a worker; requests in
//! flight keep what they took. What goes on after them does not: it carries its [`Era`] along.

use std::sync::Arc;

use arc_swap::ArcSwap;

pub use crate::config::Era;
use crate::{
    config::{Config, Route, Target},
    identity::Session,
    lifecycle::Tasks,
    policy::{self, client::ClientRules, csrf, origin::TrustedOrigins, path::NormalPath, routes::RouteTable},
    session::{credential::SessionCookies, identity_headers::Reserved, streams::About},
    upstream::{Pool, Upstream},
};

/// What one worker judges and forwards by.
#[derive(Debug)]
pub struct Snapshot {
    /// The same in every worker's: each is replaced whenever any is.
    pub era: Era,
    pub config: Arc<Config>,
    pub clients: ClientRules,
    pub routes: RouteTable,
    pub origins: TrustedOrigins,
    pub cookies: SessionCookies,
    pub reserved: Arc<Reserved>,
    /// In the order of [`Config::upstreams`].
    pub pools: Vec<Arc<Pool>>,
}

impl Snapshot {
    /// `tasks` are those of the worker; `before` is what it goes by now: pools of upstreams that stay, stay warm.
    pub fn new(config: &Arc<Config>, upstreams: &[Arc<Upstream>], tasks: &Tasks, before: Option<&Self>) -> Self {
        let pool = |upstream: &Arc<Upstream>| {
            let before = before.map(|before| before.pools.as_slice()).unwrap_or_default();
            match before.iter().find(|pool| Arc::ptr_eq(pool.upstream(), upstream)) {
                Some(warm) => Arc::clone(warm),
                None => Arc::new(Pool::new(Arc::clone(upstream), tasks.clone())),
            }
        };
        // Routes of its own as well: a request counts references to its route.
        let routes: Vec<_> = config.routes.iter().cloned().map(Arc::new).collect();
        Self {
            era: before.map_or_else(Era::default, |before| before.era.following()),
            config: Arc::clone(config),
            clients: ClientRules::new(config),
            routes: RouteTable::build(&routes, &config.auth.base_path, config.server.max_body),
            origins: TrustedOrigins::of(config),
            cookies: SessionCookies::new(&config.auth, &config.server.public_url),
            reserved: Arc::new(Reserved::new(&config.identity)),
            pools: upstreams.iter().map(pool).collect(),
        }
    }
}

impl Snapshot {
    /// The worker's connections to an upstream, as [`crate::config::Target`] names it.
    #[expect(
        clippy::indexing_slicing,
        reason = "the configuration resolves upstreams to indexes of this very list"
    )]
    pub fn pool(&self, upstream: usize) -> &Arc<Pool> {
        &self.pools[upstream]
    }

    /// Whether a stream could begin now as it did, for somebody.
    pub fn serves(&self, stream: &About) -> bool {
        match &stream.session {
            // Whether for them, is looked up and judged next ([`Snapshot::allows`]).
            Some(_) => self.route(stream).is_some(),
            None => self.allows(stream, None),
        }
    }

    /// Whether a stream could begin as it did, for whoever has `session` or nobody; fresh is who was so then.
    pub fn allows(&self, stream: &About, session: Option<&Session>) -> bool {
        self.route(stream)
            .is_some_and(|route| policy::judge(route, session, stream.since).is_ok())
    }

    /// `None`, too, where it would not be forwarded, may not be a tunnel, or is shown and asked for in a way that is not
    /// believed any more.
    fn route(&self, stream: &About) -> Option<&Arc<Route>> {
        let is_signed = stream.signed_by.is_none_or(|signer| self.cookies.believes(signer));
        if !is_signed || !self.clients.serves(&stream.host) {
            return None;
        }
        let path = NormalPath::keeping(stream.path.clone(), self.routes.kept()).ok()?;
        let route = self.routes.find(&stream.host, &path, &stream.method).ok()?;
        let goes_on = matches!(route.target, Target::Upstream(_)) && (route.websocket || !stream.upgrade);
        let is_ours = |page| {
            let listed = route.cors.listed();
            let same_origin = csrf::same_origin_on(route, &self.origins, &stream.host);
            csrf::check(&stream.method, stream.upgrade, page, &self.origins, listed, same_origin).is_ok()
        };
        (goes_on && stream.page.as_deref().is_none_or(is_ours)).then_some(route)
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

    /// What the next requests go by. Those in flight keep what they took; connections of upstreams that `next` does not
    /// have are closed once they carry nothing. Returns what was in force: whoever lets the last of it go frees all its
    /// routes, which is no work for a worker.
    pub fn replace(&self, next: Snapshot) -> Arc<Snapshot> {
        let next = Arc::new(next);
        let before = self.0.swap(Arc::clone(&next));
        let stays = |pool: &Arc<Pool>| next.pools.iter().any(|kept| Arc::ptr_eq(kept, pool));
        for gone in before.pools.iter().filter(|pool| !stays(pool)) {
            gone.close();
        }
        before
    }
}
