//! What estimates from samples are worth: many runs of a program, each sampled anew, beside the program's own record. Whether
//! the mean of the estimates is the truth, and how often the truth lies where the report says. `cargo xtask bench sampling`
//! runs this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_precision_loss)]

#[path = "../tests/support/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod support;

use std::process::Command;

use support::{
    fixture,
    heapscope::Heapscope,
    model::{Record, path_of_site},
    program::Program,
    report::Totals,
};

const RUNS: usize = 200;
const BLOCKS: u64 = 100_000;
const SITES: u64 = 16;
const INTERVAL: u64 = 8192;
/// Of a normal distribution, 95 of a hundred lie within so many standard errors.
const NORMAL: f64 = 1.96;

/// One number of the report in all runs.
#[derive(Default)]
struct Series {
    name: String,
    /// Estimate less truth, as a share of the truth.
    off: Vec<f64>,
    stated: Vec<f64>,
    held: usize,
}

impl Series {
    fn add(&mut self, estimate: u64, error: u64, truth: u64) {
        let off = estimate as f64 - truth as f64;
        self.held += usize::from(off.abs() <= NORMAL * error as f64);
        self.off.push(off / truth as f64);
        self.stated.push(error as f64 / truth as f64);
    }

    /// Prints its line; whether the mean is the truth, as far as so many runs can tell, and the errors are right.
    fn print(&self) -> bool {
        let runs = self.off.len() as f64;
        let mean = self.off.iter().sum::<f64>() / runs;
        let spread = (self.off.iter().map(|off| (off - mean).powi(2)).sum::<f64>() / (runs - 1.0)).sqrt();
        let of_mean = spread / runs.sqrt();
        let (bias, held) = (mean / of_mean, 100.0 * self.held as f64 / runs);
        let stated = self.stated.iter().sum::<f64>() / runs;
        println!(
            "| {} | {:+.2}% | {:.2}% | {bias:+.1} | {:.1}% | {:.1}% | {held:.1}% |",
            self.name,
            100.0 * mean,
            100.0 * of_mean,
            100.0 * spread,
            100.0 * stated
        );
        bias.abs() <= 2.0 && (90.0..=99.0).contains(&held)
    }
}

fn main() {
    let runs = std::env::var("HEAPSCOPE_RUNS").ok().and_then(|number| number.parse().ok()).unwrap_or(RUNS);
    let kinds = ["inuse_space", "inuse_objects", "alloc_space", "alloc_objects"];
    let numbers =
        |totals: Totals| [totals.inuse_space, totals.inuse_objects, totals.alloc_space, totals.alloc_objects];
    let mut totals = kinds.map(|kind| Series { name: format!("total, {kind}"), ..Series::default() });
    let mut sites: Vec<Series> = Vec::new();
    for _ in 0..runs {
        let ledger = fixture::build("ledger.c", &["-fno-builtin"]);
        let arguments = [BLOCKS, SITES].map(|number| number.to_string());
        let mut program = Program::start_until(Command::new(ledger).args(arguments), "ready");
        let heapscope = Heapscope::attach(program.pid(), &["--sample", &INTERVAL.to_string()]);
        program.ask(&format!("fill {BLOCKS}"));
        program.ask(&format!("any {BLOCKS}"));
        let report = heapscope.stop();
        program.say("record");
        let record = Record::hear(&program, |_| {});
        let mut all = Totals::default();
        record.sites().values().for_each(|totals| all.add(*totals));
        let (estimates, errors) = (numbers(report.totals), numbers(report.standard_errors.unwrap()));
        for ((series, truth), (estimate, error)) in
            totals.iter_mut().zip(numbers(all)).zip(estimates.into_iter().zip(errors))
        {
            series.add(estimate, error, truth);
        }
        // The program does the same in each run.
        let mut largest: Vec<_> = record.sites().iter().collect();
        largest.sort_by_key(|(_, totals)| std::cmp::Reverse(totals.inuse_space));
        for (rank, (path, truth)) in largest.into_iter().take(10).enumerate() {
            if sites.len() == rank {
                sites.push(Series { name: format!("site {path}, inuse_space"), ..Series::default() });
            }
            let site =
                report.sites.iter().find(|site| path_of_site(&site.functions()).as_ref() == Some(path));
            let (estimate, error) = site
                .map_or((0, 0), |site| (site.totals.inuse_space, site.standard_errors.unwrap().inuse_space));
            sites[rank].add(estimate, error, truth.inuse_space);
        }
    }
    println!(
        "{runs} runs of {BLOCKS} live blocks of 1 to 64 bytes at {SITES} sites, sampled once in {INTERVAL} bytes\n"
    );
    println!(
        "| what | mean of estimates less truth | its standard error | ratio | spread of runs | stated error | 95% intervals that hold |"
    );
    println!("|---|---|---|---|---|---|---|");
    let right = totals.iter().chain(&sites).filter(|series| series.print()).count();
    println!("\n{right} of {} within two standard errors and holding 90% to 99%", totals.len() + sites.len());
}
