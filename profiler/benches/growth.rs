//! What `--mode growth` costs: a loop that does nothing but touch pages, the same in a process that is not watched, redis-server
//! and Python. CPU time of the program in question, which other programs on the machine disturb less than the clock. In turns, watched and not, each pair of turns a ratio. `cargo xtask bench growth` runs this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/support/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use support::{
    fixture,
    heapscope::{Heapscope, heapscope},
    program::{Program, send},
};

/// Pairs of turns.
const PAIRS: usize = 11;
/// Pages that the loop touches in a turn.
const PAGES: usize = 150_000;
const REDIS_PORT: u16 = 17_398;

/// Objects that are built, written, read and thrown away, as long as the line says.
const PYTHON: &str = r#"
import json, sys, time, resource
def turn(rounds):
    for _ in range(rounds):
        rows = [{"id": i, "name": "row %d" % i, "tags": ["a" * 60, "b" * 70]} for i in range(20000)]
        json.loads(json.dumps(rows))
print("ready", flush=True)
for line in sys.stdin:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    begin = time.process_time_ns()
    turn(int(line))
    took = time.process_time_ns() - begin
    print(took, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, flush=True)
"#;

fn main() {
    println!("{PAIRS} pairs of turns, watched and not; medians, and the ratios' quartiles");
    println!("| program | unit | alone | watched | ratio | quartiles |");
    println!("|---|---|---|---|---|---|");
    let mut touching = Program::start_until(
        &mut Command::new(fixture::build("growth.c", &["-fno-optimize-sibling-calls"])),
        "ready",
    );
    let mut other = Program::start_until(
        &mut Command::new(fixture::build("growth.c", &["-fno-optimize-sibling-calls"])),
        "ready",
    );
    let pid = touching.pid();
    let page = |program: &mut Program| program.ask(&format!("time {PAGES}")).parse::<f64>().unwrap();
    compare("a loop that touches pages", "CPU ns a page", pid, || page(&mut touching));
    compare("the same in another process", "CPU ns a page", pid, || page(&mut other));
    let redis = Redis::start();
    compare("redis-server, SET of 100 bytes", "CPU us a request", redis.0.id(), || redis.requests());
    let mut python = Program::start_until(Command::new("python3").args(["-c", PYTHON]), "ready");
    let mut faults = Vec::new();
    compare("python3, json", "CPU ms a round", python.pid(), || {
        let answer = python.ask("3");
        let (took, faulted) = answer.split_once(' ').unwrap();
        faults.push(faulted.parse::<f64>().unwrap() / 3.0);
        took.parse::<f64>().unwrap() / 3e6
    });
    faults.sort_by(f64::total_cmp);
    println!("\npython3: {:.0} page faults a round (median)", faults[faults.len() / 2]);
}

/// Turns of a workload while a process is watched, and while it is not.
fn compare(name: &str, unit: &str, pid: u32, mut turn: impl FnMut() -> f64) {
    turn();
    let (mut alone, mut watched, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        // Whichever is second finds the caches warm.
        let (with, without) = if pair % 2 == 0 {
            let with = while_watched(pid, &mut turn);
            (with, turn())
        } else {
            let without = turn();
            (while_watched(pid, &mut turn), without)
        };
        alone.push(without);
        watched.push(with);
        ratios.push(with / without);
    }
    for numbers in [&mut alone, &mut watched, &mut ratios] {
        numbers.sort_by(f64::total_cmp);
    }
    let at = |numbers: &[f64], quarter: usize| numbers[numbers.len() * quarter / 4];
    println!(
        "| {name} | {unit} | {:.2} | {:.2} | {:.3} | {:.3} to {:.3} |",
        at(&alone, 2),
        at(&watched, 2),
        at(&ratios, 2),
        at(&ratios, 1),
        at(&ratios, 3)
    );
}

fn while_watched(pid: u32, turn: &mut impl FnMut() -> f64) -> f64 {
    let heapscope = attach(pid);
    let took = turn();
    send(heapscope.pid(), Signal::INT);
    let outcome = heapscope.finish();
    assert_eq!(outcome.status, 0, "{}", outcome.errors);
    took
}

fn attach(pid: u32) -> Heapscope {
    let mut command = heapscope(&["attach", &pid.to_string(), "--mode", "growth", "-o", "growth.json"]);
    let mut heapscope = Heapscope::start(&mut command);
    heapscope.hear("attached");
    // Until it has looked at everything.
    std::thread::sleep(Duration::from_millis(150));
    heapscope
}

struct Redis(Child);

impl Redis {
    fn start() -> Self {
        let port = REDIS_PORT.to_string();
        let arguments = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let child = Command::new("redis-server").args(arguments).stdout(Stdio::null()).spawn().unwrap();
        while TcpStream::connect(("127.0.0.1", REDIS_PORT)).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        Self(child)
    }

    /// Microseconds of CPU time of a request, fifty at a time, over half a second.
    fn requests(&self) -> f64 {
        const AT_ONCE: usize = 50;
        let mut connection = TcpStream::connect(("127.0.0.1", REDIS_PORT)).unwrap();
        connection.set_nodelay(true).unwrap();
        let (begin, before, mut answered) = (Instant::now(), self.cpu_nanoseconds(), 0_usize);
        while begin.elapsed() < Duration::from_millis(500) {
            let mut request = String::new();
            for command in answered..answered + AT_ONCE {
                let key = format!("key:{:08}", command.wrapping_mul(2_654_435_761) % 100_000);
                request += &format!("*3\r\n$3\r\nSET\r\n$12\r\n{key}\r\n$100\r\n{}\r\n", "x".repeat(100));
            }
            connection.write_all(request.as_bytes()).unwrap();
            let mut answer = [0; 5 * AT_ONCE];
            connection.read_exact(&mut answer).unwrap();
            answered += AT_ONCE;
        }
        (self.cpu_nanoseconds() - before) / 1e3 / answered as f64
    }

    /// Of the thread that answers (first number of `/proc/PID/schedstat`: the kernel's Documentation/scheduler/sched-stats.rst).
    fn cpu_nanoseconds(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/schedstat", self.0.id())).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
