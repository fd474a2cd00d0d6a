//! Keys that are read once, when the gateway starts: a reload leaves them as they are, and says so.
//!
//! They are what is bound, sized or connected at the start. Everything that is not listed here takes effect.

use super::Config;

/// Puts the `running` values of such keys into `next`. The names of those that said something else.
pub fn keep_what_needs_a_restart(running: &Config, next: &mut Config) -> Vec<&'static str> {
    let mut differ = Vec::new();
    macro_rules! keep {
        ($($name:literal: $($key:ident).+;)*) => {$(
            if running.$($key).+ != next.$($key).+ {
                differ.push($name);
                next.$($key).+.clone_from(&running.$($key).+);
            }
        )*};
    }
    keep! {
        "server.listen": server.listen;
        "server.workers": server.workers;
        "server.handover": server.handover;
        "server.core_dumps": server.core_dumps;
        "server.acme": server.acme;
        "admin.listen": admin.listen;
        "log.format": log.format;
        "log.level": log.level;
        "database.url": database.url;
        "database.listen_url": database.listen_url;
        "database.ca": database.ca;
        "database.pooler": database.pooler;
        "database.pool_size": database.pool_size;
        "database.acquire_timeout": database.acquire_timeout;
        "database.statement_timeout": database.statement_timeout;
        "database.schema": database.schema;
        "database.migrate": database.migrate;
        "auth.base_path": auth.base_path;
        "auth.session.cache.ttl": auth.session.cache.ttl;
        "auth.session.cache.outage_grace": auth.session.cache.outage_grace;
        "auth.session.cache.capacity": auth.session.cache.capacity;
        "auth.session.cache.lookup_queue": auth.session.cache.lookup_queue;
        "auth.session.close_streams_on_revoke": auth.session.close_streams_on_revoke;
        "auth.session.geo_database": auth.session.geo_database;
    }
    // What a listener speaks is settled when it is opened; which certificates it shows is not.
    match (&running.server.tls, &mut next.server.tls) {
        (Some(before), Some(now)) => {
            if before.redirect_from != now.redirect_from {
                differ.push("server.tls.redirect_from");
                now.redirect_from.clone_from(&before.redirect_from);
            }
        }
        (None, None) => {}
        (before, now) => {
            differ.push("server.tls");
            now.clone_from(before);
        }
    }
    differ
}
