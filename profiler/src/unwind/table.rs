//! The rows of all modules of a process in the compact form that the walkers search: rules, chunks of rows, pages.
//!
//! Everything is only ever appended to, so that what a running walker reads never changes under it and only what is new
//! has to be written to the BPF maps. Layouts: [`profiler_common::tables`].

use std::{collections::HashMap, ops::Range};

use profiler_common::{
    limits::{MAX_RULES, PAGE_SHIFT, ROWS_PER_CHUNK},
    tables::{MappingRange, PageRows, Rule, pack_row},
};

use super::{
    TableFull,
    rows::{ModuleRows, Row},
    rule::Unsupported,
    walk::Tables,
};
use crate::target::address::{Avma, Svma};

/// Index of the rule of undescribed text, `Rule::default()`.
const NONE_ID: u16 = 0;
/// Index of the rule that ends a walk as unsupported for want of room.
const UNSUPPORTED_ID: u16 = 1;

/// The distinct rules of all modules. Files have some hundred each and share most of them.
#[derive(Debug)]
struct RuleDictionary {
    rules: Vec<Rule>,
    ids: HashMap<Rule, u16>,
    limit: usize,
    refused: u64,
}

impl RuleDictionary {
    fn new(limit: u32) -> Self {
        let limit = usize::try_from(limit).unwrap_or(MAX_RULES).min(MAX_RULES);
        let unsupported = Unsupported::NoRoom.rule();
        let ids = HashMap::from([(Rule::default(), NONE_ID), (unsupported, UNSUPPORTED_ID)]);
        Self { rules: vec![Rule::default(), unsupported], ids, limit, refused: 0 }
    }

    /// The index of `rule`; that of "unsupported" when the dictionary is full, which is counted.
    fn id(&mut self, rule: Rule) -> u16 {
        if let Some(id) = self.ids.get(&rule) {
            return *id;
        }
        match u16::try_from(self.rules.len()) {
            Ok(id) if self.rules.len() < self.limit => {
                self.rules.push(rule);
                self.ids.insert(rule, id);
                id
            }
            _ => {
                self.refused += 1;
                UNSUPPORTED_ID
            }
        }
    }
}

/// How much the BPF maps hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacity {
    /// Chunks of [`ROWS_PER_CHUNK`] rows.
    pub chunks: u32,
    /// Pages of text.
    pub pages: u32,
    /// Distinct rules, at most [`MAX_RULES`]; two are always there.
    pub rules: u32,
}

/// Where the table of one module lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ModuleTable {
    /// Index of its first page.
    pub first_page: u32,
    /// How many pages it has.
    pub pages: u32,
    /// SVMA of the first byte of its first page: where the lowest executable segment lies, rounded down to a page.
    pub svma_base: Svma,
}

impl ModuleTable {
    /// The entry of the mapping table for a mapping of this module, where `bias` is AVMA minus SVMA.
    ///
    /// [`MappingRange::bias`] is the AVMA at which the module's *first page* starts: pages are counted from
    /// `svma_base`, so that a file that was linked at a high address takes no more pages than any other.
    #[must_use]
    pub fn mapping(&self, begin: Avma, end: Avma, bias: u64) -> MappingRange {
        MappingRange {
            begin: begin.0,
            end: end.0,
            bias: bias.wrapping_add(self.svma_base.0),
            first_page: self.first_page,
            pages: self.pages,
        }
    }
}

/// What was appended since the last upload. Write rules and chunks first, then pages, then the mappings that name them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pending {
    /// Rows, by their index in all chunks laid end to end.
    pub rows: Range<u32>,
    /// Pages, by index.
    pub pages: Range<u32>,
    /// Rules, by index.
    pub rules: Range<u32>,
}

impl Pending {
    /// The chunks that hold new rows. The first may hold old rows too, which are unchanged.
    #[must_use]
    pub fn chunks(&self) -> Range<u32> {
        const PER_CHUNK: u32 = 1 << ROWS_PER_CHUNK.trailing_zeros();
        if self.rows.is_empty() {
            return 0..0;
        }
        self.rows.start / PER_CHUNK..self.rows.end.div_ceil(PER_CHUNK)
    }
}

/// Builds the tables of one process, module by module.
#[derive(Debug)]
pub struct TableBuilder {
    capacity: Capacity,
    dictionary: RuleDictionary,
    /// Whole chunks, end to end.
    rows: Vec<u32>,
    /// Rows in use; those behind are zero.
    used_rows: usize,
    pages: Vec<PageRows>,
    crowded_pages: u64,
    uploaded: Pending,
}

impl TableBuilder {
    /// Empty tables.
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            dictionary: RuleDictionary::new(capacity.rules),
            rows: Vec::new(),
            used_rows: 0,
            pages: Vec::new(),
            crowded_pages: 0,
            uploaded: Pending { rows: 0..0, pages: 0..0, rules: 0..0 },
        }
    }

    /// Appends the rows of one module.
    ///
    /// # Errors
    /// When they do not fit. The tables are then as they were.
    pub fn add_module(&mut self, module: &ModuleRows) -> Result<ModuleTable, TableFull> {
        let svma_base = module.text_start.0 >> PAGE_SHIFT << PAGE_SHIFT;
        let relative = |row: &Row| row.start.0.saturating_sub(svma_base);
        let needed = module.rows.last().map_or(0, |last| (relative(last) >> PAGE_SHIFT) + 1);
        let (pages_before, rows_before) = (self.pages.len(), self.used_rows);
        let first_page = u32::try_from(pages_before).unwrap_or(u32::MAX);
        let free = self.capacity.pages.saturating_sub(first_page);
        let Some(pages) = u32::try_from(needed).ok().filter(|pages| *pages <= free) else {
            return Err(TableFull::Pages { needed, free, limit: self.capacity.pages });
        };

        let mut rest: &[Row] = &module.rows;
        let mut in_force = NONE_ID;
        let mut packed = Vec::new();
        for page in 0..needed {
            packed.clear();
            let count = rest.iter().take_while(|row| relative(row) >> PAGE_SHIFT <= page).count();
            let (here, later) = rest.split_at(count);
            rest = later;
            if here.first().is_none_or(|row| low_bits(relative(row)) != 0) {
                packed.push(pack_row(0, in_force));
            }
            for row in here {
                in_force = self.dictionary.id(row.rule);
                packed.push(pack_row(low_bits(relative(row)), in_force));
            }
            if let Err(full) = self.append_page(&mut packed) {
                self.pages.truncate(pages_before);
                self.used_rows = rows_before;
                self.rows.truncate(rows_before.next_multiple_of(ROWS_PER_CHUNK));
                self.rows.iter_mut().skip(rows_before).for_each(|row| *row = 0);
                return Err(full);
            }
        }
        Ok(ModuleTable { first_page, pages, svma_base: Svma(svma_base) })
    }

    /// Appends one page with its rows, which must not cross a chunk's end.
    fn append_page(&mut self, packed: &mut Vec<u32>) -> Result<(), TableFull> {
        let id_of = |row: u32| row >> 16;
        if packed.iter().all(|row| id_of(*row) == u32::from(NONE_ID)) {
            self.pages.push(PageRows::default());
            return Ok(());
        }
        if let Some(row) = packed.get(ROWS_PER_CHUNK - 1).copied().filter(|_| packed.len() > ROWS_PER_CHUNK) {
            // More rows than a chunk has would be a row every four bytes: no compiler makes that. What does not fit is
            // unsupported rather than wrong.
            packed.truncate(ROWS_PER_CHUNK - 1);
            packed.push(row & 0xffff | u32::from(UNSUPPORTED_ID) << 16);
            self.crowded_pages += 1;
        }
        let left_in_chunk = self.used_rows.next_multiple_of(ROWS_PER_CHUNK) - self.used_rows;
        let first =
            if packed.len() <= left_in_chunk { self.used_rows } else { self.used_rows + left_in_chunk };
        let end = first + packed.len();
        let chunks_full = TableFull::Chunks { limit: self.capacity.chunks };
        if end.div_ceil(ROWS_PER_CHUNK) > self.capacity.chunks as usize {
            return Err(chunks_full);
        }
        if self.rows.len() < end {
            self.rows.resize(end.next_multiple_of(ROWS_PER_CHUNK), 0);
        }
        let (Ok(first_row), Ok(count)) = (u32::try_from(first), u32::try_from(packed.len())) else {
            return Err(chunks_full);
        };
        if let Some(place) = self.rows.get_mut(first..end) {
            place.copy_from_slice(packed);
        }
        self.used_rows = end;
        self.pages.push(PageRows { first: first_row, count });
        Ok(())
    }

    /// What has to be written to the BPF maps.
    #[must_use]
    pub fn pending(&self) -> Pending {
        let up_to = |from: &Range<u32>, length: usize| from.end..u32::try_from(length).unwrap_or(u32::MAX);
        Pending {
            rows: up_to(&self.uploaded.rows, self.used_rows),
            pages: up_to(&self.uploaded.pages, self.pages.len()),
            rules: up_to(&self.uploaded.rules, self.dictionary.rules.len()),
        }
    }

    /// Notes that `pending` was written: it will not be pending again.
    pub fn mark_uploaded(&mut self, pending: Pending) {
        self.uploaded = pending;
    }

    /// The rows of one chunk, always [`ROWS_PER_CHUNK`] of them; `None` beyond the last.
    #[must_use]
    pub fn chunk(&self, index: u32) -> Option<&[u32; ROWS_PER_CHUNK]> {
        self.rows.as_chunks().0.get(index as usize)
    }

    /// All pages; index as in [`Pending::pages`].
    #[must_use]
    pub fn pages(&self) -> &[PageRows] {
        &self.pages
    }

    /// All rules; index as in [`Pending::rules`].
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.dictionary.rules
    }

    /// What the tables take in the kernel, in bytes, where the maps are no larger than they must be. An array rounds its
    /// values up to eight bytes (`array_map_alloc` in kernel/bpf/arraymap.c).
    #[must_use]
    pub fn kernel_bytes(&self) -> u64 {
        const RULE: usize = size_of::<Rule>().next_multiple_of(8);
        let chunks = self.rows.len() * size_of::<u32>();
        (chunks + self.pages.len() * size_of::<PageRows>() + self.dictionary.rules.len() * RULE) as u64
    }

    /// How many rows are "unsupported" because the dictionary of rules was full.
    #[must_use]
    pub fn refused_rules(&self) -> u64 {
        self.dictionary.refused
    }

    /// How many pages have more rows than a chunk and lost the rest of them to "unsupported".
    #[must_use]
    pub fn crowded_pages(&self) -> u64 {
        self.crowded_pages
    }

    /// The tables as the walker in user space takes them; `mappings` must be sorted and not overlap.
    #[must_use]
    pub fn tables<'a>(&'a self, mappings: &'a [MappingRange]) -> Tables<'a> {
        Tables { mappings, pages: &self.pages, rows: &self.rows, rules: &self.dictionary.rules }
    }
}

/// The address within its page.
fn low_bits(relative: u64) -> u16 {
    const MASK: u64 = (1 << PAGE_SHIFT) - 1;
    const _: () = assert!(MASK <= u16::MAX as u64);
    (relative & MASK) as u16
}

#[cfg(test)]
mod tests;
