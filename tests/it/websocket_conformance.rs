//! WebSockets through the gateway are the same to the byte as without it: every kind of frame, good and bad.

use crate::harness::{
    Setup,
    protocols::{Application, run_cases},
};

#[tokio::test]
async fn every_case_is_the_same_directly_over_http1_and_over_http2() {
    let application = Application::start("websocket_server.py").await;
    let upstream = format!("[upstreams.app]\nendpoints = ['http://{}']", application.addr);
    let gateway = Setup::default().with(&upstream).start().await;
    let ada = gateway.signed_in("ada@example.com").await;
    let (direct, through) = (application.addr.to_string(), gateway.addr().to_string());
    let args = [&direct, &through, gateway.host(), "/api/ws", &ada.cookie];
    run_cases("websocket_conformance.py", &args, 90).await;
}
