//! The routes that the whole decision is played on, once for the oracle and once for `gateway.toml`: one list, so that
//! they can't tell different things. And somebody who is signed in, as both see them.

use oracle::{
    client::Trust,
    credential::{Names, Person},
    decision::World,
    path::Kept,
    route::{Access, Route},
};

pub const HOST: &str = "app.example.com";
const ADMIN: &str = "admin";

/// All kinds of access beside and below each other, and everything that changes a path on its way.
pub fn routes() -> Vec<Route> {
    let required = || Access::Required(Vec::new());
    let admin = || Access::Required(vec![ADMIN.to_owned()]);
    let all: Vec<(Option<&str>, &str, &[&str], Access)> = vec![
        (None, "/public/*", &[], Access::Public),
        (None, "/optional/*", &[], Access::Optional),
        (None, "/api/*", &[], required()),
        (None, "/api/open", &["GET"], Access::Public),
        (None, "/api/{id}/items", &["POST", "PUT"], Access::Optional),
        (None, "/admin/*", &[], admin()),
        (None, "/kept/*", &[], Access::Public),
        (None, "/kept/admin/*", &[], admin()),
        (None, "/moved/*", &[], required()),
        (None, "/quiet/*", &[], Access::Optional),
        (None, "/@me/{what}", &["GET", "POST"], required()),
        (Some("admin.example.com"), "/*", &[], admin()),
        (Some("*.tenant.example.com"), "/public/*", &[], required()),
    ];
    let kept = |path: &str| Kept {
        slashes: path.starts_with("/kept"),
        bytes: path == "/kept/*",
    };
    let moved = |path: &str| {
        if path.starts_with("/moved") {
            (1, "/v2")
        } else {
            (0, "")
        }
    };
    all.into_iter()
        .enumerate()
        .map(|(number, (host, path, methods, access))| Route {
            number,
            host: host.map(str::to_owned),
            path: path.to_owned(),
            methods: methods.iter().map(|method| (*method).to_owned()).collect(),
            kept: kept(path),
            access,
            strip: moved(path).0,
            add: moved(path).1.to_owned(),
            websocket: !path.starts_with("/quiet"),
        })
        .collect()
}

/// The same in `gateway.toml`.
pub fn toml(routes: &[Route]) -> String {
    let mut lines = Vec::new();
    for route in routes {
        lines.push("[[routes]]".to_owned());
        lines.push("upstream = \"app\"".to_owned());
        lines.push(format!("path = {:?}", route.path));
        if let Some(host) = &route.host {
            lines.push(format!("host = {host:?}"));
        }
        if !route.methods.is_empty() {
            lines.push(format!("methods = {:?}", route.methods));
        }
        match &route.access {
            Access::Public => lines.push("auth = \"public\"".to_owned()),
            Access::Optional => lines.push("auth = \"optional\"".to_owned()),
            Access::Required(roles) if roles.is_empty() => {}
            Access::Required(roles) => lines.push(format!("require = {{ roles = {roles:?} }}")),
        }
        if route.kept.slashes {
            lines.push("encoded_slashes = \"keep\"".to_owned());
        }
        if route.kept.bytes {
            lines.push("encoded_bytes = \"keep\"".to_owned());
        }
        if route.strip > 0 {
            let prefix: Vec<&str> = route.path.split('/').skip(1).take(route.strip).collect();
            lines.push(format!("strip_prefix = \"/{}\"", prefix.join("/")));
            lines.push(format!("add_prefix = {:?}", route.add));
        }
        if !route.websocket {
            lines.push("websocket = false".to_owned());
        }
    }
    lines.join("\n") + "\n"
}

/// A gateway at `https://app.example.com` behind nobody, with these people signed in.
pub fn world(people: Vec<Person>) -> World {
    World {
        trust: Trust {
            public: HOST.to_owned(),
            public_is_https: true,
            hosts: vec!["admin.example.com".to_owned(), "*.tenant.example.com".to_owned()],
            proxies: Vec::new(),
        },
        base_path: "/api/auth".to_owned(),
        routes: routes(),
        names: Names {
            session: "__Host-vestibule.session_token".to_owned(),
            family: "vestibule.".to_owned(),
        },
        people,
        origins: vec![format!("https://{HOST}")],
    }
}

/// What a sign-in tells of somebody.
pub struct SignedIn<'s> {
    pub id: &'s str,
    pub email: &'s str,
    pub session_id: &'s str,
    /// RFC 3339, as upstreams are told.
    pub since: &'s str,
    pub token: &'s str,
    /// The session cookie's value.
    pub cookie: &'s str,
    pub roles: &'s [&'s str],
}

/// As the oracle knows them.
pub fn person(signed_in: &SignedIn<'_>) -> Person {
    let signature = signed_in
        .cookie
        .strip_prefix(signed_in.token)
        .and_then(|rest| rest.strip_prefix('.'));
    let signature = signature.expect("a cookie with a token and a signature");
    let mut identity = vec![
        ("x-user-id", signed_in.id.to_owned()),
        ("x-user-email", signed_in.email.to_owned()),
        ("x-user-email-verified", "true".to_owned()),
        ("x-user-name", "Ada Lovelace".to_owned()),
        ("x-session-id", signed_in.session_id.to_owned()),
        ("x-auth-time", signed_in.since.to_owned()),
        ("x-auth-methods", "pwd".to_owned()),
    ];
    if !signed_in.roles.is_empty() {
        identity.push(("x-user-roles", signed_in.roles.join(",")));
    }
    Person {
        token: signed_in.token.to_owned(),
        signature: signature.replace("%2B", "+").replace("%2F", "/").replace("%3D", "="),
        roles: signed_in.roles.iter().map(|role| (*role).to_owned()).collect(),
        identity: identity
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        live: true,
    }
}
