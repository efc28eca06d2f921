//! Python's small objects while a target is watched: by which stacks pymalloc has opened pools, and what became of those.
//!
//! A pool is noted when it is opened. What it holds is read out of its header at the end, so that a pool that was given up
//! since counts no more. Nothing is known of single objects: what a pool holds is put down to whoever made it necessary.

use std::{collections::HashMap, sync::Arc, time::Duration};

use profiler_common::{
    counters::Counter,
    pools::{POOL_SITE, PoolCookie},
    tables::{Rule, cfa, rbp, rbx},
};

use super::observation::Observation;
use crate::{
    probe::{
        Counters,
        ebpf::{PythonEvent, PythonPoint},
    },
    report::{
        pools::{PoolSiteReport, PythonMemory},
        profile::Quality,
    },
    symbolize::frame::Frame,
    target::{
        module::Module,
        python::{
            Interpreter, PoolPlace, Setting,
            pools::{Census, census, pool_at},
        },
    },
    unwind::exact,
};

/// What is known of an interpreter's small objects.
#[derive(Debug)]
pub(super) struct Pools {
    setting: Option<Setting>,
    pool_size: u64,
    /// Whether pools are noted.
    watched: bool,
    all: Option<Census>,
    /// By sites; `None` before it was read.
    held: Option<HashMap<u64, Held>>,
}

/// What the pools of a site hold.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    pools: u64,
    objects: u64,
    object_space: u64,
    oldest: Option<u64>,
}

/// The account at one moment.
#[derive(Debug)]
pub(super) struct Told {
    memory: PythonMemory,
    /// Sites with their keys, those with the most pools first.
    sites: Vec<(u64, u64, Held)>,
}

impl Observation {
    /// Has pools noted from now on, if this interpreter has any. What is not possible is said.
    pub(super) fn begin_pools(&mut self) {
        let Some((interpreter, memory, bias)) = self.python.interpreter() else { return };
        let setting = interpreter.setting(bias, memory);
        let pool_size = interpreter.version.pool_size();
        let points = points(interpreter);
        let mut pools = Pools { setting, pool_size, watched: false, all: None, held: None };
        if !matches!(setting, Some(Setting::Malloc { .. } | Setting::Other)) {
            let attached = points.and_then(|points| {
                self.probe
                    .attach_python(PythonEvent::PoolOpened, &points)
                    .map_err(|error| format!("the kernel refused a probe: {error}"))
            });
            match attached {
                Ok(()) => pools.watched = true,
                Err(reason) => self.warn(format!(
                    "Python's objects of 512 bytes and less are not seen where pymalloc serves them: {reason}."
                )),
            }
        }
        self.pools = Some(pools);
    }

    /// Reads what the pools hold. What was read last stays where the target is gone.
    pub(super) fn read_pools(&mut self) {
        let (Some(pools), Some((interpreter, memory, bias))) = (&mut self.pools, self.python.interpreter())
        else {
            return;
        };
        pools.setting = interpreter.setting(bias, memory).or(pools.setting);
        let Some(all) = census(&self.process, memory, pools.pool_size) else { return };
        pools.all = Some(all);
        let mut held: HashMap<u64, Held> = HashMap::new();
        let read = self.probe.pools(|address, sample| {
            let Some(pool) = pool_at(memory, address, pools.pool_size) else { return };
            let site = held.entry(sample.site).or_default();
            site.pools += 1;
            site.objects += pool.objects;
            site.object_space += pool.objects * pool.object_size;
            site.oldest = Some(site.oldest.map_or(sample.time, |oldest| oldest.min(sample.time)));
        });
        if read.is_ok() {
            pools.held = Some(held);
        }
    }

    /// The account as it stands.
    pub(super) fn pools_told(&self) -> Option<Told> {
        let pools = self.pools.as_ref()?;
        let mut sites = Vec::new();
        let held =
            |site: &u64| pools.held.as_ref().and_then(|held| held.get(site)).copied().unwrap_or_default();
        // Without the sites the rest is as true as before.
        let _ = self.probe.pool_sites(|site, opened| sites.push((site, opened, held(&site))));
        sites.sort_by_key(|(site, opened, held)| std::cmp::Reverse((held.pools, *opened, *site)));
        let sum = |part: fn(&Held) -> u64| sites.iter().map(|(_, _, held)| part(held)).sum();
        let memory = PythonMemory {
            allocator: pools.setting.map_or("unknown", Setting::label).to_owned(),
            counted: matches!(pools.setting, Some(Setting::Malloc { .. })),
            watched: pools.watched,
            pool_size: pools.pool_size,
            all_pools: pools.all.map(|all| all.pools),
            all_objects: pools.all.map(|all| all.objects),
            all_object_space: pools.all.map(|all| all.object_space),
            unseen_pools: pools.all.map_or(0, |all| all.unseen),
            read: pools.held.is_some(),
            opened: sites.iter().map(|(_, opened, _)| opened).sum(),
            inuse_pools: sum(|held| held.pools),
            inuse_objects: sum(|held| held.objects),
            inuse_object_space: sum(|held| held.object_space),
            sites: Vec::new(),
        };
        Some(Told { memory, sites })
    }
}

impl Pools {
    /// Adds what was lost.
    pub(super) fn tell_quality(&self, counters: &Counters, quality: &mut Quality) {
        if self.watched {
            quality.lost.insert(Counter::PoolLost.label().to_owned(), counters.get(Counter::PoolLost));
        }
    }
}

impl Told {
    /// The keys of the first `most` sites.
    pub(super) fn keys(&self, most: usize) -> impl Iterator<Item = &u64> {
        self.sites.iter().take(most).map(|(site, ..)| site)
    }

    /// What a report says of it, with the stacks of the first `most` sites; `now` is `CLOCK_MONOTONIC` in nanoseconds.
    pub(super) fn report(
        self,
        most: usize,
        now: u64,
        mut stack: impl FnMut(u64) -> Vec<Arc<Frame>>,
    ) -> PythonMemory {
        let sites = self.sites.into_iter().enumerate().map(|(rank, (site, opened, held))| PoolSiteReport {
            opened,
            inuse_pools: held.pools,
            inuse_objects: held.objects,
            inuse_object_space: held.object_space,
            oldest: held.oldest.map(|oldest| Duration::from_nanos(now.saturating_sub(oldest))),
            stack: if rank < most { stack(site) } else { Vec::new() },
        });
        PythonMemory { sites: sites.collect(), ..self.memory }
    }
}

/// Whether a stack is that of a pool.
pub(super) fn is_of_pools(allocator: u8) -> bool {
    allocator == POOL_SITE
}

/// Where the probes go.
fn points(interpreter: &Interpreter) -> Result<Vec<PythonPoint>, String> {
    let module = &interpreter.module;
    if interpreter.pool_places.is_empty() {
        return Err(format!("the function that opens pools was not found in {}", module.path.display()));
    }
    interpreter.pool_places.iter().map(|place| point(module, place)).collect()
}

fn point(module: &Arc<Module>, place: &PoolPlace) -> Result<PythonPoint, String> {
    let data = module.data().map_err(|error| error.to_string())?;
    let rule = exact::rule_at(&data, place.at).map_err(|error| error.to_string())?;
    let cookie = rule.and_then(|rule| cookie_of(rule, place.register));
    Ok(PythonPoint {
        path: module.attach_path().ok_or("an interpreter outside every file")?,
        offset: module.file_offset_of(place.at).ok_or("a function outside the file")?,
        cookie: cookie.ok_or("the frame of the function that opens pools is not understood")?.0,
    })
}

/// What the probe has to know of its place, where this rule holds.
fn cookie_of(rule: Rule, register: u8) -> Option<PoolCookie> {
    let words = |bytes: i32| u16::try_from(bytes / 8).ok().filter(|words| *words > 0 && bytes % 8 == 0);
    let down = |offset: i16| words(-i32::from(offset));
    let saved_rbp = match rule.rbp_kind {
        rbp::SAME => PoolCookie::NOT_SAVED,
        rbp::AT_CFA => down(rule.rbp_offset)?,
        _ => return None,
    };
    let saved_rbx = match rule.rbx_kind {
        rbx::SAME => PoolCookie::NOT_SAVED,
        rbx::AT_CFA => down(rule.rbx_offset)?,
        _ => PoolCookie::LOST,
    };
    let from_rsp = rule.cfa_kind == cfa::RSP;
    from_rsp.then(|| Some(PoolCookie::new(register, words(rule.cfa_offset)?, saved_rbp, saved_rbx)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_says_where_the_callers_registers_are() {
        let rule = Rule {
            cfa_offset: 64,
            rbp_offset: -48,
            rbx_offset: -56,
            cfa_kind: cfa::RSP,
            cfa_addend: 0,
            rbp_kind: rbp::AT_CFA,
            rbx_kind: rbx::AT_CFA,
        };
        let cookie = cookie_of(rule, 6);
        assert_eq!(cookie.map(|cookie| (cookie.register(), cookie.distances())), Some((6, [8, 6, 7])));
        let plain = Rule { rbp_kind: rbp::SAME, rbx_kind: rbx::SAME, ..rule };
        assert_eq!(cookie_of(plain, 0).map(PoolCookie::distances), Some([8, 0, 0]));
        let lost = Rule { rbx_kind: rbx::UNKNOWN, ..rule };
        assert_eq!(cookie_of(lost, 0).map(PoolCookie::distances), Some([8, 6, 0xffff]));
        for unknown in [
            Rule { cfa_kind: cfa::RBP, ..rule },
            Rule { rbp_kind: rbp::UNKNOWN, ..rule },
            Rule { cfa_offset: 60, ..rule },
            Rule { cfa_offset: i32::MAX, ..rule },
        ] {
            assert_eq!(cookie_of(unknown, 0), None, "{unknown:?}");
        }
    }
}
