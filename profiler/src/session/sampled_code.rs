//! What a sampler has to know of the allocators: where their functions lie. A call out of one of them is part of a call that
//! has been decided on.

use std::sync::Arc;

use super::observation::Observation;
use crate::target::{allocator::Allocator, module::Module};

/// The functions of all allocators that were found, by file.
#[derive(Debug, Default)]
pub(super) struct SampledCode(Vec<(Arc<Module>, Vec<[u64; 2]>)>);

impl SampledCode {
    /// Takes note of an allocator that is probed.
    pub(super) fn add(&mut self, allocator: &Allocator) {
        let range = |entry: u64, size: u64| [entry, entry.saturating_add(size)];
        let functions = allocator.functions.iter().map(|function| range(function.entry.0, function.size));
        self.0.push((Arc::clone(&allocator.module), functions.collect()));
    }
}

impl Observation {
    /// Tells the sampler where they lie now.
    pub(super) fn publish_allocator_code(&mut self) -> anyhow::Result<()> {
        if !self.probe.sampling() {
            return Ok(());
        }
        let mut functions = Vec::new();
        for (module, of_file) in &self.sampled_code.0 {
            // A library that is gone has its addresses no more.
            let Some(bias) = self.code.bias_of(module) else { continue };
            functions.extend(of_file.iter().map(|function| function.map(|at| at.wrapping_add(bias))));
        }
        let left_out = self.probe.publish_allocator_code(&functions)?;
        if left_out > 0 {
            self.warn(format!(
                "{left_out} functions of allocators are more than the sampler knows: calls that they make of one another \
                 may count twice."
            ));
        }
        Ok(())
    }
}
