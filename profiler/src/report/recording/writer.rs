//! Writes a recording: what is new is defined when it is met, and each snapshot is appended as it is taken.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    io::{self, Write},
    mem,
    sync::Arc,
    time::SystemTime,
};

use profiler_common::records::Held;
use prost::Message;

use super::{
    Counters, Moment, Resident,
    chunk::{self, Kind},
    encode, memory, message, series,
};
use crate::{
    report::profile::{CodeMapping, Mode, Profile, Quality, SiteReport, TargetInfo},
    symbolize::frame::Frame,
};

/// Bytes of definitions or accounts that are put into one chunk, about.
const CHUNK: usize = 1 << 18;

/// What is known when a recording begins.
#[derive(Clone, Debug)]
pub struct Head {
    /// Whose memory.
    pub target: TargetInfo,
    /// When the probes went live.
    pub started: SystemTime,
    /// How. [`Mode::at`] is said at the end.
    pub mode: Mode,
}

impl Head {
    /// That of a finished profile.
    #[must_use]
    pub fn of(profile: &Profile) -> Self {
        Self { target: profile.target.clone(), started: profile.started, mode: profile.mode.clone() }
    }
}

/// A recording that grows.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    written: usize,
    /// By path and build-id.
    modules: HashMap<(String, Option<String>), u32>,
    code: HashSet<CodeMapping>,
    frames: HashMap<Arc<Frame>, u32>,
    numbers: HashMap<u64, u32>,
    /// By number.
    sites: Vec<(String, Vec<u32>)>,
    /// By number: what the last snapshot said.
    state: Vec<Counters>,
    pending: message::Definitions,
    pending_bytes: usize,
    quality: Option<message::Quality>,
}

impl<W: Write> Writer<W> {
    /// Begins a recording.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn begin(mut out: W, head: &Head) -> io::Result<Self> {
        chunk::write_header(&mut out)?;
        let written = chunk::write(Kind::Head, &encode::head(head).encode_to_vec(), &mut out)?;
        Ok(Self {
            out,
            written: chunk::FILE_HEADER + written,
            modules: HashMap::new(),
            code: HashSet::new(),
            frames: HashMap::new(),
            numbers: HashMap::new(),
            sites: Vec::new(),
            state: Vec::new(),
            pending: message::Definitions::default(),
            pending_bytes: 0,
            quality: None,
        })
    }

    /// Bytes that have been written.
    #[must_use]
    pub fn written(&self) -> usize {
        self.written
    }

    fn append(&mut self, kind: Kind, message: &[u8]) -> io::Result<()> {
        self.written += chunk::write(kind, message, &mut self.out)?;
        Ok(())
    }

    /// Whether the site with this key has been defined.
    #[must_use]
    pub fn knows(&self, key: u64) -> bool {
        self.numbers.contains_key(&key)
    }

    /// Defines where a file was mapped, if it is not known yet.
    pub fn code(&mut self, mapping: &CodeMapping) {
        if !self.code.insert(mapping.clone()) {
            return;
        }
        let module = self.module(&mapping.path, mapping.build_id.as_deref());
        let CodeMapping { range, file_offset, .. } = mapping;
        let mapping =
            message::Mapping { module, begin: range.start, end: range.end, file_offset: *file_offset };
        self.pending_bytes += mapping.encoded_len() + 8;
        self.pending.mappings.push(mapping);
    }

    /// The number of a file. One that a frame is in may have come before its mapping.
    fn module(&mut self, path: &str, build_id: Option<&str>) -> u32 {
        if let Some(number) = self.modules.get(&(path.to_owned(), build_id.map(str::to_owned))) {
            return *number;
        }
        let number = u32::try_from(self.modules.len()).unwrap_or(u32::MAX);
        self.modules.insert((path.to_owned(), build_id.map(str::to_owned)), number);
        let module = message::Module { path: encode::text(path), build_id: build_id.map(encode::text) };
        self.pending_bytes += module.encoded_len() + 8;
        self.pending.modules.push(module);
        number
    }

    /// Defines a site, or defines it anew if it has got better names.
    ///
    /// # Errors
    /// Those of the output.
    pub fn define(&mut self, key: u64, allocator: &str, stack: &[Arc<Frame>]) -> io::Result<u32> {
        let stack = self.stack(stack)?;
        let next = u32::try_from(self.sites.len()).unwrap_or(u32::MAX);
        let number = match self.numbers.entry(key) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                self.sites.push((String::new(), vec![u32::MAX]));
                self.state.push(Counters::default());
                *new.insert(next)
            }
        };
        let Some(known) = usize::try_from(number).ok().and_then(|at| self.sites.get_mut(at)) else {
            return Ok(number);
        };
        if known.0 != allocator || known.1 != stack {
            *known = (allocator.to_owned(), stack.clone());
            let site = message::Site { number, allocator: encode::text(allocator), stack };
            self.pending_bytes += site.encoded_len();
            self.pending.sites.push(site);
            self.define_if_many()?;
        }
        Ok(number)
    }

    /// Appends a snapshot of the sites, with what is recorded by now ([`Mode::budget`], [`Mode::sample_interval`]). The sites must have been defined. Those that are not among `sites` have not changed.
    ///
    /// # Errors
    /// Those of the output.
    pub fn snapshot(
        &mut self,
        moment: &Moment,
        quality: &Quality,
        mode: &Mode,
        sites: impl IntoIterator<Item = (u64, Counters)>,
    ) -> io::Result<()> {
        self.write_definitions()?;
        let mut sites: Vec<(u32, Counters)> = sites
            .into_iter()
            .filter_map(|(key, counters)| Some((*self.numbers.get(&key)?, counters)))
            .collect();
        sites.sort_unstable_by_key(|(number, _)| *number);
        let changes = series::changes(&mut self.state, sites);
        let inuse = encode::sum(self.state.iter());
        self.write_quality(quality, mode)?;
        self.write_snapshot(moment, inuse, Some(changes.encode_to_vec()))
    }

    fn write_snapshot(&mut self, moment: &Moment, inuse: Held, changes: Option<Vec<u8>>) -> io::Result<()> {
        let snapshot = message::Snapshot {
            after_ns: encode::nanoseconds(moment.after),
            resident: encode::resident(&moment.resident),
            marks: moment.marks.iter().map(|mark| encode::text(mark)).collect(),
            inuse: Some(encode::held(inuse)),
            changes,
        };
        self.append(Kind::Snapshot, &snapshot.encode_to_vec())
    }

    /// Appends the account at the end, of which the sites have these keys, in their order. With `whole`, also the snapshots
    /// that the profile knows, where none was written.
    ///
    /// # Errors
    /// Those of the output.
    pub fn close(&mut self, profile: &Profile, keys: &[u64], whole: bool) -> io::Result<()> {
        profile.code.iter().for_each(|mapping| self.code(mapping));
        let mut numbers = Vec::with_capacity(profile.sites.len());
        for (site, key) in profile.sites.iter().zip(keys) {
            numbers.push(self.define(*key, &site.allocator, &site.stack)?);
        }
        let mut others = message::Account::default();
        for site in profile.mapped.iter().flat_map(|mapped| &mapped.sites) {
            others.mapped.extend(memory::mapped_site(site, self.stack(&site.stack)?));
        }
        for site in profile.python.iter().flat_map(|python| &python.sites) {
            others.pools.push(memory::pool_site(site, self.stack(&site.stack)?));
        }
        self.write_definitions()?;
        if whole {
            for snapshot in &profile.history.snapshots {
                let resident = Resident { rss: snapshot.rss, ..Resident::default() };
                let moment = Moment { after: snapshot.after, resident, marks: Vec::new() };
                self.write_snapshot(&moment, snapshot.inuse, None)?;
            }
        }
        self.write_quality(&profile.quality, &profile.mode)?;
        self.write_account(profile.sites.iter().zip(numbers), others, whole)?;
        self.append(Kind::End, &encode::end(profile).encode_to_vec())
    }

    fn write_account<'a>(
        &mut self,
        sites: impl Iterator<Item = (&'a SiteReport, u32)>,
        others: message::Account,
        whole: bool,
    ) -> io::Result<()> {
        let (mut account, mut bytes) = (message::Account::default(), 0);
        let mut write = |account: &mut message::Account, bytes: &mut usize, most: usize| {
            if *bytes <= most {
                return Ok(());
            }
            *bytes = 0;
            self.append(Kind::Account, &mem::take(account).encode_to_vec())
        };
        for (site, number) in sites {
            let site = encode::site(number, site, whole);
            bytes += site.encoded_len() + 8;
            account.sites.push(site);
            write(&mut account, &mut bytes, CHUNK)?;
        }
        for site in others.mapped {
            bytes += site.encoded_len() + 8;
            account.mapped.push(site);
            write(&mut account, &mut bytes, CHUNK)?;
        }
        for site in others.pools {
            bytes += site.encoded_len() + 8;
            account.pools.push(site);
            write(&mut account, &mut bytes, CHUNK)?;
        }
        write(&mut account, &mut bytes, 0)
    }

    fn write_quality(&mut self, quality: &Quality, mode: &Mode) -> io::Result<()> {
        let quality = encode::quality(quality, mode);
        if self.quality.as_ref() != Some(&quality) {
            self.append(Kind::Quality, &quality.encode_to_vec())?;
            self.quality = Some(quality);
        }
        Ok(())
    }

    fn stack(&mut self, stack: &[Arc<Frame>]) -> io::Result<Vec<u32>> {
        let mut numbers = Vec::with_capacity(stack.len());
        for frame in stack {
            if let Some(number) = self.frames.get(frame) {
                numbers.push(*number);
                continue;
            }
            let number = u32::try_from(self.frames.len()).unwrap_or(u32::MAX);
            let module = frame.module.as_deref().map(|path| self.module(path, None));
            self.frames.insert(Arc::clone(frame), number);
            let frame = encode::frame(frame, module);
            self.pending_bytes += frame.encoded_len() + 8;
            self.pending.frames.push(frame);
            numbers.push(number);
            self.define_if_many()?;
        }
        Ok(numbers)
    }

    fn define_if_many(&mut self) -> io::Result<()> {
        if self.pending_bytes > CHUNK { self.write_definitions() } else { Ok(()) }
    }

    fn write_definitions(&mut self) -> io::Result<()> {
        let pending = mem::take(&mut self.pending);
        self.pending_bytes = 0;
        if pending == message::Definitions::default() {
            return Ok(());
        }
        self.append(Kind::Definitions, &pending.encode_to_vec())
    }
}
