//! Probes by eBPF: the one place that knows aya.
//!
//! [`EbpfProbe::load`] makes the maps and loads the programs; nothing happens in the target until
//! [`EbpfProbe::attach`]. Links and perf events are held as descriptors and nothing is pinned: however this process
//! ends, the kernel takes the probes out of the target with the last descriptor.

mod attach;
mod callers;
mod control;
mod growth;
mod kernel_types;
mod links;
mod live;
mod mappings;
mod object;
mod preparation;
mod programs;
mod python;
mod readings;
mod single;
mod tables;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    thread,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, RingBuf},
    programs::RawTracePoint,
};
use profiler_common::{
    control::Control,
    limits::THREAD_SLOTS,
    pending::{PendingCall, PendingKey},
    python::{CONTENT_SLOTS, DEATH_SLOTS},
    records::{CLOSED_BY_EXEC, CLOSED_BY_US, Moments, OVERFLOW_SITE, STATE_CLOSED, SiteCounters, ThreadName},
    sampling::AllocatorCode,
    tables::{MappingTable, PageRows, RowChunk, Rule},
    told::{MAX_PLACES, Place},
};

use self::{
    attach::Attachments,
    growth::GrowthProbe,
    object::{Programs, damaged, map_fd},
    programs::Form,
    python::PythonProbe,
};
pub use self::{
    preparation::Preparation,
    python::{PythonEvent, PythonPoint},
};
use super::{AttachMethod, ProbePoint, ProbeSettings, StackRecord, error::ProbeError, rights};
use crate::sys::{
    bpf::{
        self, RunTime,
        map::{PerCpuWords, TypedMap},
    },
    clock::monotonic_nanoseconds,
};

/// What one site takes in the kernel, in bytes: its hash element, rounded to a slab object, and one bucket (measured; see
/// docs/limits.md).
const BYTES_PER_SITE: u64 = 272;
/// What the memo of one stack takes in the kernel, in bytes.
const BYTES_PER_MEMO: u64 = 300;

/// The probes on one target, with the maps that they fill.
pub struct EbpfProbe {
    ebpf: Ebpf,
    attachments: Attachments,
    stacks: RingBuf<MapData>,
    mapping_events: Option<RingBuf<MapData>>,
    live: live::Table,
    sites: TypedMap<u64, SiteCounters>,
    pending: TypedMap<PendingKey, PendingCall>,
    reallocating: TypedMap<u64, PendingKey>,
    control_map: TypedMap<u32, Control>,
    control: Control,
    sampling: bool,
    counters: PerCpuWords,
    moments: TypedMap<u32, Moments>,
    thread_names: TypedMap<ThreadName, u64>,
    state: TypedMap<u32, u32>,
    rows: TypedMap<u32, RowChunk>,
    pages: TypedMap<u32, PageRows>,
    rules: TypedMap<u32, Rule>,
    mappings: TypedMap<u32, MappingTable>,
    allocator_code: TypedMap<u32, AllocatorCode>,
    caller_code: TypedMap<u32, AllocatorCode>,
    told_places: TypedMap<u32, Place>,
    python: PythonProbe,
    growth: Option<GrowthProbe>,
    generation: u32,
    exec_watched: bool,
}

impl EbpfProbe {
    /// Makes the maps and loads the programs.
    fn load_from(
        object: &[u8],
        preparation: Preparation,
        settings: &ProbeSettings,
    ) -> Result<Self, ProbeError> {
        let Preparation { kernel: types, loader } = preparation;
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let kernel = rights::kernel_version(&release);
        if kernel.is_some_and(|version| version < (5, 15)) {
            return Err(ProbeError::KernelTooOld { release });
        }
        if settings.growth && rights::kernel_version(&release).is_some_and(|version| version < (6, 1)) {
            return Err(ProbeError::NoGrowth { release });
        }
        let form = Form::of(kernel);
        let fsbase = if settings.python && form == Form::Whole { types.fsbase_in_task() } else { None };
        let faults = if settings.growth { types.faults_in_task() } else { None };
        // Sites may take a quarter of the memory, stacks on their way and stacks to be recognised less than an eighth.
        // While growth is watched, there are no blocks, and pages take that part.
        let for_live = settings.max_memory / 8 * 5;
        let room = live::Room::in_memory(if settings.growth { 1 << 20 } else { for_live });
        let began = monotonic_nanoseconds();
        let mut ebpf = load_maps(loader, object, settings, room, [fsbase, faults], began)?;
        let programs = Programs::new(&ebpf, object)?;
        // The kernel takes its time for each program, and none of them needs another.
        let (attachments, live, python, growth, exec_watched) = thread::scope(|scope| {
            let attachments = scope.spawn(|| Attachments::load(&programs, &types, settings, form));
            let live = live::Table::make(&ebpf, room, began);
            let python = fsbase.map(|_| PythonProbe::load(&programs, &mut ebpf, settings)).transpose();
            let growth = settings.growth.then(|| GrowthProbe::load(&programs, &ebpf)).transpose();
            let exec_watched = watch_exec(&mut ebpf);
            let attachments = attachments.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok::<_, ProbeError>((attachments?, live?, python?.unwrap_or_default(), growth?, exec_watched))
        })?;
        attachments.load_by_perf(&mut ebpf, settings)?;
        let stacks = ring(&mut ebpf, "STACKS")?;
        let mapping_events = if settings.mappings { Some(ring(&mut ebpf, "MAPPING_EVENTS")?) } else { None };
        let probe = Self {
            stacks,
            mapping_events,
            live,
            sites: typed(&ebpf, "SITES")?,
            pending: typed(&ebpf, "PENDING")?,
            reallocating: typed(&ebpf, "REALLOCATING")?,
            control_map: typed(&ebpf, "CONTROL")?,
            control: settings.control,
            sampling: settings.sampling,
            counters: PerCpuWords::new(map_fd(ebpf.map("COUNTERS").ok_or_else(|| damaged("no COUNTERS"))?)?)
                .map_err(map_error("COUNTERS"))?,
            moments: typed(&ebpf, "MOMENTS")?,
            thread_names: typed(&ebpf, "THREAD_NAMES")?,
            state: typed(&ebpf, "STATE")?,
            rows: typed(&ebpf, "ROWS")?,
            pages: typed(&ebpf, "PAGES")?,
            rules: typed(&ebpf, "RULES")?,
            mappings: typed(&ebpf, "MAPPINGS")?,
            allocator_code: typed(&ebpf, "ALLOCATOR_CODE")?,
            caller_code: typed(&ebpf, "CALLER_CODE")?,
            told_places: typed(&ebpf, "TOLD_PLACES")?,
            python,
            growth,
            generation: 0,
            exec_watched,
            ebpf,
            attachments,
        };
        probe.publish_control()?;
        probe
            .sites
            .update(&OVERFLOW_SITE, &SiteCounters { stack_sent: 1, ..SiteCounters::EMPTY })
            .map_err(|source| ProbeError::Map { name: "SITES", source })?;
        Ok(probe)
    }

    /// How the probes are attached.
    #[must_use]
    pub fn method(&self) -> AttachMethod {
        self.attachments.method()
    }

    /// Whether the kernel tells us when the target replaces its program.
    #[must_use]
    pub fn exec_watched(&self) -> bool {
        self.exec_watched
    }

    /// Places probes: those that end a block's life first, so that no block is entered whose end would be missed.
    ///
    /// # Errors
    /// [`ProbeError::Attach`] with the file at fault.
    pub fn attach(&mut self, points: &[ProbePoint]) -> Result<(), ProbeError> {
        self.attachments.attach(&mut self.ebpf, points)
    }

    /// Ends the account at one moment, then takes every probe out of the target, which takes longer. The maps stay
    /// readable.
    pub fn detach(&mut self) {
        // Were the probes taken out one after the other while they count, frees would be seen for longer than
        // allocations. A failure leaves it at that.
        let _ = self.state.update(&STATE_CLOSED, &CLOSED_BY_US);
        if let Some(growth) = &mut self.growth {
            growth.detach();
        }
        self.detach_python();
        self.attachments.detach(&mut self.ebpf);
    }

    /// The number of the mapping table that the walkers use: [`StackHead::generation`] of the stacks that they take.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether the target has replaced its program by exec, which closed the ledger.
    ///
    /// # Errors
    /// [`ProbeError::Map`].
    pub fn closed(&self) -> Result<bool, ProbeError> {
        let closed = self.state.look_up(&STATE_CLOSED);
        let closed = closed.map_err(|source| ProbeError::Map { name: "STATE", source })?;
        Ok(closed == Some(CLOSED_BY_EXEC))
    }

    /// Readable while there are [`Self::new_stacks`]; what wakes those who wait for it is a stack with Python frames.
    #[must_use]
    pub fn stacks_descriptor(&self) -> BorrowedFd<'_> {
        self.stacks.as_fd()
    }

    /// Hands out the stacks that were met for the first time since the last call.
    pub fn new_stacks(&mut self, mut each: impl FnMut(StackRecord)) {
        while let Some(item) = self.stacks.next() {
            if let Some(stack) = StackRecord::parse(&item) {
                each(stack);
            }
        }
    }

    /// What one hit costs on this machine without our program's work, in nanoseconds; `None` where it cannot be
    /// measured. It takes some tens of milliseconds, none of them in the target.
    ///
    /// # Errors
    /// What the system answers to a probe on ourselves.
    pub fn calibrate(&self) -> io::Result<Option<f64>> {
        self.attachments.calibrate()
    }

    /// Run time of our programs while [`bpf::enable_run_time_stats`] was on.
    #[must_use]
    pub fn run_time(&self) -> RunTime {
        let mut sum = self.attachments.run_time();
        let others = self.python.programs().chain(self.growth.iter().flat_map(GrowthProbe::programs));
        for run in others.filter_map(|(_, program)| bpf::run_time(program.as_fd()).ok()) {
            sum.nanoseconds += run.nanoseconds;
            sum.runs += run.runs;
        }
        sum
    }

    /// Each program that runs in the target with the number of instructions that the verifier followed to let it in;
    /// empty where probes are perf events.
    ///
    /// # Errors
    /// What bpf(2) answers.
    pub fn verified_instructions(&self) -> io::Result<Vec<(&'static str, u32)>> {
        let mut programs = self.attachments.verified_instructions()?;
        for (name, program) in
            self.python.programs().chain(self.growth.iter().flat_map(GrowthProbe::programs))
        {
            programs.push((name, bpf::verified_instructions(program.as_fd())?));
        }
        Ok(programs)
    }
}

/// Makes the maps with their real sizes.
fn load_maps(
    loader: EbpfLoader<'static>,
    object: &[u8],
    settings: &ProbeSettings,
    room: live::Room,
    in_task: [Option<u32>; 2],
    began: u64,
) -> Result<Ebpf, ProbeError> {
    let sites = (settings.max_memory / 4 / BYTES_PER_SITE).clamp(1 << 12, 1 << 20);
    let memos =
        u32::try_from(settings.max_memory / 16 / BYTES_PER_MEMO).unwrap_or(1 << 20).clamp(1 << 10, 1 << 20);
    let memos: u32 = 1 << memos.ilog2();
    let memo_mask = memos - 1;
    let cpus = aya::util::nr_cpus().map_err(|(path, source)| {
        ProbeError::Object(format!("the number of CPUs is unknown ({path}: {source})"))
    })?;
    // Four slots a CPU: a walk would have to be preempted by three others on its CPU before one goes without.
    let slots = u32::try_from(cpus * 4).unwrap_or(4096).next_power_of_two();
    let scratch_mask = slots - 1;
    // A ring buffer is a power of two of pages. A process that starts up meets thousands of new stacks in a moment.
    let ring = u32::try_from(settings.max_memory / 32).unwrap_or(1 << 26).clamp(1 << 20, 1 << 26);
    let ring = 1 << ring.ilog2();
    let [content_slots, death_slots] =
        [CONTENT_SLOTS, DEATH_SLOTS].map(|slots| u32::try_from(slots).unwrap_or(1));
    // Of 16 KiB each (4 KiB before CPython 3.10): at 256 MiB room for 1 GiB of them.
    let pools = u32::try_from(settings.max_memory / 4096).unwrap_or(1 << 20).clamp(1 << 12, 1 << 20);
    let told_places = u32::try_from(MAX_PLACES).unwrap_or(1);
    let custom_allocators = u32::from(settings.custom_allocators);
    let (sampling, only_callers) = (u32::from(settings.sampling), u32::from(settings.only_callers));
    let [fsbase, faults] = in_task.map(|offset| offset.unwrap_or(0));
    let touched = if settings.growth { settings.max_memory / 8 * 5 / growth::BYTES_PER_PAGE } else { 1 };
    // What is told to it lives no longer than this.
    let mut loader: EbpfLoader<'_> = loader;
    loader
        .map_max_entries("BLOCKS", room.buckets)
        .map_max_entries("OVERFLOW", room.parts)
        .map_max_entries("SITES", u32::try_from(sites).unwrap_or(1 << 20))
        .map_max_entries("SCRATCH", slots)
        .map_max_entries("STACKS", ring)
        .map_max_entries("MAPPING_EVENTS", if settings.mappings { ring } else { 1 << 12 })
        .map_max_entries("MEMOS", memos)
        .map_max_entries("PYTHON_CODES", if settings.python { ring } else { 1 << 12 })
        .map_max_entries("PYTHON_SEEN", if settings.python { 1 << 14 } else { 1 })
        .map_max_entries("CODE_CONTENTS", if settings.python { content_slots } else { 1 })
        .map_max_entries("DEATHS", if settings.python { death_slots } else { 1 })
        .map_max_entries("POOLS", if settings.python { pools } else { 1 })
        .map_max_entries("POOL_SITES", if settings.python { pools / 4 } else { 1 })
        .map_max_entries("SAMPLERS", if settings.sampling { THREAD_SLOTS } else { 1 })
        .map_max_entries("TOLD_PLACES", if settings.told { told_places } else { 1 })
        .map_max_entries("TOUCHED", u32::try_from(touched).unwrap_or(1 << 26))
        .map_max_entries(
            "FAULT_SITES",
            if settings.growth { u32::try_from(sites).unwrap_or(1 << 20) } else { 1 },
        )
        .map_max_entries("LAST_FAULTS", if settings.growth { THREAD_SLOTS } else { 1 })
        .map_max_entries("ROWS", settings.row_chunks.max(1))
        .map_max_entries("PAGES", settings.pages.max(1))
        .map_max_entries("RULES", settings.rules.max(1))
        .override_global("SCRATCH_MASK", &scratch_mask, true)
        .override_global("MEMO_MASK", &memo_mask, true)
        .override_global("BUCKET_COUNT", &room.buckets, true)
        .override_global("OVERFLOW_PARTS", &room.parts, true)
        .override_global("BEGAN", &began, true)
        .override_global("MIN_SIZE", &settings.min_size, true)
        .override_global("MAX_SIZE", &settings.max_size, true)
        .override_global("SAMPLING", &sampling, true)
        .override_global("ONLY_CALLERS", &only_callers, true)
        .override_global("CUSTOM_ALLOCATORS", &custom_allocators, true)
        .override_global("TASK_FSBASE", &fsbase, true)
        .override_global("TASK_FAULTS", &faults, true)
        .override_global("TARGET_PID", &settings.identity.pid, true)
        .override_global("PID_NAMESPACE_DEVICE", &settings.identity.namespace_device, true)
        .override_global("PID_NAMESPACE_INODE", &settings.identity.namespace_inode, true);
    loader.load(object).map_err(|error| match attach::io_cause(&error) {
        Some(source) if source.kind() == io::ErrorKind::PermissionDenied => rights::explain(&source),
        Some(source) => ProbeError::Map { name: "of the account", source },
        None => ProbeError::Object(error.to_string()),
    })
}

/// Watches for the target replacing its program; whether that worked.
fn watch_exec(ebpf: &mut Ebpf) -> bool {
    let Some(program) = ebpf.program_mut("on_exec") else { return false };
    let Ok(program) = <&mut RawTracePoint>::try_from(program) else { return false };
    program.load().is_ok() && program.attach("sched_process_exec").is_ok()
}

/// A ring buffer, to be read.
fn ring(ebpf: &mut Ebpf, name: &'static str) -> Result<RingBuf<MapData>, ProbeError> {
    let ring = ebpf.take_map(name).ok_or_else(|| damaged(format!("no map {name}")))?;
    RingBuf::try_from(ring).map_err(damaged)
}

fn typed<K, V>(ebpf: &Ebpf, name: &'static str) -> Result<TypedMap<K, V>, ProbeError>
where
    K: bytemuck::NoUninit + bytemuck::AnyBitPattern,
    V: bytemuck::NoUninit + bytemuck::AnyBitPattern,
{
    let map = ebpf.map(name).ok_or_else(|| damaged(format!("no map {name}")))?;
    TypedMap::new(map_fd(map)?).map_err(map_error(name))
}

fn map_error(name: &'static str) -> impl FnOnce(io::Error) -> ProbeError {
    move |source| ProbeError::Map { name, source }
}

/// Run-time statistics of the kernel, on while this lives.
///
/// # Errors
/// What bpf(2) answers.
pub fn enable_run_time_stats() -> io::Result<OwnedFd> {
    bpf::enable_run_time_stats()
}
