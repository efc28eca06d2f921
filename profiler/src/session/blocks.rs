//! Live blocks, out of the kernel and into the ledger: by the million, so in several threads.
//!
//! Reading waits for the kernel's memory, adding up waits for ours. So blocks are dealt out by their sites, and those of some
//! thousand sites at a time, which fit a cache, are sorted and added to a ledger of their own.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use profiler_common::records::LiveBlock;

use crate::{
    ledger::Ledger,
    probe::{ebpf::EbpfProbe, error::ProbeError},
};

/// Blocks that a thread holds before they are added up, 32 bytes each.
const AT_ONCE: usize = 1 << 21;
/// So many blocks are worth a thread.
const FOR_A_THREAD: u64 = 1 << 18;
/// Threads that a reading takes at most: the machine has other things to do.
const MOST_THREADS: u64 = 4;
/// Ledgers that the sites of many blocks are dealt out to; a power of two.
const SHARES: usize = 16;
/// Each thread begins so many ledgers behind the one before it.
const APART: usize = SHARES / 4;

/// Adds all live blocks, of which there are about so many, to copies of a ledger, and puts these together.
///
/// # Errors
/// As [`EbpfProbe::live_blocks`].
pub(super) fn read_blocks(probe: &EbpfProbe, blocks: u64, empty: &Ledger) -> Result<Ledger, ProbeError> {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let threads = (blocks / FOR_A_THREAD).clamp(1, cores.min(MOST_THREADS));
    let shares = if blocks < FOR_A_THREAD { 1 } else { SHARES };
    let reading = Reading {
        probe,
        next_part: AtomicUsize::new(0),
        ledgers: (0..shares).map(|_| Mutex::new(empty.share(shares))).collect(),
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map(|number| {
                scope.spawn({
                    let reading = &reading;
                    move || reading.read_parts(usize::try_from(number).unwrap_or(0))
                })
            })
            .collect();
        reading.read_parts(0)?;
        for other in others {
            other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok::<(), ProbeError>(())
    })?;
    let mut all = empty.clone();
    for ledger in reading.ledgers {
        all.absorb(ledger.into_inner().unwrap_or_else(PoisonError::into_inner));
    }
    Ok(all)
}

/// What the threads share.
struct Reading<'a> {
    probe: &'a EbpfProbe,
    /// The part of the kernel's table that nobody reads yet.
    next_part: AtomicUsize,
    /// Each has the sites of its share.
    ledgers: Vec<Mutex<Ledger>>,
}

impl Reading<'_> {
    /// Adds the blocks of one part of the kernel's table after the other, as long as there are parts that nobody reads.
    fn read_parts(&self, thread: usize) -> Result<(), ProbeError> {
        let mut dealt: Vec<Vec<LiveBlock>> = vec![Vec::new(); self.ledgers.len()];
        let mut held = 0;
        loop {
            let part = self.next_part.fetch_add(1, Ordering::Relaxed);
            if part >= self.probe.live_parts() {
                self.add(&mut dealt, thread);
                return Ok(());
            }
            self.probe.live_blocks(part, |blocks| {
                for block in blocks {
                    if let Some(share) = dealt.get_mut(share_of(block.site, self.ledgers.len())) {
                        share.push(*block);
                    }
                }
                held += blocks.len();
                if held >= AT_ONCE {
                    self.add(&mut dealt, thread);
                    held = 0;
                }
            })?;
        }
    }

    /// Adds what was dealt out, to another ledger than the other threads where that can be.
    fn add(&self, dealt: &mut [Vec<LiveBlock>], thread: usize) {
        let first = thread * APART % self.ledgers.len();
        for at in (first..self.ledgers.len()).chain(0..first) {
            if let (Some(ledger), Some(blocks)) = (self.ledgers.get(at), dealt.get_mut(at)) {
                ledger.lock().unwrap_or_else(PoisonError::into_inner).add_blocks(blocks);
                blocks.clear();
            }
        }
    }
}

/// Whose share a site is: its key is a hash, so all are alike.
fn share_of(site: u64, shares: usize) -> usize {
    usize::try_from(site >> 8 & 0xffff).unwrap_or(0) & (shares - 1)
}
