//! Header names under which only the gateway speaks: an identity's, and what could show an upstream another request than
//! was authorised.
//!
//! They are compared *folded* ([`fold_header_byte`]): CGI, WSGI and PHP fold names so, each a little differently, and a name that any
//! of them could take for one of these is one of these. Configuration rules are held to the list here, requests in
//! `session::identity_headers::reserved`.

use http::HeaderName;

/// Folded prefixes of names that only a gateway uses.
pub const RESERVED_PREFIXES: &[&[u8]] = &[
    b"x-vestibule-",
    b"x-forwarded-",
    b"x-auth-request-",
    b"x-client-cert-",
    // Between the parts of a framework, or of a mesh: which path it is, whether its own checks were made already
    // (CVE-2025-29927).
    b"x-middleware-",
    b"x-invoke-",
    b"x-envoy-",
];

/// Prefixes of names by which other gateways and platforms tell their applications whose certificate it is, or who
/// somebody is. An application that stood behind one of them may still believe it, so a client can't say it; a trusted proxy
/// can, with the mark between words that is written here.
pub const PROXIES_PREFIXES: &[&str] = &[
    "cf-access-",
    "kubeflow-user",
    "kubeflow-groups",
    // As a Kubernetes API server takes them.
    "impersonate-",
    "x-remote-extra-",
    // mod_auth_openidc; whatever else begins with these letters is nobody's business here.
    "oidc_access_token",
    "oidc_claim_",
    "oidc_id_token",
    "oidc_userinfo",
    "shib-",
    // SiteMinder's own, and what its rules commonly add. `SM_` alone would be too little to go by.
    "sm_auth",
    "sm_realm",
    "sm_server",
    "sm_universalid",
    "sm_user",
    "smuser",
    "ssl-client-",
    "tailscale-user-",
    "wl-proxy-",
    "x-amzn-mtls-",
    "x-amzn-oidc-",
    "x-arr-",
    // Kong.
    "x-authenticated-",
    "x-consumer-",
    "x-credential-",
    "x-authentik-",
    "x-appengine-user-",
    "x-goog-authenticated-",
    "x-goog-iap-",
    "x-ms-client-principal",
    "x-ms-token-",
    "x-pomerium-",
    "x-ssl-",
    "x-vouch-",
    "x-webauth-",
];

/// Names of every preset, whichever is in force, and what could show an upstream another request than was authorised.
pub const RESERVED_NAMES: &[&str] = &[
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
    // Which route it was, and how it is to be rendered (CVE-2024-46982, CVE-2025-43864, CVE-2025-43865).
    "x-now-route-matches",
    "x-react-router-spa-mode",
    "x-react-router-prerender-data",
    // Which files a server in front sends by itself, and where they lie (CVE-2025-61780).
    "x-sendfile-type",
    "x-accel-mapping",
    // Where an application is mounted, as WSGI and CGI have it: servers take it off the path that was authorised.
    "script-name",
    "x-script-name",
    "path-info",
    "path-translated",
    "request-uri",
    "proxy",
    // Whose certificate the client has (RFC 9440), whether or not any is asked for.
    "client-cert",
    "client-cert-chain",
    "x-client-cert",
];

/// Without case, and with everything that is neither letter nor digit taken as `-`.
pub const fn fold_header_byte(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() {
        byte.to_ascii_lowercase()
    } else {
        b'-'
    }
}

/// Whether two names fold to the same.
pub fn alike(name: &HeaderName, other: &str) -> bool {
    name.as_str()
        .bytes()
        .map(fold_header_byte)
        .eq(other.bytes().map(fold_header_byte))
}

/// Whether a name folds to a reserved one.
pub(super) fn is_reserved(name: &HeaderName) -> bool {
    let folded: Vec<u8> = name.as_str().bytes().map(fold_header_byte).collect();
    RESERVED_PREFIXES.iter().any(|prefix| folded.starts_with(prefix))
        || RESERVED_NAMES.iter().any(|reserved| alike(name, reserved))
}
