//! HTTP methods that a route may be for.

use http::Method;

use super::{
    error::nearest,
    found::Wrong,
    kind::{Kind, parsed},
};

/// The gateway never forwards these: one asks for a tunnel, the other echoes credentials.
const REFUSED: [Method; 2] = [Method::CONNECT, Method::TRACE];

/// Sorted. What the `http` crate has no constant for; `PRI` is reserved for the HTTP/2 preface and is nobody's.
const OTHER_METHODS: &[&str] = &[
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "COPY",
    "LABEL",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "ORDERPATCH",
    "PROPFIND",
    "PROPPATCH",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
];

/// Whether IANA's registry of HTTP methods has it. A route for any method is for any of these.
pub fn is_registered(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET
            | Method::POST
            | Method::PUT
            | Method::DELETE
            | Method::HEAD
            | Method::OPTIONS
            | Method::CONNECT
            | Method::PATCH
            | Method::TRACE
    ) || OTHER_METHODS.binary_search(&method.as_str()).is_ok()
}

pub(super) fn method() -> Kind<Method> {
    parsed("a method such as \"GET\"", |text| {
        const COMMON: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
        let method: Method = text.parse().map_err(|_| "not a method")?;
        if REFUSED.contains(&method) {
            return Err("never forwarded".into());
        }
        if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
            let upper = text.to_ascii_uppercase();
            return Err(Wrong::but(
                "methods are case-sensitive, and none is in lower case",
                upper,
            ));
        }
        if !is_registered(&method)
            && let Some(nearest) = nearest(text, COMMON)
        {
            return Err(Wrong::but("not a registered method, and close to one", nearest));
        }
        Ok(method)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_methods_is_sorted() {
        assert!(OTHER_METHODS.is_sorted());
    }
}
