//! What names cost: the time and memory to name 10,000 addresses of a file with over 150 MB of debug information, with
//! inlined functions, files and lines; beside llvm-symbolizer and addr2line, and two libraries that heapscope could use.
//!
//! `cargo bench -p heapscope --bench symbols [-- FILE…]`. Without names the file is a C++ program that is made for it once.
//! Each way runs in a process of its own, three times in turn with the others; shown is the median time and the largest
//! resident set. What a way finds is compared with what llvm-symbolizer finds: functions, files by
//! their last part, lines.

#![allow(clippy::unwrap_used, missing_docs, reason = "a program for developers")]

mod ways;

use std::{
    collections::BTreeSet,
    env,
    fs::{self, File},
    io::Write as _,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::sys::resource::{UsageWho, getrusage};
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};
use ways::{Answer, WAYS, Way};

const ADDRESSES: usize = 10_000;
const RUNS: usize = 3;
/// Objects that the program is made of.
const UNITS: usize = 9;
/// Differences that are printed.
const SHOWN: usize = 3;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.as_slice() {
        [how, way, file, addresses] if how == "answer" => ways::answer(way, file, addresses),
        [how, program, rest @ ..] if how == "measure" => measure(program, rest),
        [] => compare(&large_program()),
        files => files.iter().for_each(|file| compare(Path::new(file))),
    }
}

/// Runs a command with our standard streams and says on standard error what it took.
fn measure(program: &str, arguments: &[String]) {
    let began = Instant::now();
    let status = Command::new(program).args(arguments).status().unwrap();
    let took = began.elapsed();
    assert!(status.success(), "{program}: {status}");
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    eprintln!("{} {}", took.as_micros(), usage.max_rss());
}

/// A way's cost in one run: time, and kilobytes resident at most.
struct Cost {
    took: Duration,
    kilobytes: u64,
}

fn compare(file: &Path) {
    let addresses = addresses_of(file);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let list = folder.join("addresses");
    let lines: String = addresses.iter().map(|address| format!("0x{address:x}\n")).collect();
    fs::write(&list, lines).unwrap();
    let debug = debug_bytes(file) as f64 / 1e6;
    println!("\n{}: {debug:.0} MB of debug information, {} addresses", file.display(), addresses.len());
    let ways: Vec<&Way> = WAYS.iter().filter(|way| way.is_there()).collect();
    let mut costs: Vec<Vec<Cost>> = ways.iter().map(|_| Vec::new()).collect();
    let out = |way: &Way| folder.join(format!("{}.out", way.name));
    for _ in 0..RUNS {
        for (way, costs) in ways.iter().zip(&mut costs) {
            costs.push(run(way, file, &list, &out(way)));
        }
    }
    let answers = |way: &Way| ways::answers(way, &fs::read_to_string(out(way)).unwrap());
    let Some(reference) = ways.iter().find(|way| way.name == "llvm-symbolizer").map(|way| answers(way))
    else {
        println!("llvm-symbolizer is not installed (Debian: llvm): nothing to compare with");
        return;
    };
    assert_eq!(reference.len(), addresses.len());
    println!(
        "{:<18} {:>8} {:>7} {:>8} {:>7} {:>9} {:>10}",
        "", "time", "ratio", "memory", "ratio", "functions", "all lines"
    );
    let mut differences = Vec::new();
    let first = costs.first_mut().map(|costs| median(costs)).unwrap();
    for (way, costs) in ways.iter().zip(&mut costs) {
        let (took, kilobytes) = median(costs);
        let answers = answers(way);
        let functions = agreement(&answers, &reference, ways::same_functions);
        let all = agreement(&answers, &reference, |one, other| one == other);
        println!(
            "{:<18} {:>7.2}s {:>6.2}x {:>5} MB {:>6.2}x {:>9} {:>10}",
            way.name,
            took,
            took / first.0,
            kilobytes >> 10,
            kilobytes as f64 / first.1 as f64,
            functions,
            all
        );
        if way.name == "heapscope" {
            let different =
                addresses.iter().zip(answers).zip(&reference).filter(|((_, ours), theirs)| ours != *theirs);
            differences =
                different.map(|((address, ours), theirs)| (*address, ours, theirs.clone())).collect();
        }
    }
    let alike: BTreeSet<&str> = ways.iter().map(|way| way.name).collect();
    for missing in WAYS.iter().filter(|way| !alike.contains(way.name)) {
        println!("{:<18} is not installed", missing.name);
    }
    for (address, ours, theirs) in differences.iter().take(SHOWN) {
        println!("  0x{address:x}\n    heapscope        {ours:?}\n    llvm-symbolizer  {theirs:?}");
    }
}

fn agreement(answers: &[Answer], reference: &[Answer], same: impl Fn(&Answer, &Answer) -> bool) -> usize {
    answers.iter().zip(reference).filter(|(one, other)| same(one, other)).count()
}

/// Seconds and kilobytes.
fn median(costs: &mut [Cost]) -> (f64, u64) {
    costs.sort_by_key(|cost| cost.took);
    let most = costs.iter().map(|cost| cost.kilobytes).max().unwrap();
    (costs[costs.len() / 2].took.as_secs_f64(), most)
}

fn run(way: &Way, file: &Path, list: &Path, out: &Path) -> Cost {
    let mut command = Command::new(env::current_exe().unwrap());
    command.arg0("measure").arg("measure").args(way.command(file, list));
    command.stdin(File::open(list).unwrap()).stdout(File::create(out).unwrap()).stderr(Stdio::piped());
    let done = command.output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{}: {said}", way.name);
    let numbers: Vec<u64> =
        said.lines().last().unwrap().split(' ').map(|word| word.parse().unwrap()).collect();
    Cost { took: Duration::from_micros(numbers[0]), kilobytes: numbers[1] }
}

/// Addresses inside functions, spread over the whole file.
fn addresses_of(file: &Path) -> Vec<u64> {
    let bytes = fs::read(file).unwrap();
    let elf = object::File::parse(&*bytes).unwrap();
    let functions: BTreeSet<(u64, u64)> = elf
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition() && symbol.size() > 8)
        .map(|symbol| (symbol.address(), symbol.size()))
        .collect();
    assert!(!functions.is_empty(), "{} has no symbol table", file.display());
    let a_function = ADDRESSES.div_ceil(functions.len()) as u64;
    let mut addresses = BTreeSet::new();
    for (number, (start, size)) in functions.iter().enumerate() {
        // Anywhere in it, and the same each time.
        let anywhere = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        addresses.extend((0..a_function).map(|nth| start + (anywhere + nth * size / a_function) % size));
    }
    let every = (addresses.len() / ADDRESSES).max(1);
    addresses.into_iter().step_by(every).take(ADDRESSES).collect()
}

fn debug_bytes(file: &Path) -> u64 {
    let bytes = fs::read(file).unwrap();
    let elf = object::File::parse(&*bytes).unwrap();
    elf.sections().filter(|s| s.name().is_ok_and(|name| name.starts_with(".debug_"))).map(|s| s.size()).sum()
}

/// The program with much debug information, made if it is not there.
fn large_program() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("large");
    let program = folder.join("large");
    if program.is_file() {
        return program;
    }
    fs::create_dir_all(&folder).unwrap();
    println!("compiling a program with much debug information, once: some minutes");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/symbols/large.cpp");
    let compiler = |more: &[String]| {
        let mut compiler = Command::new("c++");
        let status = compiler.args(["-std=c++17", "-g", "-O1"]).args(more).status();
        assert!(status.is_ok_and(|status| status.success()), "a C++ compiler is needed (Debian: g++)");
    };
    let object = |unit: usize| folder.join(format!("unit{unit}.o")).display().to_string();
    let source = source.display().to_string();
    for unit in 1..=UNITS {
        compiler(&[
            format!("-DUNIT=u{unit}"),
            "-DCOUNT=40".into(),
            "-c".into(),
            source.clone(),
            "-o".into(),
            object(unit),
        ]);
        std::io::stdout().flush().unwrap();
    }
    let units: Vec<String> = (1..=UNITS).map(|unit| format!("each(u{unit})")).collect();
    let mut last = vec![format!("-DUNITS(each)={}", units.join(" ")), source];
    last.extend((1..=UNITS).map(object));
    last.extend(["-o".into(), program.display().to_string()]);
    compiler(&last);
    program
}
