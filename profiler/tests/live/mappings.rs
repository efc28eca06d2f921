//! `--mmap`: mapped memory as an account of its own, held against programs that know what they have mapped, and against
//! what the kernel says of them in /proc/PID/maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;

use crate::support::{
    case::{Case, case, case_with, methods},
    fixture,
    heapscope::{Heapscope, heapscope},
    needs::Need,
    program::{Program, send},
    report::{MappedSite, Mappings, Report},
};

pub(crate) const CASES: &[Case] = &[
    case("mappings::random_histories", || {
        for (seed, method) in (1..).zip(methods()) {
            random_histories(&driver(), method, seed, false);
        }
    }),
    case("mappings::random_histories_of_a_static_program", || {
        random_histories(&fixture::build("mappings.c", &["-static"]), "auto", 11, false);
    }),
    case_with("mappings::random_histories_with_musl", &[Need::Program("musl-gcc")], || {
        random_histories(&fixture::build_with("musl-gcc", "mappings.c", &["-rdynamic"]), "auto", 12, true);
    }),
    case("mappings::are_told_only_if_asked_for", are_told_only_if_asked_for),
    case("mappings::lost_records_are_counted", lost_records_are_counted),
    case("mappings::a_failed_mremap_that_has_cleared_its_place", failed_after_clearing),
    case("mappings::a_failed_mremap_that_has_moved_a_part", failed_after_moving),
    case("mappings::a_failed_mremap_of_a_process_that_has_ended", failed_and_ended),
    case("mappings::of_a_child", of_a_child),
    case("mappings::from_the_start_of_a_program_to_its_end", from_the_start_to_the_end),
    case("mappings::an_exec_ends_the_account", an_exec_ends_the_account),
    case_with("mappings::python", &[Need::Program("python3")], python),
];

const PAGE: u64 = 4096;

fn driver() -> PathBuf {
    fixture::build("mappings.c", &[])
}

/// Pages of a process by the names that /proc/PID/maps has for them.
fn pages_of(pid: u32) -> BTreeMap<u64, String> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut pages = BTreeMap::new();
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        let name = rest.split_ascii_whitespace().nth(4).unwrap_or_default();
        // What the kernel maps by itself lies above all that it gives out.
        if name != "[vsyscall]" {
            pages.extend((number(start)..number(end)).step_by(4096).map(|page| (page, name.to_owned())));
        }
    }
    pages
}

fn pages(ranges: impl Iterator<Item = (u64, u64)>) -> BTreeSet<u64> {
    ranges.flat_map(|(start, end)| (start..end).step_by(4096)).collect()
}

/// What the driver recorded: for each function that maps, its calls, their bytes, and the pages that are left.
#[derive(PartialEq, Eq, Debug, Default)]
struct Record {
    sites: BTreeMap<String, (u64, u64, BTreeSet<u64>)>,
}

impl Record {
    /// Hears it to its end; with the numbers of calls: mmap, munmap, mremap, failed.
    fn hear(driver: &Program) -> (Self, [u64; 4]) {
        let mut record = Self::default();
        loop {
            let line = driver.hear();
            let words: Vec<&str> = line.split(' ').collect();
            let number = |index: usize| words[index].parse::<u64>().unwrap();
            match words[0] {
                "total" => return (record, [1, 2, 3, 4].map(number)),
                "range" => {
                    let (_, _, left) = record.sites.get_mut(words[1]).unwrap();
                    left.extend((number(2)..number(3)).step_by(4096));
                }
                site => {
                    record.sites.insert(site.to_owned(), (number(1), number(2), BTreeSet::new()));
                }
            }
        }
    }

    /// What a report says of the driver's functions.
    fn of(mappings: &Mappings) -> Self {
        let mut record = Self::default();
        for site in &mappings.sites {
            let functions = site.functions();
            let Some(name) = functions.iter().find(|name| name.starts_with("site_")) else { continue };
            let (calls, bytes, left) = record.sites.entry((*name).to_owned()).or_default();
            *calls += site.alloc_calls;
            *bytes += site.alloc_space;
            let ranges = pages(site.ranges());
            assert_eq!(ranges.len() as u64 * PAGE, site.inuse_space, "{functions:?}");
            left.extend(ranges);
        }
        record
    }
}

fn assert_whole(report: &Report) {
    report.assert_nothing_lost();
    for reason in [
        "mapping_record_lost",
        "mapping_unpaired",
        "mapping_declined",
        "mapping_unmap_unseen",
        "mapping_corrected",
        "mapping_in_doubt",
    ] {
        assert_eq!(report.quality.lost.get(reason), Some(&0), "{reason}");
    }
    let mappings = report.mappings.as_ref().unwrap();
    let all = mappings.sites.iter().flat_map(|site| site.ranges());
    assert_eq!(pages(all).len() as u64 * PAGE, mappings.inuse_space, "pieces overlap");
    assert_eq!(mappings.sites.iter().map(|site| site.inuse_space).sum::<u64>(), mappings.inuse_space);
    assert_eq!(mappings.sites.iter().map(|site| site.alloc_space).sum::<u64>(), mappings.alloc_space);
    assert_eq!(
        mappings.sites.iter().map(|site| site.ranges().count() as u64).sum::<u64>(),
        mappings.inuse_pieces
    );
    assert!(mappings.peak_space >= mappings.inuse_space && mappings.peak_space <= mappings.alloc_space);
}

fn random_histories(program: &Path, method: &str, seed: u64, is_musl: bool) {
    let mut driver = Program::start_until(&mut Command::new(program), "ready");
    let before = pages_of(driver.pid());
    let heapscope = Heapscope::attach(driver.pid(), &["--mmap", "--probes", method]);
    driver.say(&format!("work {seed} 2000 4"));
    let (record, [maps, unmaps, remaps, failed]) = Record::hear(&driver);
    // It waits for its input: nothing moves any more.
    let after = pages_of(driver.pid());
    let report = heapscope.stop();
    let mappings = report.mappings.as_ref().unwrap();
    println!(
        "{method}: {maps} maps, {unmaps} unmaps, {remaps} remaps, {failed} failed; {:?}",
        mappings.calls
    );
    assert_whole(&report);
    // musl's start code has no unwind information.
    if !is_musl {
        report.assert_stacks_whole();
    }
    assert!(maps > 1000 && unmaps > 1000 && remaps > 500 && failed > 100);
    assert_eq!(Record::of(mappings), record);
    // Beside those, the C library maps stacks for the threads.
    assert_eq!((mappings.calls.mremap, mappings.calls.failed), (remaps, failed));
    assert!(mappings.calls.mmap >= maps && mappings.calls.munmap >= unmaps);
    // The kernel has them all, and nothing has come that is not known, but what the kernel maps by itself.
    let mapped = pages(mappings.sites.iter().flat_map(|site| site.ranges()));
    let missing: Vec<_> = mapped.iter().filter(|page| !after.contains_key(page)).collect();
    assert!(missing.is_empty(), "not mapped: {missing:x?}");
    let unknown: Vec<_> = after
        .iter()
        .filter(|(page, name)| !before.contains_key(page) && !mapped.contains(page) && !name.starts_with('['))
        .collect();
    assert!(unknown.is_empty(), "not in the account: {unknown:x?}");
}

fn are_told_only_if_asked_for() {
    let mut driver = Program::start_until(&mut Command::new(driver()), "ready");
    let heapscope = Heapscope::attach(driver.pid(), &[]);
    assert_eq!(driver.ask("keep"), "done");
    assert_eq!(driver.ask("churn 10"), "done");
    let report = heapscope.stop();
    assert!(report.mappings.is_none());
    assert_eq!(report.quality.probe_hits, 0);
    assert!(!report.quality.lost.contains_key("mapping_record_lost"), "what is not measured is not zero");
}

fn lost_records_are_counted() {
    const CALLS: u64 = 20_000;
    let mut driver = Program::start_until(&mut Command::new(driver()), "ready");
    // Room for some 14,000 records.
    let heapscope = Heapscope::attach(driver.pid(), &["--mmap", "--max-memory", "16MiB"]);
    send(heapscope.pid(), Signal::STOP);
    assert_eq!(driver.ask(&format!("churn {CALLS}")), "done");
    send(heapscope.pid(), Signal::CONT);
    send(heapscope.pid(), Signal::INT);
    let outcome = heapscope.finish();
    let report = outcome.report.unwrap();
    let (lost, calls) = (report.quality.lost["mapping_record_lost"], report.mappings.unwrap().calls);
    assert!(calls.mmap > 1000 && calls.mmap < CALLS, "{calls:?}");
    assert!(lost >= 2 * CALLS - calls.mmap - calls.munmap, "{lost} {calls:?}");
    assert!(outcome.output.contains("of mmap, munmap or mremap not recorded"), "{}", outcome.output);
}

/// Pages that these functions of the driver have mapped, as reported; all of them must be mapped, by /proc/PID/maps.
fn left_by<const SITES: usize>(
    driver: &Program,
    report: &Report,
    functions: [&str; SITES],
) -> [usize; SITES] {
    let (record, mapped) = (Record::of(report.mappings.as_ref().unwrap()), pages_of(driver.pid()));
    functions.map(|function| {
        let left = &record.sites[function].2;
        assert!(left.iter().all(|page| mapped.contains_key(page)), "{function}: {left:x?}");
        left.len()
    })
}

/// A text whose lines were broken for a terminal, in one line.
fn unwrapped(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn failed_after_clearing() {
    for method in methods() {
        let mut driver = Program::start_until(&mut Command::new(driver()), "ready");
        let heapscope = Heapscope::attach(driver.pid(), &["--mmap", "--probes", method]);
        assert_eq!(driver.ask("clear"), "done");
        send(heapscope.pid(), Signal::INT);
        let outcome = heapscope.finish();
        let report = outcome.report.unwrap();
        assert_eq!(left_by(&driver, &report, ["site_03", "site_04"]), [0, 16], "{method}");
        let lost = |reason: &str| report.quality.lost[reason];
        assert_eq!((lost("mapping_corrected"), lost("mapping_in_doubt")), (4 * PAGE, 0), "{method}");
        assert_eq!((lost("mapping_unmap_unseen"), lost("mapping_unpaired")), (0, 0));
        assert_eq!(report.mappings.unwrap().calls.failed, 1);
        let said = "16,384 bytes of mapped memory had been unmapped or moved by a call that failed";
        assert!(unwrapped(&outcome.output).contains(said), "{}", outcome.output);
    }
}

fn failed_after_moving() {
    let mut driver = Program::start_until(&mut Command::new(driver()), "ready");
    let heapscope = Heapscope::attach(driver.pid(), &["--mmap"]);
    if driver.ask("part") == "refused" {
        println!("not tried: this kernel seals no mapping, or moves only one at a time");
        return;
    }
    let report = heapscope.stop();
    let left = left_by(&driver, &report, ["site_05", "site_06", "site_07"]);
    assert_eq!(left, [3, 1, 5]);
    // Three pages were cleared, three were moved.
    assert_eq!(report.quality.lost["mapping_corrected"], 6 * PAGE);
}

fn failed_and_ended() {
    let mut driver = Program::start_until(&mut Command::new(driver()), "ready");
    let heapscope = Heapscope::attach(driver.pid(), &["--mmap"]);
    send(heapscope.pid(), Signal::STOP);
    assert_eq!(driver.ask("clear"), "done");
    send(driver.pid(), Signal::KILL);
    driver.wait();
    send(heapscope.pid(), Signal::CONT);
    let outcome = heapscope.finish();
    let report = outcome.report.unwrap();
    // What it had named: the place, and the memory to be moved.
    assert_eq!(report.quality.lost["mapping_in_doubt"], (4 + 16) * PAGE);
    let said = "may have been unmapped by a call that failed: the process ended before one could look";
    assert!(unwrapped(&outcome.output).contains(said), "{}", outcome.output);
}

fn of_a_child() {
    let mut driver = Program::start_until(&mut Command::new(driver()), "ready");
    let mut heapscope = Heapscope::attach(driver.pid(), &["--mmap", "--children"]);
    assert_eq!(driver.ask("keep"), "done");
    let child: u32 = driver.ask("fork").parse().unwrap();
    while !heapscope.hear("attached").contains(&format!("(pid {child})")) {}
    send(child, Signal::USR1);
    assert_eq!(driver.hear(), "mapped");
    let (report, [of_child]) = heapscope.stop_family([child]);
    send(child, Signal::KILL);
    let left = |report: &Report| {
        let sites = Record::of(report.mappings.as_ref().unwrap()).sites;
        let left: Vec<_> = sites.into_iter().map(|(name, (_, _, pages))| (name, pages.len())).collect();
        left
    };
    assert_eq!(left(&report), [("site_00".to_owned(), 7)]);
    assert_eq!(left(&of_child), [("site_01".to_owned(), 5)]);
    // What it inherited was mapped by another process.
    let calls = of_child.mappings.unwrap().calls;
    assert_eq!((calls.mmap, calls.munmap, calls.unmatched), (1, 1, 1));
}

fn from_the_start_to_the_end() {
    const GROWTH: u64 = 300 * PAGE;
    let mut command = heapscope(&["run", "--mmap", "-o", "report.json", "--"]);
    let mut heapscope = Heapscope::start_with(command.arg(driver()).stdin(std::process::Stdio::piped()));
    assert_eq!(heapscope.hear_output(), "ready");
    heapscope.write("keep\n");
    assert_eq!(heapscope.hear_output(), "done");
    heapscope.write(&format!("heap {GROWTH}\n"));
    assert_eq!(heapscope.hear_output(), "done");
    heapscope.close_input();
    let report = heapscope.report();
    assert_whole(&report);
    let mappings = report.mappings.unwrap();
    let kept = &Record::of(&mappings).sites["site_00"];
    assert_eq!((kept.0, kept.1, kept.2.len()), (1, 7 * PAGE, 7));
    assert_eq!(mappings.brk.end_space.unwrap() - mappings.brk.begin_space.unwrap(), GROWTH);
}

fn an_exec_ends_the_account() {
    // The shell's own mappings are gone with it: what is told is the driver's.
    let mut command = heapscope(&["run", "--mmap", "-o", "report.json", "--", "sh", "-c", "exec \"$0\""]);
    let mut heapscope = Heapscope::start_with(command.arg(driver()).stdin(std::process::Stdio::piped()));
    assert_eq!(heapscope.hear_output(), "ready");
    heapscope.write("keep\n");
    assert_eq!(heapscope.hear_output(), "done");
    heapscope.close_input();
    let report = heapscope.report();
    assert_whole(&report);
    let mappings = report.mappings.unwrap();
    assert_eq!((mappings.calls.mmap, mappings.inuse_space), (1, 7 * PAGE));
}

/// A program that was not made for this: what its `mmap` module maps, and what its own allocator does.
fn python() {
    let script = "import mmap
print('ready', flush=True)
input()
kept = mmap.mmap(-1, 10 << 20)
gone = mmap.mmap(-1, 20 << 20)
gone.close()
kept.resize(15 << 20)
objects = [str(number) for number in range(300000)]
print('done', flush=True)
input()";
    let mut python = Program::start_until(Command::new("python3").args(["-c", script]), "ready");
    let heapscope = Heapscope::attach(python.pid(), &["--mmap"]);
    assert_eq!(python.ask("go"), "done");
    let report = heapscope.stop();
    report.assert_nothing_lost();
    let mappings = report.mappings.unwrap();
    let by = |function: &str| {
        let named = |site: &&MappedSite| site.functions().iter().any(|name| name.contains(function));
        mappings.sites.iter().filter(named).collect::<Vec<_>>()
    };
    let resized = by("mmap_resize");
    assert_eq!((resized.len(), resized[0].inuse_space, resized[0].ranges().count()), (1, 15 << 20, 1));
    let made = by("new_mmap_object");
    assert_eq!(made.iter().map(|site| (site.inuse_space, site.alloc_calls)).collect::<Vec<_>>(), [(0, 1); 2]);
    assert_eq!(made.iter().map(|site| site.alloc_space).sum::<u64>(), 30 << 20);
    // Its small objects never go through malloc, but their arenas come from mmap: more than 50 bytes for a string.
    let arenas: u64 = by("new_arena").iter().map(|site| site.inuse_space).sum();
    assert!(arenas > 15_000_000, "{arenas}");
    // What the list's realloc maps is an allocator's affair, and told as that.
    let inside = mappings
        .sites
        .iter()
        .filter(|site| site.functions().last().is_some_and(|f| f.starts_with("[inside")));
    assert_eq!(inside.map(|site| site.alloc_calls).sum::<u64>(), mappings.calls_inside_allocator);
    assert!(mappings.calls_inside_allocator > 0);
}
