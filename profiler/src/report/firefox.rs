//! The Firefox Profiler's processed format: the live bytes over time as a memory track, what is live at the end as native
//! allocations at the time of their birth, the marks as markers.

mod marker;

use std::{
    io::{self, Write},
    time::Duration,
};

use fxprof_processed_profile::{
    CategoryColor, CategoryHandle, Frame as Shown, FrameFlags, FrameInfo, MarkerTiming, Profile as Document,
    ReferenceTimestamp, SamplingInterval, ThreadHandle, Timestamp,
};
use serde_json::{Value, json};

use self::marker::Mark;
use super::{
    options::ReportOptions,
    profile::{At, Profile, SiteReport},
    shown::{self, signed},
    units::{blocks, bytes},
};
use crate::symbolize::{
    frame::{Frame, FrameKind, FrameRole},
    label,
};

/// Writes one JSON object.
///
/// # Errors
/// Those of `out`, and when a sum does not fit 63 bits.
pub fn write(profile: &Profile, options: &ReportOptions, out: &mut dyn Write) -> io::Result<()> {
    shown::check_sums(profile)?;
    let mut document = Document::new(
        &label::clean(&profile.target.command),
        ReferenceTimestamp::from_system_time(profile.started),
        SamplingInterval::from_millis(1),
    );
    document.set_os_name("Linux");
    document.set_symbolicated(true);
    let pid = profile.target.pid;
    let process = document.add_process(&label::clean(&profile.target.exe), pid, at(Duration::ZERO));
    document.set_process_end_time(process, at(profile.duration));
    let thread = document.add_thread(process, pid, at(Duration::ZERO), true);
    document.set_thread_end_time(thread, at(profile.duration));
    document.set_thread_show_markers_in_timeline(thread, true);

    let counter =
        document.add_counter(process, "malloc", "Memory", "Bytes allocated since the start and not freed");
    // Readers take the first value for where the graph begins.
    document.add_counter_sample(counter, at(Duration::ZERO), 0.0, 0);
    let mut before = 0;
    for snapshot in &profile.history.snapshots {
        let live = snapshot.inuse.space;
        document.add_counter_sample(counter, at(snapshot.after), difference(before, live), 0);
        before = live;
    }
    let mut categories = Categories::default();
    let mut live = Vec::new();
    for site in &profile.sites {
        let infos: Vec<_> = shown::stack(site, options)
            .iter()
            .rev()
            .map(|frame| frame_info(&mut document, &mut categories, frame))
            .collect();
        let stack = document.intern_stack_frames(thread, infos.into_iter());
        live.extend(births(profile, site).into_iter().map(|(born, space)| (born, space, stack)));
    }
    // Readers search them by time.
    live.sort_by_key(|(born, ..)| *born);
    for (number, (born, space, stack)) in (1_u64..).zip(live) {
        document.add_allocation_sample(thread, at(born), stack, number, signed(space));
    }
    marks(profile, &mut document, thread);
    let mut value = serde_json::to_value(&document)?;
    complete(profile, &mut value);
    serde_json::to_writer(&mut *out, &value)?;
    out.write_all(b"\n")
}

/// Time since the probes went live.
fn at(after: Duration) -> Timestamp {
    Timestamp::from_nanos_since_reference(after.as_nanos().try_into().unwrap_or(u64::MAX))
}

/// Counters are told by their changes.
#[expect(clippy::cast_precision_loss, reason = "the format has nothing but such numbers")]
fn difference(before: u64, now: u64) -> f64 {
    if now >= before { (now - before) as f64 } else { -((before - now) as f64) }
}

/// When the site's live bytes were born, and how many of them then.
///
/// The ledger counts births by spans of time, so those of a span are put into its middle. Where they are not those of the
/// blocks that are shown (of another moment, or of some ages only), all are put where these are of.
fn births(profile: &Profile, site: &SiteReport) -> Vec<(Duration, u64)> {
    let history = &profile.history;
    let live = site.totals.inuse_space;
    let births = &site.history.births;
    let sum = births.iter().try_fold(0_u64, |sum, (_, held)| sum.checked_add(held.space));
    if profile.mode.at == At::End && sum == Some(live) && !history.birth_span.is_zero() {
        let middle = |span: usize| {
            let spans = u32::try_from(span).unwrap_or(u32::MAX);
            history
                .birth_span
                .saturating_mul(spans)
                .saturating_add(history.birth_span / 2)
                .min(profile.duration)
        };
        return births
            .iter()
            .filter(|(_, held)| held.space > 0)
            .map(|(span, held)| (middle(*span), held.space))
            .collect();
    }
    let moment = match profile.mode.at {
        At::End => None,
        At::Peak => history.peak,
        At::Exit => history.exit,
    };
    let when = moment.map_or(profile.duration, |moment| moment.after);
    if live > 0 { vec![(when, live)] } else { Vec::new() }
}

/// The format has colours for kinds of code.
#[derive(Default)]
struct Categories(Vec<(&'static str, CategoryHandle)>);

impl Categories {
    fn of(&mut self, document: &mut Document, frame: &Frame) -> CategoryHandle {
        let (name, color) = match (frame.kind, frame.role) {
            (_, FrameRole::Remark) => return CategoryHandle::OTHER,
            (FrameKind::Python, _) => ("Python", CategoryColor::Yellow),
            (_, FrameRole::Allocator) => ("Allocator", CategoryColor::Red),
            (_, FrameRole::Runtime) => ("Runtime", CategoryColor::DarkGray),
            (_, FrameRole::Library) => ("Library", CategoryColor::Blue),
            (_, FrameRole::Program) => ("Program", CategoryColor::Green),
            (_, FrameRole::Jit) => ("Generated code", CategoryColor::Purple),
            (_, FrameRole::Interpreter) => ("Interpreter", CategoryColor::Orange),
        };
        if let Some((_, known)) = self.0.iter().find(|(known, _)| *known == name) {
            return *known;
        }
        let category = document.add_category(name, color);
        self.0.push((name, category));
        category
    }
}

/// A frame by its name with file and line: the crate has no other place for them.
fn frame_info(document: &mut Document, categories: &mut Categories, frame: &Frame) -> FrameInfo {
    let category = categories.of(document, frame);
    let name = document.intern_string(&label::described(frame));
    FrameInfo { frame: Shown::Label(name), category_pair: category.into(), flags: FrameFlags::empty() }
}

/// The user's marks, and the moments of the profile.
fn marks(profile: &Profile, document: &mut Document, thread: ThreadHandle) {
    let history = &profile.history;
    let mut add = |name: &str, text: String, after: Duration| {
        let mark = Mark { name: document.intern_string(name), text: document.intern_string(&text) };
        document.add_marker(thread, MarkerTiming::Instant(at(after)), mark);
    };
    for generation in &history.generations {
        if let Some(name) = &generation.mark {
            let (name, held) = (label::clean(name), bytes(generation.held.space));
            let text = format!("{name}: {held} born from here to the next mark or the end are still live");
            add("mark", text, generation.after);
        }
    }
    for (name, moment) in [("peak", &history.peak), ("exit", &history.exit)] {
        if let Some(moment) = moment {
            let text = format!("{} live in {}", bytes(moment.held.space), blocks(moment.held.objects));
            add(name, text, moment.after);
        }
    }
}

/// What the crate cannot say, or says without being asked.
fn complete(profile: &Profile, document: &mut Value) {
    // How often the allocator was called between two snapshots is not known, and a zero would be shown as known.
    without(document, "counters", "number");
    // Nothing is known of the processor's time either, and some readers loop for ever where there is a table without rows.
    without(document, "threads", "threadCPUDelta");
    let entry = |label: &str, value: String| json!({"label": label, "format": "string", "value": value});
    let how = shown::how(profile);
    let live = match &profile.errors {
        Some(errors) => format!("{} ± {} bytes", profile.totals.inuse_space, errors.inuse_space),
        None => format!("{} bytes", profile.totals.inuse_space),
    };
    let mut entries = vec![
        entry("Numbers", how),
        entry("Live", format!("{live}, at the {}", profile.mode.at.label())),
        entry("Addresses", "numbers of entries, not addresses in the process; an entry is all that a stack has of a span of time".into()),
    ];
    entries.extend(shown::sentences(profile).into_iter().map(|sentence| entry("Quality", sentence)));
    if let Some(meta) = document.get_mut("meta").and_then(Value::as_object_mut) {
        meta.insert("extra".into(), json!([{"label": shown::WRITER, "entries": entries}]));
        meta.insert("importedFrom".into(), json!(shown::WRITER));
    }
}

/// Takes a column out of the samples of each thread or counter.
fn without(document: &mut Value, tables: &str, column: &str) {
    let tables = document.get_mut(tables).and_then(Value::as_array_mut);
    for table in tables.into_iter().flatten() {
        if let Some(samples) = table.get_mut("samples").and_then(Value::as_object_mut) {
            samples.remove(column);
        }
    }
}
