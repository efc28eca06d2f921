//! What the probes on mmap, munmap and mremap have told.

use profiler_common::mappings::MappingEvent;

use super::EbpfProbe;

impl EbpfProbe {
    /// Hands out what was told of mappings since the last call, in order; nothing where the probes were not loaded for
    /// it.
    pub fn mapping_events(&mut self, mut each: impl FnMut(&MappingEvent)) {
        let Some(events) = &mut self.mapping_events else { return };
        while let Some(item) = events.next() {
            // A record that is shorter was not written by our programs.
            if let Some(record) = item.get(..size_of::<MappingEvent>()) {
                each(&bytemuck::pod_read_unaligned(record));
            }
        }
    }
}
