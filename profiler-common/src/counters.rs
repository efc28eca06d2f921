//! One counter for each thing that the BPF side counts, above all for each reason of a loss.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $index:literal, $label:literal;)*) => {
        /// What is counted in the target. The value is the index in the BPF array `COUNTERS`.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Counter { $($(#[$doc])* $name = $index,)* }

        impl Counter {
            /// Every counter, in the order of its index.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name that the files and the terminal use.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

counters! {
    /// Allocations recorded (pprof's alloc_objects). Where nothing is sampled, the probes count [`Self::RecordedBlocks`] alone.
    AllocObjects = 0, "alloc_objects";
    /// Bytes asked for by them (pprof's alloc_space).
    AllocSpace = 1, "alloc_space";
    /// Recorded blocks that were freed again.
    FreedObjects = 2, "freed_objects";
    /// Bytes of those.
    FreedSpace = 3, "freed_space";
    /// Frees of blocks that are older than the attach, or that were filtered out. Not an error.
    UnmatchedFrees = 4, "unmatched_frees";
    /// Allocator calls that returned no memory. Nothing to record.
    FailedAllocations = 5, "failed_allocations";
    /// Allocations outside `--min-size` and `--max-size`.
    FilteredAllocations = 6, "filtered_allocations";
    /// Runs of our probes in the target, entries and returns alike: what the overhead is computed from. The probes count here
    /// those that are not [`Self::UnsampledAllocations`] or [`Self::MeasuredAllocations`].
    ProbeHits = 7, "probe_hits";
    /// Lost: the map of live blocks was full, or the kernel had no memory for one more.
    LiveMapFull = 8, "live_map_full";
    /// Lost: the map of sites was full.
    SiteMapFull = 9, "site_map_full";
    /// Lost: a call entered the allocator and could not be remembered until its return.
    PendingMapFull = 10, "pending_map_full";
    /// A block was handed out while the ledger still held it as live: its free was not seen. The older record was
    /// closed.
    AddressClash = 11, "address_clash";
    /// A return was seen without its entry: the call was under way when the probes came.
    UnpairedReturn = 12, "unpaired_return";
    /// The stack record of a site did not fit the ring buffer. It is sent again with the site's next allocation.
    RingFull = 13, "stack_record_lost";
    /// An allocation has no stack because every scratch slot was claimed by a preempted walk.
    ScratchBusy = 14, "scratch_busy";
    /// Stacks cut at the frame limit.
    StackTruncated = 15, "truncated_stacks";
    /// Stacks that ended at an address in no known mapping.
    StackNoMapping = 16, "no_mapping";
    /// Stacks that ended where there is no unwind information and no plausible frame pointer.
    StackNoTable = 17, "no_unwind_info";
    /// Stacks that ended at a rule that the walker does not support.
    StackUnsupported = 18, "unsupported_rule";
    /// Stacks that ended because the target's stack could not be read.
    StackUnreadable = 19, "unreadable_stack";
    /// Stacks that ended because the next frame did not lie above the last.
    StackNotAdvancing = 20, "stack_not_advancing";
    /// Frames found by a frame-pointer guess, where there is no unwind information.
    GuessedFrames = 21, "guessed_frames";
    /// Stacks taken. The probes count here those that were walked, and the others as [`Self::StacksRecognised`].
    StacksWalked = 22, "stacks_walked";
    /// Allocator calls inside an allocator call, counted once: as the outer one.
    NestedCalls = 23, "nested_calls";
    /// Of the stacks taken, those recognised by their return addresses, without a search.
    StacksRecognised = 24, "recognised_stacks";
    /// Blocks recorded without the name of their thread, which could not be kept: there are too many names.
    ThreadNameLost = 25, "thread_name_lost";
    /// Stacks whose Python frames were cut at the limit.
    PythonTruncated = 26, "python_truncated";
    /// Stacks whose Python frames could not be read to the last.
    PythonUnreadable = 27, "python_unreadable";
    /// Stacks without Python frames because the interpreter's state that the thread keeps is not its own.
    PythonNotOurs = 28, "python_state_unknown";
    /// Lost: the record of a call of mmap, munmap or mremap did not fit its ring buffer.
    MappingRecordLost = 29, "mapping_record_lost";
    /// While sampling, allocator calls that were left at their entry.
    UnsampledAllocations = 30, "unsampled_allocations";
    /// Pools that pymalloc has opened.
    PoolsOpened = 31, "pools_opened";
    /// Lost: a pool could not be kept, or what was to be one was none.
    PoolLost = 32, "pool_lost";
    /// What a code object of Python says did not fit its ring buffer. User space reads it itself, if it comes in time.
    PythonCodeLost = 33, "python_code_lost";
    /// While sampling, bytes asked for by calls that were left at their entry.
    UnsampledSpace = 34, "unsampled_space";
    /// Blocks recorded, each once, whatever it stands for.
    RecordedBlocks = 35, "recorded_blocks";
    /// Allocator calls, counted and left before anything was recorded.
    MeasuredAllocations = 36, "measured_allocations";
    /// Bytes asked for by those.
    MeasuredSpace = 37, "measured_space";
    /// Blocks of an earlier window whose address was given out again: they had been freed between windows.
    GoneBetweenWindows = 38, "gone_between_windows";
    /// Allocations by other callers than those of `--only-caller`, left at their entry.
    OtherCallers = 39, "other_callers";
    /// Lost: what the program told of a block could not be read, or makes no sense.
    ToldLost = 40, "told_unreadable";
    /// Page faults that the kernel has resolved for the target.
    PageFaults = 41, "page_faults";
    /// Of those, on a page that had had one since the attach. While pages are sampled, an estimate.
    PageFaultsAgain = 42, "page_faults_again";
    /// Lost: there was no room to note who touched a page. While pages are sampled, an estimate.
    TouchedPageLost = 43, "touched_page_lost";
    /// Of the page faults, those whose stack was taken: their pages are in the sample.
    PageFaultsSampled = 44, "page_faults_sampled";
}

/// Entries of the BPF array `COUNTERS`.
pub const COUNTER_SLOTS: u32 = 64;
const _: () = assert!(Counter::ALL.len() <= COUNTER_SLOTS as usize);
