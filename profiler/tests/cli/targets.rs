//! Targets that cannot be watched, each with its own reason.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::{
    refused,
    support::{
        case::{Case, case, case_with},
        fixture,
        needs::Need,
        program::{Program, state},
        until,
    },
};

pub(crate) const CASES: &[Case] = &[
    case("targets::no_such_process", no_such_process),
    case_with("targets::several_of_a_name", &[Need::Program("cc")], several_of_a_name),
    case_with("targets::a_thread_is_no_process", &[Need::Program("cc")], a_thread_is_no_process),
    case_with("targets::a_kernel_thread", &[Need::KernelThreads], a_kernel_thread),
    case("targets::a_zombie", a_zombie),
    case_with("targets::a_32_bit_program", &[Need::ThirtyTwoBit], a_32_bit_program),
    case_with(
        "targets::a_static_program_without_symbols",
        &[Need::Program("cc")],
        a_static_program_without_symbols,
    ),
    case_with("targets::a_program_without_malloc", &[Need::Program("cc")], a_program_without_malloc),
];

/// Ends a process when the test ends.
struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn no_such_process() {
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    let ended = child.id().to_string();
    // PID_MAX_LIMIT of include/linux/threads.h is 2 to the 22nd.
    for absent in ["4194304", "0", "99999999999999999999", "heapscope-no-such-name", &ended] {
        let text = refused(&["attach", absent]);
        assert!(text.contains(&format!("no running process matches `{absent}`")), "{text}");
    }
    let text = refused(&["attach", ""]);
    assert!(text.starts_with("no process was named: "), "{text}");
}

fn several_of_a_name() {
    let folder = TempDir::new().unwrap();
    let program = folder.path().join("hs-twin");
    fs::copy(fixture::calls(), &program).unwrap();
    let twins = [(); 2].map(|()| Program::start_until(&mut Command::new(&program), "ready"));
    let text = refused(&["attach", "hs-twin"]);
    assert!(text.starts_with("2 processes match `hs-twin`. "), "{text}");
    for twin in &twins {
        let line = text.lines().find(|line| line.trim_start().starts_with(&format!("{} ", twin.pid())));
        assert!(line.is_some_and(|line| line.contains("hs-twin")), "{text}");
    }
}

fn a_thread_is_no_process() {
    let mut target = Program::start(&mut Command::new(fixture::build("busy.c", &[])));
    target.ask("begin");
    let pid = target.pid();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut threads = tasks.map(|task| task.unwrap().file_name().into_string().unwrap());
    let thread = threads.find(|thread| *thread != pid.to_string()).unwrap();
    let text = refused(&["attach", &thread]);
    assert!(text.contains(&format!("{thread} is a thread of process {pid}")), "{text}");
}

fn a_kernel_thread() {
    for target in ["2", "kthreadd"] {
        let text = refused(&["attach", target]);
        assert!(text.contains("process 2 (kthreadd) is a kernel thread"), "{text}");
    }
}

fn a_zombie() {
    let zombie = Held(Command::new("true").stdin(Stdio::null()).spawn().unwrap());
    let pid = zombie.0.id();
    until("the child has ended", || state(pid) == "Z");
    let text = refused(&["attach", &pid.to_string()]);
    assert!(text.contains(&format!("process {pid} (true) has ended")), "{text}");
}

fn a_32_bit_program() {
    let program = fixture::waiting_32_bit();
    let target = Held(Command::new(&program).spawn().unwrap());
    let text = refused(&["attach", &target.0.id().to_string()]);
    assert!(text.contains("runs a 32-bit program") && text.contains("64-bit build"), "{text}");
}

fn a_static_program_without_symbols() {
    let program = fixture::build("calls.c", &["-static", "-s", "-Wl,-w"]);
    let target = Program::start_until(&mut Command::new(&program), "ready");
    let text = refused(&["attach", &target.pid().to_string()]);
    assert!(text.contains("a static program without symbols"), "{text}");
    assert!(text.contains(program.to_str().unwrap()) && text.contains("not stripped"), "{text}");
}

fn a_program_without_malloc() {
    let program = fixture::build("waiting.c", &["-nostdlib", "-static", "-fno-stack-protector"]);
    let target = Program::start_until(&mut Command::new(&program), "ready");
    let text = refused(&["attach", &target.pid().to_string()]);
    assert!(text.contains("no file that defines malloc and free"), "{text}");
}
