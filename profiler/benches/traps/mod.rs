//! What a trap takes in the midst of a program, by how much the program does up to the next one.

use std::process::Command;

use crate::support::{heapscope::Heapscope, program::Program};

/// Does pieces of work on demand: so many times a block is allocated and freed, with so many steps of other work before the
/// free and as many behind it. Answers with the nanoseconds of its CPU time that this took. A block of 600 bytes is one that
/// the interpreter asks malloc for; what the steps make is not.
const PROGRAM: &str = r#"
import sys, time
def piece(pairs, steps):
    table = {}
    begin = time.process_time_ns()
    for _ in range(pairs):
        block = bytes(600)
        for step in range(steps):
            table[step % 997] = step * 7
        block = None
        for step in range(steps):
            table[step % 997] = step * 7
    return time.process_time_ns() - begin
print("ready", flush=True)
for line in sys.stdin:
    print(piece(*map(int, line.split())), flush=True)
"#;
/// Steps between two traps, for each line of the table.
const STEPS: [u32; 5] = [0, 4, 24, 70, 260];
/// CPU time of a piece without probes, in nanoseconds, and turns of one without and one with them.
const PIECE: u64 = 800_000_000;
const TURNS: usize = 7;
/// So rarely is a block recorded that there are no traps but one at malloc and one at free.
const RARELY: &str = "1GiB";

/// Prints the table.
pub(crate) fn print() {
    println!(
        "a trap in a Python program, sampled once in {RARELY}: medians of {TURNS} turns, and their extremes"
    );
    println!(
        "| own work up to the next trap | a trap and our program's run took | of the CPU time | shown |"
    );
    println!("|---|---|---|---|");
    let mut python = Command::new("python3");
    let mut program = Program::start_until(python.args(["-c", PROGRAM]), "ready");
    let pid = program.pid();
    let mut ask = |pairs: u64, steps: u32| -> u64 {
        program.ask(&format!("{pairs} {steps}")).parse().expect("nanoseconds")
    };
    for steps in STEPS {
        line(pid, steps, &mut ask);
    }
}

fn line(pid: u32, steps: u32, ask: &mut dyn FnMut(u64, u32) -> u64) {
    const FIRST: u64 = 2000;
    ask(FIRST, steps);
    let pairs = PIECE * FIRST / ask(FIRST, steps);
    let traps = 2.0 * pairs as f64;
    let (mut own, mut took, mut share, mut shown) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let without = ask(pairs, steps) as f64;
        let heapscope = Heapscope::attach(pid, &["--sample", RARELY]);
        let with = ask(pairs, steps) as f64;
        let report = heapscope.stop();
        let seen = report.quality.unsampled_allocations;
        assert!(seen / 99 >= pairs / 100, "{seen} of {pairs} blocks were asked of malloc");
        own.push(without / traps);
        took.push((with - without) / traps);
        share.push(100.0 * (1.0 - without / with));
        shown.push(report.quality.overhead_percent.expect("an overhead"));
    }
    let [own, took, share, shown] = [own, took, share, shown].map(spread);
    println!(
        "| {:.2} µs | {:.0} ns ({:.0} to {:.0}) | {:.0}% ({:.0}% to {:.0}%) | {:.0}% ({:.0}% to {:.0}%) |",
        own[0] / 1e3,
        took[0],
        took[1],
        took[2],
        share[0],
        share[1],
        share[2],
        shown[0],
        shown[1],
        shown[2]
    );
}

/// The median, the least and the most.
fn spread(mut numbers: Vec<f64>) -> [f64; 3] {
    numbers.sort_by(f64::total_cmp);
    [numbers[numbers.len() / 2], numbers[0], numbers[numbers.len() - 1]]
}
