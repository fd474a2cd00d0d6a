//! gRPC through the gateway, with the client and server that most people use.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use serde_json::json;
use tokio::time::timeout;

use crate::harness::{
    Gateway, SOON, Setup,
    h2_client::H2Client,
    people::User,
    protocols::{Application, Client},
};

const ROUTES: &str = "
    routes = [
        { path = '/vestibule.Test/*', upstream = 'app' },
        { path = '/api/*', upstream = 'app' },
    ]
";

async fn gateway(application: &Application) -> Gateway {
    gateway_with(application, "").await
}

async fn gateway_with(application: &Application, over: &str) -> Gateway {
    let upstream = format!(
        "upstreams = {{ app = {{ endpoints = ['h2c://{}'] }} }}",
        application.addr
    );
    Setup::default().with(ROUTES).with(&upstream).with(over).start().await
}

fn client(gateway: &Gateway, user: Option<&User>) -> Client {
    let addr = gateway.addr().to_string();
    let mut args = vec![addr.as_str(), gateway.host()];
    args.extend(user.map(|user| user.token.as_str()));
    Client::start("grpc_client.py", &args)
}

#[tokio::test]
async fn calls_and_streams_pass_both_ways_with_what_comes_behind_them() {
    let application = Application::start("grpc_server.py").await;
    let gateway = gateway(&application).await;
    let ada = gateway.signed_in("ada@example.com").await;
    let mut client = client(&gateway, Some(&ada));

    let echoed = client.does("echo").await;
    assert_eq!((&echoed["code"], &echoed["reply"]), (&json!("OK"), &json!("hello")));
    assert_eq!(client.does("large").await["reply"], true);

    let begun = client.does("begin").await;
    assert_eq!(
        (&begun["code"], &begun["replies"]),
        (&json!("open"), &json!(true)),
        "{begun}"
    );
    assert_eq!(begun["began"]["x-began"], "yes");
    assert_eq!(client.does("exchange").await["replies"], true);
    let ended = client.does("end").await;
    assert_eq!(ended["code"], "OK");
    assert_eq!(ended["trailers"]["x-ended"], "yes");
    assert_eq!(ended["trailers"]["bytes-bin"], json!([0, 255]));
    assert_eq!(
        ended["trailers"].get("x-vestibule-sign-out"),
        None,
        "that is for the gateway"
    );
}

#[tokio::test]
async fn the_application_learns_who_calls_and_never_their_token() {
    let application = Application::start("grpc_server.py").await;
    let gateway = gateway(&application).await;
    let ada = gateway.signed_in("ada@example.com").await;
    let told = client(&gateway, Some(&ada)).does("metadata").await;
    let told: Vec<(String, String)> = serde_json::from_str(told["reply"].as_str().unwrap()).unwrap();
    let all = |name: &str| -> Vec<&str> {
        let named = told.iter().filter(|(key, _)| key == name);
        named.map(|(_, value)| value.as_str()).collect()
    };
    assert_eq!(all("x-user-id"), [ada.id.as_str()]);
    assert_eq!(all("authorization"), [""; 0]);
}

#[tokio::test]
async fn an_error_of_the_application_arrives_whole() {
    let application = Application::start("grpc_server.py").await;
    let gateway = gateway(&application).await;
    let ada = gateway.signed_in("ada@example.com").await;
    let failed = client(&gateway, Some(&ada)).does("fail").await;
    assert_eq!(failed["code"], "NOT_FOUND");
    assert_eq!(failed["details"], "100 % nowhere: Zoë");
    assert_eq!(failed["trailers"]["x-why"], "because");
    assert_eq!(failed["trailers"]["why-bin"], json!([1, 2]));
}

#[tokio::test]
async fn a_stranger_is_told_so_in_words_of_grpc() {
    let application = Application::start("grpc_server.py").await;
    let gateway = gateway(&application).await;
    let mut client = client(&gateway, None);
    let refused = client.does("echo").await;
    assert_eq!(refused["code"], "UNAUTHENTICATED");
    assert_eq!(refused["details"], "Unauthorized");
    assert_eq!(client.does("begin").await["code"], "UNAUTHENTICATED");
    assert_eq!(client.does("nowhere").await["code"], "UNIMPLEMENTED");
}

#[tokio::test]
async fn an_application_that_is_away_is_unavailable() {
    let application = Application::start("grpc_server.py").await;
    let gateway = gateway(&application).await;
    let ada = gateway.signed_in("ada@example.com").await;
    drop(application);
    assert_eq!(client(&gateway, Some(&ada)).does("echo").await["code"], "UNAVAILABLE");
}

#[tokio::test]
async fn a_deadline_ends_the_call_on_both_sides() {
    let application = Application::start("grpc_server.py").await;
    let gateway = gateway(&application).await;
    let ada = gateway.signed_in("ada@example.com").await;
    let mut client = client(&gateway, Some(&ada));
    // The way there is known, so that the call has begun when its time is over.
    assert_eq!(client.does("echo").await["code"], "OK");
    assert_eq!(client.does("deadline").await["code"], "DEADLINE_EXCEEDED");
    assert_eq!(client.does("was_cancelled").await["reply"], "yes");
}

#[tokio::test]
async fn a_stream_ends_when_its_session_does() {
    let application = Application::start("grpc_server.py").await;
    let gateway = gateway(&application).await;
    let ada = gateway.signed_in("ada@example.com").await;
    let mut client = client(&gateway, Some(&ada));
    assert_eq!(client.does("begin").await["code"], "open");
    client.begins("ended").await;
    gateway.sign_out(&ada).await;
    assert_eq!(client.answers().await["code"], "UNAUTHENTICATED");
}

#[tokio::test]
async fn a_ban_and_an_expiry_end_a_stream() {
    let application = Application::start("grpc_server.py").await;
    let gateway = gateway(&application).await;
    let ada = gateway.signed_in("ada@example.com").await;
    let mut adas = client(&gateway, Some(&ada));
    assert_eq!(adas.does("begin").await["code"], "open");
    adas.begins("ended").await;
    gateway.db().run("UPDATE users SET banned = true").await;
    assert_eq!(adas.answers().await["code"], "UNAUTHENTICATED");

    let bob = gateway.signed_in("bob@example.com").await;
    let mut bobs = client(&gateway, Some(&bob));
    assert_eq!(bobs.does("begin").await["code"], "open");
    gateway.clock().advance(Duration::from_hours(6 * 24));
    assert_eq!(bobs.does("exchange").await["code"], "open");
    bobs.begins("ended").await;
    gateway.clock().advance(Duration::from_hours(2 * 24));
    assert_eq!(bobs.answers().await["code"], "UNAUTHENTICATED");
}

#[tokio::test]
async fn a_reload_ends_a_stream_only_if_it_may_not_go_on() {
    let application = Application::start("grpc_server.py").await;
    let gateway = gateway(&application).await;
    let ada = gateway.signed_in("ada@example.com").await;
    for (rules, ends) in [
        ("require = { roles = ['admin'] }", "PERMISSION_DENIED"),
        ("methods = ['GET']", "UNAVAILABLE"),
    ] {
        let mut client = client(&gateway, Some(&ada));
        assert_eq!(client.does("begin").await["code"], "open");
        gateway.reload("[server]\nmax_body = '5MiB'").await.unwrap();
        assert_eq!(client.does("exchange").await["replies"], true, "{rules}");
        let route = |rules: &str| format!("[[routes]]\npath = '/vestibule.Test/*'\nupstream = 'app'\n{rules}");
        gateway.reload(&route("require = { roles = ['user'] }")).await.unwrap();
        assert_eq!(client.does("exchange").await["replies"], true, "{rules}");
        client.begins("ended").await;
        gateway.reload(&route(rules)).await.unwrap();
        assert_eq!(client.answers().await["code"], ends, "{rules}");
        gateway.reload("").await.unwrap();
    }
}

#[tokio::test]
async fn a_stream_that_would_go_on_for_ever_is_sent_elsewhere_when_the_gateway_stops() {
    let application = Application::start("grpc_server.py").await;
    let gateway = gateway_with(&application, "[server]\nshutdown_grace = '10m'\nstream_grace = '200ms'").await;
    let ada = gateway.signed_in("ada@example.com").await;
    let mut client = client(&gateway, Some(&ada));
    assert_eq!(client.does("begin").await["code"], "open");
    client.begins("ended").await;
    let ended = timeout(SOON, gateway.stop()).await.expect("it waits for nobody else");
    assert_eq!(ended.cut_off, 0);
    assert_eq!(client.answers().await["code"], "UNAVAILABLE");
}

#[tokio::test]
async fn a_stream_may_be_silent_for_longer_than_a_body() {
    let application = Application::start("grpc_server.py").await;
    let gateway = gateway_with(&application, "[server]\nbody_timeout = '100ms'").await;
    let ada = gateway.signed_in("ada@example.com").await;
    let mut client = client(&gateway, Some(&ada));
    assert_eq!(client.does("begin").await["code"], "open");
    // Takes three times as long, while the stream says nothing.
    assert_eq!(client.does("deadline").await["code"], "DEADLINE_EXCEEDED");
    assert_eq!(client.does("exchange").await["code"], "open");
    assert_eq!(client.does("end").await["code"], "OK");
}

/// A proxy that asks it about tokens goes by the status.
#[tokio::test]
async fn the_auth_api_refuses_what_calls_itself_a_call_with_a_status() {
    let gateway = Gateway::start().await;
    let host = gateway.host();
    for (host, path, field, status) in [
        (host, "/api/auth/verify-token", ("expect", "x"), 417),
        (host, "/api/auth", ("expect", "x"), 417),
        (host, "/x/../api//auth/verify-token", ("expect", "x"), 417),
        (host, "/api/auth/verify-token/%2f", ("x-of", "its path"), 400),
        (host, "/api/auth/verify-token/%2f?x", ("x-of", "its path"), 400),
        ("evil.example", "/api/auth/verify-token", ("x-of", "its host"), 421),
        (host, "/api/auth/verify-token", ("x-of", "its token"), 401),
        (host, "/api/authority", ("expect", "x"), 200),
        (host, "/api/authority/%2f", ("x-of", "its path"), 200),
        (host, "/api/x", ("x-of", "its session"), 200),
    ] {
        let client = H2Client::connect(gateway.addr(), host).await;
        let call = client.request("POST", path).header("content-type", "application/grpc");
        let call = call.header(field.0, field.1).body(Full::<Bytes>::default()).unwrap();
        let refused = client.send(call).await.unwrap();
        assert_eq!(refused.status, status, "{path} {field:?}: {refused:?}");
        assert_eq!(
            refused.headers.contains_key("grpc-status"),
            status == 200,
            "{path} {field:?}"
        );
    }
    assert_eq!(gateway.upstream().requests().len(), 0);
}
