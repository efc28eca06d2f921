//! Live blocks, out of the kernel and into the ledger: by the million, so in several threads.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use profiler_common::records::LiveBlock;

use crate::{
    ledger::Ledger,
    probe::{ebpf::EbpfProbe, error::ProbeError},
};

/// Blocks that are sorted before they are added up, 32 bytes each.
const AT_ONCE: usize = 1 << 20;
/// So many blocks are worth a thread.
const FOR_A_THREAD: u64 = 1 << 18;
/// Threads that a reading takes at most: the machine has other things to do.
const MOST_THREADS: u64 = 4;

/// Adds all live blocks, of which there are about so many, to copies of a ledger, and puts these together.
///
/// # Errors
/// As [`EbpfProbe::live_blocks`].
pub(super) fn read_blocks(probe: &EbpfProbe, blocks: u64, empty: &Ledger) -> Result<Ledger, ProbeError> {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let threads = (blocks / FOR_A_THREAD).clamp(1, cores.min(MOST_THREADS));
    let next_part = AtomicUsize::new(0);
    let read = || read_parts(probe, &next_part, empty.clone());
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(read)).collect();
        let mut ledger = read()?;
        for other in others {
            ledger.absorb(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(ledger)
    })
}

/// Adds the blocks of one part of their table after the other, as long as there are parts that nobody reads.
fn read_parts(probe: &EbpfProbe, next_part: &AtomicUsize, mut ledger: Ledger) -> Result<Ledger, ProbeError> {
    let mut some: Vec<LiveBlock> = Vec::new();
    loop {
        let part = next_part.fetch_add(1, Ordering::Relaxed);
        if part >= probe.live_parts() {
            ledger.add_blocks(&mut some);
            return Ok(ledger);
        }
        probe.live_blocks(part, |blocks| {
            some.extend_from_slice(blocks);
            if some.len() >= AT_ONCE {
                ledger.add_blocks(&mut some);
                some.clear();
            }
        })?;
    }
}
