//! A restart that refuses no connection: the next gateway takes over the listening sockets of the one that runs.
//!
//! A gateway with `server.handover` listens there. The next one asks, is sent all listening sockets (SCM_RIGHTS), starts,
//! accepts from the very same queues in the kernel, and says when it is ready. Only then does the old one stop. If the new
//! one ends before, nothing has happened: its sockets were handles to ours. A start may take long, if it changes a large
//! database, or hang. So whoever asks later is heard at once, and the one before it has lost its turn: it hears that from
//! us when it is ready, and ends.
//!
//! One of the two goes on, whatever becomes of the other, and at whatever moment. The old one stops only when it has read
//! that the new one takes over, which that one says only to an old one that has just asked for it: an answer that comes
//! too late, from a machine that stood still, finds nobody. And the old one goes on only after it has said that it will,
//! or without another word if the new one is gone: a connection that ends in silence is an old one that is no more, in whose
//! place the new one goes on.
//!
//! Each worker's socket has a queue of its own, and what waits in one that is closed is reset. So all of them are handed
//! over, whatever number of workers either side has.
//!
//! Whoever holds those sockets is the gateway, so both sides look who is at the other end (SO_PEERCRED): it has to be the
//! same user. The socket's mode is 0600 besides.
//!
//! ```text
//! next → running   "vestibule hand-over 2\n"
//! running → next   length (u32, big endian), names and numbers of sockets (JSON); then the sockets, a few at a time
//! next → running   'R'  ready
//! running → next   'G'  go on: I stop if you say that you do
//! next → running   'T'  taken over
//! running → next   'W'  withdrawn, instead of 'G': I go on
//! ```

use std::{
    collections::BTreeMap,
    fs,
    future::pending,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::SocketAddr,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::PermissionsExt as _,
    },
    path::{Path, PathBuf},
    pin::pin,
    process,
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::{
    cmsg_space,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, recv, recvmsg, sendmsg, sockopt::socket_peercred,
    },
    process::geteuid,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::{UnixListener, UnixStream},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Listen;

const HELLO: &[u8] = b"vestibule hand-over 2\n";
const READY: u8 = b'R';
const GO_ON: u8 = b'G';
const TAKEN: u8 = b'T';
const WITHDRAWN: u8 = b'W';
/// Sockets in one message; the kernel takes 253.
const BATCH: usize = 64;
/// Names of sockets are short, and few.
const MAX_LIST: u32 = 64 * 1024;
const MAX_SOCKETS: usize = 65_536;

/// For what the other side says at once.
const AT_ONCE: Duration = Duration::from_secs(5);
/// For a start: what takes longer has gone wrong.
const START: Duration = Duration::from_mins(10);
/// A gateway that is gone before it has handed over is asked so often,
const ASK: u32 = 3;
/// after so long each time.
const ASK_AGAIN: Duration = Duration::from_millis(300);
/// After a failed `accept`.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The name of what listens for `asked`, one of `server.listen`.
pub(super) fn public(asked: &Listen) -> String {
    format!("public {asked}")
}

/// The name of the admin listener.
pub(super) fn admin(asked: SocketAddr) -> String {
    format!("admin {asked}")
}

/// Listening sockets by name, for whoever asks.
#[derive(Debug, Default)]
pub(super) struct Offered(BTreeMap<String, Vec<OwnedFd>>);

impl Offered {
    pub(super) fn add(&mut self, name: String, sockets: Vec<OwnedFd>) {
        self.0.entry(name).or_default().extend(sockets);
    }
}

/// What a gateway that ran before has handed over; nothing where there was none.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    sockets: BTreeMap<String, Vec<OwnedFd>>,
    /// It waits for our word.
    before: Option<UnixStream>,
}

impl Inherited {
    /// Asks at `path` whether a gateway runs.
    pub(super) async fn ask_for(path: &Path) -> anyhow::Result<Self> {
        let mut asked = 0;
        loop {
            asked += 1;
            match Self::ask_once(path).await {
                // It stopped in this very moment, or somebody else has just taken over from it: now nobody is there, or they.
                Err(error) if is_gone(&error) && asked < ASK => sleep(ASK_AGAIN).await,
                asked => {
                    return asked.with_context(|| {
                        format!(
                            "can't take over from the gateway at {} (server.handover)",
                            path.display()
                        )
                    });
                }
            }
        }
    }

    async fn ask_once(path: &Path) -> anyhow::Result<Self> {
        const SILENT: &str = "it does not answer";
        let mut before = match timeout(AT_ONCE, UnixStream::connect(path)).await.context(SILENT)? {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(Self::default());
            }
            Err(error) => return Err(error.into()),
        };
        ensure_same_user(&before)?;
        let sockets = timeout(AT_ONCE, receive(&mut before)).await.context(SILENT)??;
        info!(
            sockets = sockets.values().map(Vec::len).sum::<usize>(),
            "taking over from a gateway that runs"
        );
        Ok(Self {
            sockets,
            before: Some(before),
        })
    }

    /// Those of a name; nobody else gets them.
    pub(super) fn sockets(&mut self, name: &str) -> Vec<OwnedFd> {
        self.sockets.remove(name).unwrap_or_default()
    }

    /// Resolves if the gateway that ran before ends without a word; never if there was none.
    pub(super) fn left_alone(&self) -> io::Result<impl Future<Output = ()> + Send + use<>> {
        let before = self.before.as_ref().map(again).transpose()?;
        Ok(async move {
            let Some(before) = before else { return pending().await };
            if has_word(&before).await {
                pending::<()>().await;
            }
        })
    }

    /// Says that this gateway serves, and waits until the other one stops, or is gone. Sockets that nobody asked for are
    /// closed.
    pub(super) async fn take_over(mut self) -> anyhow::Result<()> {
        let Some(before) = &mut self.before else { return Ok(()) };
        let told = async {
            // One that has withdrawn, or is gone, doesn't take this: what it said can be read all the same.
            let _ = before.write_all(&[READY]).await;
            before.read_u8().await
        };
        match timeout(AT_ONCE, told).await {
            Ok(Ok(GO_ON)) => {
                // It waits for nothing else: if it can't take this, it is gone.
                let _ = before.write_all(&[TAKEN]).await;
                Ok(())
            }
            Ok(Ok(WITHDRAWN)) => bail!(
                "the gateway that ran before has withdrawn its hand-over: it took too long, or another one started after"
            ),
            Ok(Ok(_)) => bail!("the gateway that ran before said something else than that it stops"),
            Ok(Err(error)) => {
                warn!(%error, "the gateway that ran before has ended before this one was ready: going on in its place");
                Ok(())
            }
            Err(_) => bail!("the gateway that ran before does not answer any more"),
        }
    }
}

/// Where the next gateway will ask: a socket that is listened at, and not at its place yet.
pub(super) struct Door {
    listener: UnixListener,
    beside: Beside,
    path: PathBuf,
}

/// A socket's file beside its place, so that nobody ever finds it there with another mode, or not at all. Removed in the end,
/// unless it was moved.
struct Beside(PathBuf);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Door {
    /// Does what may go wrong.
    pub(super) fn make(path: &Path) -> anyhow::Result<Self> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", process::id()));
        let beside = Beside(beside.into());
        let file = &beside.0;
        let make = || {
            match fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(file)?;
            fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
            Ok(listener)
        };
        let listener = make().with_context(|| format!("can't listen on {} (server.handover)", file.display()))?;
        Ok(Self {
            listener,
            beside,
            path: path.to_owned(),
        })
    }

    /// Takes the place of whatever socket is there: whoever is behind it has said that it stops, or does not answer.
    pub(super) fn open(self) -> io::Result<OpenDoor> {
        fs::rename(&self.beside.0, &self.path)?;
        Ok(OpenDoor(self.listener))
    }
}

/// Where the next gateway asks.
pub(super) struct OpenDoor(UnixListener);

impl OpenDoor {
    /// Answers until somebody has taken over, or `stop`.
    pub(super) async fn serve(self, offered: Offered, taken_over: CancellationToken, stop: CancellationToken) {
        let answering = async {
            let mut starting: Option<UnixStream> = None;
            let mut asked = pin!(self.next(&offered));
            loop {
                let is_ready = async {
                    match &mut starting {
                        Some(next) => ready(next).await,
                        None => pending().await,
                    }
                };
                let outcome = tokio::select! {
                    next = asked.as_mut() => {
                        if let Some(late) = starting.replace(next) {
                            warn!("another gateway starts: the one that started before has lost its turn");
                            withdraw(&late);
                        }
                        asked.set(self.next(&offered));
                        continue;
                    }
                    outcome = is_ready => outcome,
                };
                let Some(mut next) = starting.take() else { continue };
                let outcome = match outcome {
                    // Whoever asks now is too late: if this one is gone, it is heard next.
                    Ok(()) => taken(&mut next).await,
                    Err(error) => {
                        withdraw(&next);
                        Err(error)
                    }
                };
                match outcome {
                    Ok(()) => break,
                    Err(error) => warn!(error = format!("{error:#}"), "a hand-over came to nothing, going on"),
                }
            }
            taken_over.cancel();
            // The gateway stops next.
            pending::<()>().await;
        };
        stop.run_until_cancelled(answering).await;
    }

    /// The next gateway that starts, once it has all sockets. Not cancel-safe: one that was accepted would be lost.
    async fn next(&self, offered: &Offered) -> UnixStream {
        loop {
            match self.0.accept().await {
                Ok((stream, _)) => match hand_over(stream, offered).await {
                    Ok(next) => return next,
                    Err(error) => warn!(error = format!("{error:#}"), "a hand-over came to nothing, going on"),
                },
                Err(error) => {
                    warn!(%error, "the hand-over socket could not accept a connection");
                    sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }
}

/// Hands everything over.
async fn hand_over(mut next: UnixStream, offered: &Offered) -> anyhow::Result<UnixStream> {
    ensure_same_user(&next)?;
    timeout(AT_ONCE, send(&mut next, offered))
        .await
        .context("it was too slow")??;
    info!("handed the listening sockets over to a gateway that starts");
    Ok(next)
}

/// Waits until the next gateway is ready.
async fn ready(next: &mut UnixStream) -> anyhow::Result<()> {
    let said = timeout(START, next.read_u8())
        .await
        .context("it did not become ready in time")?
        .context("it ended before it was ready")?;
    if said != READY {
        bail!("it said something else than that it is ready");
    }
    Ok(())
}

/// Has the next gateway, which is ready, say that it takes over. From then on it may, so there is no end to waiting: it says
/// so, or ends.
async fn taken(next: &mut UnixStream) -> anyhow::Result<()> {
    const ENDED: &str = "it ended when it was to take over";
    next.write_all(&[GO_ON]).await.context(ENDED)?;
    let process = socket_peercred(&*next).map_or(0, |peer| peer.pid.as_raw_pid());
    let mut said = pin!(next.read_u8());
    let said = if let Ok(said) = timeout(AT_ONCE, said.as_mut()).await {
        said
    } else {
        warn!(
            process,
            "the gateway that is to take over stands still: until it goes on, or ends, no other can"
        );
        said.await
    };
    if said.context(ENDED)? != TAKEN {
        bail!("it said something else than that it takes over");
    }
    Ok(())
}

/// Says that it is not to take over. There is room for a byte, unless nobody is there to read it.
fn withdraw(next: &UnixStream) {
    let _ = next.try_write(&[WITHDRAWN]);
}

async fn send(next: &mut UnixStream, offered: &Offered) -> anyhow::Result<()> {
    let mut hello = [0; HELLO.len()];
    next.read_exact(&mut hello).await?;
    if hello != HELLO {
        bail!("it speaks another version of the hand-over");
    }
    let list: BTreeMap<&str, usize> = offered.0.iter().map(|(name, all)| (name.as_str(), all.len())).collect();
    let list = serde_json::to_vec(&list)?;
    let length = u32::try_from(list.len())?;
    next.write_all(&length.to_be_bytes()).await?;
    next.write_all(&list).await?;
    let sockets: Vec<BorrowedFd<'_>> = offered.0.values().flatten().map(AsFd::as_fd).collect();
    for batch in sockets.chunks(BATCH) {
        next.async_io(Interest::WRITABLE, || send_batch(next, batch)).await?;
    }
    Ok(())
}

async fn receive(before: &mut UnixStream) -> anyhow::Result<BTreeMap<String, Vec<OwnedFd>>> {
    before.write_all(HELLO).await?;
    let length = before
        .read_u32()
        .await
        .context("it ended, or speaks another version of the hand-over")?;
    if length > MAX_LIST {
        bail!("it speaks another version of the hand-over, or its list of sockets is too long");
    }
    let mut list = vec![0; usize::try_from(length)?];
    before.read_exact(&mut list).await?;
    let list: BTreeMap<String, usize> = serde_json::from_slice(&list)?;
    let all = list.values().try_fold(0_usize, |sum, count| sum.checked_add(*count));
    let all = all
        .filter(|all| *all <= MAX_SOCKETS)
        .context("it has too many sockets")?;
    let mut sockets = Vec::new();
    while sockets.len() < all {
        let batch = before.async_io(Interest::READABLE, || receive_batch(before)).await?;
        if batch.is_empty() {
            bail!("it sent fewer sockets than it said");
        }
        sockets.extend(batch);
    }
    let mut sockets = sockets.into_iter();
    Ok(list
        .into_iter()
        .map(|(name, count)| (name, sockets.by_ref().take(count).collect()))
        .collect())
}

/// One byte, and the sockets with it.
fn send_batch(next: &UnixStream, batch: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(BATCH))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(batch)) {
        return Err(io::Error::other("too many sockets for one message"));
    }
    sendmsg(next, &[IoSlice::new(b"s")], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive_batch(before: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(BATCH))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut into = [IoSliceMut::new(&mut byte)];
    let received = recvmsg(before, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::other("not all sockets arrived: too many files are open"));
    }
    let mut sockets = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            sockets.extend(some);
        }
    }
    Ok(sockets)
}

/// Whether the other side has ended the connection.
fn is_gone(error: &anyhow::Error) -> bool {
    let error = error.root_cause().downcast_ref::<io::Error>();
    error.is_some_and(|error| {
        matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        )
    })
}

/// The same connection once more.
fn again(stream: &UnixStream) -> io::Result<UnixStream> {
    UnixStream::from_std(stream.as_fd().try_clone_to_owned()?.into())
}

/// Whether the other side says something before it ends; that is left to be read.
async fn has_word(stream: &UnixStream) -> bool {
    let mut byte = [0];
    let mut peek = || Ok(recv(stream, &mut byte, RecvFlags::PEEK)?);
    let peeked = stream.async_io(Interest::READABLE, &mut peek).await;
    peeked.is_ok_and(|(_, there)| there > 0)
}

fn ensure_same_user(other: &UnixStream) -> anyhow::Result<()> {
    let (theirs, ours) = (socket_peercred(other)?.uid, geteuid());
    if theirs != ours {
        bail!(
            "the process at the other end runs as user {}, not {}",
            theirs.as_raw(),
            ours.as_raw()
        );
    }
    Ok(())
}
