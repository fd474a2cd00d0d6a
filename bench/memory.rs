//! What the gateway holds: at rest, for each connection that waits, for each session in the cache.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use crate::{entries::Rig, proc};

const CONNECTIONS: u64 = 500;
const SESSIONS: u64 = 5_000;
/// Threads that hash give their memory back after five seconds; the rig has signed somebody in.
const REST: Duration = Duration::from_secs(8);

/// Prints it. To be called before any load: what a load needed once, an allocator keeps for a while.
pub(crate) fn measure(rig: &Rig) {
    thread::sleep(REST);
    let resident = || proc::resident_bytes(rig.gateway.pid);
    println!("\nmemory of the gateway (resident)");
    let at_rest = resident();
    println!("  at rest {:.1} MB (bar 20, goal 12)", at_rest as f64 / 1e6);

    let idle: Vec<TcpStream> = (0..CONNECTIONS).map(|_| asked_once(rig, 0)).collect();
    let each = resident().saturating_sub(at_rest) / CONNECTIONS;
    println!("  per waiting connection {:.1} KB (bar 20, goal 12)", each as f64 / 1e3);
    drop(idle);

    let mut stream = asked_once(rig, 0);
    let before = resident();
    for session in 1..=SESSIONS {
        ask(rig, &mut stream, session);
    }
    let each = resident().saturating_sub(before) / SESSIONS;
    println!("  per cached session {:.2} KB (bar 1, goal 0.6)", each as f64 / 1e3);
}

/// A connection that has had one answer.
fn asked_once(rig: &Rig, session: u64) -> TcpStream {
    let mut stream = TcpStream::connect(rig.gateway.addr).unwrap();
    ask(rig, &mut stream, session);
    stream
}

fn ask(rig: &Rig, stream: &mut TcpStream, session: u64) {
    let cookie = rig.many(0).cookie(session);
    let request = format!("GET /api/small HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !answer.ends_with(crate::upstream::SMALL.as_bytes()) {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..count]);
    }
}
