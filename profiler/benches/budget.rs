//! What the budget is worth: requests a second of redis-server and of a small Python web service under heapscope with a
//! budget of 5%, beside the same without, in turns; and what a trap takes, on which what is shown of the overhead rests.
//! `cargo xtask bench budget` runs this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/support/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod support;
#[path = "traps/mod.rs"]
mod traps;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use support::heapscope::Heapscope;

const BUDGET: &str = "5%";
/// Seconds of one turn, and turns of each kind.
const SECONDS: usize = 5;
const TURNS: usize = 5;
const REDIS_PORT: u16 = 17_397;

/// A service that builds and takes apart objects for each request.
const SERVICE: &str = r#"
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A response in one piece: the next does not wait for an acknowledgement.
    wbufsize = 1 << 16
    def do_GET(self):
        rows = [{"id": i, "name": "row %d" % i, "tags": ["a" * 600, "b" * 700]} for i in range(20)]
        body = json.dumps(rows).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"#;

struct Server(Child, u16);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    traps::print();
    println!();
    println!(
        "requests a second, {TURNS} turns of {SECONDS} s each, untouched and with --budget {BUDGET} in turns"
    );
    println!(
        "| service | mode | untouched | watched | slower, on average | in the worst tenth of seconds | overhead shown |"
    );
    println!("|---|---|---|---|---|---|---|");
    measure("redis-server, SET of 100 bytes", redis(), redis_request);
    measure("Python http.server with json", python(), http_request);
}

fn redis() -> Server {
    let port = REDIS_PORT.to_string();
    let arguments = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    let child = Command::new("redis-server").args(arguments).stdout(Stdio::null()).spawn().unwrap();
    let server = Server(child, REDIS_PORT);
    while TcpStream::connect(("127.0.0.1", REDIS_PORT)).is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
    server
}

fn python() -> Server {
    let mut child = Command::new("python3").args(["-c", SERVICE]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    Server(child, line.trim().parse().unwrap())
}

/// Fifty commands at a time, as a client with a pipeline sends them; how many were answered.
fn redis_request(connection: &mut TcpStream, turn: u64) -> u64 {
    const AT_ONCE: u64 = 50;
    let mut request = String::new();
    for command in 0..AT_ONCE {
        let key = format!("key:{:08}", (turn * AT_ONCE + command).wrapping_mul(2_654_435_761) % 100_000);
        request += &format!("*3\r\n$3\r\nSET\r\n$12\r\n{key}\r\n$100\r\n{}\r\n", "x".repeat(100));
    }
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = vec![0; 5 * usize::try_from(AT_ONCE).unwrap()];
    connection.read_exact(&mut answer).unwrap();
    AT_ONCE
}

fn http_request(connection: &mut TcpStream, _turn: u64) -> u64 {
    connection.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut reader = BufReader::new(connection);
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line).unwrap() > 2 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    1
}

/// Requests answered in each second of a turn.
fn seconds(port: u16, request: fn(&mut TcpStream, u64) -> u64) -> Vec<f64> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    connection.set_nodelay(true).unwrap();
    let mut turn = 0;
    (0..SECONDS)
        .map(|_| {
            let (begin, mut answered) = (Instant::now(), 0);
            while begin.elapsed() < Duration::from_secs(1) {
                answered += request(&mut connection, turn);
                turn += 1;
            }
            f64::from(u32::try_from(answered).unwrap()) / begin.elapsed().as_secs_f64()
        })
        .collect()
}

fn measure(name: &str, server: Server, request: fn(&mut TcpStream, u64) -> u64) {
    let (mut alone, mut watched, mut overheads) = (Vec::new(), Vec::new(), Vec::new());
    let mut mode = String::new();
    seconds(server.1, request);
    for _ in 0..TURNS {
        alone.extend(seconds(server.1, request));
        let heapscope = Heapscope::attach(server.0.id(), &["--budget", BUDGET]);
        watched.extend(seconds(server.1, request));
        let report = heapscope.stop();
        mode.clone_from(&report.mode.sampling);
        overheads.extend(report.quality.overhead_percent);
    }
    let mean = |numbers: &[f64]| numbers.iter().sum::<f64>() / numbers.len() as f64;
    let worst = |numbers: &mut Vec<f64>| {
        numbers.sort_by(f64::total_cmp);
        mean(&numbers[..numbers.len().div_ceil(10)])
    };
    let slower = |watched: f64, alone: f64| 100.0 * (1.0 - watched / alone);
    let (mean_alone, mean_watched) = (mean(&alone), mean(&watched));
    println!(
        "| {name} | {mode} | {mean_alone:.0} | {mean_watched:.0} | {:.1}% | {:.1}% | {:.1}% |",
        slower(mean_watched, mean_alone),
        slower(worst(&mut watched), worst(&mut alone)),
        mean(&overheads)
    );
}
