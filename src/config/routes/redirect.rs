//! `redirect`: where a route sends clients, with what it puts into the address.
//!
//! A client chooses path and query, so neither may come to say who is asked: `{path}` begins with a slash and stands
//! where a path may begin or within a query, `{query}` behind a question mark. What can't be read so is refused at load,
//! and nothing is left to judge for a request.

use http::StatusCode;

use crate::config::{
    found::Wrong,
    kind::{integer, parsed},
    section::Section,
};

/// Where to, and as what.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Redirect {
    pub to: Vec<Piece>,
    pub status: StatusCode,
}

/// A part of the address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Piece {
    Text(String),
    /// The path as it is; it begins with a slash and has no second one behind it.
    Path,
    /// The path within a query, where `&` and `+` would mean something.
    PathInQuery,
    /// What follows the question mark, and in front of it the mark or `&`; nothing if nothing follows.
    Query {
        lead: Option<char>,
    },
}

impl Redirect {
    pub(super) fn read(s: &mut Section<'_>) -> Option<Self> {
        s.shown_as_comment();
        let to = s
            .key(
                "to",
                "Where to. {path} is the path, after `strip_prefix` and `add_prefix`; {query} what follows its question \
                 mark.",
                parsed(
                    "an address such as \"https://example.com{path}?{query}\", or a path such as \"/new{path}\"",
                    pieces,
                ),
            )
            .optional("https://www.example.com{path}?{query}");
        let status = s
            .key(
                "status",
                "308 and 307 keep the method, 301 and 302 browsers may turn into GET, 303 always is; 301 and 308 are \
                 remembered.",
                integer::<u16>(301..=308).check("301, 302, 303, 307 or 308", |status| {
                    if [301, 302, 303, 307, 308].contains(status) {
                        return Ok(());
                    }
                    Err("not the status of a redirect".into())
                }),
            )
            .or("308");
        if s.is_present() && to == Some(None) {
            s.report(
                s.wrong("to", "missing")
                    .allowed("an address such as \"https://example.com{path}\", or a path"),
            );
        }
        Some(Self {
            to: to??,
            status: StatusCode::from_u16(status?).ok()?,
        })
    }
}

/// Stands for a request's path while an address is judged; no address holds it by itself.
const PATH: &str = "/\u{1}";

fn pieces(text: &str) -> Result<Vec<Piece>, Wrong> {
    let mut pieces = Vec::new();
    // What stands before the place that is read.
    let mut before = String::new();
    let mut rest = text;
    while let Some((plain, behind)) = rest.split_once('{') {
        let Some((name, behind)) = behind.split_once('}') else {
            return Err("a brace without its other half".into());
        };
        before.push_str(plain);
        let mut plain = plain.to_owned();
        let piece = match name {
            "path" => path_piece(&before)?,
            "query" => {
                if !before.contains('?') || before.contains('#') {
                    return Err(Wrong::but(
                        "{query} stands behind a question mark",
                        text.replacen("{query}", "?{query}", 1),
                    ));
                }
                Piece::Query {
                    lead: lead_of(&mut plain),
                }
            }
            _ => return Err("the placeholders are {path} and {query}".into()),
        };
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        pieces.push(piece);
        before.push_str(if name == "path" { PATH } else { "x" });
        rest = behind;
    }
    if rest.contains('}') {
        return Err("a brace without its other half".into());
    }
    before.push_str(rest);
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    // A path may be as short as one slash.
    for path in ["/x", "/"] {
        judge(&before.replace(PATH, path), text)?;
    }
    Ok(pieces)
}

fn path_piece(before: &str) -> Result<Piece, Wrong> {
    if before.contains('#') {
        return Err("placeholders have no place in a fragment".into());
    }
    if before.contains('?') {
        return Ok(Piece::PathInQuery);
    }
    // `/` and `/evil.example` would be `//evil.example`: another host.
    if before.ends_with('/') {
        return Err("{path} begins with a slash: leave out the one before it".into());
    }
    Ok(Piece::Path)
}

/// Whether `filled`, with the placeholders filled in, is an address that a client can be sent to.
fn judge(filled: &str, text: &str) -> Result<(), Wrong> {
    if !filled.bytes().all(|byte| byte.is_ascii_graphic()) || filled.contains('\\') {
        return Err("holds what an address can't, unescaped".into());
    }
    if filled.starts_with("//") {
        return Err(Wrong::but(
            "would be another host, by whatever scheme",
            format!("https:{text}"),
        ));
    }
    if filled.starts_with('/') {
        return Ok(());
    }
    let host_ends_so = |rest: &str| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        !authority.is_empty() && !authority.contains('@')
    };
    let rest = filled
        .strip_prefix("https://")
        .or_else(|| filled.strip_prefix("http://"));
    match rest {
        Some(rest) if host_ends_so(rest) && url::Url::parse(filled).is_ok() => Ok(()),
        Some(_) => Err("not an address".into()),
        None => Err(Wrong {
            problem: "neither an http(s) address nor a path".to_owned(),
            nearest: (!text.contains(':')).then(|| format!("/{text}")),
        }),
    }
}

/// Takes the question mark or `&` off the end of what stands before `{query}`.
fn lead_of(plain: &mut String) -> Option<char> {
    let lead = plain.chars().next_back().filter(|last| matches!(last, '?' | '&'))?;
    plain.pop();
    Some(lead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        let text = |text: &str| Piece::Text(text.to_owned());
        let query = |lead| Piece::Query { lead };
        for (to, parts) in [
            (
                "https://example.com{path}?{query}",
                vec![text("https://example.com"), Piece::Path, query(Some('?'))],
            ),
            ("/new{path}", vec![text("/new"), Piece::Path]),
            (
                "{path}?a=1&{query}#top",
                vec![Piece::Path, text("?a=1"), query(Some('&')), text("#top")],
            ),
            ("/login?next={path}", vec![text("/login?next="), Piece::PathInQuery]),
            ("/login?q={query}", vec![text("/login?q="), query(None)]),
            ("https://example.com:8443", vec![text("https://example.com:8443")]),
        ] {
            assert_eq!(pieces(to).ok().unwrap(), parts, "{to}");
        }
    }

    #[test]
    fn no_placeholder_can_come_to_name_a_host() {
        for to in [
            "/{path}",
            "//evil.example",
            "//{path}",
            "https://{path}",
            "https:{path}",
            "https://{query}",
            "https://example.com{query}",
            "{query}",
            "{path}/evil.example",
            "{path}{path}",
            "https://example.com#{path}",
            "https://user@example.com/",
            "https://",
            "javascript:alert(1)",
            "ftp://example.com/",
            "new",
            "/a b",
            "/a\r\nset-cookie:x",
            "/\\evil.example",
            "/{host}",
            "/{path",
            "/path}",
            "",
        ] {
            assert!(pieces(to).is_err(), "{to}");
        }
    }
}
