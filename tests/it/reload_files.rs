//! `vestibule serve` notices that its configuration has changed, however that was done.

use std::{fs, io::Write as _, net::SocketAddr, os::unix::fs::symlink, time::Duration};

use tokio::time::sleep;

use crate::harness::{RawClient, SOON, eventually, gateway::SITE, program::Program, surroundings::Surroundings};

const OPEN: &str = "[[routes]]\npath = '/x'\nupstream = 'app'\nauth = 'public'\n";
const CLOSED: &str = "[[routes]]\npath = '/x'\nupstream = 'app'\n";

async fn get(addr: SocketAddr, path: &str) -> u16 {
    let host = SITE.split_once("://").unwrap().1;
    let mut client = RawClient::connect(addr).await;
    client
        .send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
        .await;
    client.answer().await.status()
}

async fn becomes(addr: SocketAddr, status: u16) {
    eventually(SOON, async || get(addr, "/x").await == status).await;
}

async fn reloads(admin: SocketAddr, outcome: &str) -> u64 {
    let mut client = RawClient::connect(admin).await;
    client.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let metrics = client.answer().await;
    let name = format!("vestibule_reloads_total{{outcome=\"{outcome}\"}} ");
    let count = metrics.text().lines().find_map(|line| line.strip_prefix(&name));
    count.unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_file_that_is_written_or_replaced_is_noticed() {
    let around = Surroundings::new().await;
    let file = around.file("gateway.toml");
    fs::write(&file, around.text(CLOSED)).unwrap();
    let (_program, public, _) = Program::serve(&file).await;
    assert_eq!(get(public, "/x").await, 401);
    fs::write(&file, around.text(OPEN)).unwrap();
    becomes(public, 200).await;
    around.put(&file, &around.text(CLOSED));
    becomes(public, 401).await;
    around.put(&file, &around.text(OPEN));
    becomes(public, 200).await;
}

/// What stands there meanwhile is valid, and lets everybody in.
#[tokio::test]
async fn half_a_file_is_never_in_force() {
    let around = Surroundings::new().await;
    let file = around.file("gateway.toml");
    let half = around.text(OPEN);
    fs::write(&file, around.text(CLOSED)).unwrap();
    let (_program, public, admin) = Program::serve(&file).await;
    // Once the file is watched.
    fs::write(&file, format!("{}# watched\n", around.text(CLOSED))).unwrap();
    eventually(SOON, async || reloads(admin, "ok").await == 1).await;
    assert_eq!(get(public, "/x").await, 401);
    let mut writing = fs::File::create(&file).unwrap();
    writing.write_all(half.as_bytes()).unwrap();
    for _ in 0..10 {
        sleep(Duration::from_millis(100)).await;
        assert_eq!(get(public, "/x").await, 401);
    }
    assert_eq!(reloads(admin, "ok").await, 1);
    writing
        .write_all(b"[[routes]]\npath = '/y'\nrespond = { status = 204 }\nauth = 'public'\n")
        .unwrap();
    drop(writing);
    eventually(SOON, async || get(public, "/y").await == 204).await;
    assert_eq!(reloads(admin, "ok").await, 2);
}

#[tokio::test]
async fn a_link_that_is_turned_is_noticed() {
    let around = Surroundings::new().await;
    // As Kubernetes lays a ConfigMap out: the file is a link through `..data`, which is turned as a whole.
    for (version, rules) in [("..v1", CLOSED), ("..v2", OPEN)] {
        fs::create_dir(around.file(version)).unwrap();
        fs::write(around.file(version).join("gateway.toml"), around.text(rules)).unwrap();
    }
    symlink("..v1", around.file("..data")).unwrap();
    symlink("..data/gateway.toml", around.file("gateway.toml")).unwrap();
    let (_program, public, _) = Program::serve(&around.file("gateway.toml")).await;
    assert_eq!(get(public, "/x").await, 401);
    symlink("..v2", around.file("..data_tmp")).unwrap();
    fs::rename(around.file("..data_tmp"), around.file("..data")).unwrap();
    becomes(public, 200).await;
}

/// Nothing happens in the folder that was watched: a link above it is turned, the folder is replaced by another.
#[tokio::test]
async fn another_folder_in_the_place_of_the_files_is_noticed() {
    let around = Surroundings::new().await;
    for (version, rules) in [("v1", CLOSED), ("v2", OPEN)] {
        let folder = around.file(version).join("conf");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("gateway.toml"), around.text(rules)).unwrap();
    }
    symlink("v1", around.file("current")).unwrap();
    let (_program, public, _) = Program::serve(&around.file("current/conf/gateway.toml")).await;
    assert_eq!(get(public, "/x").await, 401);
    symlink("v2", around.file("next")).unwrap();
    fs::rename(around.file("next"), around.file("current")).unwrap();
    becomes(public, 200).await;

    let conf = around.file("v2/conf");
    fs::remove_dir_all(&conf).unwrap();
    fs::create_dir(&conf).unwrap();
    fs::write(conf.join("gateway.toml"), around.text(CLOSED)).unwrap();
    becomes(public, 401).await;
    // And what happens in it is heard again.
    fs::write(conf.join("gateway.toml"), around.text(OPEN)).unwrap();
    becomes(public, 200).await;
}

#[tokio::test]
async fn a_file_that_a_value_stands_in_is_noticed() {
    let around = Surroundings::new().await;
    let (file, page) = (around.file("gateway.toml"), around.file("page"));
    fs::write(&page, "/welcome").unwrap();
    fs::write(
        &file,
        around.text("[auth.pages]\nsign_in = { file = 'page' }\n[[routes]]\npath = '/x'\nupstream = 'app'\non_denied = 'sign-in'"),
    )
    .unwrap();
    let (_program, public, _) = Program::serve(&file).await;
    let leads_to = async |page: &str| {
        let host = SITE.split_once("://").unwrap().1;
        let mut client = RawClient::connect(public).await;
        client
            .send(format!("GET /x HTTP/1.1\r\nHost: {host}\r\nAccept: text/html\r\n\r\n"))
            .await;
        let answer = client.answer().await;
        answer.head.one("location").is_some_and(|to| to.starts_with(page))
    };
    assert!(leads_to("/welcome").await);
    fs::write(&page, "/hello").unwrap();
    eventually(SOON, async || leads_to("/hello").await).await;
}

#[tokio::test]
async fn a_wrong_file_is_reported_once_with_all_its_errors_and_changes_nothing() {
    let around = Surroundings::new().await;
    let file = around.file("gateway.toml");
    fs::write(&file, around.text(OPEN)).unwrap();
    let (mut program, public, admin) = Program::serve(&file).await;
    around.put(&file, &around.text("[server]\nworkers = -1\nlissen = 'x'"));
    let line = program.line("was not reloaded").await;
    assert!(line.contains("server.workers") && line.contains("lissen"), "{line}");
    assert_eq!(get(public, "/x").await, 200);
    assert_eq!(reloads(admin, "refused").await, 1);
    around.put(&file, &around.text(CLOSED));
    becomes(public, 401).await;
    assert_eq!((reloads(admin, "refused").await, reloads(admin, "ok").await), (1, 1));
}

#[tokio::test]
async fn a_storm_of_signals_ends_with_the_file_as_it_is() {
    let around = Surroundings::new().await;
    let file = around.file("gateway.toml");
    fs::write(&file, around.text(CLOSED)).unwrap();
    let (program, public, admin) = Program::serve(&file).await;
    for turn in 0..30 {
        around.put(&file, &around.text(if turn % 2 == 0 { CLOSED } else { OPEN }));
        program.signal("HUP").await;
        assert!(matches!(get(public, "/x").await, 200 | 401));
    }
    becomes(public, 200).await;
    let done = reloads(admin, "ok").await;
    assert!((1..=62).contains(&done), "{done}");
    assert_eq!(reloads(admin, "refused").await, 0);
}

#[tokio::test]
async fn keys_that_need_a_restart_are_named_in_one_warning() {
    let around = Surroundings::new().await;
    let file = around.file("gateway.toml");
    fs::write(&file, around.text(CLOSED)).unwrap();
    let (mut program, public, _) = Program::serve(&file).await;
    around.put(
        &file,
        &around.text(&format!("[server]\nworkers = 2\n[database]\npool_size = 5\n{OPEN}")),
    );
    let line = program.line("take effect at a restart only").await;
    assert!(line.contains("server.workers, database.pool_size"), "{line}");
    becomes(public, 200).await;
}
