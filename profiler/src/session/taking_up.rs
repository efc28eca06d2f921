//! Code that the target has mapped: its tables go to the kernel, then its allocators and its interpreter are probed.

use std::sync::Arc;

use profiler_common::tables::RowChunk;

use super::{code::Change, observation::Observation};
use crate::{probe::error::ProbeError, target::module::Module};

impl Observation {
    /// Writes new tables to the kernel, then probes new allocators: a stack is never walked without its tables.
    pub(super) fn take_up(&mut self, change: &Change) -> anyhow::Result<()> {
        if !change.mappings {
            return Ok(());
        }
        self.upload()?;
        let (ranges, left_out) = self.code.ranges();
        self.probe.publish_mappings(&ranges)?;
        self.code.published(self.probe.generation());
        self.left_out = self.left_out.max(left_out);
        // Whatever takes its time comes first: an allocator's probes cost the target something from now on.
        for module in &change.modules {
            self.look_for_python(module)?;
        }
        self.giving_way = None;
        for module in &change.modules {
            self.probe_allocators(module)?;
            if let Some(callers) = &mut self.callers {
                callers.add(module);
            }
        }
        self.place_callers()?;
        self.publish_allocator_code()
    }

    fn look_for_python(&mut self, module: &Arc<Module>) -> Result<(), ProbeError> {
        let Some(bias) = self.code.bias_of(module) else { return Ok(()) };
        self.python.look(&self.process, module, bias);
        self.python_begins()
    }

    /// Has Python frames walked once an interpreter is there and initialised.
    pub(super) fn python_begins(&mut self) -> Result<(), ProbeError> {
        let Some(layout) = self.python.begin() else { return Ok(()) };
        // Before the first frame is kept.
        self.probe_code_deaths();
        if !self.probe.publish_python(&layout)? {
            self.warn(
                "Python frames are not seen: they need Linux 6.13 or later, built with type information (BTF).".into(),
            );
        }
        if self.growth.is_none() {
            self.begin_pools();
        }
        Ok(())
    }

    fn upload(&mut self) -> Result<(), ProbeError> {
        let pending = self.code.pending();
        let tables = self.code.tables();
        let rules = tables.rules().get(pending.rules.start as usize..).unwrap_or_default();
        self.probe.write_rules(pending.rules.start, rules)?;
        for index in pending.chunks() {
            if let Some(rows) = tables.chunk(index) {
                self.probe.write_rows(index, &[RowChunk { rows: *rows }])?;
            }
        }
        let pages = tables.pages().get(pending.pages.start as usize..).unwrap_or_default();
        self.probe.write_pages(pending.pages.start, pages)?;
        self.code.mark_uploaded(pending);
        Ok(())
    }
}
