//! The load: keep-alive connections that each send the next request when the last is answered.
//!
//! Runs in a process of its own, so that its CPU is nobody's. It understands just enough HTTP to know where an answer
//! ends; anything but a 200 with a Content-Length is an error.

use std::{
    cell::RefCell,
    env,
    net::SocketAddr,
    process::Command,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::LocalSet,
};

/// What came of a slice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) answered: u64,
    pub(crate) errors: u64,
    pub(crate) elapsed: Duration,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// Starts this program again as the load, and waits for it.
pub(crate) fn start(addr: SocketAddr, request: &str, connections: usize, slice: Duration) -> Outcome {
    let output = Command::new(env::current_exe().unwrap())
        .args(["make-load", &addr.to_string(), request])
        .args([connections.to_string(), slice.as_millis().to_string()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let numbers: Vec<u64> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let [answered, errors, elapsed, p50, p99] = numbers[..] else {
        panic!("the load says {text:?}");
    };
    Outcome {
        answered,
        errors,
        elapsed: Duration::from_micros(elapsed),
        p50: Duration::from_micros(p50),
        p99: Duration::from_micros(p99),
    }
}

/// In the load's own process: `ADDR REQUEST CONNECTIONS MILLISECONDS`.
pub(crate) fn run(arguments: &[String]) {
    let [addr, request, connections, slice] = arguments else {
        panic!("make-load ADDR REQUEST CONNECTIONS MILLISECONDS");
    };
    let addr: SocketAddr = addr.parse().unwrap();
    let slice = Duration::from_millis(slice.parse().unwrap());
    let request: Rc<[u8]> = request.as_bytes().into();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let tally = Rc::new(RefCell::new(Tally::default()));
    let elapsed = LocalSet::new().block_on(&runtime, async {
        let begin = Instant::now();
        let mut running = Vec::new();
        for _ in 0..connections.parse().unwrap() {
            let (request, tally) = (Rc::clone(&request), Rc::clone(&tally));
            running.push(tokio::task::spawn_local(async move {
                if repeat(addr, &request, begin + slice, &tally).await.is_none() {
                    tally.borrow_mut().errors += 1;
                }
            }));
        }
        for connection in running {
            connection.await.unwrap();
        }
        begin.elapsed()
    });
    let mut tally = tally.borrow_mut();
    tally.latencies_us.sort_unstable();
    let at = |share: usize| {
        let last = tally.latencies_us.len().saturating_sub(1);
        tally.latencies_us.get(last * share / 100).copied().unwrap_or(0)
    };
    println!(
        "{} {} {} {} {}",
        tally.latencies_us.len(),
        tally.errors,
        elapsed.as_micros(),
        at(50),
        at(99)
    );
}

#[derive(Default)]
struct Tally {
    latencies_us: Vec<u32>,
    errors: u64,
}

/// One connection, until the slice is over; `None` when it met an error.
async fn repeat(addr: SocketAddr, request: &[u8], until: Instant, tally: &RefCell<Tally>) -> Option<()> {
    let mut stream = TcpStream::connect(addr).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let begin = Instant::now();
        if begin >= until {
            return Some(());
        }
        stream.write_all(request).await.ok()?;
        answer(&mut stream, &mut buffer).await?;
        let latency_us = u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX);
        tally.borrow_mut().latencies_us.push(latency_us);
    }
}

/// Reads one answer to its last byte.
async fn answer(stream: &mut TcpStream, buffer: &mut [u8]) -> Option<()> {
    let mut filled = 0;
    let body_at = loop {
        match stream.read(buffer.get_mut(filled..)?).await {
            Ok(count @ 1..) => filled += count,
            _ => return None,
        }
        if let Some(at) = buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let head = std::str::from_utf8(&buffer[..body_at]).ok()?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return None;
    }
    let length: usize = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    })?;
    let mut missing = (body_at + length).checked_sub(filled)?;
    while missing > 0 {
        match stream.read(buffer).await {
            Ok(count @ 1..) => missing = missing.checked_sub(count)?,
            _ => return None,
        }
    }
    Some(())
}
