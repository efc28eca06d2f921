//! The account over time: the peak, the exit, marks and generations, snapshots; and what is said of a site's blocks beside
//! their sum: sizes, threads, which of them were temporary.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;

use crate::support::{
    case::{Case, case, methods},
    fixture,
    heapscope::{Heapscope, heapscope},
    program::{Program, send},
    report::{Held, Report, Site},
};

pub(crate) const CASES: &[Case] = &[
    case("moments::peak_and_exit", peak_and_exit),
    case("moments::reports_of_the_peak_and_the_exit", reports_of_the_peak_and_the_exit),
    case("moments::a_process_that_does_not_exit", a_process_that_does_not_exit),
    case("moments::temporary_blocks", temporary_blocks),
    case("moments::sizes", sizes),
    case("moments::threads_by_name", threads_by_name),
    case("moments::marks_bound_generations", marks_bound_generations),
    case("moments::nobody_to_mark", nobody_to_mark),
    case("moments::live_bytes_over_time", live_bytes_over_time),
];

fn start() -> Program {
    Program::start_until(&mut Command::new(fixture::build("moments.c", &["-pthread"])), "ready")
}

fn order(program: &mut Program, order: &str) {
    assert_eq!(program.ask(order), "done", "{order}");
}

/// Runs the program with these orders to its end.
fn run(options: &[&str], orders: &str) -> Report {
    let program = fixture::build("moments.c", &["-pthread"]);
    let mut command = heapscope(&["run", "-o", "report.json"]);
    let mut heapscope =
        Heapscope::start_with(command.args(options).arg("--").arg(program).stdin(Stdio::piped()));
    heapscope.write(orders);
    heapscope.close_input();
    let report = heapscope.report();
    report.assert_nothing_lost();
    report
}

/// The site of the one function that was ordered.
fn site<'a>(report: &'a Report, function: &str) -> &'a Site {
    let mut sites = report.sites.iter().filter(|site| site.has(function));
    let site = sites.next().unwrap_or_else(|| panic!("{function} allocated nothing"));
    assert!(sites.next().is_none(), "{function} has two sites");
    site
}

fn held(objects: u64, space: u64) -> Held {
    Held { inuse_objects: objects, inuse_space: space }
}

fn peak_and_exit() {
    for method in methods() {
        let orders = "leak 10 100\nbulk 50 1000\nbulk 20 1000\nexit\n";
        let report = run(&["--probes", method], orders);
        let (leak, bulk) = (site(&report, "leak"), site(&report, "bulk"));
        assert_eq!((leak.totals.inuse_objects, leak.totals.alloc_objects), (0, 10), "its handler frees them");
        assert_eq!((leak.peak, leak.exit), (held(10, 1000), held(10, 1000)));
        assert_eq!((bulk.peak, bulk.exit), (held(50, 50_000), held(0, 0)));
        let (peak, exit) = (report.peak.as_ref().unwrap(), report.exit.as_ref().unwrap());
        assert_eq!((peak.held, exit.held), (held(60, 51_000), held(10, 1000)), "{method}");
        assert!(
            0.0 < peak.seconds && peak.seconds <= exit.seconds && exit.seconds <= report.duration_seconds
        );
    }
}

fn reports_of_the_peak_and_the_exit() {
    let orders = "leak 10 100\nbulk 50 1000\nexit\n";
    for (at, sum) in [("end", held(0, 0)), ("peak", held(60, 51_000)), ("exit", held(10, 1000))] {
        let report = run(&["--at", at], orders);
        assert_eq!(report.mode.at, at);
        assert_eq!(held(report.totals.inuse_objects, report.totals.inuse_space), sum, "{at}");
    }
}

fn a_process_that_does_not_exit() {
    let mut program = start();
    let heapscope = Heapscope::attach(program.pid(), &["--at", "exit"]);
    order(&mut program, "leak 10 100");
    let report = heapscope.stop();
    assert!(report.exit.is_none());
    assert_eq!(report.totals.inuse_space, 1000);
    assert!(report.quality.warnings.iter().any(|warning| warning.contains("did not call exit")));
}

fn temporary_blocks() {
    for method in methods() {
        let mut program = start();
        let heapscope = Heapscope::attach(program.pid(), &["--probes", method]);
        order(&mut program, "temporary 30 40");
        order(&mut program, "bulk 30 40");
        order(&mut program, "leak 30 40");
        order(&mut program, "grow 5 10000");
        let report = heapscope.stop();
        report.assert_nothing_lost();
        assert_eq!(site(&report, "temporary").temporary_objects, 30);
        assert_eq!(site(&report, "bulk").temporary_objects, 1, "the last one is freed first");
        assert_eq!(site(&report, "leak").temporary_objects, 0);
        // A block that is resized ends the life of the one before it.
        let grown: Vec<_> = report.sites.iter().filter(|site| site.has("grow")).collect();
        assert_eq!(grown.iter().map(|site| site.temporary_objects).sum::<u64>(), 5, "{method}");
        assert_eq!(grown.iter().map(|site| site.totals.inuse_space).sum::<u64>(), 60_000);
    }
}

fn sizes() {
    let mut program = start();
    let heapscope = Heapscope::attach(program.pid(), &[]);
    let sizes = [0, 1, 16, 17, 32, 33, 1024, 1025, 32_768, 65_536, 65_537, 1_000_000];
    for (times, size) in (1..).zip(sizes) {
        order(&mut program, &format!("leak {times} {size}"));
    }
    order(&mut program, "bulk 3 100");
    let report = heapscope.stop();
    report.assert_nothing_lost();
    let classes = |function: &str| -> Vec<(u64, Option<u64>, u64, u64)> {
        let classes = site(&report, function).sizes.iter();
        classes
            .map(|class| (class.smallest, class.largest, class.alloc_objects, class.inuse_objects))
            .collect()
    };
    let kept = |smallest, largest, blocks| (smallest, largest, blocks, blocks);
    assert_eq!(
        classes("leak"),
        [
            kept(0, Some(16), 1 + 2 + 3),
            kept(17, Some(32), 4 + 5),
            kept(33, Some(64), 6),
            kept(513, Some(1024), 7),
            kept(1025, Some(2048), 8),
            kept(16_385, Some(32_768), 9),
            kept(32_769, Some(65_536), 10),
            kept(65_537, None, 11 + 12),
        ]
    );
    assert_eq!(classes("bulk"), [(65, Some(128), 3, 0)]);
}

fn threads_by_name() {
    let mut program = start();
    let heapscope = Heapscope::attach(program.pid(), &[]);
    order(&mut program, "name first-name");
    order(&mut program, "leak 2 1000");
    order(&mut program, "name second-name");
    order(&mut program, "leak 3 1000");
    for thread in ["worker-a", "worker-b", "worker-a"] {
        order(&mut program, &format!("thread {thread} 4 100"));
    }
    let report = heapscope.stop();
    report.assert_nothing_lost();
    let mut found: Vec<(&str, Held)> = report
        .sites
        .iter()
        .filter(|site| site.has("leak"))
        .flat_map(|site| site.threads.iter().map(|thread| (thread.name.as_str(), thread.held)))
        .collect();
    found.sort_by_key(|(name, _)| *name);
    let expected = [
        ("first-name", held(2, 2000)),
        ("second-name", held(3, 3000)),
        ("worker-a", held(8, 800)),
        ("worker-b", held(4, 400)),
    ];
    assert_eq!(found, expected);
}

fn mark(arguments: &[&str]) -> (bool, String) {
    let output = heapscope(&["mark"]).args(arguments).output().unwrap();
    (
        output.status.success(),
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr),
    )
}

fn marks_bound_generations() {
    let mut program = start();
    let pid = program.pid().to_string();
    let mut heapscope = Heapscope::attach(program.pid(), &[]);
    let second = Heapscope::attach(program.pid(), &[]);
    order(&mut program, "leak 1 1000");
    let (done, answer) = mark(&[&pid, "after warm-up"]);
    assert!(done && answer.lines().count() == 2, "each of the two answers: {answer}");
    assert!(answer.lines().all(|line| line.starts_with("marked after warm-up, after ")), "{answer}");
    assert!(heapscope.hear("marked").contains("1000 B live in 1 block"));
    order(&mut program, "leak 2 1000");
    order(&mut program, "bulk 5 500");
    send(heapscope.pid(), Signal::USR1);
    assert!(heapscope.hear("marked").starts_with("marked 2, "));
    order(&mut program, "leak 4 1000");
    let report = heapscope.stop();
    report.assert_nothing_lost();
    let generations: Vec<_> =
        report.generations.iter().map(|generation| (generation.mark.as_deref(), generation.held)).collect();
    let expected =
        [(None, held(1, 1000)), (Some("after warm-up"), held(2, 2000)), (Some("2"), held(4, 4000))];
    assert_eq!(generations, expected);
    let of_leak: Vec<_> =
        site(&report, "leak").generations.iter().map(|part| (part.generation, part.held)).collect();
    assert_eq!(of_leak, [(0, held(1, 1000)), (1, held(2, 2000)), (2, held(4, 4000))]);
    assert!(site(&report, "bulk").generations.is_empty());
    assert_eq!(second.stop().generations.len(), 2, "the signal went to the other one");
}

fn nobody_to_mark() {
    let program = start();
    let (done, said) = mark(&[&program.pid().to_string()]);
    assert!(!done && said.contains("no heapscope watches process"), "{said}");
}

fn live_bytes_over_time() {
    let mut program = start();
    let heapscope = Heapscope::attach(program.pid(), &["--interval", "100ms"]);
    for _ in 0..4 {
        order(&mut program, "leak 10 1000");
        std::thread::sleep(Duration::from_millis(500));
    }
    order(&mut program, "bulk 10 1000");
    let report = heapscope.stop();
    let space: Vec<u64> = report.snapshots.iter().map(|snapshot| snapshot.held.inuse_space).collect();
    assert!(space.is_sorted(), "{space:?}");
    assert_eq!(space.last(), Some(&40_000));
    let mut steps = space.clone();
    steps.dedup();
    assert!(steps.len() > 2 && steps.iter().all(|step| step % 10_000 == 0), "{space:?}");
    assert!(report.snapshots.is_sorted_by(|one, next| one.seconds <= next.seconds));
    assert!(report.snapshots.iter().all(|snapshot| snapshot.rss > Some(100_000)));
    // The one site that grew says the same.
    let changes = &site(&report, "leak").over_time;
    let at =
        |index: usize| changes.iter().rev().find(|(from, _)| *from <= index).map_or(0, |(_, space)| *space);
    assert_eq!((0..space.len()).map(at).collect::<Vec<_>>(), space);
    // And when its blocks were born: four times ten, half a second apart.
    let births = &site(&report, "leak").births;
    let born = births.iter().fold((0, 0), |sum, (_, space, blocks)| (sum.0 + space, sum.1 + blocks));
    assert_eq!(born, (40_000, 40), "{births:?}");
    let seconds = |span: usize| span as f64 * report.birth_span_seconds;
    let (first, last) = (seconds(births[0].0), seconds(births[births.len() - 1].0));
    assert!(births.len() >= 4 && last - first > 1.4 && last < report.duration_seconds, "{births:?}");
}
