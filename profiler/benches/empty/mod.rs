//! Probes that do nothing, in the places where heapscope's are: what no tracer from outside goes below.

use std::fs;

use heapscope::{
    probe::{AttachMethod, Position, ProbePoint, ProbeSettings, ebpf::EbpfProbe},
    target::{allocator, maps::Maps, module_cache::ModuleCache, placement, process::Process},
    unwind::table::Capacity,
};
use profiler_common::records::{Call, CallKind};

/// Where they are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Places {
    /// At the entry of malloc and of free.
    Entries,
    /// The same, and at malloc's return, all by one session.
    Session,
}

/// The BPF object that has them, as `cargo xtask bench` builds it. By words, so that it is aligned.
pub(crate) struct Object(Vec<u64>);

impl Object {
    /// Reads it; `None` where nobody has built it.
    pub(crate) fn read() -> Option<Self> {
        let bytes = fs::read(std::env::var_os("HEAPSCOPE_MEASURING_OBJECT")?).unwrap();
        let mut object = vec![0u64; bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut object)[..bytes.len()].copy_from_slice(&bytes);
        Some(Self(object))
    }

    /// Makes its maps and loads its programs.
    pub(crate) fn load(&self, settings: &ProbeSettings) -> EbpfProbe {
        EbpfProbe::load_object(bytemuck::cast_slice(&self.0), settings).unwrap()
    }

    /// Places such probes in a process.
    pub(crate) fn attach(&self, pid: u32, places: Places) -> EbpfProbe {
        let process = Process::open(pid).unwrap();
        let found =
            allocator::find(&process, &Maps::read(&process).unwrap(), &mut ModuleCache::default()).unwrap();
        let method = if places == Places::Session { AttachMethod::Session } else { AttachMethod::Multi };
        let settings = settings(&process, method, 1 << 20, Capacity { chunks: 1, pages: 1, rules: 1 });
        let mut probe = self.load(&settings);
        // A program has its own beside the C library's, or not.
        let both = found.found.iter().flat_map(|of| ["malloc", "free"].map(|name| (of, name)));
        let points: Vec<_> = both
            .filter_map(|(of, name)| Some((of, of.functions.iter().find(|function| function.name == name)?)))
            .map(|(of, function)| {
                let call = if places == Places::Session { function.call } else { Call::free(0) };
                assert!(call.kind == CallKind::Free || call.needs_return());
                ProbePoint {
                    path: of.module.attach_path().unwrap(),
                    offset: placement::place(&of.module, function).unwrap().file_offset,
                    call,
                    allocator: 0,
                    function: 0,
                    custom: false,
                    position: Position::Called,
                }
            })
            .collect();
        assert!(!points.is_empty(), "no malloc was found");
        probe.attach(&points).unwrap();
        probe
    }
}

/// Every block, and nothing besides, in so many bytes of kernel memory.
pub(crate) fn settings(
    process: &Process,
    method: AttachMethod,
    max_memory: u64,
    capacity: Capacity,
) -> ProbeSettings {
    let settings = ProbeSettings::every_block(process.pid, process.own_identity().unwrap(), max_memory);
    let Capacity { chunks: row_chunks, pages, rules } = capacity;
    ProbeSettings { method: Some(method), row_chunks, pages, rules, ..settings }
}
