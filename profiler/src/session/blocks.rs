//! Live blocks, out of the kernel and into the ledger: by the million, so in several threads.

use std::thread;

use profiler_common::records::LiveBlock;

use crate::{
    ledger::Ledger,
    probe::{ebpf::EbpfProbe, error::ProbeError},
};

/// Blocks that are sorted before they are added up, 32 bytes each.
const AT_ONCE: usize = 1 << 19;
/// So many blocks are worth a thread.
const FOR_A_THREAD: u64 = 1 << 18;
/// Threads that a reading takes at most: the machine has other things to do.
const MOST_THREADS: u32 = 4;

/// Adds all live blocks, of which there are about so many, to copies of a ledger, and puts these together.
///
/// # Errors
/// As [`EbpfProbe::live_blocks`].
pub(super) fn read_blocks(probe: &EbpfProbe, blocks: u64, empty: &Ledger) -> Result<Ledger, ProbeError> {
    let cores =
        thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
    let worth = u32::try_from(blocks / FOR_A_THREAD).unwrap_or(u32::MAX);
    let threads = worth.clamp(1, cores.min(MOST_THREADS));
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map(|part| scope.spawn(move || read_part(probe, part, threads, empty.clone())))
            .collect();
        let mut ledger = read_part(probe, 0, threads, empty.clone())?;
        for other in others {
            ledger.absorb(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(ledger)
    })
}

fn read_part(probe: &EbpfProbe, part: u32, parts: u32, mut ledger: Ledger) -> Result<Ledger, ProbeError> {
    let mut some: Vec<LiveBlock> = Vec::new();
    probe.live_blocks(part, parts, |block| {
        some.push(*block);
        if some.len() == AT_ONCE {
            ledger.add_blocks(&mut some);
            some.clear();
        }
    })?;
    ledger.add_blocks(&mut some);
    Ok(ledger)
}
