//! Pipelines: thousands of requests in one breath are answered in order, and in turn with everybody else's.

use tokio::io::AsyncWriteExt;

use super::{Control, get};
use crate::harness::{
    Gateway,
    wire::{Head, read_body},
};

const REQUESTS: usize = 3_000;

#[tokio::test]
async fn dos_a_pipeline_of_thousands_is_answered_in_order_and_keeps_nobody_waiting() {
    let gateway = Gateway::start().await;
    let control = Control::signed_in(&gateway).await;
    let client = gateway.raw().await;
    let mut stream = client.stream;
    let requests: Vec<String> = (0..REQUESTS).map(|number| get(&format!("/public/{number}"))).collect();
    let all = requests.concat();
    let (reading, mut writing) = tokio::io::split(&mut stream);
    let mut reading = tokio::io::BufReader::new(reading);
    let writing = async { writing.write_all(all.as_bytes()).await.unwrap() };
    let answers = async {
        for number in 0..REQUESTS {
            let head = Head::read(&mut reading).await.unwrap().expect("an answer");
            let body = read_body(&mut reading, head.response_framing("GET")).await.unwrap();
            assert_eq!(String::from_utf8(body).unwrap(), format!("GET /public/{number}"));
        }
    };
    tokio::join!(writing, answers);
    assert!(control.end().await > 0);
}

#[tokio::test]
async fn dos_a_pipeline_that_nobody_reads_the_answers_of_is_not_read_on() {
    let gateway = crate::harness::Setup::default()
        .with("[server]\nbody_timeout = '1s'")
        .start()
        .await;
    let control = Control::signed_in(&gateway).await;
    let large = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n".to_owned() + &"x".repeat(100_000);
    gateway.upstream().answer("/public/large", large);
    let mut client = gateway.raw().await;
    client.send(get("/public/large").repeat(2_000)).await;
    // It is closed: the last that was sent meets a reset, or the end.
    let mut ended = false;
    for _ in 0..200 {
        ended = client.stream.write_all(b"x").await.is_err();
        if ended {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(ended, "its connection ends");
    assert!(control.end().await > 0);
    let seen = gateway.upstream().seen("/public/large");
    assert!(seen < 500, "{seen} of 2,000 were asked for");
    assert!(super::reached(&gateway, "server.body_timeout").await >= 1.0);
}
