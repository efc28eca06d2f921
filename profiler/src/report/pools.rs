//! What a report says of Python's small objects: an estimate from samples of pools, an account of its own, which is never
//! added to that of the blocks.

use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use super::{
    options::ReportOptions,
    table::{INDENT, STACK_LINES, write_wrapped},
    units::{bytes, count, counted, percent, span},
};
use crate::symbolize::{
    fold::{cut_middle, fold, shorten},
    frame::Frame,
};

/// Memory of CPython's allocator of small objects, pymalloc. Each sample is a pool: memory for objects of one size, which
/// was opened because the pools before it were full.
#[derive(Clone, Debug, Default)]
pub struct PythonMemory {
    /// What serves small objects, in words.
    pub allocator: String,
    /// Whether that is malloc, so that all of them are among the blocks.
    pub counted: bool,
    /// Whether pools were noted as they were opened.
    pub watched: bool,
    /// Bytes of a pool.
    pub pool_size: u64,
    /// All pools with objects in them at the end, whenever they were opened; `None` where they could not be read.
    pub all_pools: Option<u64>,
    /// Objects in those.
    pub all_objects: Option<u64>,
    /// Bytes of those objects, as pymalloc rounds them.
    pub all_object_space: Option<u64>,
    /// Places that could have been pools and were not looked at.
    pub unseen_pools: u64,
    /// Whether the noted pools could be read at the end. Otherwise all of `inuse_…` is 0.
    pub read: bool,
    /// Pools opened while the process was watched.
    pub opened: u64,
    /// Of those, pools with objects in them at the end.
    pub inuse_pools: u64,
    /// Objects in those.
    pub inuse_objects: u64,
    /// Bytes of those objects.
    pub inuse_object_space: u64,
    /// The sites, most pools first.
    pub sites: Vec<PoolSiteReport>,
}

/// One site: a whole stack whose object made a pool necessary.
#[derive(Clone, Debug)]
pub struct PoolSiteReport {
    /// Pools opened here.
    pub opened: u64,
    /// Of those, pools with objects in them at the end.
    pub inuse_pools: u64,
    /// Objects in those, whoever allocated them.
    pub inuse_objects: u64,
    /// Bytes of those objects.
    pub inuse_object_space: u64,
    /// Age of its oldest pool in use; `None` where it has none.
    pub oldest: Option<Duration>,
    /// Leaf first.
    pub stack: Vec<Arc<Frame>>,
}

impl PoolSiteReport {
    /// The standard error of `inuse_pools`: pools are opened as the events of a Poisson process are counted.
    #[must_use]
    pub fn error(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "an error needs no more digits")]
        let pools = self.inuse_pools as f64;
        pools.sqrt()
    }
}

impl PythonMemory {
    /// Bytes of so many pools.
    #[must_use]
    pub fn space(&self, pools: u64) -> u64 {
        pools.saturating_mul(self.pool_size)
    }

    /// Lines about the account as a whole.
    pub(super) fn facts(&self) -> Vec<String> {
        let mut facts = Vec::new();
        let in_pools =
            |pools: u64| format!("{} in {}", bytes(self.space(pools)), counted(pools, "pool", "pools"));
        let in_objects = |space: u64, objects: u64| {
            format!("{} of that in {}", bytes(space), counted(objects, "object", "objects"))
        };
        if self.counted {
            facts.push(format!(
                "Python's small objects are served by {}: all are among the blocks",
                self.allocator
            ));
        } else {
            facts.push(format!("Python's small objects (512 B and less) are served by {}", self.allocator));
        }
        if let (Some(pools), Some(objects), Some(space)) =
            (self.all_pools, self.all_objects, self.all_object_space)
            && pools > 0
        {
            let unseen = if self.unseen_pools > 0 {
                format!("; {} not looked at", counted(self.unseen_pools, "more place", "more places"))
            } else {
                String::new()
            };
            facts.push(format!(
                "all of pymalloc: {}, {}{unseen}; {} of it in pools opened while watched",
                in_pools(pools),
                in_objects(space, objects),
                percent(self.inuse_pools, pools)
            ));
        }
        if self.watched && self.read {
            facts.push(format!(
                "pymalloc pool samples (an estimate): {}, {}; {} opened in all",
                in_pools(self.inuse_pools),
                in_objects(self.inuse_object_space, self.inuse_objects),
                count(self.opened)
            ));
        } else if self.watched {
            facts.push(format!(
                "pymalloc pool samples: {} opened; what they hold could not be read",
                counted(self.opened, "pool", "pools")
            ));
        }
        facts
    }

    /// Writes the account: what is said of it, and the sites with the most pools.
    pub(super) fn write(&self, options: &ReportOptions, width: usize, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out)?;
        self.facts().iter().try_for_each(|line| write_wrapped(line, "", "  ", width, out))?;
        let row = |[rank, space, error, share, pools, objects, oldest]: [&str; 7]| {
            format!("{rank:>4}  {space:>10} {error:<6}  {share:>6}  {pools:>12}  {objects:>10}  {oldest:>12}")
        };
        let holding = self.sites.iter().filter(|site| site.inuse_pools > 0);
        for (i, site) in holding.clone().take(options.sites).enumerate() {
            if i == 0 {
                let head = row(["#", "sampled", "error", "share", "pools", "objects", "oldest"]);
                writeln!(out, "\n{head}")?;
            }
            let numbers = row([
                &(i + 1).to_string(),
                &bytes(self.space(site.inuse_pools)),
                &relative(site.error(), site.inuse_pools),
                &percent(site.inuse_pools, self.inuse_pools),
                &count(site.inuse_pools),
                &bytes(site.inuse_object_space),
                &site.oldest.map_or_else(|| String::from("-"), span),
            ]);
            writeln!(out, "{}", cut_middle(&numbers, width))?;
            for line in shorten(&fold(&site.stack, options.full_stacks), width - INDENT.len(), STACK_LINES) {
                writeln!(out, "{INDENT}{line}")?;
            }
        }
        let rest = holding
            .skip(options.sites)
            .fold((0u64, 0u64), |(sites, pools), site| (sites + 1, pools.saturating_add(site.inuse_pools)));
        if rest.0 > 0 {
            let sites = counted(rest.0, "other site has", "other sites have");
            writeln!(out, "\n{sites} {} more.", counted(rest.1, "pool", "pools"))?;
        }
        Ok(())
    }
}

/// `±4%`
fn relative(error: f64, pools: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "an error needs no more digits")]
    let share = error / (pools as f64).max(1.0) * 100.0;
    format!("±{share:.0}%")
}
