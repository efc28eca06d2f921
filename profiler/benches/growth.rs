//! What `--mode growth` costs: a loop that does nothing but touch pages, the same in a process that is not watched, two processes that
//! do nothing but wake each other, redis-server and Python. CPU time of the program in question, which other programs on the machine
//! disturb less than the clock. In turns: not watched, watched with all faults recorded, and watched as it is without options, once the
//! budget has been settled; of each the ratio to the turn that was not. `cargo xtask bench growth` runs this, in three minutes.
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

/// Rounds: in each, a turn of each kind.
const ROUNDS: usize = 7;
/// How long a budget has to settle, with the program at work.
const SETTLING: Duration = Duration::from_millis(1200);
/// How a turn is watched, if it is.
const WATCHED: [(&str, Option<&str>); 3] = [("not", None), ("all", Some("off")), ("as it is", Some("1%"))];
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
    println!(
        "{ROUNDS} rounds of turns, not watched and watched; medians, and the ratios' medians and quartiles"
    );
    println!(
        "| program | unit | alone | all faults | ratio | quartiles | budget of 1% | ratio | quartiles | one page in |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let start = || {
        let program = fixture::build("growth.c", &["-fno-optimize-sibling-calls"]);
        Program::start_until(&mut Command::new(program), "ready")
    };
    let (mut touching, mut other) = (start(), start());
    let pid = touching.pid();
    let ask = |program: &mut Program, order: &str| program.ask(order).parse::<f64>().unwrap();
    let page = format!("time {PAGES}");
    compare("a loop that touches pages", "CPU ns a page", pid, || ask(&mut touching, &page));
    compare("the same in another process", "CPU ns a page", pid, || ask(&mut other, &page));
    compare("woken by another process", "ns a round trip", pid, || ask(&mut touching, "trips 20000"));
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
    let mut took: [Vec<f64>; 3] = Default::default();
    let mut ratios: [Vec<f64>; 3] = Default::default();
    let mut one_in = 1;
    for round in 0..ROUNDS {
        let mut of_round = [0.0; 3];
        // Whichever comes later finds the caches warm.
        for kind in (0..3).map(|kind| (kind + round) % 3) {
            of_round[kind] = match WATCHED[kind].1 {
                None => turn(),
                Some(budget) => {
                    let (took, sampled) = while_watched(pid, budget, &mut turn);
                    one_in = one_in.max(sampled);
                    took
                }
            };
        }
        for kind in 0..3 {
            took[kind].push(of_round[kind]);
            ratios[kind].push(of_round[kind] / of_round[0]);
        }
    }
    took.iter_mut().chain(&mut ratios).for_each(|numbers| numbers.sort_by(f64::total_cmp));
    let at = |numbers: &[f64], quarter: usize| numbers[numbers.len() * quarter / 4];
    let watched: Vec<String> = (1..3)
        .map(|kind| {
            let [low, middle, high] = [1, 2, 3].map(|quarter| at(&ratios[kind], quarter));
            format!("{:.2} | {middle:.3} | {low:.3} to {high:.3}", at(&took[kind], 2))
        })
        .collect();
    println!("| {name} | {unit} | {:.2} | {} | {one_in} |", at(&took[0], 2), watched.join(" | "));
}

/// A turn while the process is watched; and of how many pages one was in the sample in the end.
fn while_watched(pid: u32, budget: &str, turn: &mut impl FnMut() -> f64) -> (f64, u64) {
    let mut arguments = vec!["attach".to_owned(), pid.to_string()];
    arguments.extend(["--mode", "growth", "-o", "growth.json"].map(str::to_owned));
    if budget == "off" {
        arguments.extend(["--budget", budget].map(str::to_owned));
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut heapscope = Heapscope::start(&mut heapscope(&arguments));
    heapscope.hear("attached");
    let begin = Instant::now();
    while budget != "off" && begin.elapsed() < SETTLING {
        turn();
    }
    // Until it has looked at everything.
    std::thread::sleep(Duration::from_millis(150));
    let took = turn();
    send(heapscope.pid(), Signal::INT);
    let file = heapscope.file("growth.json");
    let (outcome, [text]) = heapscope.finish_with([file]);
    assert_eq!(outcome.status, 0, "{}", outcome.errors);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    (took, report["growth"]["sampling"]["one_in"].as_u64().unwrap())
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
