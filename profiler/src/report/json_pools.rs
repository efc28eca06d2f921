//! The part of the JSON report that is about Python's small objects.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::{
    json::stack,
    pools::{PoolSiteReport, PythonMemory},
};
use crate::symbolize::frame::Frame;

#[derive(Serialize)]
pub(super) struct PythonView<'a> {
    small_objects_by: &'a str,
    pool_samples: Option<SamplesView<'a>>,
    all_pools: Option<u64>,
    all_objects: Option<u64>,
    all_object_space: Option<u64>,
    unseen_pools: u64,
}

#[derive(Serialize)]
struct SamplesView<'a> {
    pool_size: u64,
    opened: u64,
    /// `null` where the pools could not be read at the end.
    inuse_pools: Option<u64>,
    inuse_objects: Option<u64>,
    inuse_object_space: Option<u64>,
    #[serde(serialize_with = "sites")]
    sites: &'a [PoolSiteReport],
}

#[derive(Serialize)]
struct Site<'a> {
    opened: u64,
    inuse_pools: u64,
    inuse_pools_error: f64,
    inuse_objects: u64,
    inuse_object_space: u64,
    oldest_seconds: Option<f64>,
    #[serde(serialize_with = "stack")]
    stack: &'a [Arc<Frame>],
}

impl<'a> PythonView<'a> {
    pub(super) fn of(memory: &'a PythonMemory) -> Self {
        let read = |number: u64| memory.read.then_some(number);
        Self {
            small_objects_by: &memory.allocator,
            pool_samples: memory.watched.then(|| SamplesView {
                pool_size: memory.pool_size,
                opened: memory.opened,
                inuse_pools: read(memory.inuse_pools),
                inuse_objects: read(memory.inuse_objects),
                inuse_object_space: read(memory.inuse_object_space),
                sites: &memory.sites,
            }),
            all_pools: memory.all_pools,
            all_objects: memory.all_objects,
            all_object_space: memory.all_object_space,
            unseen_pools: memory.unseen_pools,
        }
    }
}

fn sites<S: Serializer>(sites: &[PoolSiteReport], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(sites.iter().map(|site| Site {
        opened: site.opened,
        inuse_pools: site.inuse_pools,
        inuse_pools_error: site.error(),
        inuse_objects: site.inuse_objects,
        inuse_object_space: site.inuse_object_space,
        oldest_seconds: site.oldest.map(|age| age.as_secs_f64()),
        stack: &site.stack,
    }))
}
