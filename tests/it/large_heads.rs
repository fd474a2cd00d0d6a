//! Heads near the limits, and what browsers with many cookies send: it arrives whole, on both versions of HTTP, and what is
//! past a limit is refused without an end to the connection of others.

use std::future::ready;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;

use crate::harness::{
    Gateway, Setup,
    backend::{Backend, Speaks, application},
    h2_client::{H2Answer, H2Client},
};

const LIMIT: usize = 32 << 10;

/// A field value in which nothing can be missing or moved.
fn value(length: usize) -> String {
    let mut text: String = (0..).map(|number| format!("{number} ")).take(length).collect();
    text.truncate(length - 1);
    text.push('.');
    text
}

async fn by_http1(gateway: &Gateway, fields: &[(&str, &str)]) -> u16 {
    let call = gateway.get("/public/x");
    fields
        .iter()
        .fold(call, |call, (name, value)| call.header(name, value))
        .await
        .status()
}

async fn by_http2(gateway: &Gateway, fields: &[(&str, &str)]) -> Result<H2Answer, hyper::Error> {
    let client = H2Client::connect(gateway.addr(), gateway.host()).await;
    // What the gateway announced is known by then, so that nobody refuses in its place.
    client.get("/public/first").await;
    let request = client.request("GET", "/public/x");
    let request = fields
        .iter()
        .fold(request, |request, (name, value)| request.header(*name, *value));
    client.send(request.body(Full::default()).unwrap()).await
}

#[tokio::test]
async fn a_head_just_below_the_limit_arrives_whole() {
    let (http1, http2) = (
        Backend::start("app").await,
        Backend::speaking("app", Speaks::Http2).await,
    );
    for (backend, scheme) in [(&http1, "http"), (&http2, "h2c")] {
        let gateway = Setup::default()
            .endpoints(&[backend.endpoint(scheme)], "")
            .start()
            .await;
        // Host, method and path need a little, too.
        let large = value(LIMIT - 300);
        let arrived = || backend.arrived().pop().unwrap().head.headers["x-large"].clone();
        assert_eq!(by_http1(&gateway, &[("x-large", &large)]).await, 200, "{scheme}");
        assert!(arrived() == large, "{scheme}: another value arrived");
        let answer = by_http2(&gateway, &[("x-large", &large)]).await.unwrap();
        assert_eq!(answer.status, 200, "{scheme}");
        assert!(arrived() == large, "{scheme}: another value arrived");
    }
}

#[tokio::test]
async fn a_head_just_past_the_limit_is_431() {
    let gateway = Gateway::start().await;
    let large = value(LIMIT + 1);
    assert_eq!(by_http1(&gateway, &[("x-large", &large)]).await, 431);
    // The library may refuse to send what the gateway has said that it refuses.
    let answer = by_http2(&gateway, &[("x-large", &large)]).await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 431));
    assert_eq!(gateway.upstream().seen("/public/x"), 0);
}

#[tokio::test]
async fn as_many_fields_as_a_parser_takes_arrive() {
    let backend = Backend::start("app").await;
    let gateway = Setup::default()
        .endpoints(&[backend.endpoint("http")], "")
        .start()
        .await;
    let names: Vec<String> = (0..80).map(|number| format!("x-field-{number}")).collect();
    let fields: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    assert_eq!(by_http1(&gateway, &fields).await, 200);
    assert_eq!(by_http2(&gateway, &fields).await.unwrap().status, 200);
    for arrived in backend
        .arrived()
        .iter()
        .filter(|seen| seen.head.uri.path() == "/public/x")
    {
        let headers = &arrived.head.headers;
        assert!(names.iter().all(|name| headers[name] == name.as_str()), "{headers:?}");
    }
    assert_eq!(backend.seen("/public/x"), 2);
}

#[tokio::test]
async fn an_answer_that_sets_many_cookies_arrives_whole_and_in_order() {
    let set: Vec<String> = (0..40)
        .map(|number| format!("c{number}={}; Path=/; Secure", value(200)))
        .collect();
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let sets = set.clone();
        let endpoint = application(speaks, move |_| {
            let answer = sets
                .iter()
                .fold(Response::builder(), |head, cookie| head.header("set-cookie", cookie));
            ready(answer.body(Full::<Bytes>::default()).unwrap())
        });
        let gateway = Setup::default().endpoints(&[endpoint.await], "").start().await;
        assert_eq!(gateway.get("/public/x").await.head.all("set-cookie"), set, "{speaks:?}");
        let answer = by_http2(&gateway, &[]).await.unwrap();
        let arrived: Vec<_> = answer.headers.get_all("set-cookie").into_iter().cloned().collect();
        assert_eq!(arrived, set, "{speaks:?}");
    }
}

/// A hundred cookies, none of them ours.
fn cookies() -> Vec<String> {
    (0..100)
        .map(|number| format!("theme_{number}=\"value={number}&x\""))
        .collect()
}

#[tokio::test]
async fn of_a_hundred_cookies_all_but_the_session_arrive_in_one_line() {
    let gateway = Gateway::start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let (theirs, mut all) = (cookies(), cookies());
    all.insert(57, ada.cookie.clone());
    let whole = all.join("; ");
    let arrived = || {
        let head = gateway.upstream().last().head;
        assert_eq!(head.one("x-user-id"), Some(ada.id.as_str()));
        head.one("cookie").expect("one line").to_owned()
    };

    assert_eq!(gateway.get("/api/x").header("Cookie", &whole).await.status(), 200);
    assert_eq!(arrived(), theirs.join("; "));

    // HTTP/2 clients send each in a line of its own (RFC 9113, 8.2.3), or some together.
    let client = H2Client::connect(gateway.addr(), gateway.host()).await;
    for at_once in [1, 7, 101] {
        let lines = all.chunks(at_once).map(|some| some.join("; "));
        let request = client.request("GET", "/api/y");
        let request = lines.fold(request, |request, line| request.header("cookie", line));
        let answer = client.send(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(answer.status, 200, "{at_once}");
        assert_eq!(arrived(), theirs.join("; "), "{at_once}");
    }
}

#[tokio::test]
async fn cookies_of_several_lines_are_one_line_where_all_of_them_are_kept() {
    let over = "routes = [{ path = '/api/*', upstream = 'app', credentials = 'keep' }]";
    let gateway = Setup::default().with(over).start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let client = H2Client::connect(gateway.addr(), gateway.host()).await;
    let request = client
        .request("GET", "/api/x")
        .header("cookie", "a=1")
        .header("cookie", &ada.cookie)
        .header("cookie", "b=2");
    let answer = client.send(request.body(Full::default()).unwrap()).await.unwrap();
    assert_eq!(answer.status, 200);
    let expected = format!("a=1; {}; b=2", ada.cookie);
    assert_eq!(gateway.upstream().last().head.all("cookie"), [expected]);
}
