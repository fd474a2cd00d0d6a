//! Servers that answer too late, refuse without saying why, or have somebody in front of them.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use super::*;
use crate::mail::smtp::PATIENCE;

/// What a server says to a line of a client's on one of its connections, and after how long; nothing: it hangs up. The
/// greeting answers "", and what is said to "." answers a mail.
type Script = fn(connection: usize, line: &str) -> (Duration, &'static str);

const AT_ONCE: Duration = Duration::ZERO;

/// What an ordinary server says.
fn ordinary(line: &str) -> &'static str {
    match line.split(' ').next().unwrap() {
        "" => "220 ready",
        "DATA" => "354 go on",
        "QUIT" => "221 bye",
        _ => "250 ok",
    }
}

impl World {
    /// Whose mails go to such a server.
    async fn before(script: Script) -> Self {
        let mut world = Self::plain().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        world.settings.smtp.host = "127.0.0.1".to_owned();
        world.settings.smtp.port = listener.local_addr().unwrap().port();
        let tasks = world.tasks.clone();
        world.tasks.spawn("scripted", async move {
            let connections = AtomicUsize::new(0);
            while let Ok((stream, _)) = listener.accept().await {
                let connection = connections.fetch_add(1, Ordering::Relaxed);
                tasks.spawn("conversation", speak(stream, move |line| script(connection, line)));
            }
        });
        world
    }
}

async fn speak(stream: TcpStream, answer: impl Fn(&str) -> (Duration, &'static str)) {
    let mut stream = BufReader::new(stream);
    let (mut line, mut in_mail) = (String::new(), false);
    loop {
        if !in_mail || line.trim_end() == "." {
            let (after, said) = answer(line.trim_end());
            sleep(after).await;
            if said.is_empty() {
                return;
            }
            in_mail = said.starts_with("354");
            if stream.write_all(format!("{said}\r\n").as_bytes()).await.is_err() {
                return;
            }
        }
        line.clear();
        if !matches!(stream.read_line(&mut line).await, Ok(1..)) {
            return;
        }
    }
}

/// What it says then is about the mail before; a connection that owes an answer is not used for another.
#[tokio::test]
async fn an_answer_that_comes_too_late_is_taken_for_no_other_mail_s() {
    let late = |connection, line: &str| match (connection, line) {
        (0, ".") => (PATIENCE + Duration::from_secs(1), "250 queued"),
        (_, ".") => (AT_ONCE, "451 4.3.0 not now"),
        _ => (AT_ONCE, ordinary(line)),
    };
    let world = World::before(late).await;
    let (bell, _stop) = world.worker(&[]);
    world.enqueue("ada@example.com").await;
    bell.ring();
    sleep(PATIENCE + Duration::from_secs(2)).await;
    world.until("last_error LIKE 'no success%'", 1).await;

    world.enqueue("bob@example.com").await;
    bell.ring();
    world.until("last_error LIKE '%not now%'", 1).await;
    assert_eq!(world.count("sent_at IS NOT NULL").await, 0);
}

#[tokio::test]
async fn a_refusal_that_does_not_say_why_ends_a_mail_only_in_the_long_run() {
    let unexplained = |_, line: &str| match line.split(' ').next() {
        Some("RCPT") => (AT_ONCE, "550 relay not permitted"),
        _ => (AT_ONCE, ordinary(line)),
    };
    let world = World::before(unexplained).await;
    world.enqueue("ada@example.com").await;
    // For the first time when the mail is old, as after somebody was away for long.
    world.clock.advance(Duration::from_hours(5));
    let (bell, _stop) = world.worker(&[]);
    bell.ring();
    world
        .until(
            "attempts = 1 AND last_error LIKE '%not permitted%' AND failed_at IS NULL",
            1,
        )
        .await;
    world.clock.advance(Duration::from_hours(3));
    bell.ring();
    world.until("attempts = 2 AND failed_at IS NULL", 1).await;
    world.clock.advance(Duration::from_hours(2));
    bell.ring();
    world.until("failed_at IS NOT NULL", 1).await;
}

#[tokio::test]
async fn what_is_not_said_of_the_recipient_ends_no_mail() {
    let greeting: Script = |_, _| (AT_ONCE, "550 5.1.1 go away");
    let sender: Script = |_, line| match line.split(' ').next() {
        Some("MAIL") => (AT_ONCE, "550 5.1.1 who are you"),
        _ => (AT_ONCE, ordinary(line)),
    };
    let message: Script = |_, line| match line {
        "." => (AT_ONCE, "550 spam"),
        _ => (AT_ONCE, ordinary(line)),
    };
    for script in [greeting, sender, message] {
        let world = World::before(script).await;
        world.enqueue("ada@example.com").await;
        world.clock.advance(Duration::from_hours(5));
        let (bell, _stop) = world.worker(&[]);
        bell.ring();
        world
            .until("attempts = 1 AND last_error LIKE '%550%' AND failed_at IS NULL", 1)
            .await;
    }
}

/// Between the gateway and `server` is somebody who adds replies behind the one to STARTTLS, for all that will be asked.
async fn adding_replies(server: SocketAddr, tasks: Tasks) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tasks.clone().spawn("on the way", async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(server).await.unwrap();
            tasks.spawn("conversation", async move {
                let mut buffer = [0; 4096];
                // Greeting, EHLO, STARTTLS; then TLS, which is out of reach.
                for _ in 0..2 {
                    let count = server.read(&mut buffer).await.unwrap();
                    client.write_all(&buffer[..count]).await.unwrap();
                    let count = client.read(&mut buffer).await.unwrap();
                    server.write_all(&buffer[..count]).await.unwrap();
                }
                let count = server.read(&mut buffer).await.unwrap();
                let mut said = buffer[..count].to_vec();
                assert!(said.starts_with(b"220"), "{}", said.escape_ascii());
                said.extend_from_slice(b"250 mx\r\n250 ok\r\n250 ok\r\n354 go on\r\n250 queued\r\n");
                client.write_all(&said).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    addr
}

/// The "NO STARTTLS" attacks (Poddebniak et al., USENIX Security 2021).
#[tokio::test]
async fn replies_from_before_tls_do_not_count_within() {
    let (config, root) = of_localhost();
    let options = Options {
        tls: Some(Tls {
            config,
            mode: TlsMode::StartTls,
        }),
        credentials: None,
    };
    let mut world = World::new(options, |_| Verdict::Refuse(451, "4.3.0 not now".to_owned())).await;
    world.settings.smtp.security = SmtpSecurity::StartTls;
    let server = SocketAddr::from(([127, 0, 0, 1], world.settings.smtp.port));
    world.settings.smtp.port = adding_replies(server, world.tasks.clone()).await.port();
    let (bell, _stop) = world.worker(std::slice::from_ref(&root));
    world.enqueue("ada@example.com").await;
    bell.ring();
    world.until("last_error IS NOT NULL OR sent_at IS NOT NULL", 1).await;
    assert_eq!(world.count("sent_at IS NOT NULL").await, 0);
}

/// The client speaks first in TLS, and this server never does; nor does it take the connection down.
#[tokio::test]
async fn a_server_that_says_nothing_within_tls_keeps_a_mail_for_no_longer_than_its_time() {
    let mut world = World::plain().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let heard = world.settings.smtp.port;
    world.settings.smtp.security = SmtpSecurity::Tls;
    world.settings.smtp.port = silent.local_addr().unwrap().port();
    let (bell, stop) = world.worker(&[]);
    world.enqueue("ada@example.com").await;
    bell.ring();
    sleep(PATIENCE).await;
    world
        .until("attempts = 1 AND last_error IS NOT NULL AND failed_at IS NULL", 1)
        .await;
    stop.cancel();

    world.settings.smtp.security = SmtpSecurity::Plain;
    world.settings.smtp.port = heard;
    world.clock.advance(Duration::from_secs(6));
    let (bell, _stop) = world.worker(&[]);
    bell.ring();
    world.until("sent_at IS NOT NULL", 1).await;
}

/// Whether it closes them, says why, or says nothing any more.
#[tokio::test]
async fn a_connection_that_died_while_nobody_needed_it_costs_no_attempt() {
    /// On the first connection, for whatever comes behind the first mail.
    fn is_dead(connection: usize, line: &str) -> bool {
        connection == 0 && (line == "NOOP" || line.contains("bob"))
    }
    let closes: Script = |connection, line| match line {
        _ if is_dead(connection, line) => (AT_ONCE, ""),
        _ => (AT_ONCE, ordinary(line)),
    };
    let says_why: Script = |connection, line| match line {
        _ if is_dead(connection, line) => (AT_ONCE, "421 4.4.2 idle for too long"),
        _ => (AT_ONCE, ordinary(line)),
    };
    let hangs: Script = |connection, line| match line {
        _ if is_dead(connection, line) => (Duration::from_hours(1), ""),
        _ => (AT_ONCE, ordinary(line)),
    };
    for script in [closes, says_why, hangs] {
        let world = World::before(script).await;
        let (bell, _stop) = world.worker(&[]);
        for (to, sent) in [("ada@example.com", 1), ("bob@example.com", 2)] {
            world.enqueue(to).await;
            bell.ring();
            world.until("sent_at IS NOT NULL AND attempts = 1", sent).await;
        }
    }
}

#[tokio::test]
async fn who_carries_a_mail_when_another_takes_over_finishes_it() {
    let slow: Script = |_, line| match line {
        "." => (Duration::from_secs(2), "250 queued"),
        _ => (AT_ONCE, ordinary(line)),
    };
    let before = World::before(slow).await;
    let after = World::plain().await;
    let bell = OutboxBell::default();
    let (db, clock) = (before.db.clone(), before.clock.clone());
    let outbox = Outbox::trusting(db, &before.settings, keys(), clock, bell.clone(), &[]).unwrap();
    let postman = outbox.postman();
    let stop = CancellationToken::new();
    before.tasks.spawn("outbox", outbox.run(stop.clone()));
    before.enqueue("ada@example.com").await;
    bell.ring();
    before.until("attempts = 1", 1).await;
    // It has said where it goes by then, and waits for the answer.
    sleep(Duration::from_millis(500)).await;
    postman.replace(Carrier::new(&after.settings, keys()).unwrap());
    before.until("sent_at IS NOT NULL", 1).await;
    assert!(after.kept().is_empty(), "it was sent twice");

    before.enqueue("bob@example.com").await;
    bell.ring();
    before.until("sent_at IS NOT NULL AND attempts = 1", 2).await;
    let kept = after.kept();
    assert_eq!(
        (kept.len(), kept[0].to.as_slice()),
        (1, ["bob@example.com".to_owned()].as_slice())
    );
    stop.cancel();
}

#[tokio::test]
async fn who_stops_says_goodbye() {
    static GOODBYES: AtomicUsize = AtomicUsize::new(0);
    let counting: Script = |_, line| {
        GOODBYES.fetch_add(usize::from(line == "QUIT"), Ordering::Relaxed);
        (AT_ONCE, ordinary(line))
    };
    let world = World::before(counting).await;
    let (bell, stop) = world.worker(&[]);
    world.enqueue("ada@example.com").await;
    bell.ring();
    world.until("sent_at IS NOT NULL", 1).await;
    stop.cancel();
    for _ in 0..1000 {
        if GOODBYES.load(Ordering::Relaxed) == 1 {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("it left without a word");
}
