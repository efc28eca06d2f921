//! A function of our own to probe, to learn what a hit costs on this machine.

use std::{fs, io, time::Instant};

/// Calls of one measurement: enough to smooth out the clock, few enough to take some milliseconds.
const CALLS: u32 = 2000;

std::arch::global_asm!(
    // `push` is what the probes on real allocators sit on too: the kernel emulates it.
    ".pushsection .text.heapscope_calibration, \"ax\", @progbits",
    ".globl heapscope_calibration",
    ".type heapscope_calibration, @function",
    "heapscope_calibration:",
    ".cfi_startproc",
    "push rbp",
    ".cfi_adjust_cfa_offset 8",
    "pop rbp",
    ".cfi_adjust_cfa_offset -8",
    "ret",
    ".cfi_endproc",
    ".size heapscope_calibration, . - heapscope_calibration",
    ".popsection",
);

unsafe extern "C" {
    fn heapscope_calibration();
}

/// Where the function lies in the file that this process runs, in bytes.
///
/// # Errors
/// Where `/proc/self/maps` cannot be read, or does not show the function.
pub fn file_offset() -> io::Result<u64> {
    let address = heapscope_calibration as *const () as u64;
    let maps = fs::read_to_string("/proc/self/maps")?;
    let offset = maps.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (begin, end) = fields.next()?.split_once('-')?;
        let (begin, end) = (u64::from_str_radix(begin, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        let offset = u64::from_str_radix(fields.nth(1)?, 16).ok()?;
        (begin <= address && address < end).then(|| address - begin + offset)
    });
    offset.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// How long a call of the function takes at present: the least of several measurements.
#[must_use]
pub fn nanoseconds_per_call() -> f64 {
    let measure = || {
        let start = Instant::now();
        for _ in 0..CALLS {
            // SAFETY: the assembly above: it touches its own stack slot and returns.
            unsafe { heapscope_calibration() };
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
    };
    (0..3).map(|_| measure()).fold(f64::INFINITY, f64::min)
}
