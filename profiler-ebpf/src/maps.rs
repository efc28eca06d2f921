//! Every BPF map, and every constant that the user side sets before loading.
//!
//! The sizes given here are minima: the user side sets the real ones from the target and from `--max-memory`.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::ArrayOfMaps,
    macros::{btf_map, map},
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};

use crate::{
    blocks::Bucket,
    control::Control,
    counters::{COUNTER_SLOTS, Counter},
    growth_records::{LastFault, SiteFaults, TouchedPage},
    limits::{MAX_FRAMES, MAX_PYTHON_FRAMES, THREAD_SLOTS},
    live::Part,
    memo::{Memo, Slots},
    pending::{PendingCall, PendingKey},
    pool_records::PoolSample,
    python_records::{CodeRecord, KnownContent, PythonFrame, PythonLayout},
    records::{
        MAX_THREAD_NAMES, Moments, STATE_CLOSED, STATE_GENERATION, STATE_WORDS, SiteCounters, StackHead,
        ThreadName, ThreadState,
    },
    rule_cache,
    sampler::Sampler,
    sampling::AllocatorCode,
    tables::{MappingTable, PageRows, RowChunk, Rule},
    told::Place,
};

/// What an insertion answers where the key is there already: -EEXIST of include/uapi/asm-generic/errno-base.h.
pub const ALREADY_THERE: i32 = -17;

/// Live blocks: the buckets that nearly all are in. Nobody maps it; but the values of an array that could be mapped begin at a page
/// (`array_map_alloc` of kernel/bpf/arraymap.c), so that a bucket is two cache lines. Those of others begin 312 bytes behind one.
#[map]
pub static BLOCKS: Array<Bucket> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Live blocks that found no place there, by address: hash maps, which the user side makes. The kernel gives one as many buckets
/// as the next power of two has room for; of hash maps, there can be as many as the memory allows.
#[btf_map]
pub static OVERFLOW: ArrayOfMaps<Part, 1> = ArrayOfMaps::new();

/// Counters of each site, by the hash of allocator and stack.
#[map]
pub static SITES: HashMap<u64, SiteCounters> = HashMap::with_max_entries(1 << 16, BPF_F_NO_PREALLOC);

/// Calls between their entry and their return, where the kernel keeps no cookie for them.
#[map]
pub static PENDING: HashMap<PendingKey, PendingCall> = HashMap::with_max_entries(8192, 0);

/// Blocks handed to a realloc that has not returned, with its key in `PENDING`.
#[map]
pub static REALLOCATING: HashMap<u64, PendingKey> = HashMap::with_max_entries(8192, 0);

/// The block that each thread last handed to the `free` of an allocator that the user named.
#[map]
pub static FREED: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1024, 0);

/// When each thread's last failed allocation was counted.
#[map]
pub static FAILED: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1024, 0);

/// What each thread did last, by the low bits of its id.
#[map]
pub static THREADS: Array<ThreadState> = Array::with_max_entries(THREAD_SLOTS, 0);

/// What each thread is to ask for until its next sample, by the low bits of its id. While sampling, it has as many as
/// [`THREADS`].
#[map]
pub static SAMPLERS: Array<Sampler> = Array::with_max_entries(1, 0);

/// What the user side tells the probes while they run, in its one element.
#[map]
pub static CONTROL: Array<Control> = Array::with_max_entries(1, 0);

/// Where the functions of the target's allocators lie, in its one element.
#[map]
pub static ALLOCATOR_CODE: Array<AllocatorCode> = Array::with_max_entries(1, 0);

/// Where the functions of `--only-caller` lie, in its one element.
#[map]
pub static CALLER_CODE: Array<AllocatorCode> = Array::with_max_entries(1, 0);

/// Where the arguments of the probes are that the target has itself.
#[map]
pub static TOLD_PLACES: Array<Place> = Array::with_max_entries(1, 0);

/// A number for each name of a thread.
#[map]
pub static THREAD_NAMES: HashMap<ThreadName, u64> =
    HashMap::with_max_entries(MAX_THREAD_NAMES, BPF_F_NO_PREALLOC);

/// The account's moments, in its one element.
#[map]
pub static MOMENTS: Array<Moments> = Array::with_max_entries(1, 0);

/// What is counted, by [`Counter`].
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTER_SLOTS, 0);

/// New stacks on their way to the user side.
#[map]
pub static STACKS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Calls of mmap, munmap and mremap on their way to the user side.
#[map]
pub static MAPPING_EVENTS: RingBuf = RingBuf::with_byte_size(1 << 12, 0);

/// The words that change while the probes run.
#[map]
pub static STATE: Array<u32> = Array::with_max_entries(STATE_WORDS, 0);

/// Rows of the unwind tables of all modules.
#[map]
pub static ROWS: Array<RowChunk> = Array::with_max_entries(1, 0);

/// Where each 16 KiB page of text has its rows.
#[map]
pub static PAGES: Array<PageRows> = Array::with_max_entries(1, 0);

/// The dictionary of rules.
#[map]
pub static RULES: Array<Rule> = Array::with_max_entries(1, 0);

/// What walks have found in them. (Where values of an array could be mapped, they begin at a page: an entry is in one cache line.)
#[map]
pub static RULES_FOUND: Array<rule_cache::Entry> =
    Array::with_max_entries(rule_cache::ENTRIES, BPF_F_MMAPABLE);

/// Two tables of mappings: the walkers use the one that `STATE` names, the user side writes the other.
#[map]
pub static MAPPINGS: Array<MappingTable> = Array::with_max_entries(2, 0);

/// Scratch memory of the walks under way.
#[map]
pub static SCRATCH: Array<Scratch> = Array::with_max_entries(4, 0);

/// Where stacks met before have their return addresses.
#[map]
pub static MEMOS: Array<Memo> = Array::with_max_entries(4, 0);

/// Where the target's Python keeps its frames, in its one element.
#[map]
pub static PYTHON: Array<PythonLayout> = Array::with_max_entries(1, 0);

/// What Python's code objects say, on its way to the user side.
#[map]
pub static PYTHON_CODES: RingBuf = RingBuf::with_byte_size(1 << 12, 0);

/// Which content code objects have.
#[map]
pub static CODE_CONTENTS: Array<KnownContent> = Array::with_max_entries(1, 0);

/// The contents that were sent.
#[map]
pub static PYTHON_SEEN: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1, 0);

/// The last deaths of code objects, by the hash of their address.
#[map]
pub static DEATHS: Array<u64> = Array::with_max_entries(1, 0);

/// The pools that pymalloc has opened, by their addresses.
#[map]
pub static POOLS: HashMap<u64, PoolSample> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// How many each site has opened.
#[map]
pub static POOL_SITES: HashMap<u64, u64> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Who touched which page, by its number.
#[map]
pub static TOUCHED: HashMap<u64, TouchedPage> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// How many page faults each site has had.
#[map]
pub static FAULT_SITES: HashMap<u64, SiteFaults> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// The last page fault of each thread, by the low bits of its id. While growth is watched, it has as many as [`THREADS`].
#[map]
pub static LAST_FAULTS: Array<LastFault> = Array::with_max_entries(1, 0);

/// What one walk works on. `head` and `frames` together are the record that goes to the ring buffer.
#[repr(C)]
pub struct Scratch {
    /// Not 0 while a walk uses this slot.
    pub claimed: u64,
    /// The registers of the frame that is being left.
    pub ip: u64,
    pub sp: u64,
    pub bp: u64,
    /// Where rbx lies in the stack, to be read if it is ever needed; 0 where its value is `bx`.
    pub bx_at: u64,
    /// rbx where the walk began, as long as no frame saved it; 0 where it is lost.
    pub bx: u64,
    /// Hash over the frames so far.
    pub hash: u64,
    /// Address of `window[0]` in the target, and how many bytes of it are valid.
    pub window_base: u64,
    pub window_len: u64,
    /// Index in `MAPPINGS` of the table in use, and of the mapping that held the last frame.
    pub table: u32,
    pub mapping: u32,
    /// Whether `ip` is an interrupted instruction and not a return address.
    pub interrupted: u32,
    /// Whether the frame at hand was found by a frame-pointer guess.
    pub guessing: u32,
    /// Whether the walk has gone through a signal frame: the tables hold call sites, and an interrupted instruction may
    /// get a neighbour's rule.
    pub uncertain: u32,
    /// Whether a return address lies where a memo cannot say it.
    pub forgettable: u32,
    /// Frames found by such guesses so far.
    pub guessed_frames: u64,
    /// The files that the frames so far lie in.
    pub modules: u64,
    pub head: StackHead,
    pub frames: [u64; MAX_FRAMES],
    /// Room behind the last frame for a copy of `python`.
    pub behind: [PythonFrame; MAX_PYTHON_FRAMES],
    /// Where each return address was found, as a memo has it.
    pub slots: Slots,
    /// rsp where the walk began.
    pub first_sp: u64,
    pub window: [u64; crate::limits::WINDOW_BYTES / 8],
    /// The Python frames.
    pub python: [PythonFrame; MAX_PYTHON_FRAMES],
    /// The interpreter's frame at hand, and its address.
    pub python_frame: [u64; PythonLayout::LARGEST_FRAME as usize / 8],
    pub python_at: u64,
    /// Where the walk goes on behind the first frame of an interpreter that another one called; 0 where none did.
    pub python_outer: u64,
    /// What is sent of a code object.
    pub code: CodeRecord,
    pub code_name: [u64; CodeRecord::TEXT_BYTES / 8],
    pub code_file: [u64; CodeRecord::TEXT_BYTES / 8],
    pub code_table: [u64; CodeRecord::TABLE_BYTES / 8],
    /// The head of a string or of a line table.
    pub object: [u64; 5],
}

/// Number of slots of `SCRATCH`, a power of two, less one.
#[unsafe(no_mangle)]
static SCRATCH_MASK: u32 = 3;
/// Number of slots of `MEMOS`, a power of two, less one.
#[unsafe(no_mangle)]
static MEMO_MASK: u32 = 3;
/// Number of elements of `BLOCKS`.
#[unsafe(no_mangle)]
static BUCKET_COUNT: u32 = 1;
/// Number of elements of `OVERFLOW`.
#[unsafe(no_mangle)]
static OVERFLOW_PARTS: u32 = 1;
/// When the maps were made: `CLOCK_MONOTONIC` in nanoseconds. Blocks are younger.
#[unsafe(no_mangle)]
static BEGAN: u64 = 0;
/// Allocations below this size are left out, in bytes.
#[unsafe(no_mangle)]
static MIN_SIZE: u64 = 0;
/// Allocations above this size are left out, in bytes.
#[unsafe(no_mangle)]
static MAX_SIZE: u64 = u64::MAX;
/// Not 0 where the user named an allocator. Without one, what is only for them is dead code to the verifier.
#[unsafe(no_mangle)]
static CUSTOM_ALLOCATORS: u32 = 0;
/// Not 0 where blocks are sampled, or may be some time. Without, all sampling is dead code to the verifier, and sums are those
/// of blocks; with it, they are those of weights.
#[unsafe(no_mangle)]
static SAMPLING: u32 = 0;
/// Not 0 where only calls out of certain functions are recorded. Without, looking for them is dead code to the verifier.
#[unsafe(no_mangle)]
static ONLY_CALLERS: u32 = 0;
/// The target's process id in its own pid namespace.
#[unsafe(no_mangle)]
static TARGET_PID: u32 = 0;
/// That pid namespace: device and inode of the target's `/proc/PID/ns/pid`.
#[unsafe(no_mangle)]
static PID_NAMESPACE_DEVICE: u64 = 0;
#[unsafe(no_mangle)]
static PID_NAMESPACE_INODE: u64 = 0;

/// Where in the kernel's `task_struct` the thread pointer lies; 0 where there is no Python to look for, which makes dead
/// code of all that is for it.
#[unsafe(no_mangle)]
static TASK_FSBASE: u32 = 0;
/// Where in the kernel's `task_struct` the numbers of a thread's minor and major faults lie, one behind the other; 0 where that
/// is not known.
#[unsafe(no_mangle)]
static TASK_FAULTS: u32 = 0;

macro_rules! constant {
    ($name:ident, $constant:ident, $type:ty) => {
        #[inline(always)]
        pub fn $name() -> $type {
            // SAFETY: a static of plain data; volatile, because the user side rewrites it before the program is loaded
            // and the compiler must not fold the value written above.
            unsafe { core::ptr::read_volatile(&raw const $constant) }
        }
    };
}
constant!(scratch_mask, SCRATCH_MASK, u32);
constant!(memo_mask, MEMO_MASK, u32);
constant!(bucket_count, BUCKET_COUNT, u32);
constant!(overflow_parts, OVERFLOW_PARTS, u32);
constant!(began, BEGAN, u64);
constant!(min_size, MIN_SIZE, u64);
constant!(max_size, MAX_SIZE, u64);
constant!(custom_allocators, CUSTOM_ALLOCATORS, u32);
constant!(sampling, SAMPLING, u32);
constant!(only_callers, ONLY_CALLERS, u32);
constant!(target_pid, TARGET_PID, u32);
constant!(task_fsbase, TASK_FSBASE, u32);
constant!(task_faults, TASK_FAULTS, u32);
constant!(pid_namespace_device, PID_NAMESPACE_DEVICE, u64);
constant!(pid_namespace_inode, PID_NAMESPACE_INODE, u64);

/// Adds to a word that other CPUs and preempted programs add to as well.
#[inline(always)]
pub fn atomic_add(word: *mut u64, amount: u64) {
    // SAFETY: callers pass a field of a map value that they looked up in this run.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(word, amount) };
}

/// Adds 1; what the word was before. Not relaxed: for that, LLVM takes the instruction that does not say what was there.
#[inline(always)]
pub fn atomic_fetch_add(word: *mut u32) -> u32 {
    // SAFETY: as above.
    unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::SeqCst }>(word, 1) }
}

/// Adds; what the word was before.
#[inline(always)]
pub fn atomic_fetch_add_wide(word: *mut u64, amount: u64) -> u64 {
    // SAFETY: as above.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(word, amount) }
}

/// Puts `new` in the place of `old`, if that is what is there; whether it was.
#[inline(always)]
pub fn atomic_exchange_if(word: *mut u64, old: u64, new: u64) -> bool {
    // SAFETY: as above.
    unsafe { atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(word, old, new).1 }
}

/// Counts.
#[inline(always)]
pub fn count(counter: Counter, amount: u64) {
    if let Some(slot) = COUNTERS.get_ptr_mut(counter as u32) {
        atomic_add(slot, amount);
    }
}

/// Whether the ledger is closed: the target has replaced its program, or the observation is over.
#[inline(always)]
pub fn closed() -> bool {
    STATE.get(STATE_CLOSED).is_none_or(|closed| *closed != 0)
}

/// What the user side tells; nothing where that cannot be.
#[inline(always)]
pub fn control() -> Option<&'static Control> {
    CONTROL.get(0)
}

/// Whether nothing is to be recorded: the ledger is closed, or it is the time between two windows.
#[inline(always)]
pub fn deaf() -> bool {
    // SAFETY: a word of a map value, which the user side may write.
    closed()
        || control().is_none_or(|control| unsafe { core::ptr::read_volatile(&raw const control.paused) } != 0)
}

/// Whether the probes have seen every call since this time.
#[inline(always)]
pub fn unbroken_since(time: u64) -> bool {
    // SAFETY: as above.
    control()
        .is_some_and(|control| unsafe { core::ptr::read_volatile(&raw const control.unbroken_since) } <= time)
}

/// The generation of the mapping tables to use.
#[inline(always)]
pub fn generation() -> u32 {
    STATE.get(STATE_GENERATION).copied().unwrap_or(0)
}
