//! What this machine allows, found out by trial on heapscope itself.

use std::{fs, hint::black_box, time::Instant};

use serde::Serialize;

use super::checks::{Check, Verdict};
use crate::{
    probe::{
        AttachMethod, Position, ProbePoint, ProbeSettings,
        ebpf::{self, EbpfProbe},
        error::ProbeError,
        rights,
    },
    report::units::bytes,
    session::{observation::Observation, options::CommonOptions},
    sys::calibration,
    target::{address::FileOffset, process::Process},
};
use profiler_common::records::Call;

/// Kernel memory for a trial, in bytes.
const LITTLE_MEMORY: u64 = 16 << 20;
/// Pairs of calls in one measurement.
const PAIRS: u32 = 2000;
/// Where the kernel describes its own types.
const KERNEL_TYPES: &str = "/sys/kernel/btf/vmlinux";

/// This machine.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    pub(super) kernel: String,
    pub(super) distribution: Option<String>,
    /// The way to attach that heapscope will choose: `session`, `multi` or `perf`.
    pub(super) probes: Option<&'static str>,
    /// What one hit of a probe costs without our programs' work, in nanoseconds.
    pub(super) hit_nanoseconds: Option<f64>,
    /// What a malloc and the free of its block take longer when they are watched, in nanoseconds.
    pub(super) pair_nanoseconds: Option<f64>,
    pub(super) checks: Vec<Check>,
}

/// Looks at the machine. Probes are placed on heapscope itself and taken out again.
pub(super) fn examine() -> Machine {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut checks = vec![version(&kernel)];
    checks.extend(permissions());
    checks.push(kernel_types());
    let trials = METHODS.map(|method| (method, attempt(method)));
    let chosen = trials.iter().find_map(|(method, tried)| tried.is_ok().then_some(*method));
    checks.extend(trials.iter().map(|(method, tried)| method_check(*method, tried, chosen)));
    let cost = chosen.map(|method| measure(method, &mut checks)).unwrap_or_default();
    checks.push(cost_check(&cost));
    Machine {
        kernel,
        distribution: distribution(),
        probes: chosen.map(AttachMethod::label),
        hit_nanoseconds: cost.hit,
        pair_nanoseconds: cost.pair,
        checks,
    }
}

const METHODS: [AttachMethod; 3] = [AttachMethod::Session, AttachMethod::Multi, AttachMethod::Perf];

fn version(release: &str) -> Check {
    match rights::kernel_version(release) {
        Some(version) if version < (5, 15) => Check::no(
            "kernel",
            format!("{release} is too old"),
            "heapscope needs 5.15 or later: run a newer kernel, or use heaptrack here",
        ),
        Some(_) => Check::ok("kernel", release),
        None => {
            Check::warn("kernel", format!("{release} is no version that is known"), "5.15 or later is needed")
        }
    }
}

/// `PRETTY_NAME` of os-release(5).
fn distribution() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(name.trim_matches('"').to_owned())
}

/// What the kernel's settings and our capabilities permit.
fn permissions() -> Vec<Check> {
    let mut checks = Vec::new();
    let missing = rights::missing();
    checks.push(if missing.is_empty() {
        Check::ok("rights", "BPF programs may be loaded: CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN, are there")
    } else {
        Check::no(
            "rights",
            format!("this process lacks {}", missing.join(" and ")),
            "run it with sudo, or in a container with --cap-add BPF --cap-add PERFMON (before kernel 6.6: --cap-add \
             SYS_ADMIN)",
        )
    });
    if fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_ascii_whitespace().ne(["0", "0", "4294967295"]))
    {
        checks.push(Check::warn(
            "user namespace",
            "this process runs in a user namespace, whose root may not load BPF programs",
            "run heapscope on the host",
        ));
    }
    checks.push(if rights::is_locked_down() {
        Check::no(
            "lockdown",
            "the kernel is locked down (confidentiality mode)",
            "boot with lockdown=integrity or without lockdown",
        )
    } else {
        Check::ok("lockdown", "programs may read memory")
    });
    checks.extend(paranoia());
    checks
}

/// Whether the kernel tells when a process maps code: without CAP_PERFMON that is a matter of this setting.
fn paranoia() -> Option<Check> {
    let level = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").ok()?;
    let level: i32 = level.trim().parse().ok()?;
    let says = format!("perf_event_paranoid is {level}");
    Some(if rights::missing().is_empty() {
        Check::ok("perf events", format!("{says}, which does not bind who has CAP_PERFMON"))
    } else {
        Check::note("perf events", format!("{says}, which binds who has no CAP_PERFMON"))
    })
}

fn kernel_types() -> Check {
    match fs::metadata(KERNEL_TYPES) {
        Ok(file) => Check::ok("kernel types", format!("{} of BTF in {KERNEL_TYPES}", bytes(file.len()))),
        Err(error) => Check::warn(
            "kernel types",
            format!("{KERNEL_TYPES}: {error}"),
            "Python frames and sessions need BTF: use a kernel built with CONFIG_DEBUG_INFO_BTF, as Debian's are",
        ),
    }
}

/// Loads the programs for one way to attach, and places one of them on a function of heapscope's own.
fn attempt(method: AttachMethod) -> Result<(), ProbeError> {
    let source = |source| ProbeError::Attach { source };
    let own = std::process::id();
    let identity = Process::open(own).and_then(|process| process.own_identity());
    let identity = identity.map_err(|error| source(std::io::Error::other(error.to_string())))?;
    let settings = ProbeSettings::every_block(own, identity, LITTLE_MEMORY);
    let mut probe = EbpfProbe::load(&ProbeSettings { method: Some(method), ..settings })?;
    let offset = FileOffset(calibration::file_offset().map_err(source)?);
    let point = |call| ProbePoint {
        path: "/proc/self/exe".into(),
        offset,
        call,
        allocator: 0,
        function: 0,
        custom: false,
        position: Position::Called,
    };
    probe.attach(&[point(Call::free(0))])?;
    // It is the return that asks the most of the kernel.
    probe.attach(&[point(Call::allocate(0))])
}

fn method_check(method: AttachMethod, tried: &Result<(), ProbeError>, chosen: Option<AttachMethod>) -> Check {
    let name = method.label();
    match tried {
        Ok(()) if chosen == Some(method) => {
            Check::ok(name, "loaded and placed on a function of heapscope's own; attach will use it")
        }
        Ok(()) => Check::ok(name, "loaded and placed; attach uses it with --probes only"),
        Err(error) => {
            // Named already by what was asked for.
            let error = match error {
                ProbeError::MethodUnavailable { source, .. } => source,
                error => error,
            };
            let text = match error {
                ProbeError::Object(reason) => reason.clone(),
                error => error.to_string(),
            };
            let first = text.lines().next().unwrap_or_default();
            match (chosen, first.split_once(". ")) {
                // Another way works.
                (Some(chosen), split) => Check::note(
                    name,
                    format!(
                        "not possible: {}; {} will do",
                        split.map_or(first, |(says, _)| says),
                        chosen.label()
                    ),
                ),
                (None, Some((says, remedy))) => Check::no(name, says, remedy),
                (None, None) => Check::no(
                    name,
                    first,
                    "see what stands above; without it no probe can be placed by this way",
                ),
            }
        }
    }
}

/// What watching costs, in nanoseconds.
#[derive(Debug, Default)]
struct Cost {
    hit: Option<f64>,
    pair: Option<f64>,
}

/// Watches heapscope itself, as `attach` would.
fn measure(method: AttachMethod, checks: &mut Vec<Check>) -> Cost {
    let options = CommonOptions::watching_ourselves(method, LITTLE_MEMORY);
    let begun = Process::open(std::process::id()).map_err(Into::into).and_then(|process| {
        let before = nanoseconds_per_pair();
        Observation::begin(process, &options).map(|observation| (before, observation))
    });
    let (before, mut observation) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            checks.push(Check::from_error("self-test", Verdict::No, &format!("{error:#}")));
            return Cost::default();
        }
    };
    let pair = (nanoseconds_per_pair() - before).max(0.0);
    let hit = observation.probe.calibrate().ok().flatten();
    observation.keep_up();
    let counters = observation.counters().ok();
    let seen = counters.map_or(0, |counters| counters.get(profiler_common::counters::Counter::AllocObjects));
    observation.end();
    checks.push(if seen >= PAIRS.into() {
        Check::ok("self-test", format!("heapscope watched itself and saw {seen} allocations"))
    } else {
        Check::no(
            "self-test",
            format!("heapscope watched itself and saw {seen} of {PAIRS} allocations"),
            "please report this as a bug, with the output of this command",
        )
    });
    checks.push(if observation.probe.exec_watched() {
        Check::ok("exec", "the kernel tells when the target replaces its program")
    } else {
        Check::warn(
            "exec",
            "the kernel does not tell when the target replaces its program",
            "attach again when it has; the tracepoint sched_process_exec is needed",
        )
    });
    checks.push(match observation.lookout.warning() {
        None => Check::ok("mapped code", "the kernel tells when the target maps code"),
        Some(warning) => Check::from_error("mapped code", Verdict::Warn, &warning),
    });
    checks.push(match ebpf::enable_run_time_stats() {
        Ok(_) => Check::ok("run time", "the kernel measures what our programs take"),
        Err(error) => Check::warn(
            "run time",
            format!("the kernel does not measure what our programs take ({error})"),
            "the overhead shown will be too low; it needs CAP_SYS_ADMIN",
        ),
    });
    Cost { hit, pair: Some(pair) }
}

/// What an allocation and its free take in this process at present: the least of several measurements.
fn nanoseconds_per_pair() -> f64 {
    let measure = || {
        let start = Instant::now();
        for _ in 0..PAIRS {
            drop(black_box(Box::new(black_box([0u8; 48]))));
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(PAIRS)
    };
    (0..3).map(|_| measure()).fold(f64::INFINITY, f64::min)
}

fn cost_check(cost: &Cost) -> Check {
    let Some(pair) = cost.pair else {
        return Check::note("cost", "could not be measured without the rights to place probes");
    };
    let hit =
        cost.hit.map_or_else(String::new, |hit| format!("; one hit without our work {:.2} µs", hit / 1e3));
    Check::ok(
        "cost",
        format!(
            "malloc and free of a block take {:.2} µs longer while watched, measured on heapscope itself{hit}",
            pair / 1e3
        ),
    )
}
