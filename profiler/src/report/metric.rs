//! What the width of a frame and the order of a table stand for: pprof's four sample types, and temporary blocks.

use super::{
    profile::{Profile, SiteReport, Totals},
    units::{blocks, bytes},
};

/// A number that each site has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Metric {
    /// Live bytes.
    #[default]
    InuseSpace,
    /// Live blocks.
    InuseObjects,
    /// Bytes allocated since attach.
    AllocSpace,
    /// Blocks allocated since attach.
    AllocObjects,
    /// Blocks that their thread freed again before it allocated another one.
    Temporary,
}

impl Metric {
    /// What it counts, as in `live bytes`.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::InuseSpace => "live bytes",
            Self::InuseObjects => "live blocks",
            Self::AllocSpace => "allocated bytes",
            Self::AllocObjects => "allocated blocks",
            Self::Temporary => "temporary blocks",
        }
    }

    /// `bytes` or `blocks`.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::InuseSpace | Self::AllocSpace => "bytes",
            Self::InuseObjects | Self::AllocObjects | Self::Temporary => "blocks",
        }
    }

    /// A site's number.
    #[must_use]
    pub fn of(self, site: &SiteReport) -> u64 {
        if self == Self::Temporary { site.history.temporary_objects } else { self.of_totals(&site.totals) }
    }

    /// The number of these totals. They do not know of temporary blocks: [`Self::sum`] does.
    #[must_use]
    pub const fn of_totals(self, totals: &Totals) -> u64 {
        match self {
            Self::InuseSpace => totals.inuse_space,
            Self::InuseObjects => totals.inuse_objects,
            Self::AllocSpace => totals.alloc_space,
            Self::AllocObjects => totals.alloc_objects,
            Self::Temporary => 0,
        }
    }

    /// All sites together.
    #[must_use]
    pub fn sum(self, profile: &Profile) -> u64 {
        match self {
            Self::Temporary => {
                profile.sites.iter().fold(0, |sum, site| u64::saturating_add(sum, self.of(site)))
            }
            _ => self.of_totals(&profile.totals),
        }
    }

    /// The number with its unit.
    #[must_use]
    pub fn shown(self, number: u64) -> String {
        if self.unit() == "bytes" { bytes(number) } else { blocks(number) }
    }
}
