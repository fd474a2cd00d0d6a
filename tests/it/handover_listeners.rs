//! Listeners of every kind go over to the next gateway: unix sockets, and those that only redirect.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpStream, UnixStream},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    handover::{DRAINS, around},
    harness::{
        SOON,
        certificates::{Authority, Folder},
        eventually,
        gateway::SITE,
        program::{Program, free_port},
        surroundings::Surroundings,
        wire::{Head, read_body},
    },
};

/// Where clients connect.
#[derive(Clone, Debug)]
enum Place {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

trait Both: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Both for S {}

impl Place {
    async fn connect(&self) -> BufReader<Box<dyn Both>> {
        let stream: Box<dyn Both> = match self {
            Self::Unix(path) => Box::new(UnixStream::connect(path).await.expect("nobody is refused")),
            Self::Tcp(addr) => Box::new(TcpStream::connect(addr).await.expect("nobody is refused")),
        };
        BufReader::new(stream)
    }
}

/// Clients that ask at one place all the time, each on a connection for as long as the gateway keeps it. Any other answer
/// than the status that is expected fails the test.
struct Load {
    over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(place: &Place, status: u16) -> Self {
        let (over, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let client = |number: usize| {
            let (over, answered, place) = (Arc::clone(&over), Arc::clone(&answered), place.clone());
            let host = SITE.split_once("://").unwrap().1;
            let request = format!("GET /public/x HTTP/1.1\r\nHost: {host}\r\n\r\n");
            tokio::spawn(async move {
                let mut stream = place.connect().await;
                while !over.load(Ordering::Relaxed) {
                    stream.write_all(request.as_bytes()).await.unwrap();
                    let head = timeout(SOON, Head::read(&mut stream)).await.expect("an answer in time");
                    let head = head.unwrap().expect("an answer rather than a closed connection");
                    assert_eq!(head.status(), status);
                    read_body(&mut stream, head.response_framing("GET")).await.unwrap();
                    answered.fetch_add(1, Ordering::Relaxed);
                    // Some open a connection for each request.
                    if number.is_multiple_of(2) || head.one("connection") == Some("close") {
                        stream = place.connect().await;
                    }
                }
            })
        };
        let clients = (0..8).map(client).collect();
        Self {
            over,
            answered,
            clients,
        }
    }

    async fn goes_on(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        eventually(SOON, async || self.answered.load(Ordering::Relaxed) > before + 100).await;
    }

    async fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
    }
}

/// One gateway after the other, with other numbers of workers, while clients ask at `place`.
async fn gateways_follow_each_other(around: &Surroundings, over: &str, place: &Place, status: u16) {
    let config = |workers: usize| {
        let server = format!("[server]\nworkers = {workers}\n{DRAINS}\n{over}");
        around.config_as(&format!("{workers}.toml"), &server)
    };
    let serve = async |config: &Path| {
        let mut program = Program::start(&["serve", "--config", config.to_str().unwrap()], &[], Path::new("/"));
        program.line("\"serving ").await;
        program
    };
    let mut running = serve(&config(2)).await;
    let load = Load::start(place, status);
    load.goes_on().await;
    for workers in [3, 1, 2] {
        let next = serve(&config(workers)).await;
        let ended = running.ended().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(
            ended.stderr.contains("another gateway has taken over"),
            "{}",
            ended.stderr
        );
        load.goes_on().await;
        running = next;
    }
    load.end().await;
}

#[tokio::test]
async fn a_unix_socket_goes_over_and_its_file_stays() {
    use std::os::unix::fs::MetadataExt as _;

    let around = around().await;
    let path = around.folder.path().join("http.sock");
    let over = format!("listen = ['127.0.0.1:0', 'unix:{}']", path.display());
    let watching = async {
        eventually(SOON, async || path.exists()).await;
        std::fs::metadata(&path).unwrap().ino()
    };
    let place = Place::Unix(path.clone());
    let (first, ()) = tokio::join!(watching, gateways_follow_each_other(&around, &over, &place, 200));
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), first, "nobody bound it anew");
}

#[tokio::test]
async fn a_gateway_at_a_unix_socket_alone_goes_over() {
    let around = around().await;
    let path = around.folder.path().join("http.sock");
    let over = format!("listen = 'unix:{}'", path.display());
    gateways_follow_each_other(&around, &over, &Place::Unix(path), 200).await;
}

#[tokio::test]
async fn a_listener_that_redirects_goes_over() {
    let around = around().await;
    let (authority, folder) = (Authority::new("the authority"), Folder::new());
    let pair = folder.pair("site", &authority.issue(&["app.example.com"]));
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let over = format!("[server.tls]\nredirect_from = ['{addr}']\n{pair}");
    gateways_follow_each_other(&around, &over, &Place::Tcp(addr), 308).await;
}
