//! At which moment either gateway of a hand-over serves: the test is the other one, and speaks as `app/handover.rs` says.

use std::{io::IoSlice, mem::MaybeUninit, os::fd::AsFd, time::Duration};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{TcpListener, UnixListener, UnixStream},
    time::timeout,
};

use crate::{
    handover::{around, ask},
    harness::{SOON, program::Program, surroundings::Surroundings},
};

const HELLO: &[u8] = b"vestibule hand-over 2\n";
/// What a request of a gateway that serves takes at most, on a busy machine too; what waits is looked at for so long.
const A_MOMENT: Duration = Duration::from_millis(500);

async fn said(by: &mut UnixStream) -> char {
    let said = timeout(SOON, by.read_u8()).await.expect("it says something");
    char::from(said.unwrap())
}

#[tokio::test]
async fn nobody_is_served_by_the_next_gateway_before_the_one_that_runs_has_let_it() {
    let around = around().await;
    let (door, public) = (
        UnixListener::bind(around.file("handover.sock")).unwrap(),
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
    );
    let addr = public.local_addr().unwrap();
    let config = around.config_as("next.toml", "");
    let mut next = Program::start(
        &["serve", "--config", config.to_str().unwrap()],
        &[],
        around.folder.path(),
    );

    let (mut starts, _) = timeout(SOON, door.accept()).await.expect("it asks").unwrap();
    let mut hello = [0; HELLO.len()];
    starts.read_exact(&mut hello).await.unwrap();
    assert_eq!(hello, HELLO);
    let list = br#"{"public 127.0.0.1:0":1}"#;
    starts.write_u32(u32::try_from(list.len()).unwrap()).await.unwrap();
    starts.write_all(list).await.unwrap();
    let hand_over = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let sockets = [public.as_fd()];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&sockets)));
        Ok(sendmsg(
            &starts,
            &[IoSlice::new(b"s")],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )?)
    };
    assert_eq!(starts.async_io(Interest::WRITABLE, hand_over).await.unwrap(), 1);

    // It could serve now.
    assert_eq!(said(&mut starts).await, 'R');
    let mut asks = tokio::spawn(ask(addr));
    let early = timeout(A_MOMENT, &mut asks).await;
    assert!(early.is_err(), "{early:?}");
    starts.write_all(b"G").await.unwrap();
    assert_eq!(said(&mut starts).await, 'T');
    assert_eq!(asks.await.unwrap(), 200);
    assert_eq!(next.serving().await.0, addr);
}

/// A gateway that starts, until it may take over.
async fn until_it_may(around: &Surroundings) -> UnixStream {
    let mut running = UnixStream::connect(around.file("handover.sock")).await.unwrap();
    running.write_all(HELLO).await.unwrap();
    let length = running.read_u32().await.unwrap();
    let mut list = vec![0; usize::try_from(length).unwrap()];
    running.read_exact(&mut list).await.unwrap();
    // The sockets come with this byte, and are closed as nobody takes them.
    assert_eq!(said(&mut running).await, 's');
    running.write_all(b"R").await.unwrap();
    assert_eq!(said(&mut running).await, 'G');
    running
}

#[tokio::test]
async fn a_gateway_serves_until_the_next_one_has_said_that_it_does() {
    let around = around().await;
    let (mut running, public, _) = Program::serve(&around.config_as("a.toml", "")).await;
    let mut next = until_it_may(&around).await;
    assert_eq!(ask(public).await, 200, "the next one stands still");
    drop(next);
    running.line("it ended when it was to take over").await;
    assert_eq!(ask(public).await, 200);

    next = until_it_may(&around).await;
    next.write_all(b"?").await.unwrap();
    running.line("something else than that it takes over").await;
    assert_eq!(ask(public).await, 200);

    next = until_it_may(&around).await;
    next.write_all(b"T").await.unwrap();
    assert_eq!(running.ended().await.code, Some(0));
}
