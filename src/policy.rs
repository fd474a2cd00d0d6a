//! What is allowed: pure judgement of paths, hosts, routes, origins and access. No I/O, no clock.
//!
//! [`authorise`] is the last judge; its [`Permit`] is what header preparation demands, so nothing can be forwarded
//! that was not authorised.

use http::{HeaderMap, HeaderName, Method, header};
use memchr::memchr2;

use self::marks::Marks;
use crate::{
    clock::Timestamp,
    config::{Access, Needs, Route},
    identity::Session,
};

pub mod client;
pub mod connection;
pub mod cors;
pub mod csrf;
pub mod marks;
pub mod origin;
pub mod path;
pub mod rate;
pub mod redirect;
pub mod routes;
pub mod sign_in;

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Proof that [`authorise`] agreed, or that [`pass_on`] had nothing to judge. The fields are private: nothing else can make one.
#[derive(Clone, Copy, Debug)]
pub struct Permit<'r> {
    route: &'r Route,
    session: Option<&'r Session>,
}

impl<'r> Permit<'r> {
    pub const fn route(&self) -> &'r Route {
        self.route
    }

    /// Whose identity the upstream is told; never there on a public route.
    pub const fn session(&self) -> Option<&'r Session> {
        self.session
    }
}

/// Why a request may not pass.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Denied {
    #[error("a session is needed")]
    SignInNeeded,
    #[error("the session is not enough: {0}")]
    NotAllowed(Unmet),
}

/// What a live session lacks for a route.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unmet {
    #[error("none of the route's roles")]
    Role,
    #[error("no verified e-mail address")]
    VerifiedEmail,
    /// The person signed in too long ago.
    #[error("no fresh sign-in")]
    Fresh,
}

/// Whether `session`, if there is one, may take `route`.
pub fn authorise<'r>(route: &'r Route, session: Option<&'r Session>, now: Timestamp) -> Result<Permit<'r>, Denied> {
    judge(route, session, now)?;
    Ok(Permit {
        route,
        session: session.filter(|_| wants_session(route)),
    })
}

/// The same judgement without a permit: of what was let through at an earlier `now`.
pub fn judge(route: &Route, session: Option<&Session>, now: Timestamp) -> Result<(), Denied> {
    match (&route.access, session) {
        (Access::Public | Access::Optional, _) => Ok(()),
        (Access::Required(_), None) => Err(Denied::SignInNeeded),
        (Access::Required(needs), Some(session)) => match unmet(needs, session, now) {
            Some(unmet) => Err(Denied::NotAllowed(unmet)),
            None => Ok(()),
        },
    }
}

/// A preflight that is the upstream's to answer needs no session, and nobody's identity goes with it.
pub const fn pass_on<'r>(route: &'r Route, _: &cors::PassOn) -> Permit<'r> {
    Permit { route, session: None }
}

/// Whether a session makes a difference on this route: if not, none is looked up.
pub const fn wants_session(route: &Route) -> bool {
    match route.access {
        Access::Public => false,
        Access::Optional | Access::Required(_) => true,
    }
}

/// Freshness last: signing in again would give whoever lacks more nothing.
fn unmet(needs: &Needs, session: &Session, now: Timestamp) -> Option<Unmet> {
    let identity = &session.identity;
    if !needs.roles.is_empty() && !needs.roles.iter().any(|role| identity.roles.contains(role)) {
        return Some(Unmet::Role);
    }
    if needs.verified_email && !identity.email_verified {
        return Some(Unmet::VerifiedEmail);
    }
    let within = needs.fresh?;
    (now >= session.created_at.plus(within)).then_some(Unmet::Fresh)
}

/// Whether a person waits for a page: then a refusal is a page or a redirect, else JSON.
///
/// Fetch metadata says so; without any, a GET whose `Accept` prefers HTML.
pub fn is_navigation(method: &Method, headers: &HeaderMap, marks: Marks) -> bool {
    if marks.has(Marks::FETCH_METADATA) {
        if let Some(mode) = headers.get(SEC_FETCH_MODE) {
            return mode == "navigate";
        }
        if headers.contains_key(SEC_FETCH_SITE) || headers.contains_key(SEC_FETCH_DEST) {
            return false;
        }
    }
    if *method != Method::GET || !marks.has(Marks::ACCEPT) {
        return false;
    }
    // What a program accepts, as a rule, has not even the letter that HTML begins with.
    let lines = headers.get_all(header::ACCEPT);
    if !lines.iter().any(|line| memchr2(b'h', b'H', line.as_bytes()).is_some()) {
        return false;
    }
    let weight = |wanted: &[&str]| {
        lines
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .filter_map(|range| {
                let (media, parameters) = range.split_once(';').unwrap_or((range, ""));
                wanted
                    .iter()
                    .any(|wanted| media.trim().eq_ignore_ascii_case(wanted))
                    .then(|| quality(parameters))
            })
            .fold(0.0, f32::max)
    };
    let html = weight(&["text/html", "application/xhtml+xml"]);
    html > 0.0 && html >= weight(&["application/json"])
}

fn quality(parameters: &str) -> f32 {
    parameters
        .split(';')
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
        .map_or(1.0, |(_, value)| value.trim().parse().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use http::HeaderName;
    use uuid::Uuid;

    use super::*;
    use crate::{
        clock::Timestamp,
        identity::{Assertions, Identity, Rendered, SessionId, UserId},
    };

    fn route(access: Access) -> Arc<Route> {
        Arc::new(Route {
            access,
            ..Route::example("/*")
        })
    }

    fn session(roles: &[&str], email_verified: bool) -> Arc<Session> {
        Arc::new(Session {
            id: SessionId(Uuid::nil()),
            identity: Arc::new(Identity {
                id: UserId(Uuid::nil()),
                email: "ada@example.test".to_owned(),
                email_verified,
                name: "Ada".to_owned(),
                roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            }),
            created_at: Timestamp::from_secs(0),
            expires_at: Timestamp::from_secs(1),
            refresh_at: None,
            extending: std::sync::atomic::AtomicBool::new(false),
            last_seen: std::sync::atomic::AtomicI64::new(0),
            headers: Rendered::default(),
            assertions: Assertions::default(),
            methods: Vec::new(),
        })
    }

    fn needs(roles: &[&str], verified_email: bool) -> Access {
        Access::Required(Needs {
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            verified_email,
            fresh: None,
        })
    }

    #[test]
    fn access_follows_the_route() {
        let user = session(&["user"], false);
        let admin = session(&["user", "admin"], true);
        let none = None;
        for (access, session, verdict) in [
            (Access::Public, none, Ok(false)),
            (Access::Public, Some(&admin), Ok(false)),
            (Access::Optional, none, Ok(false)),
            (Access::Optional, Some(&user), Ok(true)),
            (needs(&[], false), none, Err(Denied::SignInNeeded)),
            (needs(&[], false), Some(&user), Ok(true)),
            (needs(&["admin"], false), none, Err(Denied::SignInNeeded)),
            (
                needs(&["admin"], false),
                Some(&user),
                Err(Denied::NotAllowed(Unmet::Role)),
            ),
            (
                needs(&["ADMIN", "adm"], false),
                Some(&admin),
                Err(Denied::NotAllowed(Unmet::Role)),
            ),
            (needs(&["other", "admin"], true), Some(&admin), Ok(true)),
            (
                needs(&[], true),
                Some(&user),
                Err(Denied::NotAllowed(Unmet::VerifiedEmail)),
            ),
            (
                needs(&["user"], true),
                Some(&user),
                Err(Denied::NotAllowed(Unmet::VerifiedEmail)),
            ),
        ] {
            let route = route(access);
            let permit = authorise(&route, session.map(Arc::as_ref), Timestamp::from_secs(0));
            assert_eq!(permit.map(|permit| permit.session().is_some()), verdict, "{route:?}");
            assert_eq!(wants_session(&route), route.access != Access::Public);
        }
    }

    #[test]
    fn a_sign_in_is_fresh_for_as_long_as_the_route_says() {
        let user = session(&["user"], false);
        let route = route(Access::Required(Needs {
            fresh: Some(Duration::from_mins(10)),
            ..Needs::default()
        }));
        for (secs, verdict) in [
            (0, None),
            (599, None),
            (600, Some(Denied::NotAllowed(Unmet::Fresh))),
            (i64::MAX, Some(Denied::NotAllowed(Unmet::Fresh))),
        ] {
            let judged = authorise(&route, Some(&user), Timestamp::from_secs(secs));
            assert_eq!(judged.err(), verdict, "after {secs} s");
        }
        let needs = Needs {
            roles: vec!["admin".to_owned()],
            fresh: Some(Duration::from_mins(10)),
            ..Needs::default()
        };
        let route = self::route(Access::Required(needs));
        let judged = authorise(&route, Some(&user), Timestamp::from_secs(600));
        assert_eq!(
            judged.err(),
            Some(Denied::NotAllowed(Unmet::Role)),
            "signing in again would not help"
        );
    }

    #[test]
    fn a_person_in_a_browser_is_told_from_a_program() {
        const CHROME: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for (method, lines, navigation) in [
            ("GET", &[("sec-fetch-mode", "navigate")][..], true),
            ("POST", &[("sec-fetch-mode", "navigate")], true),
            ("GET", &[("sec-fetch-mode", "cors"), ("accept", CHROME)], false),
            ("GET", &[("sec-fetch-site", "same-origin"), ("accept", CHROME)], false),
            ("GET", &[("accept", CHROME)], true),
            ("POST", &[("accept", CHROME)], false),
            ("GET", &[("accept", "*/*")], false),
            ("GET", &[("accept", "application/json, text/html;q=0.9")], false),
            (
                "GET",
                &[("accept", "application/json;q=0.1"), ("accept", "TEXT/HTML; q=0.2")],
                true,
            ),
            ("GET", &[("accept", "text/html;q=0")], false),
            ("GET", &[("accept", "text/html;q=x")], false),
            ("GET", &[], false),
        ] {
            let headers: HeaderMap = lines
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
                .collect();
            assert_eq!(
                is_navigation(&method.parse().unwrap(), &headers, Marks::of(&headers)),
                navigation,
                "{method} {lines:?}"
            );
        }
    }
}
