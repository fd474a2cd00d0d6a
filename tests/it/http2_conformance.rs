//! The rules of HTTP/2 that a client can break, kept: RFC 9113 and RFC 7541, section by section.

use crate::harness::{Gateway, protocols::run_cases};

#[tokio::test]
async fn every_case_of_the_specification_is_kept() {
    let gateway = Gateway::start().await;
    let addr = gateway.addr().to_string();
    run_cases("h2_conformance.py", &[&addr, gateway.host(), "/public/x"], 135).await;
    assert_eq!(gateway.get("/public/x").await.status(), 200, "it still serves");
}
