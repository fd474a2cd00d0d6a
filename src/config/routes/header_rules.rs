//! `request_headers` and `response_headers`: what a route removes, sets and adds.
//!
//! No rule can touch what the gateway itself says: identities, who called, the connection, the message's length. Were that
//! possible, a slip in a rule would undo a guard, silently.

use http::{HeaderName, HeaderValue};
use serde_json::json;

use crate::config::{
    error::nearest,
    found::{Sight, Wrong},
    kind::{Kind, list, parsed, table_of, text_schema},
    reserved::{alike, is_reserved},
    section::Section,
    source::Value,
};

/// Applied in this order: remove, set, add.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HeaderRules {
    pub remove: Vec<HeaderName>,
    /// In place of all that has the name.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// On top of what has the name.
    pub add: Vec<(HeaderName, HeaderValue)>,
}

/// Which way the messages go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Way {
    ToUpstream,
    ToClient,
}

/// The connection's and the message's own: what they say must be true.
const OF_THE_HOP: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What the gateway writes for upstreams in every request.
const ABOUT_THE_CLIENT: &[&str] = &["forwarded", "x-real-ip", "x-request-id"];

/// What the gateway says to browsers, from `cors`.
const CORS: &[&str] = &["access-control-allow-credentials", "access-control-allow-origin"];

impl HeaderRules {
    pub(super) fn read(s: &mut Section<'_>, way: Way) -> Option<Self> {
        let set = s
            .key(
                "set",
                "Headers that have exactly this value, whatever was sent. A value may be { env = \"NAME\" }.",
                values(way, "set"),
            )
            .or("{}");
        let add = s
            .key(
                "add",
                "Headers that are sent on top of those of the same name.",
                values(way, "add"),
            )
            .or("{}");
        let remove = s
            .key("remove", "Headers that are taken away.", list(name(way)))
            .or("[]");
        if let (Some(set), Some(add), Some(remove)) = (&set, &add, &remove) {
            report_contradictions(s, set, add, remove);
        }
        Some(Self {
            remove: remove?,
            set: set?,
            add: add?,
        })
    }

    pub const fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// All names that there are rules for.
    pub(super) fn names(&self) -> impl Iterator<Item = &HeaderName> {
        let written = self.set.iter().chain(&self.add).map(|(name, _)| name);
        self.remove.iter().chain(written)
    }

    /// Whether a rule says something under this name.
    pub fn writes(&self, name: &HeaderName) -> bool {
        self.set.iter().chain(&self.add).any(|(known, _)| known == name)
    }
}

type Values = Vec<(HeaderName, HeaderValue)>;

fn report_contradictions(s: &Section<'_>, set: &Values, add: &Values, remove: &[HeaderName]) {
    for (key, values) in [("set", set), ("add", add)] {
        for (index, (name, _)) in values.iter().enumerate() {
            if values.iter().take(index).any(|(other, _)| other == name) {
                s.report(s.wrong(key, format!("`{name}` is there twice; case makes no difference")));
            }
            if remove.contains(name) {
                s.report(
                    s.wrong("remove", format!("`{name}` is in `{key}` as well"))
                        .allowed("only `set`, to replace what was sent; only `remove`, to send none"),
                );
            }
        }
    }
}

fn values(way: Way, key: &'static str) -> Kind<Values> {
    let pairs = table_of(
        move |name| {
            let name = judged(name, way)?;
            // What a client presents as a cookie is judged before; an upstream gets what is left of it.
            if way == Way::ToUpstream && name == http::header::COOKIE {
                return Err("cookies are the client's; they can be removed".into());
            }
            if key == "set" && way == Way::ToClient && name == http::header::SET_COOKIE {
                return Err(Wrong::but(
                    "would take away the cookies of the gateway and the upstream",
                    "add",
                ));
            }
            Ok(())
        },
        value(),
    );
    pairs.map(|pairs| {
        let named = |(name, value): (String, HeaderValue)| Some((name.parse().ok()?, value));
        pairs.into_iter().filter_map(named).collect()
    })
}

/// A value that came from a variable or a file is probably a key to something: it is not shown, nor kept by an upstream's
/// header compression.
fn value() -> Kind<HeaderValue> {
    const ALLOWED: &str = "a header's value: visible ASCII and inner spaces";
    Kind::new(ALLOWED, text_schema(&json!({ "type": "string" })), |found| {
        let text = found.text(ALLOWED, Sight::Secret)?;
        let legal = text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
        match HeaderValue::try_from(text.as_str()) {
            Ok(mut value) if legal && text.trim() == text => {
                value.set_sensitive(matches!(found.node.value, Value::Table(_)));
                Some(value)
            }
            _ => {
                found.report("not the value of a header".into(), None, ALLOWED);
                None
            }
        }
    })
}

fn name(way: Way) -> Kind<HeaderName> {
    parsed("the name of a header such as \"X-Powered-By\"", move |text| {
        judged(text, way)
    })
}

fn judged(text: &str, way: Way) -> Result<HeaderName, Wrong> {
    let name: HeaderName = text.parse().map_err(|_| Wrong {
        problem: "not the name of a header".to_owned(),
        nearest: nearest(
            text,
            ["Content-Security-Policy", "Strict-Transport-Security", "Cache-Control"],
        ),
    })?;
    let one_of = |names: &[&str]| names.iter().any(|known| alike(&name, known));
    if one_of(OF_THE_HOP) {
        return Err("belongs to the connection or to the message itself".into());
    }
    match way {
        Way::ToUpstream if is_reserved(&name) || one_of(ABOUT_THE_CLIENT) => {
            Err("only the gateway speaks under this name".into())
        }
        Way::ToClient if name.as_str().starts_with("x-vestibule-") => Err("only the gateway reads this".into()),
        Way::ToClient if one_of(CORS) => Err(Wrong::but("`cors` says it", "cors")),
        Way::ToUpstream | Way::ToClient => Ok(name),
    }
}
