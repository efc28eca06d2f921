//! `--mode growth`, held against a program that knows which pages it touches, and against what the kernel says of it.

#[path = "growth/sampled.rs"]
mod sampled;
#[path = "growth/told.rs"]
mod told;

use std::{fs, path::PathBuf, process::Command};

use rustix::process::Signal;

use self::told::{Report, Sum, has};
use crate::support::{
    case::{Case, case, case_with},
    fixture,
    heapscope::{Heapscope, Outcome, heapscope},
    needs::Need,
    program::{Program, send},
    until,
};

pub(crate) const CASES: &[Case] = &[
    case("growth::pages_by_site", pages_by_site),
    case("growth::again_and_given_back", again_and_given_back),
    case("growth::pages_that_mremap_moves", moved),
    case("growth::huge_pages_count_as_what_they_are", huge_pages),
    case("growth::threads_that_come_while_it_attaches", threads_that_come),
    case("growth::a_fault_is_told_once", a_fault_is_told_once),
    case("growth::pages_without_room_are_counted", pages_without_room),
    case("growth::a_program_from_its_start_to_its_end", from_start_to_end),
    case("growth::pictures", pictures),
    case("growth::what_is_about_blocks_is_declined", declined),
    case_with("growth::python", &[Need::Program("python3")], python),
    case("growth::below_the_budget_all_is_exact", sampled::below_the_budget_all_is_exact),
    case("growth::a_sample_of_pages", sampled::a_sample_of_pages),
    case("growth::a_sample_of_huge_pages", sampled::a_sample_of_huge_pages),
    case("growth::a_budget_that_cannot_be_kept_is_said", sampled::a_budget_that_cannot_be_kept_is_said),
];

fn driver() -> PathBuf {
    fixture::build("growth.c", &["-fno-optimize-sibling-calls"])
}

fn start() -> Program {
    Program::start_until(&mut Command::new(driver()), "ready")
}

/// Of every page, unless the options say otherwise.
fn attach(pid: u32, options: &[&str]) -> Heapscope {
    attach_with(pid, &[&["--budget", "off"], options].concat())
}

fn attach_with(pid: u32, options: &[&str]) -> Heapscope {
    let mut command = heapscope(&["attach", &pid.to_string(), "--mode", "growth", "-o", "growth.json"]);
    let mut heapscope = Heapscope::start(command.args(options));
    heapscope.hear("attached");
    heapscope
}

fn stop(heapscope: Heapscope) -> (Outcome, Report) {
    send(heapscope.pid(), Signal::INT);
    let file = heapscope.file("growth.json");
    let (outcome, [text]) = heapscope.finish_with([file]);
    assert_eq!(outcome.status, 0, "{}", outcome.errors);
    let report = Report::of(&text);
    (outcome, report)
}

fn pages_by_site() {
    let mut program = start();
    let heapscope = attach(program.pid(), &[]);
    for order in ["heap 3000", "mapped 2000", "read 700", "threads 150", "heap 500"] {
        assert_eq!(program.ask(order), "done");
    }
    let (outcome, report) = stop(heapscope);
    report.assert_whole();
    let whole = |pages| Sum { faults: pages, resident: pages, ..Sum::default() };
    assert!(outcome.output.contains("exact: every page fault with its stack"), "{}", outcome.output);
    // The page in which the heap begins may be there before.
    assert_eq!(report.by("grow_heap"), whole(3500));
    assert_eq!(report.by("grow_mapped"), whole(2000));
    assert_eq!(report.by("read_into"), whole(700), "faults of the kernel on the program's behalf");
    assert_eq!(report.by("write_pages").resident, 3500 + 2000 + 4 * 150);
    let kinds = &report.seen().pages.resident_pages_by_kind;
    assert!(kinds["heap"] >= 3500 && kinds["anonymous"] >= 2000 + 700 + 600, "{kinds:?}");
    let explained = report.explained();
    assert!((95.0..105.0).contains(&explained), "{explained}%: {}", outcome.output);
    assert!(report.seen().pages.resident_pages * 100 >= report.seen().came_pages * 95);
    // Every fault has been told.
    assert_eq!(report.seen().faults_not_told, Some(0));
    let heap = report.growth.brk_sites.iter().filter(|site| has(&site.stack, "grow_heap"));
    let heap: Vec<_> = heap.map(|site| (site.grown_space, site.shrunk_space)).collect();
    assert_eq!(heap.iter().map(|(grown, _)| grown).sum::<u64>(), 3500 * 4096, "{heap:?}");
    let mapped = &report.mappings.as_ref().unwrap().sites;
    let of = |function: &str| {
        let sites = mapped.iter().filter(|site| has(&site.stack, function));
        sites.map(|site| site.inuse_space).sum::<u64>()
    };
    assert_eq!((of("grow_mapped"), of("read_into")), (2000 * 4096, 700 * 4096));
    for line in ["page faults: ", "resident memory: ", "heap (address space, by brk): grew by "] {
        assert!(outcome.output.contains(line), "{line}: {}", outcome.output);
    }
}

fn again_and_given_back() {
    let mut program = start();
    assert_eq!(program.ask("mapped 1000"), "done");
    let heapscope = attach(program.pid(), &[]);
    // Of memory that was there, the same amount is there again: no growth.
    assert_eq!(program.ask("again 1000"), "done");
    for order in ["gone 600", "zeros 400", "shared 50", "populate 90"] {
        assert_eq!(program.ask(order), "done");
    }
    let (outcome, report) = stop(heapscope);
    report.assert_whole();
    let again = report.by("touch_again");
    assert_eq!(again, Sum { faults: 1000, ..Sum::default() });
    // What was unmapped may be given out again.
    let given_back = report.by("give_back");
    assert_eq!((given_back.faults, given_back.resident), (600, 0));
    let read = report.growth.sites.iter().filter(|site| has(&site.stack, "only_read"));
    let read: u64 = read.map(|site| site.pages.as_ref().unwrap().only_read_pages).sum();
    assert_eq!(read, 400, "what is only read takes no memory");
    let shared = report.growth.sites.iter().filter(|site| has(&site.stack, "grow_shared"));
    let shared: Vec<_> = shared.map(|site| site.pages.as_ref().unwrap()).collect();
    assert_eq!(shared.iter().map(|pages| pages.file_pages).sum::<u64>(), 50);
    assert_eq!(shared.iter().map(|pages| pages.resident_pages).sum::<u64>(), 0);
    // What is mapped in advance is touched by nobody, and said to be so.
    assert_eq!(report.seen().unexplained_pages.get("anonymous"), Some(&90));
    assert_eq!(report.seen().faults_not_told, Some(90));
    assert!(outcome.output.contains("not touched by a site (mmap 360.0 KiB"), "{}", outcome.output);
}

fn moved() {
    let mut program = start();
    assert_eq!(program.ask("mapped 300"), "done");
    let heapscope = attach(program.pid(), &[]);
    for order in ["moved 700", "gone 700"] {
        assert_eq!(program.ask(order), "done");
    }
    let (outcome, report) = stop(heapscope);
    report.assert_whole();
    let moved = report.by("grow_moved");
    assert_eq!((moved.faults, moved.resident, moved.gone), (1400, 1400, 0), "{}", outcome.output);
    assert_eq!(report.seen().unexplained_pages.get("anonymous"), None);
    let explained = report.explained();
    assert!((95.0..105.0).contains(&explained), "{explained}%: {}", outcome.output);
}

fn huge_pages() {
    let enabled = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    if enabled.is_empty() || enabled.contains("[never]") {
        println!("the machine makes no huge pages: nothing to see");
        return;
    }
    let mut program = start();
    let heapscope = attach(program.pid(), &[]);
    assert_eq!(program.ask("huge 12"), "done");
    let (_, report) = stop(heapscope);
    report.assert_whole();
    assert!(report.seen().knows_huge_pages);
    let huge = report.by("grow_huge");
    assert_eq!(huge.resident, 12 * 512);
    // Where no huge page was free, the kernel has made small ones.
    assert_eq!(huge.faults + report.seen().pages.of_huge_pages, 12 * 512);
    let explained = report.explained();
    assert!((95.0..105.0).contains(&explained), "{explained}%");
}

fn threads_that_come() {
    let mut program = start();
    assert_eq!(program.ask("churn 0"), "done");
    let heapscope = attach(program.pid(), &[]);
    for order in ["threads 200", "calm 0", "threads 200"] {
        assert_eq!(program.ask(order), "done");
    }
    let (_, report) = stop(heapscope);
    report.assert_whole();
    // Each thread's pages, once: by an event of its own or one that it inherited.
    let threads = report.by("write_pages");
    assert_eq!((threads.faults, threads.resident), (8 * 200, 8 * 200));
}

/// Threads that are made while it attaches inherit the events, and are found by it as well.
fn a_fault_is_told_once() {
    let mut program = start();
    assert_eq!(program.ask("crowd 0"), "done");
    // Until there is a crowd: it takes a while to go through it.
    until("there are 300 threads", || {
        fs::read_dir(format!("/proc/{}/task", program.pid())).unwrap().count() > 300
    });
    let heapscope = attach(program.pid(), &[]);
    let threads: u64 = program.ask("touch 30").parse().unwrap();
    assert!(threads > 100, "{threads}");
    let (_, report) = stop(heapscope);
    assert_eq!(report.by("write_pages").faults, threads * 30);
}

fn pages_without_room() {
    let mut program = start();
    // Room for some 6,000 pages.
    let heapscope = attach(program.pid(), &["--max-memory", "1MiB"]);
    assert_eq!(program.ask("mapped 20000"), "done");
    let (outcome, report) = stop(heapscope);
    let (lost, by) = (report.growth.pages_lost, report.by("grow_mapped"));
    assert_eq!(by.faults, 20_000, "faults are counted all the same");
    assert!(lost > 5_000 && by.resident < 15_000, "{lost} {by:?}");
    assert_eq!(report.quality.lost["touched_page_lost"], lost);
    assert!(by.resident + lost >= 20_000, "{lost} {by:?}");
    assert!(outcome.output.contains("who touched them is not known"), "{}", outcome.output);
}

fn from_start_to_end() {
    let mut command = heapscope(&["run", "--mode", "growth", "--budget", "off", "-o", "growth.json", "--"]);
    let mut heapscope = Heapscope::start_with(command.arg(driver()).stdin(std::process::Stdio::piped()));
    assert_eq!(heapscope.hear_output(), "ready");
    heapscope.write("heap 1200\nmapped 900\n");
    assert_eq!(heapscope.hear_output(), "done");
    assert_eq!(heapscope.hear_output(), "done");
    heapscope.close_input();
    let file = heapscope.file("growth.json");
    let (outcome, [text]) = heapscope.finish_with([file]);
    assert_eq!(outcome.status, 0, "{}", outcome.errors);
    let report = Report::of(&text);
    report.assert_whole();
    // The pages are looked at when the program ends, and before they are gone.
    assert_eq!(report.by("grow_heap").resident, 1200);
    assert_eq!(report.by("grow_mapped").resident, 900);
    assert!(report.growth.resident_before.rss.unwrap() < report.seen().resident.rss.unwrap());
    let explained = report.explained();
    assert!((90.0..110.0).contains(&explained), "{explained}%");
}

fn pictures() {
    let mut program = start();
    let heapscope = attach(program.pid(), &["-o", "growth.svg", "-o", "growth.folded"]);
    assert_eq!(program.ask("heap 2500"), "done");
    send(heapscope.pid(), Signal::INT);
    let files = ["growth.svg", "growth.folded"].map(|name| heapscope.file(name));
    let (outcome, [svg, folded]) = heapscope.finish_with(files);
    assert_eq!(outcome.status, 0, "{}", outcome.errors);
    let line = folded.lines().find(|line| line.contains("grow_heap")).unwrap();
    assert!(line.ends_with(&format!(" {}", 2500 * 4096)), "{line}");
    assert!(svg.contains("memory that came, by who touched it of "), "{svg}");
    assert!(svg.contains("grow_heap") && !svg.contains("live bytes"), "what is not live is not called so");
}

fn declined() {
    for (options, what) in [
        (&["--exact"][..], "is about blocks"),
        (&["--min-size", "4KiB"], "--min-size is about blocks"),
        (&["--at", "peak"], "--at is about blocks"),
        (&["-o", "x.html"], "the format html is about blocks"),
        (&["-o", "x.hscope"], "the format hscope is about blocks"),
        (&["--format", "pprof"], "the format pprof is about blocks"),
    ] {
        let mut command = heapscope(&["attach", "1", "--mode", "growth"]);
        let outcome = Heapscope::start(command.args(options)).finish();
        assert_eq!(outcome.status, 1, "{options:?}");
        assert!(outcome.errors.contains(what), "{options:?}: {}", outcome.errors);
    }
}

/// A program that was not made for this: its stacks have its own lines.
fn python() {
    let script = "
def fill(size):
    return bytearray(b'x') * size
def build(count):
    return [str(number) * 3 for number in range(count)]
print('ready', flush=True)
input()
kept = fill(30 << 20)
objects = build(200000)
print('done', flush=True)
input()";
    let mut python = Program::start_until(Command::new("python3").args(["-c", script]), "ready");
    let heapscope = attach(python.pid(), &[]);
    assert_eq!(python.ask("go"), "done");
    let (outcome, report) = stop(heapscope);
    report.assert_whole();
    assert!(report.by("fill").resident >= 30 << 8, "{}", outcome.output);
    assert!(report.by("build").resident * 4096 >= 200_000 * 60, "{}", outcome.output);
    let explained = report.explained();
    assert!((95.0..105.0).contains(&explained), "{explained}%: {}", outcome.output);
}
