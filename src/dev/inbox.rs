//! The inbox of `vestibule dev`: every mail that the gateway sent, on a page and for curl.
//!
//! Mails are files in a folder, so they are there again after a restart. The pages are for the person at this machine:
//! a web site that the same browser visits must not read them, so names that could lead here by a trick of its DNS
//! are refused, and a mail's HTML runs nothing.

mod store;

pub use store::Inbox;

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use http::{HeaderValue, Method, Request, StatusCode, header};
use minijinja::{Environment, Value, context, value::Serde};
use tokio::time::timeout;

use self::store::Mail;
use super::http::{Answer, page};

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// How long `/latest.txt` waits for a mail that is on its way: curl asks sooner than a mail travels.
const WAIT: Duration = Duration::from_secs(5);

static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    for (name, source) in [
        ("list.html", include_str!("inbox/list.html")),
        ("message.html", include_str!("inbox/message.html")),
    ] {
        #[expect(clippy::expect_used, reason = "templates are compiled in and parsed by a test")]
        environment.add_template(name, source).expect("a template parses");
    }
    environment
});

/// Answers a request for a page of `inbox`.
///
/// `/` lists, `/messages/ID` shows one (`/html`, `/raw`), `/latest.txt?to=ADDRESS` is the newest as text,
/// `/api/messages` all as JSON; `DELETE /api/messages` empties it.
pub async fn answer<B>(inbox: Inbox, request: Request<B>) -> Answer {
    let (head, _) = request.into_parts();
    let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if !host.is_some_and(is_local) {
        return page(
            StatusCode::MISDIRECTED_REQUEST,
            TEXT,
            "Open this page as http://localhost.\n",
        );
    }
    let segments: Vec<&str> = head
        .uri
        .path()
        .split('/')
        .filter(|segment| !segment.is_empty())
        .collect();
    let reading = matches!(head.method, Method::GET | Method::HEAD);
    match segments.as_slice() {
        [] if reading => render(
            "list.html",
            context! { mails => Value::from(Serde(refs(&inbox.newest_first()))) },
        ),
        ["latest.txt"] if reading => latest(&inbox, head.uri.query().unwrap_or_default()).await,
        ["api", "messages"] if reading => json(&refs(&inbox.newest_first())),
        ["api", "messages"] if head.method == Method::DELETE => match inbox.empty() {
            Ok(()) => page(StatusCode::NO_CONTENT, TEXT, ""),
            Err(error) => page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        },
        ["messages", id, rest @ ..] if reading => match id.parse().ok().and_then(|id| inbox.find(id)) {
            Some(mail) => match rest {
                [] => render("message.html", context! { mail => Value::from(Serde(&*mail)) }),
                ["html"] => framed(&mail.html),
                ["raw"] => match inbox.raw(mail.id) {
                    Ok(raw) => page(StatusCode::OK, TEXT, raw),
                    Err(error) => page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
                },
                _ => not_found(),
            },
            None => not_found(),
        },
        _ => not_found(),
    }
}

async fn latest(inbox: &Inbox, query: &str) -> Answer {
    let to = url::form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "to")
        .map(|(_, address)| address.to_lowercase());
    match timeout(WAIT, inbox.latest(to.as_deref())).await {
        Ok(mail) => {
            let text = format!(
                "From: {}\nTo: {}\nSubject: {}\n\n{}\n",
                mail.from,
                mail.to.join(", "),
                mail.subject,
                mail.text.trim_end().replace("\r\n", "\n"),
            );
            page(StatusCode::OK, TEXT, text)
        }
        Err(_) => page(StatusCode::NOT_FOUND, TEXT, "No such mail has arrived.\n"),
    }
}

fn render(template: &str, values: Value) -> Answer {
    let rendered = TEMPLATES
        .get_template(template)
        .and_then(|template| template.render(values));
    match rendered {
        Ok(html) => {
            let mut answer = page(StatusCode::OK, HTML, html);
            let policy =
                "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; base-uri 'none'; form-action 'none'";
            answer
                .headers_mut()
                .insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
            answer
        }
        Err(error) => page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
    }
}

/// A mail's own HTML: no scripts, no requests; a click opens a new tab.
fn framed(html: &str) -> Answer {
    let policy = "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; style-src 'unsafe-inline'; \
                  img-src data:";
    let mut answer = page(StatusCode::OK, HTML, format!("<base target=\"_blank\">{html}"));
    answer
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    answer
}

fn json(value: &impl serde::Serialize) -> Answer {
    match serde_json::to_vec_pretty(value) {
        Ok(json) => page(StatusCode::OK, JSON, json),
        Err(error) => page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
    }
}

fn refs(mails: &[Arc<Mail>]) -> Vec<&Mail> {
    mails.iter().map(|mail| &**mail).collect()
}

fn not_found() -> Answer {
    page(StatusCode::NOT_FOUND, TEXT, "There is nothing here.\n")
}

/// An address, or a name that can only mean this machine: nobody's DNS decides about those.
fn is_local(host: &str) -> bool {
    let Ok(authority) = host.parse::<http::uri::Authority>() else {
        return false;
    };
    let name = authority.host().to_ascii_lowercase();
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.ends_with(".localhost") || bare.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::dev::smtp::Received;

    async fn get(inbox: &Inbox, host: &str, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).header("host", host).body(()).unwrap();
        let answer = answer(inbox.clone(), request).await;
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn mail(to: &str, subject: &str) -> Received {
        let data = format!(
            "From: A <a@example.com>\r\nTo: {to}\r\nSubject: {subject}\r\n\r\nSee https://app.example/?a=1&b=2 now\r\n"
        );
        Received {
            from: "a@example.com".to_owned(),
            to: vec![to.to_owned()],
            data: data.into_bytes(),
            encrypted: false,
            user: None,
        }
    }

    #[tokio::test]
    async fn mails_are_listed_shown_and_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let inbox = Inbox::open(folder.path()).unwrap();
        inbox.keep(&mail("ada@example.com", "<b>One</b>"));
        inbox.keep(&mail("bob@example.com", "Two"));
        let inbox = Inbox::open(folder.path()).unwrap();

        let (status, list) = get(&inbox, "localhost:8025", "/").await;
        assert_eq!(status, 200);
        assert!(list.contains("&lt;b&gt;One") && list.contains("Two") && !list.contains("<b>One"));

        let (_, newest) = get(&inbox, "127.0.0.1:8025", "/latest.txt").await;
        assert!(newest.contains("Subject: Two") && newest.contains("https://app.example/?a=1&b=2"));
        let (_, hers) = get(&inbox, "localhost", "/latest.txt?to=ada%40example.com").await;
        assert!(hers.contains("To: ada@example.com"));

        let (_, shown) = get(&inbox, "localhost", "/messages/1").await;
        assert!(
            shown.contains("<a href=\"https:&#x2f;&#x2f;app.example&#x2f;?a=1&amp;b=2\">"),
            "{shown}"
        );
        assert!(
            get(&inbox, "localhost", "/messages/1/raw")
                .await
                .1
                .starts_with("From: A")
        );
        assert_eq!(get(&inbox, "localhost", "/messages/9").await.0, 404);
        let (_, api) = get(&inbox, "localhost", "/api/messages").await;
        assert_eq!(serde_json::from_str::<Vec<serde_json::Value>>(&api).unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_foreign_name_reads_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let inbox = Inbox::open(folder.path()).unwrap();
        for (host, status) in [
            ("evil.example", 421),
            ("localhost.evil.example", 421),
            ("[::1]:8025", 200),
        ] {
            assert_eq!(get(&inbox, host, "/").await.0, status, "{host}");
        }
    }
}
