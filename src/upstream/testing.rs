//! An upstream for unit tests; nothing is sent to it.

use super::Upstream;
use crate::config;

/// `endpoints` as in a configuration; further keys may follow on lines of their own.
pub(super) fn upstream(endpoints: &str) -> Upstream {
    let text = format!(
        "
        [server]
        public_url = 'https://app.example.com'
        [database]
        url = 'postgres://db.example.com/app'
        [auth]
        secret = '0123456789abcdef0123456789abcdef'
        [mail]
        from = 'no-reply@example.com'
        smtp = 'smtp://mail.example.com'
        [upstreams.app]
        endpoints = {endpoints}\n"
    );
    let config = config::parse(&text, "gateway.toml", &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
    Upstream::new(config.upstreams[0].clone()).unwrap()
}
