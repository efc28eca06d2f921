//! DHAT's format, version 2: what valgrind's dh_view.html and others read.

use std::{
    collections::HashMap,
    io::{self, Write},
    time::Duration,
};

use indexmap::IndexSet;
use profiler_common::records::Held;
use serde::Serialize;

use super::{
    options::ReportOptions,
    profile::{Profile, SiteReport},
    shown,
};
use crate::symbolize::{
    frame::{Frame, FrameRole},
    label,
};

/// The names are the format's; docs/formats.md tells them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File {
    dhat_file_version: u32,
    mode: String,
    verb: &'static str,
    /// Whether `mb`, `gb` and `eb` are there.
    bklt: bool,
    /// Whether accesses were counted.
    bkacc: bool,
    tu: &'static str,
    #[serde(rename = "Mtu")]
    mtu: &'static str,
    /// Lives below this are short.
    tuth: u64,
    cmd: String,
    pid: u32,
    /// When the most bytes were live.
    tg: u64,
    /// The end.
    te: u64,
    pps: Vec<Point>,
    ftbl: IndexSet<String>,
}

/// A place in the program that allocates.
#[derive(Serialize, Default)]
struct Point {
    /// All that was allocated.
    tb: u64,
    tbk: u64,
    /// The most that is known to have been live at a time.
    mb: u64,
    mbk: u64,
    /// Live at `tg`.
    gb: u64,
    gbk: u64,
    /// Live at the end.
    eb: u64,
    ebk: u64,
    /// Leaf first, indices of `ftbl`.
    fs: Vec<usize>,
}

/// Writes one JSON object.
///
/// # Errors
/// Those of `out`, and when a sum does not fit 63 bits.
pub fn write(profile: &Profile, options: &ReportOptions, out: &mut dyn Write) -> io::Result<()> {
    shown::check_sums(profile)?;
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let mut ftbl = IndexSet::from(["[root]".to_owned()]);
    // The viewer refuses a file that has a stack twice.
    let mut points: Vec<Point> = Vec::with_capacity(profile.sites.len());
    let mut known: HashMap<Vec<usize>, usize> = HashMap::new();
    for site in &profile.sites {
        let stack = shown::stack(site, options);
        let fs: Vec<usize> = stack.iter().map(|frame| ftbl.insert_full(name(frame)).0).collect();
        let index = *known.entry(fs.clone()).or_insert(points.len());
        if index == points.len() {
            points.push(Point { fs, ..Point::default() });
        }
        if let Some(point) = points.get_mut(index) {
            point.add(site);
        }
    }
    let file = File {
        dhat_file_version: 2,
        mode: mode(profile),
        verb: "Allocated",
        bklt: true,
        bkacc: false,
        tu: "µs",
        mtu: "s",
        tuth: 1000,
        cmd: label::clean(&profile.target.command),
        pid: profile.target.pid,
        tg: micros(profile.history.peak.map_or(profile.duration, |peak| peak.after)),
        te: micros(profile.duration),
        pps: points,
        ftbl,
    };
    serde_json::to_writer(&mut *out, &file)?;
    out.write_all(b"\n")
}

/// The viewer shows this at the top: the one place for what it must say.
fn mode(profile: &Profile) -> String {
    let mut mode = format!("heap, by {}: {}", shown::WRITER, shown::how(profile));
    if let Some(errors) = &profile.errors {
        let (space, objects) = (errors.inuse_space, errors.inuse_objects);
        mode += &format!(" (at t-end ± {space} bytes, ± {objects} blocks)");
    }
    mode += &format!(
        "; t-end is the {}; lifetimes are not known; Max is the most that was seen",
        profile.mode.at.label()
    );
    for sentence in shown::sentences(profile) {
        mode += &format!("; {sentence}");
    }
    mode
}

impl Point {
    fn add(&mut self, site: &SiteReport) {
        let Held { space, objects } = site.history.peak;
        self.tb += site.totals.alloc_space;
        self.tbk += site.totals.alloc_objects;
        self.gb = self.gb.saturating_add(space);
        self.gbk = self.gbk.saturating_add(objects);
        self.eb += site.totals.inuse_space;
        self.ebk += site.totals.inuse_objects;
        // Two sites may have had their most at different times; both moments are the same for all.
        self.mb = self.gb.max(self.eb);
        self.mbk = self.gbk.max(self.ebk);
    }
}

/// `0x7f001233: grow (table.c:12)` as valgrind writes it, and what is not code without an address.
fn name(frame: &Frame) -> String {
    match (frame.role, frame.address) {
        (FrameRole::Remark, _) | (_, 0) => label::described(frame),
        (_, address) => format!("{:#x}: {}", address.saturating_sub(1), label::described(frame)),
    }
}
