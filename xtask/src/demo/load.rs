//! A client that keeps the service busy: few threads, a bounded rate, a bounded time, loopback only.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

const THREADS: u64 = 3;
/// Requests a second of one thread.
const RATE: u32 = 80;
/// A service that does not answer within this time failed to.
const PATIENCE: Duration = Duration::from_secs(5);
/// More pictures than the service's cache holds, so that it always replaces some.
const PICTURES: u64 = 200;
/// Users with a cookie. Their sessions are kept on purpose, and few.
const USERS: u64 = 8;
/// What is searched: some eighty allocations a time, which is churn enough for a service of this size.
const TEXT: &str = "the quick brown fox jumps over the lazy dog while the quiet service goes on to answer, \
                    to draw and to count, and gives back what it took, but for the one thing that it forgot";

/// What became of the requests.
#[derive(Clone, Copy)]
pub(super) struct Tally {
    /// Requests sent.
    pub(super) sent: u64,
    /// Those without a good answer.
    pub(super) failed: u64,
}

/// A load that goes on until it is stopped or its time is over.
pub(super) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    sent: AtomicU64,
    failed: AtomicU64,
}

impl Load {
    /// Starts the clients, which send these requests by their numbers. They end by themselves after `limit`.
    pub(super) fn start(port: u16, limit: Duration, requests: fn(u64) -> String) -> Self {
        let shared = Arc::new(Shared::default());
        let client = |thread: u64| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.run(port, thread, Instant::now() + limit, requests))
        };
        let threads = (0..THREADS).map(client).collect();
        Self { shared, threads }
    }

    /// Stops the clients, waits for their last answers, and counts.
    pub(super) fn stop(self) -> Tally {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // A client that panicked has said so on standard error; what it counted is counted.
            let _ = thread.join();
        }
        Tally {
            sent: self.shared.sent.load(Ordering::Relaxed),
            failed: self.shared.failed.load(Ordering::Relaxed),
        }
    }
}

impl Shared {
    fn run(&self, port: u16, thread: u64, end: Instant, requests: fn(u64) -> String) {
        let pause = Duration::from_secs(1) / RATE;
        let mut next = Instant::now();
        for turn in 0.. {
            if self.stop.load(Ordering::Relaxed) || next > end {
                return;
            }
            let answer = request(port, &requests(turn * THREADS + thread));
            self.sent.fetch_add(1, Ordering::Relaxed);
            self.failed.fetch_add(u64::from(answer.is_err()), Ordering::Relaxed);
            // A slow answer is not made up for by a burst.
            next = (next + pause).max(Instant::now());
            thread::sleep(next - Instant::now());
        }
    }
}

/// The request of this number: of ten, four are visitors without a cookie, one has one, three want a picture and two
/// search.
pub(super) fn mix(number: u64) -> String {
    match number % 10 {
        0..4 => "GET /session HTTP/1.1\r\n\r\n".to_owned(),
        4 => format!("GET /session HTTP/1.1\r\nCookie: session={}\r\n\r\n", 1 + number / 10 % USERS),
        // A stride without a common factor visits all pictures in an order that no cache likes.
        5..8 => format!("GET /image/{} HTTP/1.1\r\n\r\n", number * 37 % PICTURES),
        _ => format!("POST /search HTTP/1.1\r\nContent-Length: {}\r\n\r\n{TEXT}", TEXT.len()),
    }
}

/// Sends one request and returns the body of a good answer.
pub(super) fn request(port: u16, text: &str) -> io::Result<Vec<u8>> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(text.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let blank = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    match blank {
        Some(blank) if answer.starts_with(b"HTTP/1.1 200 ") => Ok(answer.split_off(blank + 4)),
        _ => Err(io::Error::other("the service did not answer `200 OK`")),
    }
}
