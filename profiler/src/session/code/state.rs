//! The target's executable mappings as one look found them.

use std::sync::Arc;

use indexmap::IndexSet;
use profiler_common::{limits::MAX_MAPPINGS, tables::MappingRange};

use crate::{
    report::profile::CodeMapping,
    target::{
        address::FileOffset,
        maps::{Mapping, MappingKind, Maps},
        module::Module,
    },
};

/// The walkers compare addresses as signed numbers; user space ends well below.
const END_OF_USER_SPACE: u64 = 1 << 63;

/// An executable mapping and what is known of it.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) range: MappingRange,
    /// The offset in the file that its first address shows.
    pub(super) offset: FileOffset,
    /// The file, and what the loader added to its addresses.
    pub(super) module: Option<(Arc<Module>, u64)>,
}

/// The target's code as one look found it.
#[derive(Debug)]
pub(super) struct State {
    /// The number under which the walkers know it, once they do.
    pub(super) generation: Option<u32>,
    /// When it began to be read: `CLOCK_MONOTONIC` in nanoseconds.
    pub(super) read: u64,
    /// When the last look that found the same began. In between there may have been something else.
    pub(super) confirmed: u64,
    /// By address.
    pub(super) placed: Vec<Placed>,
}

impl State {
    /// The mapping that holds this address.
    pub(super) fn at(&self, address: u64) -> Option<&Placed> {
        let after = self.placed.partition_point(|placed| placed.range.begin <= address);
        self.placed.get(after.checked_sub(1)?).filter(|placed| address < placed.range.end)
    }

    /// The mappings as the walkers take them, and how many they have no room for. Those without tables are left out
    /// first: in them the walk could only guess.
    pub(super) fn ranges(&self) -> (Vec<MappingRange>, usize) {
        let all = self.placed.as_slice();
        let tables = all.iter().filter(|placed| placed.range.pages > 0).count();
        let mut guessable = MAX_MAPPINGS.saturating_sub(tables);
        let chosen = all.iter().map(|placed| placed.range).filter(|range| {
            let chosen = range.pages > 0 || guessable > 0;
            guessable = guessable.saturating_sub(usize::from(range.pages == 0));
            chosen
        });
        let chosen: Vec<_> = chosen.take(MAX_MAPPINGS).collect();
        let left_out = all.len() - chosen.len();
        (chosen, left_out)
    }
}

impl Placed {
    /// Whether both show the same place of the same file.
    pub(super) fn shows_the_same(&self, other: &Self) -> bool {
        match (&self.module, &other.module) {
            (Some((module, bias)), Some((others, others_bias))) => {
                Arc::ptr_eq(module, others) && bias == others_bias
            }
            (None, None) => true,
            _ => false,
        }
    }
}

/// The files that the states have mapped, each place once.
pub(super) fn mapped_files(states: &[State]) -> Vec<CodeMapping> {
    let mut files = IndexSet::new();
    for placed in states.iter().flat_map(|state| &state.placed) {
        let Some((module, _)) = &placed.module else { continue };
        let hex = |id: &Vec<u8>| id.iter().map(|byte| format!("{byte:02x}")).collect();
        files.insert(CodeMapping {
            path: module.path.to_string_lossy().into_owned(),
            build_id: module.build_id.as_ref().map(hex),
            range: placed.range.begin..placed.range.end,
            file_offset: placed.offset.0,
        });
    }
    files.into_iter().collect()
}

/// The executable mappings in which a frame can lie. The kernel's page of return probes is left out: an address there
/// stands for another, which cannot be known.
pub(super) fn executable(maps: Maps) -> Vec<Mapping> {
    let code = |mapping: &Mapping| {
        mapping.executable
            && mapping.range.end.0 < END_OF_USER_SPACE
            && !matches!(&mapping.kind, MappingKind::Special(name) if name == "[uprobes]")
    };
    let mut mappings: Vec<Mapping> = maps.mappings.into_iter().filter(code).collect();
    mappings.sort_by_key(|mapping| mapping.range.start);
    mappings.dedup_by(|next, previous| {
        // A JIT's regions lie side by side by the hundred; nothing distinguishes them.
        let joins = next.kind == MappingKind::Anonymous
            && previous.kind == MappingKind::Anonymous
            && next.range.start == previous.range.end;
        if joins {
            previous.range.end = next.range.end;
        }
        joins || next.range.start < previous.range.end
    });
    mappings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mappings(lines: &str) -> Vec<(u64, u64)> {
        let found = executable(Maps::parse(lines.as_bytes()));
        found.iter().map(|mapping| (mapping.range.start.0, mapping.range.end.0)).collect()
    }

    #[test]
    fn regions_without_a_name_that_touch_are_one() {
        let lines = "1000-2000 rwxp 00000000 00:00 0 \n2000-3000 r-xp 00000000 00:00 0 \n\
                     3000-4000 rw-p 00000000 00:00 0 \n4000-5000 r-xp 00000000 00:00 0 \n\
                     5000-6000 r-xp 00000000 fe:00 7 /a.so\n6000-7000 r-xp 00001000 fe:00 7 /a.so\n";
        assert_eq!(mappings(lines), [(0x1000, 0x3000), (0x4000, 0x5000), (0x5000, 0x6000), (0x6000, 0x7000)]);
        assert_eq!(mappings("7000-8000 r-xp 00000000 00:00 0 [uprobes]\n"), []);
        assert_eq!(mappings("ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n"), []);
    }

    #[test]
    fn mappings_without_tables_give_way() {
        let placed = |index: u64, pages: u32| {
            let range =
                MappingRange { begin: index << 12, end: (index + 1) << 12, pages, ..Default::default() };
            Placed { range, offset: FileOffset(0), module: None }
        };
        let all = |pages: fn(u64) -> u32| State {
            generation: None,
            read: 0,
            confirmed: 0,
            placed: (0..5000).map(|index| placed(index, pages(index))).collect(),
        };
        // The files of a program lie above what a JIT maps.
        let (ranges, left_out) = all(|index| u32::from(index >= 4990)).ranges();
        assert_eq!((ranges.len(), left_out), (MAX_MAPPINGS, 5000 - MAX_MAPPINGS));
        assert_eq!(ranges.iter().filter(|range| range.pages > 0).count(), 10);
        assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].begin));
        let (ranges, left_out) = all(|_| 1).ranges();
        assert_eq!((ranges.len(), left_out), (MAX_MAPPINGS, 5000 - MAX_MAPPINGS));
        let state = all(|_| 0);
        assert_eq!(state.at(0x7fff).map(|placed| placed.range.begin), Some(0x7000));
        assert!(state.at(5000 << 12).is_none());
    }
}
