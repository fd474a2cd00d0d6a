//! What a route does with a request that may pass: forward it, or answer it here.

use std::path::PathBuf;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use super::redirect::Redirect;
use crate::config::{
    Facts,
    error::nearest,
    found::Wrong,
    kind::{Kind, file, integer, parsed},
    section::Section,
};

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// Index into [`crate::config::Config::upstreams`].
    Upstream(usize),
    Files(Files),
    Redirect(Redirect),
    Answer(FixedAnswer),
}

/// A folder whose files are served.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Files {
    pub folder: PathBuf,
    /// Relative to the folder: what a navigation gets where there is no such file.
    pub fallback: Option<String>,
}

/// The same answer for every request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FixedAnswer {
    pub status: StatusCode,
    pub body: Bytes,
    /// `None`: there is no body.
    pub content_type: Option<HeaderValue>,
}

/// The keys that name a target, in the order of the documents.
const KEYS: [&str; 4] = ["upstream", "serve", "redirect", "respond"];

impl Target {
    /// `None`: what is wrong has been reported.
    pub(super) fn read(s: &mut Section<'_>, facts: &Facts) -> Option<Self> {
        let upstream = s
            .key_of_many(
                "upstream",
                "Who gets the requests: a name from [upstreams]. A route has exactly one of `upstream`, `serve`, `redirect` \
                 and `respond`.",
                || parsed("the name of an upstream", |name| Ok(name.to_owned())),
            )
            .one_of_several("api");
        let serve = s
            .key_of_many(
                "serve",
                "A folder whose files are the answers, found by the path that is left after `strip_prefix`. `index.html` \
                 is a folder's page; `.br` and `.gz` files beside a file are sent to whoever takes them. No file whose \
                 name begins with a dot, but below `/.well-known`; no link that leaves the folder.",
                folder,
            )
            .optional("dist/");
        let fallback = s
            .key_of_many(
                "fallback",
                "With `serve`: the file that a browser's navigation gets where there is none, for applications with \
                 paths of their own. Absent: 404.",
                || {
                    parsed(
                        "the path of a file below the folder, such as \"index.html\"",
                        file_below,
                    )
                },
            )
            .optional("index.html");
        let has = KEYS.map(|key| s.has(key));
        let redirect = s.section_if_there(
            "redirect",
            "Sends clients elsewhere. Also: redirect = { to = \"https://example.com{path}\" }.",
            Redirect::read,
        );
        let respond = s.section_if_there(
            "respond",
            "The same answer for every request. Also: respond = { status = 204 }.",
            FixedAnswer::read,
        );
        let named: Vec<&str> = KEYS
            .iter()
            .zip(has)
            .filter(|(_, has)| *has)
            .map(|(key, _)| *key)
            .collect();
        match named.as_slice() {
            [] => {
                s.report(
                    s.wrong("upstream", "missing: the route does nothing")
                        .allowed("one of `upstream`, `serve`, `redirect` and `respond`"),
                );
                None
            }
            ["upstream"] => resolved(s, facts, &upstream??).map(Self::Upstream),
            ["serve"] => {
                let folder = serve??;
                let fallback = fallback?;
                if let Some(page) = &fallback
                    && !folder.join(page).is_file()
                {
                    s.report(
                        s.wrong("fallback", "no such file in the folder")
                            .found(format!("{page:?}"))
                            .allowed(format!("a file below {}", folder.display())),
                    );
                }
                Some(Self::Files(Files { folder, fallback }))
            }
            ["redirect"] => redirect.flatten().map(Self::Redirect),
            [first, also, ..] => {
                s.report(
                    s.wrong(also, format!("the route has `{first}` already"))
                        .allowed("one of `upstream`, `serve`, `redirect` and `respond`"),
                );
                None
            }
            // "respond"
            [_] => respond.flatten().map(Self::Answer),
        }
    }
}

/// The place of upstream `name`.
fn resolved(s: &Section<'_>, facts: &Facts, name: &str) -> Option<usize> {
    let known = &facts.upstreams;
    let index = known.iter().position(|known| known == name);
    if index.is_none() {
        let allowed = if known.is_empty() {
            format!("a name from [upstreams]; add [upstreams.{name}]")
        } else {
            known.join(", ")
        };
        s.report(
            s.wrong("upstream", "no such upstream")
                .found(format!("{name:?}"))
                .allowed(allowed)
                .nearest(nearest(name, known.iter().map(String::as_str))),
        );
    }
    index
}

impl FixedAnswer {
    fn read(s: &mut Section<'_>) -> Option<Self> {
        s.shown_as_comment();
        let status = s
            .key("status", "The answer's status.", integer::<u16>(200..=599))
            .or("200");
        let body = s
            .key(
                "body",
                "What it holds; { file = \"path\" } reads it from a file, of up to 64 KiB.",
                parsed("a text", |text| Ok(Bytes::from(text.to_owned()))),
            )
            .or("");
        let content_type = s
            .key(
                "content_type",
                "What the body is.",
                parsed("a media type such as \"text/html; charset=utf-8\"", media_type),
            )
            .or("text/plain; charset=utf-8");
        let status = StatusCode::from_u16(status?).ok()?;
        let body = body?;
        let bodiless = [
            StatusCode::NO_CONTENT,
            StatusCode::RESET_CONTENT,
            StatusCode::NOT_MODIFIED,
        ]
        .contains(&status);
        if bodiless && !body.is_empty() {
            s.report(
                s.wrong("body", format!("an answer with status {} has none", status.as_u16()))
                    .allowed("another status, or no body"),
            );
        }
        Some(Self {
            status,
            content_type: content_type.filter(|_| !body.is_empty()),
            body,
        })
    }
}

fn folder() -> Kind<PathBuf> {
    file("the path of a folder", |path| {
        if path.is_dir() {
            return Ok(());
        }
        Err(if path.exists() {
            "not a folder"
        } else {
            "no such folder"
        }
        .into())
    })
}

fn file_below(text: &str) -> Result<String, Wrong> {
    let plain = text.split('/').all(|part| !part.is_empty() && !part.starts_with('.'));
    if !plain || text.contains(['\\', '%', '?', '#']) || text.chars().any(char::is_control) {
        return Err("not a plain path below the folder".into());
    }
    Ok(text.to_owned())
}

fn media_type(text: &str) -> Result<HeaderValue, Wrong> {
    let essence = text.split(';').next().unwrap_or_default().trim();
    let is_token = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
    };
    let parts = essence.split_once('/');
    let value = HeaderValue::try_from(text).ok().filter(|value| value.to_str().is_ok());
    match value {
        Some(value) if parts.is_some_and(|(kind, sub)| is_token(kind) && is_token(sub)) => Ok(value),
        _ => Err("not a media type".into()),
    }
}
