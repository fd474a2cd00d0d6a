//! What an upstream says before its answer does not disturb the answer.

use crate::harness::Gateway;

#[tokio::test]
async fn hints_and_other_interim_answers_are_no_answer() {
    let gateway = Gateway::start().await;
    let mut conversations = gateway.upstream().by_hand("/public/page");
    let mut client = gateway.raw().await;
    let host = gateway.host();
    client
        .send(format!("GET /public/page HTTP/1.1\r\nHost: {host}\r\n\r\n"))
        .await;
    let mut upstream = conversations.next().await;
    upstream
        .send("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
        .await;
    upstream
        .send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nLink: </style.css>; rel=preload\r\n\r\npage")
        .await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.text()), (200, "page"));
    assert_eq!(answer.head.one("link"), Some("</style.css>; rel=preload"));
}
