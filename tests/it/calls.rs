//! gRPC calls, frame by frame: what either end still gets once a call may not go on.

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::ResponseFuture,
    server::{self, SendResponse},
};
use http::{Request, Response};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

use crate::harness::{Gateway, SOON, Setup, eventually, people::User};

/// A call as an application gets it.
type Arrived = (Request<RecvStream>, SendResponse<Bytes>);

/// An application whose calls a test answers by hand.
struct Application {
    endpoint: String,
    calls: mpsc::UnboundedReceiver<Arrived>,
}

impl Application {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("h2c://{}", listener.local_addr().unwrap());
        let (give, calls) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let give = give.clone();
                tokio::spawn(async move {
                    let mut connection = server::handshake(stream).await.unwrap();
                    while let Some(Ok(call)) = connection.accept().await {
                        let _ = give.send(call);
                    }
                });
            }
        });
        Self { endpoint, calls }
    }

    async fn next(&mut self) -> Arrived {
        let next = timeout(SOON, self.calls.recv()).await;
        next.expect("a call reached the application").unwrap()
    }
}

async fn gateway(application: &Application) -> Gateway {
    let endpoint = [application.endpoint.clone()];
    Setup::default().endpoints(&endpoint, "").start().await
}

/// Begins a call whose messages are still to come.
async fn call(gateway: &Gateway, user: &User) -> (ResponseFuture, SendStream<Bytes>) {
    let stream = TcpStream::connect(gateway.addr()).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(format!("http://{}/api/call", gateway.host()))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("cookie", &user.cookie)
        .body(())
        .unwrap();
    let mut sender = sender.ready().await.unwrap();
    sender.send_request(request, false).unwrap()
}

async fn message(from: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let message = timeout(SOON, from.data()).await.expect("something comes, or it ends");
    if let Some(Ok(bytes)) = &message {
        from.flow_control().release_capacity(bytes.len()).unwrap();
    }
    message
}

#[tokio::test]
async fn a_call_ends_with_its_session_though_nothing_was_answered_yet() {
    let mut application = Application::start().await;
    let gateway = gateway(&application).await;
    let ada = gateway.signed_in("ada@example.com").await;
    let (answer, mut messages) = call(&gateway, &ada).await;
    messages.send_data("first".into(), false).unwrap();
    let (request, _respond) = application.next().await;
    let mut said = request.into_body();
    assert_eq!(message(&mut said).await.unwrap().unwrap(), "first");

    gateway.sign_out(&ada).await;
    let answer = timeout(SOON, answer).await.expect("the client is told").unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["grpc-status"], "16");
    assert!(
        message(&mut said).await.is_none_or(|it| it.is_err()),
        "the application is told too"
    );
    let why = "\"error\":\"UNAUTHORIZED\"";
    eventually(SOON, async || {
        let log = gateway.log();
        log.lines().any(|line| line.contains("/api/call") && line.contains(why))
    })
    .await;
}

#[tokio::test]
async fn nothing_is_said_in_a_call_any_more_whose_session_has_ended() {
    let mut application = Application::start().await;
    let gateway = gateway(&application).await;
    let ada = gateway.signed_in("ada@example.com").await;
    let (answer, mut messages) = call(&gateway, &ada).await;
    messages.send_data("first".into(), false).unwrap();
    let (request, mut respond) = application.next().await;
    let mut said = request.into_body();
    assert_eq!(message(&mut said).await.unwrap().unwrap(), "first");
    let head = Response::builder().header("content-type", "application/grpc");
    let _answers = respond.send_response(head.body(()).unwrap(), false).unwrap();
    let mut answers = timeout(SOON, answer).await.unwrap().unwrap().into_body();

    gateway.sign_out(&ada).await;
    assert!(message(&mut answers).await.is_none());
    let status = timeout(SOON, answers.trailers()).await.unwrap().unwrap().unwrap();
    assert_eq!(status["grpc-status"], "16");
    // Whether the gateway takes it or not: the application hears nothing of it.
    let _ = messages.send_data("and another thing".into(), false);
    assert!(
        message(&mut said).await.is_some_and(|it| it.is_err()),
        "the call is cut, not completed"
    );
}

#[tokio::test]
async fn a_call_goes_on_while_its_session_does() {
    let mut application = Application::start().await;
    let gateway = gateway(&application).await;
    let ada = gateway.signed_in("ada@example.com").await;
    let bob = gateway.signed_in("bob@example.com").await;
    let (answer, mut messages) = call(&gateway, &ada).await;
    let (request, mut respond) = application.next().await;
    let mut said = request.into_body();
    gateway.sign_out(&bob).await;
    for text in ["first", "second"] {
        messages.send_data(text.into(), false).unwrap();
        assert_eq!(message(&mut said).await.unwrap().unwrap(), text);
    }
    messages.send_data("last".into(), true).unwrap();
    assert_eq!(message(&mut said).await.unwrap().unwrap(), "last");
    assert!(message(&mut said).await.is_none());
    let head = Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", "0");
    respond.send_response(head.body(()).unwrap(), true).unwrap();
    let answer = timeout(SOON, answer).await.unwrap().unwrap();
    assert_eq!(answer.headers()["grpc-status"], "0");
}
