//! The command of `--with`: the user's own application, running for as long as the gateway does.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    process::Stdio,
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{
    net::{TcpStream, UnixStream},
    time::sleep,
};

use crate::{
    clock::monotonic,
    config::{At, Endpoint},
    dev::supervised::Supervised,
};

/// For the application to listen. Python imports a lot.
const PATIENCE: Duration = Duration::from_mins(1);

/// Starts `line`; what it writes shows up here, with a mark at each line.
pub(super) fn start(line: &str, database_url: &str) -> anyhow::Result<Supervised> {
    let variables = [("DATABASE_URL", database_url)];
    let mut command = Supervised::command_line(line, variables, (Stdio::piped(), Stdio::piped()))
        .with_context(|| format!("can't start `{line}`"))?;
    let (out, err) = command.take_output();
    if let Some(out) = out {
        pass_on(out, io::stdout)?;
    }
    if let Some(err) = err {
        pass_on(err, io::stderr)?;
    }
    Ok(command)
}

/// Until the end of `from`, on a thread of its own.
fn pass_on<W: Write + 'static>(from: impl Read + Send + 'static, to: fn() -> W) -> anyhow::Result<()> {
    let lines = move || {
        let mut from = BufReader::new(from);
        let mut line = b"app | ".to_vec();
        let mark = line.len();
        while matches!(from.read_until(b'\n', &mut line), Ok(read) if read > 0) {
            if line.last() != Some(&b'\n') {
                line.push(b'\n');
            }
            // A terminal that is gone hears nothing of anything.
            let _ = to().write_all(&line);
            line.truncate(mark);
        }
    };
    let thread = thread::Builder::new().name("output".to_owned());
    thread.spawn(lines).context("can't start a thread")?;
    Ok(())
}

/// Waits until something listens where the upstream is said to be.
pub(super) async fn listening(endpoint: &Endpoint, command: &mut Supervised) -> anyhow::Result<()> {
    let begun = monotonic();
    loop {
        let reached = match &endpoint.at {
            At::Addr(addr) => TcpStream::connect(addr).await.map(drop),
            At::Name { host, port } => TcpStream::connect((host.as_str(), *port)).await.map(drop),
            At::Unix(path) => UnixStream::connect(path).await.map(drop),
        };
        if reached.is_ok() {
            return Ok(());
        }
        if let Some(status) = command.ended()? {
            bail!("the command of --with has ended ({status}): see its output above");
        }
        if begun.elapsed() > PATIENCE {
            bail!("the command of --with runs, but after {PATIENCE:?} nothing listens on the upstream's {endpoint}");
        }
        sleep(Duration::from_millis(100)).await;
    }
}
