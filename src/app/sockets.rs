//! The listening sockets of a start: inherited from the gateway that runs, passed by the service manager, or bound.

use std::{io, net::SocketAddr, os::fd::OwnedFd};

use anyhow::Context;
use tokio::net::TcpListener;
use tracing::warn;

use super::{
    activation::Passed,
    handover::{self, Inherited, Offered},
};
use crate::{
    config::{Config, Listen},
    policy::connection::Door,
    server::Bound,
};

/// All that a gateway listens on.
pub(super) struct Sockets {
    pub public: Vec<Listening>,
    pub admin: TcpListener,
    /// The gateway that ran before still answers there too.
    pub admin_is_shared: bool,
    /// The same once more for whoever comes next; `None` without `server.handover`.
    pub offered: Option<Offered>,
    pub inherited: Inherited,
}

/// What listens at one of `server.listen`, or of `server.tls.redirect_from`.
pub(super) struct Listening {
    asked: Listen,
    /// With the port that was given; a unix socket has none.
    addr: Option<SocketAddr>,
    pub door: Door,
    /// At least as many as workers. Each has a queue of its own in the kernel, so whoever takes over takes all.
    pub sockets: Vec<Bound>,
}

impl Sockets {
    pub(super) async fn open(config: &Config, passed: &mut Passed) -> anyhow::Result<Self> {
        let mut inherited = match &config.server.handover {
            Some(path) => Inherited::ask_for(path).await?,
            None => Inherited::default(),
        };
        // First, because it is listened at from the start, so that it can't be had twice: a second gateway by the same
        // configuration ends here, and takes nothing from the first, which may be waiting for Postgres.
        let (admin, admin_is_shared) = open_admin(config.admin.listen, &mut inherited).await?;
        let workers = config.server.workers.get();
        let public: Vec<_> = doors(config)
            .map(|(asked, door, key)| Listening::open(asked, door, key, workers, &mut inherited, passed))
            .collect::<Result<_, _>>()?;
        if let Some(sockets) = passed.left() {
            warn!(
                sockets,
                "these were handed over, and no key has them: who connects there is not answered"
            );
        }
        let offered = match &config.server.handover {
            Some(_) => Some(offer(&public, &admin, config.admin.listen)?),
            None => None,
        };
        Ok(Self {
            public,
            admin,
            admin_is_shared,
            offered,
            inherited,
        })
    }

    pub(super) fn public_addrs(&self) -> Vec<(SocketAddr, Door)> {
        let addr = |listening: &Listening| Some((listening.addr?, listening.door));
        self.public.iter().filter_map(addr).collect()
    }
}

impl Listening {
    fn open(
        asked: &Listen,
        door: Door,
        key: &str,
        workers: usize,
        inherited: &mut Inherited,
        passed: &mut Passed,
    ) -> anyhow::Result<Self> {
        let context = || format!("can't listen on {asked} ({key})");
        let before = inherited.sockets(&handover::public(asked));
        let sockets = match asked {
            Listen::Fd(name) => of_the_service_manager(passed.sockets(name), before, workers).with_context(context)?,
            Listen::Tcp(_) | Listen::Unix(_) => own(asked, before, workers).with_context(context)?,
        };
        let addr = sockets.first().and_then(Bound::addr);
        Ok(Self {
            asked: asked.clone(),
            addr,
            door,
            sockets,
        })
    }
}

/// What is taken over, or bound: enough for all workers.
fn own(asked: &Listen, before: Vec<OwnedFd>, workers: usize) -> io::Result<Vec<Bound>> {
    let mut sockets: Vec<_> = before.into_iter().map(Bound::inherited).collect::<Result<_, _>>()?;
    if sockets.is_empty() {
        sockets.push(Bound::open(asked)?);
    }
    while sockets.len() < workers {
        let another = sockets.first().map(Bound::again).transpose()?;
        sockets.extend(another);
    }
    Ok(sockets)
}

/// Each socket that was passed, once for each worker. Whoever opened it keeps it, so nothing is lost if those of a gateway
/// before are closed; they are taken if nothing was passed, as to a gateway that was started by hand.
fn of_the_service_manager(
    passed: anyhow::Result<Vec<OwnedFd>>,
    before: Vec<OwnedFd>,
    workers: usize,
) -> anyhow::Result<Vec<Bound>> {
    let sockets = match passed {
        Err(_) if !before.is_empty() => before,
        passed => passed?,
    };
    let mut bound = Vec::new();
    for socket in sockets {
        let socket = Bound::inherited(socket)?;
        for _ in 1..workers {
            bound.push(socket.shared()?);
        }
        bound.push(socket);
    }
    Ok(bound)
}

/// What is listened at, what for, and which key says so.
fn doors(config: &Config) -> impl Iterator<Item = (&Listen, Door, &'static str)> {
    let tls = config.server.tls.as_ref();
    let listen = config.server.listen.iter().map(move |listen| {
        let door = match listen {
            Listen::Tcp(_) | Listen::Fd(_) if tls.is_some() => Door::Tls,
            // Who can open the socket's file is on this machine: there is nobody in between.
            Listen::Tcp(_) | Listen::Fd(_) | Listen::Unix(_) => Door::Plain,
        };
        (listen, door, "server.listen")
    });
    let redirects = tls.into_iter().flat_map(|tls| &tls.redirect_from);
    listen.chain(redirects.map(|listen| (listen, Door::Redirect, "server.tls.redirect_from")))
}

/// The admin listener, and whether another gateway listens there too.
async fn open_admin(asked: SocketAddr, inherited: &mut Inherited) -> anyhow::Result<(TcpListener, bool)> {
    let context = || format!("can't listen on {asked} (admin.listen)");
    let Some(socket) = inherited.sockets(&handover::admin(asked)).pop() else {
        return Ok((TcpListener::bind(asked).await.with_context(context)?, false));
    };
    let listener = std::net::TcpListener::from(socket);
    listener.set_nonblocking(true).with_context(context)?;
    Ok((TcpListener::from_std(listener).with_context(context)?, true))
}

fn offer(public: &[Listening], admin: &TcpListener, admin_asked: SocketAddr) -> anyhow::Result<Offered> {
    let context = "can't keep a handle to a listening socket";
    let mut offered = Offered::default();
    for listening in public {
        let handles = listening.sockets.iter().map(Bound::handle);
        let handles: Vec<OwnedFd> = handles.collect::<Result<_, _>>().context(context)?;
        offered.add(handover::public(&listening.asked), handles);
    }
    let admin = socket2::SockRef::from(admin).try_clone().context(context)?;
    offered.add(handover::admin(admin_asked), vec![admin.into()]);
    Ok(offered)
}
