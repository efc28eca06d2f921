//! The tables that pprof's samples point into: every text, function, call and mapped file once.

use std::{collections::HashMap, sync::Arc};

use indexmap::IndexSet;

use super::message::{self, Function, Line, Location, Mapping};
use crate::{
    report::{
        profile::{CodeMapping, Profile},
        shown,
    },
    symbolize::{frame::Frame, label},
};

/// What tells one call from another: its mapped file, its address, and its lines, for Python's have no address.
#[derive(PartialEq, Eq, Hash)]
struct Call {
    mapping_id: u64,
    address: u64,
    lines: Vec<Line>,
}

/// The tables while they grow.
pub(super) struct Tables<'p> {
    /// By path.
    code: HashMap<&'p str, Vec<&'p CodeMapping>>,
    strings: IndexSet<String>,
    functions: IndexSet<(i64, i64)>,
    calls: IndexSet<Call>,
    mappings: Vec<Mapping>,
    /// Mappings by their file and first address.
    known: HashMap<(&'p str, u64), u64>,
}

impl<'p> Tables<'p> {
    pub(super) fn new(profile: &'p Profile) -> Self {
        let mut tables = Self {
            code: HashMap::new(),
            strings: IndexSet::from([String::new()]),
            functions: IndexSet::new(),
            calls: IndexSet::new(),
            mappings: Vec::new(),
            known: HashMap::new(),
        };
        for mapping in &profile.code {
            tables.code.entry(&mapping.path).or_default().push(mapping);
        }
        // pprof takes the first for the program.
        if let Some(own) = profile.code.iter().find(|mapping| mapping.path == profile.target.exe) {
            tables.add(own);
        }
        tables
    }

    /// The index of a text.
    pub(super) fn string(&mut self, text: &str) -> i64 {
        let index = match self.strings.get_index_of(text) {
            Some(index) => index,
            None => self.strings.insert_full(text.to_owned()).0,
        };
        i64::try_from(index).unwrap_or(0)
    }

    /// The number of a call: the functions inlined there and the one that holds them.
    pub(super) fn location(&mut self, frames: &[Arc<Frame>]) -> u64 {
        let Some(holder) = frames.last() else { return 0 };
        // The call is what a reader looks up, not the return address behind it.
        let address = holder.address.saturating_sub(1);
        let mapping_id = self.mapping(holder, address);
        let lines: Vec<Line> = frames.iter().map(|frame| self.line(frame)).collect();
        if let Some(mapping) = mapping_id.checked_sub(1).and_then(|index| usize::try_from(index).ok())
            && let Some(mapping) = self.mappings.get_mut(mapping)
        {
            // All is known that we could find out: a reader need not look again.
            mapping.has_functions |= holder.function.is_some();
            mapping.has_filenames = mapping.has_functions;
            mapping.has_line_numbers = mapping.has_functions;
            mapping.has_inline_frames = mapping.has_functions;
        }
        number(self.calls.insert_full(Call { mapping_id, address, lines }).0)
    }

    fn line(&mut self, frame: &Frame) -> Line {
        let name = self.string(&label::function(frame));
        let file = self.string(&shown::file(frame).unwrap_or_default());
        let function_id = number(self.functions.insert_full((name, file)).0);
        Line { function_id, line: frame.line.unwrap_or(0).into() }
    }

    /// The number of the mapping that a call lies in; 0 for none.
    fn mapping(&mut self, frame: &Frame, address: u64) -> u64 {
        let Some(path) = frame.module.as_deref() else { return 0 };
        let of_file = self.code.get(path).map(Vec::as_slice).unwrap_or_default();
        match of_file.iter().find(|mapping| mapping.range.contains(&address)) {
            Some(mapping) => self.add(mapping),
            None => 0,
        }
    }

    fn add(&mut self, mapping: &'p CodeMapping) -> u64 {
        let key = (mapping.path.as_str(), mapping.range.start);
        if let Some(id) = self.known.get(&key) {
            return *id;
        }
        let id = number(self.mappings.len());
        let filename = self.string(&label::clean(&mapping.path));
        let build_id = self.string(mapping.build_id.as_deref().unwrap_or_default());
        self.mappings.push(Mapping {
            id,
            memory_start: mapping.range.start,
            memory_limit: mapping.range.end,
            file_offset: mapping.file_offset,
            filename,
            build_id,
            ..Mapping::default()
        });
        self.known.insert(key, id);
        id
    }

    /// The tables as a profile that has nothing else.
    pub(super) fn into_message(self) -> message::Profile {
        let function = |(index, (name, filename)): (usize, (i64, i64))| Function {
            id: number(index),
            name,
            system_name: 0,
            filename,
        };
        let location = |(index, call): (usize, Call)| Location {
            id: number(index),
            mapping_id: call.mapping_id,
            address: call.address,
            line: call.lines,
        };
        message::Profile {
            mapping: self.mappings,
            location: self.calls.into_iter().enumerate().map(location).collect(),
            function: self.functions.into_iter().enumerate().map(function).collect(),
            string_table: self.strings.into_iter().collect(),
            ..message::Profile::default()
        }
    }
}

/// Numbers begin with 1: 0 stands for none.
fn number(index: usize) -> u64 {
    u64::try_from(index).map_or(0, |index| index.saturating_add(1))
}
