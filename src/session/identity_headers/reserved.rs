//! What becomes of each header of a request: who decides about it, in one pass over them.
//!
//! Names are compared *folded*: without case, and with everything that is neither letter nor digit taken as `-`. CGI,
//! WSGI and PHP fold names so, each a little differently; a name that any of them could take for one of ours is
//! reserved. Prefixes from which only gateways speak ([`RESERVED_PREFIXES`]) are reserved whole.

use std::borrow::Cow;

use http::HeaderName;

use super::Renderer;
use crate::{
    config::{self, PROXIES_PREFIXES, RESERVED_NAMES, RESERVED_PREFIXES, fold_header_byte as fold},
    fields::Lines,
    identity::Session,
};

/// Who decides about a header of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Disposition {
    /// Nobody: it is forwarded as it is (unless `Connection` names it).
    Pass,
    /// `Connection`: dropped, after the names in it were noted.
    Connection,
    /// `Upgrade`: dropped, unless the request is an upgrade that is forwarded.
    Upgrade,
    /// `TE`: dropped, but for `trailers`.
    Te,
    /// `Trailer`: what it announces is what passes behind the body.
    Trailer,
    /// Of this hop only: dropped.
    HopByHop,
    Host,
    /// Forwarded without our cookies.
    Cookie,
    /// Forwarded unless it carries our token.
    Authorization,
    Expect,
    ContentLength,
    ForwardedFor,
    /// Whose address, certificate or name it is, as some proxies say it: forwarded from trusted ones alone.
    ToldByProxies,
    /// What else says who called and how; we write it anew.
    Forwarded,
    RequestId,
    /// Only we may say this: dropped on every route.
    Reserved,
}

/// The names that a client can't speak under, and those that the data path treats by itself.
#[derive(Clone, Debug)]
pub struct Reserved {
    /// Identities are told under these names, which nobody else can speak under.
    renderer: Renderer,
    /// For each first letter (the lowest five bits of it), which lengths occur: most names end here.
    lengths: [u64; 32],
    /// For each length, the folded names of that length.
    by_length: Vec<Vec<Entry>>,
    /// For each first letter, likewise, what names may begin with.
    prefixes: [Vec<Prefix>; 32],
}

#[derive(Clone, Debug)]
struct Prefix {
    folded: Box<[u8]>,
    /// By which most names are told from it: the first letter is the same, and the second often is.
    third: u8,
    /// What stands between words in a name as it is told; with another it is a mere look-alike.
    mark: u8,
    exact: Disposition,
}

#[derive(Clone, Debug)]
struct Entry {
    folded: Box<[u8]>,
    /// What a header with exactly this name is; a mere look-alike is [`Disposition::Reserved`].
    exact: Disposition,
}

impl Reserved {
    pub fn new(identity: &config::Identity) -> Self {
        let mut reserved = Self {
            renderer: Renderer::new(identity),
            lengths: [0; 32],
            by_length: Vec::new(),
            prefixes: Default::default(),
        };
        for prefix in RESERVED_PREFIXES {
            reserved.add_prefix(prefix, Disposition::Reserved);
        }
        for prefix in PROXIES_PREFIXES {
            reserved.add_prefix(prefix.as_bytes(), Disposition::ToldByProxies);
        }
        for (name, disposition) in HANDLED {
            reserved.add(name, *disposition);
        }
        let configured = identity.names.iter().map(HeaderName::as_str);
        for name in configured.chain(RESERVED_NAMES.iter().copied()) {
            reserved.add(name, Disposition::Reserved);
        }
        reserved
    }

    fn add_prefix(&mut self, written: &[u8], exact: Disposition) {
        let folded: Box<[u8]> = written.iter().copied().map(fold).collect();
        if let Some(prefixes) = self.prefixes.get_mut(usize::from(first(&folded) & 31)) {
            prefixes.push(Prefix {
                third: third(&folded),
                mark: if written.contains(&b'_') { b'_' } else { b'-' },
                folded,
                exact,
            });
        }
    }

    fn add(&mut self, name: &str, exact: Disposition) {
        let folded: Box<[u8]> = name.bytes().map(fold).collect();
        let len = folded.len();
        if let Some(lengths) = self.lengths.get_mut(usize::from(first(&folded) & 31)) {
            *lengths |= length_bit(len);
        }
        if self.by_length.len() <= len {
            self.by_length.resize_with(len + 1, Vec::new);
        }
        if let Some(entries) = self.by_length.get_mut(len) {
            match entries.iter_mut().find(|entry| entry.folded == folded) {
                // Were an identity configured to travel as `Authorization`, a client must not say it.
                Some(entry) => entry.exact = exact,
                None => entries.push(Entry { folded, exact }),
            }
        }
    }

    pub fn classify(&self, name: &HeaderName) -> Disposition {
        let name = name.as_str().as_bytes();
        let initial = fold(first(name));
        let lengths = self.lengths.get(usize::from(initial & 31)).copied().unwrap_or_default();
        let length_occurs = lengths & length_bit(name.len()) != 0;
        let prefixes = self.prefixes.get(usize::from(initial & 31));
        let prefixes = prefixes.map(Vec::as_slice).unwrap_or_default();
        if !length_occurs && prefixes.is_empty() {
            return Disposition::Pass;
        }
        if length_occurs && let Some(entries) = self.by_length.get(name.len()) {
            for entry in entries {
                if is_folded(name, &entry.folded) {
                    return if name == &*entry.folded {
                        entry.exact
                    } else {
                        Disposition::Reserved
                    };
                }
            }
        }
        let third = third(name);
        for Prefix {
            folded, mark, exact, ..
        } in prefixes.iter().filter(|prefix| prefix.third == third)
        {
            if name.get(..folded.len()).is_some_and(|head| is_folded(head, folded)) {
                let as_written = |byte: &u8| byte.is_ascii_alphanumeric() || byte == mark;
                return if name.iter().all(as_written) {
                    *exact
                } else {
                    Disposition::Reserved
                };
            }
        }
        Disposition::Pass
    }

    /// What upstreams are told of a session: under the names that are reserved here, whatever it was rendered by.
    pub fn told<'s>(&self, session: &'s Session) -> Cow<'s, Lines> {
        let Self { renderer, .. } = self;
        let rendered = session.headers.under(&renderer.names).map(Cow::Borrowed);
        rendered.unwrap_or_else(|| {
            Cow::Owned(renderer.lines(&session.identity, session.id, session.created_at, &session.methods))
        })
    }

    /// Whether a client can't speak under this name, in any spelling.
    pub fn is_reserved(&self, name: &HeaderName) -> bool {
        self.classify(name) == Disposition::Reserved
    }
}

fn first(name: &[u8]) -> u8 {
    name.first().copied().unwrap_or_default()
}

fn third(name: &[u8]) -> u8 {
    name.get(2).copied().map(fold).unwrap_or_default()
}

/// Lengths from 63 on share a bit.
const fn length_bit(len: usize) -> u64 {
    1 << if len < 63 { len } else { 63 }
}

/// Whether `name` folds to `folded`, which is of the same length.
fn is_folded(name: &[u8], folded: &[u8]) -> bool {
    name.len() == folded.len() && name.iter().zip(folded).all(|(byte, folded)| fold(*byte) == *folded)
}

/// What the data path does something with; look-alikes of these are dropped.
const HANDLED: &[(&str, Disposition)] = &[
    ("connection", Disposition::Connection),
    ("upgrade", Disposition::Upgrade),
    ("te", Disposition::Te),
    ("keep-alive", Disposition::HopByHop),
    ("proxy-authenticate", Disposition::HopByHop),
    ("proxy-authorization", Disposition::HopByHop),
    ("proxy-connection", Disposition::HopByHop),
    ("trailer", Disposition::Trailer),
    ("transfer-encoding", Disposition::HopByHop),
    ("http2-settings", Disposition::HopByHop),
    ("host", Disposition::Host),
    ("cookie", Disposition::Cookie),
    ("authorization", Disposition::Authorization),
    ("expect", Disposition::Expect),
    ("content-length", Disposition::ContentLength),
    ("x-forwarded-for", Disposition::ForwardedFor),
    ("x-forwarded-host", Disposition::Forwarded),
    ("x-forwarded-proto", Disposition::Forwarded),
    ("x-forwarded-port", Disposition::Forwarded),
    ("forwarded", Disposition::Forwarded),
    ("x-real-ip", Disposition::Forwarded),
    ("x-request-id", Disposition::RequestId),
    ("client-ip", Disposition::ToldByProxies),
    ("x-client-ip", Disposition::ToldByProxies),
    ("x-cluster-client-ip", Disposition::ToldByProxies),
    ("x-originating-ip", Disposition::ToldByProxies),
    ("x-remote-ip", Disposition::ToldByProxies),
    ("x-remote-addr", Disposition::ToldByProxies),
    ("x-original-forwarded-for", Disposition::ToldByProxies),
    ("true-client-ip", Disposition::ToldByProxies),
    ("cf-connecting-ip", Disposition::ToldByProxies),
    ("cf-connecting-ipv6", Disposition::ToldByProxies),
    ("cf-pseudo-ipv4", Disposition::ToldByProxies),
    ("do-connecting-ip", Disposition::ToldByProxies),
    ("fastly-client-ip", Disposition::ToldByProxies),
    ("fly-client-ip", Disposition::ToldByProxies),
    ("x-azure-clientip", Disposition::ToldByProxies),
    ("x-azure-socketip", Disposition::ToldByProxies),
    ("x-forwarded", Disposition::ToldByProxies),
    ("forwarded-for", Disposition::ToldByProxies),
    ("cloudfront-viewer-address", Disposition::ToldByProxies),
    ("x-vercel-forwarded-for", Disposition::ToldByProxies),
    ("x-nf-client-connection-ip", Disposition::ToldByProxies),
    ("incap-client-ip", Disposition::ToldByProxies),
    ("x-sucuri-clientip", Disposition::ToldByProxies),
    ("ali-cdn-real-ip", Disposition::ToldByProxies),
    ("cdn-src-ip", Disposition::ToldByProxies),
    ("x-real-client-ip", Disposition::ToldByProxies),
    // WebLogic's plug-in's without its prefix, and names of CGI variables which copies of one Java method ask for as headers.
    ("proxy-client-ip", Disposition::ToldByProxies),
    ("http-client-ip", Disposition::ToldByProxies),
    ("http-x-forwarded-for", Disposition::ToldByProxies),
    ("http-x-forwarded", Disposition::ToldByProxies),
    ("http-x-cluster-client-ip", Disposition::ToldByProxies),
    ("http-forwarded-for", Disposition::ToldByProxies),
    ("http-forwarded", Disposition::ToldByProxies),
    // Who somebody is, as other gateways say it: a Kubernetes API server's, OpenSearch's, WebSEAL's, Gatekeeper's.
    // `X-Auth-Token` and `X-Auth-User` are what clients show by themselves.
    ("x-remote-uid", Disposition::ToldByProxies),
    ("x-remote-group", Disposition::ToldByProxies),
    ("x-proxy-user", Disposition::ToldByProxies),
    ("x-proxy-roles", Disposition::ToldByProxies),
    ("iv-user", Disposition::ToldByProxies),
    ("iv-user-l", Disposition::ToldByProxies),
    ("iv-groups", Disposition::ToldByProxies),
    ("iv-creds", Disposition::ToldByProxies),
    ("x-auth-userid", Disposition::ToldByProxies),
    ("x-auth-username", Disposition::ToldByProxies),
    ("x-auth-email", Disposition::ToldByProxies),
    ("x-auth-groups", Disposition::ToldByProxies),
    ("x-auth-roles", Disposition::ToldByProxies),
    ("x-auth-subject", Disposition::ToldByProxies),
    // APISIX's and Kong's for OpenID Connect, Google's API gateways', WSO2's, Red Hat's; certificates as HAProxy's and nginx's
    // examples have them.
    ("x-userinfo", Disposition::ToldByProxies),
    ("x-endpoint-api-userinfo", Disposition::ToldByProxies),
    ("x-apigateway-api-userinfo", Disposition::ToldByProxies),
    ("x-jwt-assertion", Disposition::ToldByProxies),
    ("x-rh-identity", Disposition::ToldByProxies),
    // NiFi's, Shibboleth's by way of a proxy, WSO2's, Teleport's.
    ("x-proxiedentitieschain", Disposition::ToldByProxies),
    ("x-shib-user", Disposition::ToldByProxies),
    ("x-wso2-assertion", Disposition::ToldByProxies),
    ("teleport-jwt-assertion", Disposition::ToldByProxies),
    ("x-sso-user", Disposition::ToldByProxies),
    ("x-client-dn", Disposition::ToldByProxies),
    ("x-client-verify", Disposition::ToldByProxies),
    ("x-client-certificate", Disposition::ToldByProxies),
    ("ssl-cert", Disposition::ToldByProxies),
    ("remote-addr", Disposition::ToldByProxies),
];

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::{super::tests::settings, *};

    fn classified(name: &str) -> Disposition {
        Reserved::new(&settings()).classify(&name.parse().unwrap())
    }

    #[test]
    fn every_spelling_of_a_reserved_name_is_reserved() {
        for name in [
            "x-user-id",
            "X-User-ID",
            "X_User_Id",
            "x.user-id",
            "X_USER.ROLES",
            "x-session_id",
            "x|user+id",
            "remote-user",
            "Remote_User",
            "x-forwarded-user",
            "X_Forwarded_Groups",
            "x-auth-request-email",
            "x-vestibule-assertion",
            "X_Vestibule_Anything",
            "company-login-how",
            "Company.Login.How",
            "x-original-url",
            "X_ORIGINAL_URI",
            "x-rewrite-url",
            "x-forwarded-uri",
            "x-forwarded-method",
            "x-forwarded-prefix",
            "x-forwarded-server",
            "x-http-method-override",
            "x-http-method",
            "X-METHOD-OVERRIDE",
            "proxy",
            // Look-alikes of what the data path writes or reads.
            "x_forwarded_for",
            "X_Real_IP",
            "x_request_id",
            "Transfer_Encoding",
            "content_length",
            "proxy.authorization",
        ] {
            assert_eq!(classified(name), Disposition::Reserved, "{name}");
        }
    }

    #[test]
    fn ordinary_headers_pass() {
        for name in [
            "accept",
            "accept-encoding",
            "user-agent",
            "content-type",
            "x-requested-with",
            "x-csrf-token",
            "x-user",
            "x-user-identity",
            "x-userid",
            "x-forward",
            "x-vestibule",
            "origin",
            "a",
            "sec-websocket-key",
            "traceparent",
            "if-none-match",
            "if-modified-since",
            "idempotency-key",
            "x-auth-token",
            "x-auth-user",
            "x-auth-key",
            "x-remote",
            "x-consumer",
            "x-credentials",
            "x-proxy-id",
            "oidc-nonce",
            "sm-token",
            "smith",
            "shibboleth",
            "iv-remote",
            "x-accel-buffering",
            "proxy-x",
        ] {
            assert_eq!(classified(name), Disposition::Pass, "{name}");
        }
        assert_eq!(classified(&"x".repeat(200)), Disposition::Pass);
    }

    #[test]
    fn the_data_paths_own_headers_are_named() {
        for (name, disposition) in HANDLED {
            assert_eq!(classified(name), *disposition, "{name}");
            assert_eq!(classified(&name.to_ascii_uppercase()), *disposition, "{name}");
        }
    }

    #[test]
    fn a_long_configured_name_is_reserved() {
        let long = format!("x-{}-id", "company-".repeat(12));
        let mut settings = settings();
        Arc::make_mut(&mut settings.names).user_id = Some(long.parse().unwrap());
        let reserved = Reserved::new(&settings);
        assert!(reserved.is_reserved(&long.replace('-', "_").parse().unwrap()));
        assert!(!reserved.is_reserved(&format!("{long}x").parse().unwrap()));
    }

    #[test]
    fn a_configured_name_beats_what_the_data_path_would_do() {
        let mut settings = settings();
        Arc::make_mut(&mut settings.names).user_id = Some(HeaderName::from_static("authorization"));
        assert!(Reserved::new(&settings).is_reserved(&http::header::AUTHORIZATION));
    }

    proptest! {
        #[test]
        fn what_folds_to_a_reserved_name_is_reserved(index in any::<prop::sample::Index>(), seed in any::<u64>()) {
            let name = RESERVED_NAMES[index.index(RESERVED_NAMES.len())];
            let spelled: String = name
                .bytes()
                .enumerate()
                .map(|(at, byte)| match (byte, seed >> (at % 32 * 2) & 3) {
                    (b'-', turn) => b"-_.~"[usize::try_from(turn).unwrap()],
                    (byte, 0) => byte.to_ascii_uppercase(),
                    (byte, _) => byte,
                })
                .map(char::from)
                .collect();
            prop_assert_eq!(classified(&spelled), Disposition::Reserved, "{}", spelled);
        }
    }
}
