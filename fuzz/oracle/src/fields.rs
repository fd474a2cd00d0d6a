//! Which fields of a request leave for an upstream.

use crate::http1::{Field, list};

/// What a field is, by its name alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Passes, unless `Connection` names it.
    Ordinary,
    Cookie,
    Authorization,
    /// Says where the body ends: written anew.
    Length,
    /// Passes if a trusted proxy sent it: an address, or who somebody is.
    Address,
    /// Ends here, or is written by the gateway alone.
    Ours,
}

/// Names under which only the gateway speaks to upstreams, and of fields that are for one hop. In lower case, with dashes.
const OURS: &[&str] = &[
    // One hop (RFC 9110, 7.6.1).
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "expect",
    // Who calls, and for what.
    "host",
    "forwarded",
    "x-real-ip",
    "x-request-id",
    "client-cert",
    "client-cert-chain",
    "x-client-cert",
    // Identities, whichever preset is in force.
    "x-user-id",
    "x-user-email",
    "x-user-email-verified",
    "x-user-name",
    "x-user-roles",
    "x-session-id",
    "x-auth-time",
    "x-auth-methods",
    "remote-user",
    "remote-email",
    "remote-name",
    "remote-groups",
    "x-remote-user",
    "x-remote-email",
    "x-remote-name",
    "x-remote-groups",
    // What shows an upstream another request than was judged.
    "x-original-url",
    "x-original-uri",
    "x-original-host",
    "x-original-method",
    "x-original-path",
    "x-rewrite-path",
    "x-http-path-override",
    "x-host-override",
    "x-http-host-override",
    "x-rewrite-url",
    "x-rewrite-uri",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-override-url",
    "x-host",
    "x-matched-path",
    "x-now-route-matches",
    "x-react-router-spa-mode",
    "x-react-router-prerender-data",
    "x-sendfile-type",
    "x-accel-mapping",
    "script-name",
    "x-script-name",
    "path-info",
    "path-translated",
    "request-uri",
    "proxy",
];

const OUR_PREFIXES: &[&str] = &[
    "x-vestibule-",
    "x-forwarded-",
    "x-auth-request-",
    "x-client-cert-",
    "x-middleware-",
    "x-invoke-",
    "x-envoy-",
];

/// Names under which proxies tell whose address it is.
const ADDRESSES: &[&str] = &[
    "client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-originating-ip",
    "x-remote-ip",
    "x-remote-addr",
    "x-original-forwarded-for",
    "true-client-ip",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-pseudo-ipv4",
    "do-connecting-ip",
    "fastly-client-ip",
    "fly-client-ip",
    "x-azure-clientip",
    "x-azure-socketip",
    "x-forwarded",
    "forwarded-for",
    "cloudfront-viewer-address",
    "x-vercel-forwarded-for",
    "x-nf-client-connection-ip",
    "incap-client-ip",
    "x-sucuri-clientip",
    "ali-cdn-real-ip",
    "cdn-src-ip",
    "x-real-client-ip",
    "proxy-client-ip",
    "http-client-ip",
    "http-x-forwarded-for",
    "http-x-forwarded",
    "http-x-cluster-client-ip",
    "http-forwarded-for",
    "http-forwarded",
];

/// Names under which other gateways tell who somebody is.
const PEOPLE: &[&str] = &[
    "iv-creds",
    "iv-groups",
    "iv-user",
    "iv-user-l",
    "teleport-jwt-assertion",
    "x-proxiedentitieschain",
    "x-shib-user",
    "x-sso-user",
    "x-wso2-assertion",
    "x-auth-email",
    "x-auth-groups",
    "x-auth-roles",
    "x-auth-subject",
    "x-auth-userid",
    "x-auth-username",
    "x-proxy-roles",
    "x-proxy-user",
    "x-remote-group",
    "x-remote-uid",
    "remote-addr",
    "ssl-cert",
    "x-apigateway-api-userinfo",
    "x-client-dn",
    "x-client-certificate",
    "x-client-verify",
    "x-endpoint-api-userinfo",
    "x-jwt-assertion",
    "x-rh-identity",
    "x-userinfo",
];

/// What such names begin with where there are many. One that is written with `_` is told in no other way.
const OTHER_GATEWAYS: &[&str] = &[
    "impersonate-",
    "kubeflow-groups",
    "kubeflow-user",
    "oidc_access_token",
    "oidc_claim_",
    "oidc_id_token",
    "oidc_userinfo",
    "shib-",
    "sm_auth",
    "sm_realm",
    "sm_server",
    "sm_universalid",
    "sm_user",
    "smuser",
    "x-appengine-user-",
    "x-authenticated-",
    "x-consumer-",
    "x-credential-",
    "x-remote-extra-",
    "cf-access-",
    "ssl-client-",
    "tailscale-user-",
    "wl-proxy-",
    "x-amzn-mtls-",
    "x-amzn-oidc-",
    "x-arr-",
    "x-authentik-",
    "x-goog-authenticated-",
    "x-goog-iap-",
    "x-ms-client-principal",
    "x-ms-token-",
    "x-pomerium-",
    "x-ssl-",
    "x-vouch-",
    "x-webauth-",
];

/// What some program behind CGI takes a name for: without case, and with whatever is no letter and no digit as a dash.
pub fn folded(name: &[u8]) -> String {
    let fold = |byte: &u8| {
        if byte.is_ascii_alphanumeric() {
            char::from(byte.to_ascii_lowercase())
        } else {
            '-'
        }
    };
    name.iter().map(fold).collect()
}

pub fn kind(name: &[u8]) -> Kind {
    let lower = name.to_ascii_lowercase();
    match lower.as_slice() {
        b"cookie" => return Kind::Cookie,
        b"authorization" => return Kind::Authorization,
        b"content-length" => return Kind::Length,
        _ => {}
    }
    let folded = folded(name);
    let if_written_so = |written: &str| {
        if lower == written.as_bytes() {
            Kind::Address
        } else {
            Kind::Ours
        }
    };
    if ADDRESSES.contains(&folded.as_str()) || PEOPLE.contains(&folded.as_str()) {
        return if_written_so(&folded);
    }
    for prefix in OTHER_GATEWAYS {
        if folded.starts_with(&prefix.replace('_', "-")) {
            return if_written_so(&if prefix.contains('_') {
                folded.replace('-', "_")
            } else {
                folded
            });
        }
    }
    let is_ours = OURS.contains(&folded.as_str())
        // Look-alikes of what is treated by name.
        || ["cookie", "authorization", "content-length"].contains(&folded.as_str())
        || OUR_PREFIXES.iter().any(|prefix| folded.starts_with(prefix));
    if is_ours { Kind::Ours } else { Kind::Ordinary }
}

/// Whether `Connection` names a field that is its sender's to remove. A message's length and target are not.
pub fn is_named(fields: &[Field], name: &[u8]) -> bool {
    let named = list(fields, b"connection");
    !name.eq_ignore_ascii_case(b"content-length")
        && !name.eq_ignore_ascii_case(b"host")
        && named.iter().any(|other| other.eq_ignore_ascii_case(name))
}

/// Fields that must not come behind a body (RFC 9110, 6.5.1), besides those that are ours.
const NO_TRAILERS: &[&str] = &[
    "cache-control",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "max-forwards",
    "pragma",
    "range",
    "set-cookie",
    "www-authenticate",
    "age",
    "date",
    "expires",
    "location",
    "retry-after",
    "vary",
    "warning",
    "content-encoding",
    "content-range",
    "content-type",
];

/// Whether a request may have it behind its body.
pub fn may_follow(name: &[u8]) -> bool {
    let lower = String::from_utf8_lossy(name).to_ascii_lowercase();
    kind(name) == Kind::Ordinary && !NO_TRAILERS.contains(&lower.as_str()) && !lower.starts_with("access-control-")
}

/// More names than that are not announced.
const MANY_TRAILERS: usize = 64;

/// The trailers that an upstream is told of.
pub fn announced(fields: &[Field]) -> Option<String> {
    let mut names: Vec<String> = Vec::new();
    for name in list(fields, b"trailer").into_iter().take(MANY_TRAILERS) {
        let is_name = name.iter().all(|byte| crate::http1::is_token(*byte));
        let lower = String::from_utf8_lossy(&name).to_ascii_lowercase();
        if is_name && may_follow(&name) && !names.contains(&lower) {
            names.push(lower);
        }
    }
    (!names.is_empty()).then(|| names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_told() {
        for name in [
            "X-User-Id",
            "x_user_id",
            "X.User~Id",
            "X_Forwarded_Anything",
            "Transfer_Encoding",
            "x-vestibule-x",
        ] {
            assert_eq!(kind(name.as_bytes()), Kind::Ours, "{name}");
        }
        for name in ["accept", "x-user", "x-forward", "x-userid", "proxy-x"] {
            assert_eq!(kind(name.as_bytes()), Kind::Ordinary, "{name}");
        }
        assert_eq!(kind(b"Cookie"), Kind::Cookie);
    }
}
