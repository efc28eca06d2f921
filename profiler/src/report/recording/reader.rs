//! Reads a recording: all that is whole, up to the first damage, with every number checked before room is made for it.

use std::{sync::Arc, time::Duration};

use profiler_common::records::{Held, SIZE_CLASSES};
use prost::Message;

use super::{
    Resident,
    chunk::{self, FILE_HEADER, Kind, Stored, VERSION},
    decode, message,
};
use crate::{report::profile::CodeMapping, symbolize::frame::Frame};

/// The largest file that is read, in bytes.
pub const MAX_FILE: u64 = 2 << 30;
/// Parts of all messages together at most: frames, entries of stacks, sizes, threads and so on. A million sites with
/// stacks of their own have as many.
const MAX_PARTS: usize = 1 << 24;
/// Bytes of all definitions and accounts together at most, the paths of frames counted for each.
const MAX_KEPT: usize = 1 << 29;
/// Sites, and frames, at most.
const MAX_SITES: usize = 1 << 20;
/// Frames of one stack, and parts of one site, at most.
const MAX_OF_A_SITE: usize = 1 << 14;
/// Snapshots at most: a week of seconds.
const MAX_SNAPSHOTS: usize = 1 << 20;

/// Why nothing can be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReadError {
    /// It does not begin as a recording does.
    #[error("it is not a recording of heapscope: those begin with the bytes 89 48 53 43 4f 50 45 0a")]
    NotARecording,
    /// Written by a later heapscope.
    #[error(
        "it is a recording of format {0}, and this heapscope reads formats up to {VERSION}: use a newer one"
    )]
    Newer(u32),
    /// Nothing behind the header can be read.
    #[error("the recording is damaged at its very beginning: {0}")]
    Damaged(String),
}

/// One snapshot.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Time since the probes went live.
    pub after: Duration,
    /// The process's memory as the kernel counts it.
    pub resident: Resident,
    /// Marks that were set just before.
    pub marks: Vec<String>,
    /// What was live, in all sites together.
    pub inuse: Held,
    /// Whether it says what each site held.
    pub has_sites: bool,
    /// Where its chunk begins, in the file.
    pub(super) at: usize,
}

/// A site's definition.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) allocator: String,
    pub(super) stack: Vec<u32>,
}

/// A recording, read up to its end or to the first damage.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    pub(super) bytes: Vec<u8>,
    pub(super) head: message::Head,
    modules: Vec<message::Module>,
    pub(super) code: Vec<CodeMapping>,
    pub(super) frames: Vec<Arc<Frame>>,
    pub(super) sites: Vec<Site>,
    pub(super) snapshots: Vec<Taken>,
    pub(super) quality: message::Quality,
    pub(super) accounts: Vec<message::SiteAccount>,
    pub(super) mapped: Vec<message::MappedSite>,
    pub(super) pools: Vec<message::PoolSite>,
    pub(super) end: Option<message::End>,
    damage: Option<String>,
    unknown: usize,
    parts: usize,
    kept: usize,
}

impl Recording {
    /// Reads a recording. Damage is no error as long as its beginning can be read: see [`Self::damage`].
    ///
    /// # Errors
    /// Where it is none, or nothing of it can be read.
    pub fn read(bytes: Vec<u8>) -> Result<Self, ReadError> {
        match chunk::version(&bytes) {
            None | Some(0) => return Err(ReadError::NotARecording),
            Some(version) if version > VERSION => return Err(ReadError::Newer(version)),
            Some(_) => {}
        }
        let mut recording = Self::default();
        let mut begun = false;
        for chunk in chunk::chunks(&bytes, FILE_HEADER) {
            let taken = chunk.and_then(|(chunk, end)| {
                let at = end - chunk.stored_length();
                if recording.end.is_some() {
                    return Err(format!("something was appended behind its end, at byte {at}"));
                }
                if begun != (chunk.kind != Kind::Head) {
                    return Err(format!("its head is not where it should be, at byte {at}"));
                }
                begun = true;
                recording.take(&chunk, at).map_err(|what| format!("{what}, in the chunk at byte {at}"))
            });
            if let Err(what) = taken {
                recording.damage = Some(what);
                break;
            }
        }
        if !begun {
            return Err(ReadError::Damaged(recording.damage.unwrap_or_else(|| "it ends there".into())));
        }
        if recording.end.as_ref().is_some_and(|end| end.sites != recording.accounts.len() as u64) {
            recording.damage = Some("its account has not as many sites as it says".into());
            recording.end = None;
        }
        recording.bytes = bytes;
        Ok(recording)
    }

    /// What is damaged, as part of a sentence; `None` where all could be read.
    #[must_use]
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// Whether it was closed: whether heapscope came to the end of its observation.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.end.is_some()
    }

    /// Chunks of a kind that this version does not know, which were passed over.
    #[must_use]
    pub fn unknown_chunks(&self) -> usize {
        self.unknown
    }

    /// The snapshots, in order.
    #[must_use]
    pub fn snapshots(&self) -> &[Taken] {
        &self.snapshots
    }

    fn take(&mut self, chunk: &Stored<'_>, at: usize) -> Result<(), String> {
        if matches!(chunk.kind, Kind::Unknown(_)) {
            self.unknown += 1;
            return Ok(());
        }
        let plain = chunk.plain()?;
        if chunk.kind != Kind::Snapshot {
            self.keep(plain.len())?;
        }
        match chunk.kind {
            Kind::Head => self.head = message(&plain)?,
            Kind::Definitions => self.define(message(&plain)?)?,
            Kind::Snapshot => self.snapshot(message(&plain)?, at)?,
            Kind::Quality => self.quality = message(&plain)?,
            Kind::Account => self.account(message(&plain)?)?,
            Kind::End => self.end = Some(message(&plain)?),
            Kind::Unknown(_) => {}
        }
        Ok(())
    }

    fn count(&mut self, parts: usize) -> Result<(), String> {
        self.parts = self.parts.saturating_add(parts);
        if self.parts > MAX_PARTS { Err("it defines more than any real one".into()) } else { Ok(()) }
    }

    fn keep(&mut self, bytes: usize) -> Result<(), String> {
        self.kept = self.kept.saturating_add(bytes);
        if self.kept > MAX_KEPT { Err("it has more names than any real one".into()) } else { Ok(()) }
    }

    fn define(&mut self, definitions: message::Definitions) -> Result<(), String> {
        let message::Definitions { modules, frames, sites, mappings } = definitions;
        self.count(modules.len() + frames.len() + sites.len() + mappings.len())?;
        if self.modules.len().max(self.frames.len()).saturating_add(frames.len()) > MAX_SITES {
            return Err("it defines more frames or files than any real one".into());
        }
        self.modules.extend(modules);
        for mapping in mappings {
            let module = index(mapping.module).and_then(|at| self.modules.get(at));
            let message::Module { path, build_id } =
                module.ok_or("a mapping is of a file that is not defined")?.clone();
            self.keep(path.len())?;
            let range = mapping.begin..mapping.end;
            self.code.push(CodeMapping { path, build_id, range, file_offset: mapping.file_offset });
        }
        for frame in frames {
            let module = match frame.module {
                None => None,
                Some(number) => {
                    let module = index(number).and_then(|at| self.modules.get(at));
                    Some(module.ok_or("a frame is in a file that is not defined")?.path.clone())
                }
            };
            self.keep(module.as_ref().map_or(0, String::len))?;
            self.frames.push(Arc::new(decode::frame(frame, module)));
        }
        for site in sites {
            self.check_stack(&site.stack)?;
            let at = index(site.number).filter(|at| *at <= self.sites.len() && *at < MAX_SITES);
            let at = at.ok_or("a site has a number that is not its turn")?;
            let site = Site { allocator: site.allocator, stack: site.stack };
            match self.sites.get_mut(at) {
                Some(known) => *known = site,
                None => self.sites.push(site),
            }
        }
        Ok(())
    }

    fn check_stack(&mut self, stack: &[u32]) -> Result<(), String> {
        self.count(stack.len())?;
        let is_known = |number: &u32| index(*number).is_some_and(|at| at < self.frames.len());
        if stack.len() > MAX_OF_A_SITE || !stack.iter().all(is_known) {
            return Err("a stack has frames that are not defined".into());
        }
        Ok(())
    }

    fn snapshot(&mut self, snapshot: message::Snapshot, at: usize) -> Result<(), String> {
        self.count(1 + snapshot.marks.len())?;
        let after = Duration::from_nanos(snapshot.after_ns);
        if self.snapshots.len() >= MAX_SNAPSHOTS
            || self.snapshots.last().is_some_and(|last| last.after > after)
        {
            return Err("its snapshots are not in order".into());
        }
        self.snapshots.push(Taken {
            after,
            resident: decode::resident(snapshot.resident),
            marks: snapshot.marks,
            inuse: decode::held(snapshot.inuse),
            has_sites: snapshot.changes.is_some(),
            at,
        });
        Ok(())
    }

    fn account(&mut self, account: message::Account) -> Result<(), String> {
        for site in &account.sites {
            if index(site.site).is_none_or(|at| at >= self.sites.len()) {
                return Err("the account has a site that is not defined".into());
            }
            let of_site =
                [site.threads.len(), site.generations.len(), site.births.len(), site.over_time.len()];
            if site.sizes.len() > SIZE_CLASSES || of_site.iter().any(|parts| *parts > MAX_OF_A_SITE) {
                return Err("a site of the account has more parts than any real one".into());
            }
            self.count(1 + site.sizes.len() + of_site.iter().sum::<usize>())?;
        }
        if self.accounts.len() + account.sites.len() > self.sites.len() {
            return Err("the account has a site twice".into());
        }
        for site in &account.mapped {
            self.check_stack(&site.stack)?;
            self.count(1 + site.ranges.len())?;
        }
        for site in &account.pools {
            self.check_stack(&site.stack)?;
            self.count(1)?;
        }
        self.accounts.extend(account.sites);
        self.pools.extend(account.pools);
        self.mapped.extend(account.mapped);
        Ok(())
    }
}

/// A number as an index; every machine that we run on has room for it.
pub(super) fn index(number: u32) -> Option<usize> {
    usize::try_from(number).ok()
}

fn message<M: Message + Default>(plain: &[u8]) -> Result<M, String> {
    M::decode(plain).map_err(|error| format!("a message cannot be read ({error})"))
}
