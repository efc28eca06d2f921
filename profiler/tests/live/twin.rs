//! The walk in user space over the memory of a process that stands still: the twin of the walk in BPF, with tables made
//! anew from the files that the process has mapped.

use std::{fs::File, os::unix::fs::FileExt};

use heapscope::{
    target::{maps::Maps, module_cache::ModuleCache, process::Process},
    unwind::{
        rows::rows,
        table::{Capacity, TableBuilder},
        walk::{Rbx, Registers, Walk, walk},
    },
};
use profiler_common::tables::MappingRange;

/// The tables of a process, and its memory.
pub(crate) struct Twin {
    builder: TableBuilder,
    mappings: Vec<MappingRange>,
    memory: File,
}

impl Twin {
    pub(crate) fn of(pid: u32) -> Self {
        let process = Process::open(pid).unwrap();
        let maps = Maps::read(&process).unwrap();
        let mut cache = ModuleCache::default();
        let mut builder = TableBuilder::new(Capacity { chunks: 512, pages: 1 << 16, rules: 16384 });
        // A file has one executable mapping as a rule; where it has two, its table is made twice.
        let mappings = maps.executable().filter(|mapping| mapping.range.end.0 < 1 << 63);
        let mappings = mappings.map(|mapping| {
            let (begin, end) = (mapping.range.start, mapping.range.end);
            let described = cache.open(&process, mapping).ok().flatten().and_then(|module| {
                let rows = rows(&module.data().ok()?).ok()?;
                Some(builder.add_module(&rows).unwrap().mapping(begin, end, module.bias(mapping)?))
            });
            described.unwrap_or(MappingRange { begin: begin.0, end: end.0, ..MappingRange::default() })
        });
        let mappings = mappings.collect();
        Self { builder, mappings, memory: File::open(process.path("mem")).unwrap() }
    }

    /// Walks from the first instruction of a function, where the return address lies at `sp`.
    pub(crate) fn walk_from_entry(&self, sp: u64, bp: u64) -> Walk {
        let mut read = |address| {
            let mut word = [0; 8];
            self.memory.read_exact_at(&mut word, address).ok().map(|()| u64::from_le_bytes(word))
        };
        let ip = read(sp).unwrap();
        // rbx is not known here; only a stack through a lazy binding needs it.
        let registers = Registers { ip, sp: sp + 8, bp, bx: Rbx::Value(0) };
        walk(registers, &self.builder.tables(&self.mappings), &mut read)
    }
}
