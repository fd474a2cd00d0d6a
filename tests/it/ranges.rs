//! Parts of a resource, what has not changed, and answers without a body pass as the upstream gives them.

use crate::harness::Gateway;

#[tokio::test]
async fn a_part_is_passed_through() {
    let gateway = Gateway::start().await;
    gateway.upstream().answer(
        "/public/video",
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-4/10\r\nAccept-Ranges: bytes\r\nETag: \"v1\"\r\n\
         Content-Length: 3\r\n\r\n234",
    );
    let call = gateway.get("/public/video").header("Range", "bytes=2-4");
    let answer = call.header("If-Range", "\"v1\"").await;
    assert_eq!((answer.status(), answer.text()), (206, "234"));
    assert_eq!(answer.head.one("content-range"), Some("bytes 2-4/10"));
    assert_eq!(answer.head.one("accept-ranges"), Some("bytes"));
    let seen = gateway.upstream().last();
    assert_eq!(seen.head.one("range"), Some("bytes=2-4"));
    assert_eq!(seen.head.one("if-range"), Some("\"v1\""));
}

#[tokio::test]
async fn several_parts_and_one_that_is_not_there_are_the_upstreams_to_answer() {
    let gateway = Gateway::start().await;
    let parts = "--b\r\nContent-Range: bytes 0-0/2\r\n\r\na\r\n--b--\r\n";
    gateway.upstream().answer(
        "/public/parts",
        format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Type: multipart/byteranges; boundary=b\r\nContent-Length: {}\r\n\r\n{parts}",
            parts.len()
        ),
    );
    let answer = gateway.get("/public/parts").header("Range", "bytes=0-0,1-1").await;
    assert_eq!((answer.status(), answer.text()), (206, parts));
    assert_eq!(
        answer.head.one("content-type"),
        Some("multipart/byteranges; boundary=b")
    );
    gateway.upstream().answer(
        "/public/beyond",
        "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */10\r\nContent-Length: 0\r\n\r\n",
    );
    let answer = gateway.get("/public/beyond").header("Range", "bytes=99-").await;
    assert_eq!(answer.status(), 416);
    assert_eq!(answer.head.one("content-range"), Some("bytes */10"));
}

#[tokio::test]
async fn what_has_no_body_leaves_the_connection_usable() {
    let gateway = Gateway::start().await;
    let (host, upstream) = (gateway.host(), gateway.upstream());
    let cases = [
        (
            "GET",
            "/public/same",
            "304 Not Modified",
            "ETag: \"v1\"\r\nContent-Length: 10\r\n",
        ),
        ("GET", "/public/none", "204 No Content", ""),
        ("HEAD", "/public/head", "200 OK", "Content-Length: 10\r\n"),
        ("POST", "/public/reset", "205 Reset Content", "Content-Length: 0\r\n"),
    ];
    let mut client = gateway.raw().await;
    for (method, path, status, fields) in cases {
        upstream.answer(path, format!("HTTP/1.1 {status}\r\n{fields}\r\n"));
        client
            .send(format!(
                "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"
            ))
            .await;
        let answer = client.answer_to(method).await;
        assert_eq!(answer.head.start, format!("HTTP/1.1 {status}"));
        assert!(answer.body.is_empty(), "{status}");
    }
    client
        .send(format!("GET /public/x HTTP/1.1\r\nHost: {host}\r\n\r\n"))
        .await;
    assert_eq!(client.answer().await.text(), "GET /public/x");
    assert_eq!(upstream.connections(), 1, "the upstream's connection is usable too");
}

#[tokio::test]
async fn the_length_of_what_head_asked_for_is_told() {
    let gateway = Gateway::start().await;
    gateway
        .upstream()
        .answer("/public/file", "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n");
    let answer = gateway.call("HEAD", "/public/file").await;
    assert_eq!(answer.head.one("content-length"), Some("12345"));
}
