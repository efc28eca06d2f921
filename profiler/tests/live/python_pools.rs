//! Samples of pymalloc's pools beside what a program knows of its own small objects.

use std::{collections::HashMap, process::Command};

use super::python::interpreters;
use crate::support::{
    case::{Case, case_with, methods},
    fixture,
    heapscope::Heapscope,
    needs::Need,
    program::Program,
    report::{PoolSamples, Report, python},
};

const NEEDS: &[Need] = &[Need::Program("/usr/bin/python3")];

pub(crate) const CASES: &[Case] = &[
    case_with("python_pools::samples_are_near_what_is_kept", NEEDS, samples_are_near_what_is_kept),
    case_with("python_pools::pools_that_are_given_up_count_no_more", NEEDS, pools_that_are_given_up),
    case_with("python_pools::the_allocator_in_force", NEEDS, the_allocator_in_force),
];

/// Objects that the program keeps of each kind.
const KEPT: u64 = 50_000;
/// Standard errors that an estimate may be off.
const ERRORS: f64 = 4.0;

type Told = HashMap<String, u64>;

fn profiled(interpreter: &str, setting: Option<&str>, probes: &str, steps: &[&str]) -> (Report, Told) {
    let mut command = Command::new(interpreter);
    command.arg(fixture::source("python_small.py")).env_remove("PYTHONMALLOC");
    command.envs(setting.map(|setting| ("PYTHONMALLOC", setting)));
    let mut program = Program::start_until(&mut command, "ready");
    let heapscope = Heapscope::attach(program.pid(), &["--probes", probes]);
    let told = steps.iter().map(|step| program.ask(step)).last().unwrap();
    let report = heapscope.stop();
    report.assert_nothing_lost();
    report.assert_stacks_whole();
    (report, serde_json::from_str(&told).unwrap())
}

/// Pools and bytes of objects that are put down to a function of the program.
fn of(samples: &PoolSamples, function: &str) -> (u64, u64) {
    let is_here = |site: &&crate::support::report::PoolSite| {
        python(&site.stack)
            .iter()
            .any(|(name, file, _)| name == function && file.ends_with("python_small.py"))
    };
    let sites = samples.sites.iter().filter(is_here);
    sites.fold((0, 0), |(pools, space), site| (pools + site.inuse_pools, space + site.inuse_object_space))
}

fn samples_are_near_what_is_kept() {
    for (interpreter, probes) in interpreters().iter().flat_map(|i| methods().map(move |p| (i, p))) {
        let (report, told) = profiled(interpreter, None, probes, &["keep"]);
        let found = report.python.unwrap();
        assert_eq!(found.small_objects_by, "pymalloc", "{interpreter}");
        let samples = found.pool_samples.unwrap();
        for kind in ["points", "words"] {
            let kept = KEPT * told[kind].next_multiple_of(16);
            let (pools, space) = of(&samples, kind);
            let error = (pools as f64).sqrt() * samples.pool_size as f64;
            let off = (space as f64 - kept as f64).abs();
            assert!(
                off <= ERRORS * error,
                "{interpreter} {probes}: {kind}: {space} for {kept}, error {error}"
            );
        }
        let opened: u64 = samples.sites.iter().map(|site| site.opened).sum();
        assert_eq!(opened, samples.opened);
        // The interpreter's number has the large objects as well, which are few.
        let (all, blocks) = (found.all_objects.unwrap(), told["blocks"]);
        assert!(all <= blocks + 100 && all * 100 >= blocks * 97, "{interpreter}: {all} of {blocks}");
    }
}

fn pools_that_are_given_up() {
    for interpreter in interpreters() {
        let (report, _) = profiled(&interpreter, None, "session", &["keep", "forget words"]);
        let samples = report.python.unwrap().pool_samples.unwrap();
        let (points, words) = (of(&samples, "points").0, of(&samples, "words").0);
        assert!(
            words * 20 < points,
            "{interpreter}: {words} pools of what is gone, {points} of what is kept"
        );
        assert!(samples.opened > samples.inuse_pools.unwrap() + points, "{interpreter}: {samples:?}");
    }
}

fn the_allocator_in_force() {
    for interpreter in interpreters() {
        for (setting, by, sampled) in
            [("malloc", "malloc", false), ("pymalloc_debug", "pymalloc behind hooks", true)]
        {
            let (report, told) = profiled(&interpreter, Some(setting), "session", &["keep"]);
            let found = report.python.as_ref().unwrap();
            assert!(found.small_objects_by.starts_with(by), "{interpreter}: {}", found.small_objects_by);
            match &found.pool_samples {
                Some(samples) => assert!(sampled && of(samples, "words").1 > KEPT * told["words"]),
                None => {
                    assert!(!sampled);
                    let words =
                        report.sum(|site| site.has("words") || site.python().iter().any(|f| f.0 == "words"));
                    assert!(words.inuse_objects >= KEPT, "{interpreter}: {words:?}");
                }
            }
        }
    }
}
