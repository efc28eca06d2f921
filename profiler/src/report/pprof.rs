//! pprof's format, gzipped: what `go tool pprof`, Pyroscope, Parca and many others read.

pub(super) mod message;
mod tables;

use std::{
    io::{self, Write},
    time::UNIX_EPOCH,
};

use flate2::{Compression, write::GzEncoder};
use prost::Message;

use self::{
    message::{Label, Sample, ValueType},
    tables::Tables,
};
use super::{
    options::ReportOptions,
    profile::{At, Profile, SiteReport, Totals},
    shown::{self, signed},
};

/// Names and units in the order that pprof uses for heap profiles; [`values`] keeps it.
const SAMPLE_TYPES: [(&str, &str); 4] = [
    ("alloc_objects", "count"),
    ("alloc_space", "bytes"),
    ("inuse_objects", "count"),
    ("inuse_space", "bytes"),
];

/// Writes one profile. docs/formats.md says what is where.
///
/// # Errors
/// Those of `out`, and when a number does not fit 63 bits.
pub fn write(profile: &Profile, options: &ReportOptions, out: &mut dyn Write) -> io::Result<()> {
    shown::check_sums(profile)?;
    let mut tables = Tables::new(profile);
    let mut samples = Vec::with_capacity(profile.sites.len());
    for site in &profile.sites {
        let stack = shown::stack(site, options);
        let location_id: Vec<u64> = shown::calls(&stack).map(|call| tables.location(call)).collect();
        for (thread, totals) in by_thread(profile, site) {
            samples.push(Sample {
                location_id: location_id.clone(),
                value: values(&totals).into(),
                label: labels(&mut tables, site, thread, &totals),
            });
        }
    }
    let mut value_type = |(name, unit)| ValueType { r#type: tables.string(name), unit: tables.string(unit) };
    let sample_type = SAMPLE_TYPES.map(&mut value_type).into();
    let period_type = Some(value_type(("space", "bytes")));
    let comments = [shown::WRITER.to_owned(), about(profile)].into_iter().chain(shown::sentences(profile));
    let comment = comments.map(|comment| tables.string(&comment)).collect();
    let started = profile.started.duration_since(UNIX_EPOCH).unwrap_or_default();
    let message = message::Profile {
        sample_type,
        sample: samples,
        time_nanos: started.as_nanos().try_into().unwrap_or(0),
        duration_nanos: profile.duration.as_nanos().try_into().unwrap_or(i64::MAX),
        period_type,
        period: profile.mode.sample_interval.map_or(1, signed),
        comment,
        default_sample_type: tables.string("inuse_space"),
        ..tables.into_message()
    };
    let mut gzip = GzEncoder::new(out, Compression::default());
    gzip.write_all(&message.encode_to_vec())?;
    gzip.finish().map(drop)
}

/// What was observed, and where the contents of the file are told.
fn about(profile: &Profile) -> String {
    let target = &profile.target;
    format!(
        "process {}: {}; inuse at the {}; numbers: {}; docs/formats.md tells what is in this file",
        target.pid,
        crate::symbolize::label::clean(&target.command),
        profile.mode.at.label(),
        shown::how(profile)
    )
}

fn values(totals: &Totals) -> [i64; 4] {
    [totals.alloc_objects, totals.alloc_space, totals.inuse_objects, totals.inuse_space].map(signed)
}

/// A site's numbers by the thread that allocated: what is in use for each thread, and all allocations without one, because
/// only live blocks are known by thread. They are of the end and of all ages, so a profile of anything else is not split.
fn by_thread<'p>(profile: &Profile, site: &'p SiteReport) -> Vec<(Option<&'p str>, Totals)> {
    let Totals { inuse_space, inuse_objects, alloc_space, alloc_objects } = site.totals;
    let threads = &site.history.threads;
    let sum = |part: fn(&profiler_common::records::Held) -> u64| {
        threads.iter().try_fold(0_u64, |sum, (_, held)| sum.checked_add(part(held)))
    };
    let adds_up =
        sum(|held| held.space) == Some(inuse_space) && sum(|held| held.objects) == Some(inuse_objects);
    if threads.is_empty() || !adds_up || profile.mode.at != At::End {
        return vec![(None, site.totals)];
    }
    if let [(thread, held)] = threads.as_slice()
        && held.objects == alloc_objects
    {
        return vec![(Some(thread), site.totals)];
    }
    let inuse = threads.iter().map(|(thread, held)| {
        let totals = Totals { inuse_space: held.space, inuse_objects: held.objects, ..Totals::default() };
        (Some(thread.as_str()), totals)
    });
    std::iter::once((None, Totals { alloc_space, alloc_objects, ..Totals::default() })).chain(inuse).collect()
}

/// The allocator, the thread where it is known, and as pprof's own heap profiles have it, the mean size of the blocks.
fn labels(tables: &mut Tables, site: &SiteReport, thread: Option<&str>, totals: &Totals) -> Vec<Label> {
    let mut labels = Vec::with_capacity(3);
    let texts = [("allocator", Some(site.allocator.as_str())), ("thread", thread)];
    for (key, text) in texts {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            labels.push(Label {
                key: tables.string(key),
                str: tables.string(&crate::symbolize::label::clean(text)),
                ..Label::default()
            });
        }
    }
    let mean = match totals.inuse_objects {
        0 => totals.alloc_space.checked_div(totals.alloc_objects),
        blocks => totals.inuse_space.checked_div(blocks),
    };
    if let Some(mean) = mean {
        let bytes = tables.string("bytes");
        labels.push(Label { key: bytes, num: signed(mean), num_unit: bytes, ..Label::default() });
    }
    labels
}
