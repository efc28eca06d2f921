//! A client that keeps its connections: each waits for an answer and sends the next request at once. Loopback only, and for a
//! bounded time.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// A service that does not answer within this time failed to.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most that an answer may have.
const MOST_BODY: u64 = 1 << 20;

/// What is asked again and again.
const ECHO: &[u8] = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello";

/// Connections that stay.
pub(super) struct Clients(Vec<BufReader<TcpStream>>);

impl Clients {
    /// Connects so many.
    pub(super) fn connect(port: u16, connections: usize) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let connect = |_| {
            let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(BufReader::new(stream))
        };
        let streams = (0..connections).map(connect).collect::<io::Result<_>>();
        Ok(Self(streams.context("connecting to the service")?))
    }

    /// Sends requests for this time, on all connections at once; how many were answered, and in how many seconds.
    ///
    /// # Errors
    /// Where an answer does not come, or is not `200 OK`.
    pub(super) fn send(&mut self, time: Duration) -> Result<(u64, f64)> {
        let begin = Instant::now();
        let answered = thread::scope(|scope| {
            let send = |stream| scope.spawn(move || requests(stream, begin + time));
            let threads: Vec<_> = self.0.iter_mut().map(send).collect();
            let answers = threads.into_iter().map(|thread| match thread.join() {
                Ok(answered) => answered,
                Err(_) => Err(io::Error::other("a client panicked")),
            });
            answers.sum::<io::Result<u64>>()
        });
        Ok((answered.context("sending requests to the service")?, begin.elapsed().as_secs_f64()))
    }
}

fn requests(stream: &mut BufReader<TcpStream>, end: Instant) -> io::Result<u64> {
    let mut answered = 0;
    while Instant::now() < end {
        stream.get_mut().write_all(ECHO)?;
        read_answer(stream)?;
        answered += 1;
    }
    Ok(answered)
}

/// Reads to the end of the answer that is next.
fn read_answer(stream: &mut impl BufRead) -> io::Result<()> {
    let (mut status, mut line, mut length) = (String::new(), String::new(), None);
    stream.read_line(&mut status)?;
    if !status.starts_with("HTTP/1.1 200 ") {
        return Err(io::Error::other(format!("the service did not answer `200 OK`, but {status:?}")));
    }
    loop {
        line.clear();
        // Two bytes are the empty line behind the headers; none are the end of the connection.
        if stream.read_line(&mut line)? <= 2 {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse::<u64>().ok();
        }
    }
    let length = length.filter(|length| *length <= MOST_BODY);
    let length = length.ok_or_else(|| io::Error::other("an answer has no length"))?;
    if io::copy(&mut stream.take(length), &mut io::sink())? < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::read_answer;

    #[test]
    fn answers_have_a_length_and_an_end() {
        let read = |text: &str| {
            let mut bytes = text.as_bytes();
            read_answer(&mut bytes).is_ok().then_some(bytes.len())
        };
        assert_eq!(read("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP"), Some(4));
        assert_eq!(read("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), Some(0));
        for bad in [
            "",
            "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
