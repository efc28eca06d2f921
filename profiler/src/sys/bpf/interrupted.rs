//! Programs that are handed to the kernel while signals come.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]
use std::{
    fs::File,
    io::Write,
    os::fd::AsFd,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::channel,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::*;

/// Signals that were handled.
static HANDLED: AtomicU64 = AtomicU64::new(0);

extern "C" fn handle(_signal: libc::c_int) {
    HANDLED.fetch_add(1, Ordering::SeqCst);
}

/// A signal that nothing else in this process uses, and that only the thread at hand is sent.
fn signal() -> libc::c_int {
    let signal = libc::SIGRTMIN() + 7;
    // SAFETY: the handler adds to an atomic number, which it may do at any time; the structure is plain data.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handle as *const () as usize;
        libc::sigaction(signal, &raw const action, ptr::null_mut());
    }
    signal
}

/// `r0 = rounds; do r0 -= 1; while (r0 != 0); exit`: the verifier follows every round.
fn long(rounds: u32) -> Vec<u8> {
    let instruction = |code: u8, offset: i16, immediate: u32| {
        let mut bytes = vec![code, 0];
        bytes.extend(offset.to_le_bytes());
        bytes.extend(immediate.to_le_bytes());
        bytes
    };
    // BPF_ALU64 | BPF_MOV, BPF_ALU64 | BPF_SUB, BPF_JMP | BPF_JNE, BPF_JMP | BPF_EXIT, with immediates.
    [instruction(0xb7, 0, rounds), instruction(0x17, 0, 1), instruction(0x55, -2, 0), instruction(0x95, 0, 0)]
        .concat()
}

/// Interrupts the calling thread once, a moment later.
struct Interruption {
    over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Interruption {
    fn after(wait: Duration) -> Self {
        let (signal, over) = (signal(), Arc::new(AtomicBool::new(false)));
        // SAFETY: without arguments.
        let to = unsafe { libc::pthread_self() };
        let (ready, begin) = channel();
        let thread = thread::spawn({
            let over = Arc::clone(&over);
            move || {
                ready.send(()).unwrap();
                thread::sleep(wait);
                if !over.load(Ordering::SeqCst) {
                    // SAFETY: that thread waits for this one before it ends.
                    unsafe { libc::pthread_kill(to, signal) };
                }
            }
        });
        begin.recv().unwrap();
        Self { over, thread }
    }

    /// To be called when the work is done: a signal that has not come by now does not come.
    fn end(self) {
        self.over.store(true, Ordering::SeqCst);
        self.thread.join().unwrap();
    }
}

#[test]
fn a_program_is_loaded_though_signals_come() {
    const ROUNDS: u32 = 60_000;
    let (instructions, nothing) = (long(ROUNDS), File::open("/dev/null").unwrap());
    let program = ProgramLoad {
        name: "long",
        program_type: PROGRAM_TYPE_KPROBE,
        instructions: &instructions,
        license: c"GPL",
        attach_type: 0,
        // It is looked at only where there are descriptions of functions or lines.
        btf: nothing.as_fd(),
        func_info: (&[], 0),
        line_info: (&[], 0),
    };
    let began = std::time::Instant::now();
    match try_load(&program, &mut []) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            writeln!(io::stderr(), "skipped: interrupted: loading BPF programs needs root: {error}").unwrap();
            return;
        }
        Err(error) => panic!("{error}"),
    }
    let takes = began.elapsed();
    // The condition is real: the kernel gives up, and says so.
    let gives_up = |wait| {
        let before = HANDLED.load(Ordering::SeqCst);
        let interruption = Interruption::after(wait);
        let answer = try_load(&program, &mut []);
        interruption.end();
        let gave_up = answer.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        assert!(!gave_up || HANDLED.load(Ordering::SeqCst) > before);
        gave_up
    };
    let wait = (1..=8).map(|part| takes * part / 10).cycle().take(200).find(|wait| gives_up(*wait));
    let wait = wait.unwrap_or_else(|| panic!("no signal has hit the verifier in its {takes:?}"));
    // And is none for a program that is loaded.
    let mut hit = 0;
    for _ in 0..20 {
        let before = HANDLED.load(Ordering::SeqCst);
        let interruption = Interruption::after(wait);
        let loaded = load_program(&program);
        interruption.end();
        loaded.unwrap();
        hit += HANDLED.load(Ordering::SeqCst) - before;
    }
    assert!(hit > 0, "no signal came while a program was loaded");
}
