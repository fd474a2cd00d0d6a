//! Connections: heads that never end, and crowds of those that do nothing.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;

use super::{Control, frames, frames::Frames, get, reached};
use crate::harness::{Gateway, RawClient, SOON, Setup, eventually};

const CROWD: usize = 200;

#[tokio::test]
async fn dos_01_heads_that_trickle_are_closed_in_time_and_others_are_served() {
    let setup = "[server]\nheader_timeout = '1s'\nidle_timeout = '1h'";
    let gateway = Setup::default().with(setup).start().await;
    let control = Control::signed_in(&gateway).await;
    // Of the first request on their connection, and of the second.
    let trickling = (0..CROWD).map(|number| {
        let gateway = &gateway;
        async move {
            let mut client = gateway.raw().await;
            if number % 2 == 0 {
                client.send(get("/public/x")).await;
                assert_eq!(client.answer().await.status(), 200);
            }
            client
                .send("GET /public/slow HTTP/1.1\r\nHost: app.example.com\r\nX: ")
                .await;
            let mut sent = 0;
            loop {
                client.send("x").await;
                sent += 1;
                tokio::select! {
                    rest = client.rest() => break rest,
                    () = sleep(Duration::from_millis(100)) => assert!(sent < 200, "it lasts"),
                }
            }
        }
    });
    for rest in join_all(trickling).await {
        let said = String::from_utf8_lossy(&rest);
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
    }
    assert!(control.end().await > 0);
    assert_eq!(gateway.upstream().seen("/public/slow"), 0);
    assert!(reached(&gateway, "server.header_timeout").await >= 200.0);
    eventually(SOON, async || gateway.metric("vestibule_open_connections").await < 1.5).await;
}

#[tokio::test]
async fn dos_01_heads_that_trickle_over_http2_end_their_connections() {
    let setup = "[server]\nheader_timeout = '1s'\nidle_timeout = '1h'";
    let gateway = Setup::default().with(setup).start().await;
    let control = Control::signed_in(&gateway).await;
    let trickling = (0..50).map(|_| async {
        let mut client = Frames::connect(gateway.addr()).await;
        client.send(frames::get(1, "/public/x")).await;
        client.answered(1).await;
        // The last field's value has two hundred bytes: what comes then is part of it.
        let mut block = frames::block(&frames::fields("GET", "/public/slow"));
        block.push(0);
        frames::string(&mut block, b"x");
        block.extend([127, 73]);
        client.send(frames::frame(frames::HEADERS, 0, 3, &block)).await;
        let mut sent = 0;
        // A frame of one byte at a time.
        while client.send(frames::frame(frames::CONTINUATION, 0, 3, b"x")).await {
            sent += 1;
            assert!(sent < 200, "it lasts");
            sleep(Duration::from_millis(300)).await;
        }
    });
    join_all(trickling).await;
    assert!(control.end().await > 0);
    assert_eq!(gateway.upstream().seen("/public/slow"), 0);
    let ended = reached(&gateway, "server.header_timeout").await + reached(&gateway, "http2").await;
    assert!(ended >= 50.0, "{ended}");
}

/// A place each; nobody is closed for its idleness before a test gives up.
const FEW_PLACES: &str = "[server]\nmax_connections = 60\nidle_timeout = '1h'\nheader_timeout = '1h'";

#[tokio::test]
async fn dos_a_crowd_that_does_nothing_makes_room_for_who_does_something() {
    let gateway = Setup::default().with(FEW_PLACES).start().await;
    let mut conversations = gateway.upstream().by_hand("/public/long");
    let mut busy = gateway.raw().await;
    busy.send(get("/public/long")).await;
    let mut upstream = conversations.next().await;
    // Some have said nothing, some have had an answer, some are half way in their next head, some speak HTTP/2.
    let mut crowd = Vec::new();
    let mut many = Vec::new();
    for number in 0..59 {
        match number % 4 {
            0 => crowd.push(gateway.raw().await),
            1 => {
                let mut client = Frames::connect(gateway.addr()).await;
                client.send(frames::get(1, "/public/x")).await;
                client.answered(1).await;
                many.push(client);
            }
            half => {
                let mut client = gateway.raw().await;
                client.send(get("/public/x")).await;
                assert_eq!(client.answer().await.status(), 200);
                if half == 3 {
                    client.send("GET /public/y HTTP/1.1\r\nHos").await;
                }
                crowd.push(client);
            }
        }
    }
    // All places are taken; in time these are served all the same.
    for _ in 0..20 {
        let mut client = gateway.raw().await;
        client.send(get("/public/x")).await;
        assert_eq!(client.answer().await.status(), 200);
        crowd.push(client);
    }
    assert!(gateway.metric("vestibule_connections_made_room_total").await >= 20.0);
    assert!(reached(&gateway, "server.max_connections").await >= 1.0);
    assert!(gateway.metric("vestibule_open_connections").await <= 61.0);
    // Whoever had something under way keeps it.
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await;
    assert_eq!(busy.answer().await.text(), "done");
}

#[tokio::test]
async fn while_there_are_places_nobody_has_to_leave() {
    let gateway = Setup::default().with(FEW_PLACES).start().await;
    let mut clients: Vec<RawClient> = Vec::new();
    for _ in 0..40 {
        let mut client = gateway.raw().await;
        client.send(get("/public/x")).await;
        assert_eq!(client.answer().await.status(), 200);
        clients.push(client);
    }
    sleep(Duration::from_millis(2_500)).await;
    for client in &mut clients {
        client.send(get("/public/x")).await;
        assert_eq!(client.answer().await.status(), 200);
    }
    let made_room = gateway.metric("vestibule_connections_made_room_total").await;
    assert!(made_room < 0.5, "{made_room}");
}

#[tokio::test]
async fn dos_connections_that_are_opened_and_closed_leave_nothing_behind() {
    let gateway = Gateway::start().await;
    let control = Control::signed_in(&gateway).await;
    for _ in 0..20 {
        // Half of them in the middle of something.
        let clients = join_all((0..50).map(|_| gateway.raw())).await;
        for (number, mut client) in clients.into_iter().enumerate() {
            if number % 2 == 0 {
                client
                    .send("POST /public/x HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: 9\r\n\r\nx")
                    .await;
            }
        }
    }
    assert!(control.end().await > 0);
    eventually(SOON, async || gateway.metric("vestibule_open_connections").await < 1.5).await;
    let in_flight = "vestibule_upstream_in_flight{upstream=\"app\"}";
    eventually(SOON, async || gateway.metric(in_flight).await < 0.5).await;
}
