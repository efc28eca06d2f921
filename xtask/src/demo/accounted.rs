//! What heapscope accounts for of each request, beside the growth of the service's resident set.

use std::fmt;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// By how much the two may differ.
const TOLERANCE: f64 = 0.05;
/// What malloc keeps before a block of glibc's, the multiple that the whole is, and the least (`malloc_usable_size(3)`).
const HEADER: u64 = 8;
const ALIGNMENT: u64 = 16;
const LEAST_CHUNK: u64 = 32;

/// Bytes a request.
#[derive(Debug)]
pub(super) struct Accounted {
    /// Requests that were answered meanwhile.
    requests: u64,
    /// What was asked for.
    blocks: f64,
    /// The same as glibc's chunks.
    chunks: f64,
    /// Pools of pymalloc that were opened and are in use.
    pools: f64,
    /// Growth of the resident set.
    growth: f64,
}

impl Accounted {
    /// Adds up the JSON of a recording.
    pub(super) fn of(report: &Value, requests: u64, growth: i64) -> Result<Self> {
        let sites = report["sites"].as_array().context("the JSON has no `sites`")?;
        let (mut blocks, mut chunks) = (0, 0);
        for site in sites {
            let (objects, space) = (site["inuse_objects"].as_u64(), site["inuse_space"].as_u64());
            let (Some(objects @ 1..), Some(space)) = (objects, space) else { continue };
            // Those of a site are taken to be of one size.
            let chunk = (space / objects + HEADER).next_multiple_of(ALIGNMENT).max(LEAST_CHUNK);
            blocks += space;
            chunks += objects * chunk;
        }
        let samples = &report["python"]["pool_samples"];
        let pools = samples["inuse_pools"].as_u64().zip(samples["pool_size"].as_u64());
        let (pools, size) = pools.context("the JSON has no pools of Python's")?;
        ensure!(requests > 0, "the service answered no request");
        #[expect(clippy::cast_precision_loss, reason = "shown with a digit")]
        let each = |bytes: u64| bytes as f64 / requests as f64;
        #[expect(clippy::cast_precision_loss, reason = "as above")]
        let growth = growth as f64 / requests as f64;
        Ok(Self {
            requests,
            blocks: each(blocks),
            chunks: each(chunks),
            pools: each(pools.saturating_mul(size)),
            growth,
        })
    }

    /// Bytes that the resident set grew by, a request.
    pub(super) fn growth(&self) -> f64 {
        self.growth
    }

    fn together(&self) -> f64 {
        self.chunks + self.pools
    }

    /// Whether what is accounted for is what the resident set grew by.
    ///
    /// # Errors
    /// Where it is not, with both.
    pub(super) fn check(&self) -> Result<()> {
        let (together, growth) = (self.together(), self.growth);
        ensure!(
            (together - growth).abs() <= TOLERANCE * growth,
            "{together:.1} bytes a request are accounted for, but the resident set grew by {growth:.1}"
        );
        Ok(())
    }
}

impl fmt::Display for Accounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let together = self.together();
        writeln!(f, "Bytes a request, over {} requests:", self.requests)?;
        for (bytes, what) in [
            (self.blocks, "live blocks"),
            (self.chunks, "the same as glibc's chunks"),
            (self.pools, "pools of small objects that were opened and are in use"),
            (together, "chunks and pools together"),
        ] {
            writeln!(f, "  {bytes:>9.1}  {what}")?;
        }
        let difference = 100.0 * (together / self.growth - 1.0);
        write!(f, "  {:>9.1}  growth of the resident set: {difference:+.2}%", self.growth)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

    use serde_json::json;

    use super::Accounted;

    #[test]
    fn chunks_and_pools_beside_the_growth() {
        let report = json!({
            "sites": [
                { "inuse_objects": 10, "inuse_space": 10_240 },
                { "inuse_objects": 0, "inuse_space": 0 },
                { "inuse_objects": 1, "inuse_space": 1 },
            ],
            "python": { "pool_samples": { "inuse_pools": 2, "pool_size": 4096 } },
        });
        let of = |growth| Accounted::of(&report, 10, growth).unwrap();
        // (10 * 1040 + 32 + 2 * 4096) / 10
        let exact = of(18_624);
        assert!((exact.together() - 1862.4).abs() < 1e-9, "{exact:?}");
        assert!(exact.check().is_ok() && of(17_800).check().is_ok() && of(19_500).check().is_ok());
        for growth in [17_700, 19_700, 0, -1] {
            let error = of(growth).check().unwrap_err().to_string();
            assert!(error.starts_with("1862.4 bytes a request"), "{error}");
        }
        assert!(Accounted::of(&report, 0, 1).is_err());
        assert!(Accounted::of(&json!({ "sites": [] }), 1, 1).is_err());
    }
}
