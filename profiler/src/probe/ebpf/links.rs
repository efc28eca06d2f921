//! What holds probes in the target: descriptors, and perf events that aya keeps.

use std::os::fd::OwnedFd;

use aya::Ebpf;

use super::attach::perf_program;

/// Some probes. Dropped, those of multi links are gone; those of perf events are taken out by [`Self::remove`].
#[derive(Default)]
pub(super) struct Links {
    pub(super) multi: Vec<OwnedFd>,
    pub(super) perf: Vec<(&'static str, aya::programs::uprobe::UProbeLinkId)>,
}

impl Links {
    pub(super) fn add(&mut self, more: Self) {
        self.multi.extend(more.multi);
        self.perf.extend(more.perf);
    }

    /// All at the same time: each is out of the target at once, and then takes some hundredths of a second in which the kernel
    /// makes sure that no program of it runs any more.
    pub(super) fn remove_at_once(mut self, ebpf: &mut Ebpf) {
        std::thread::scope(|scope| {
            self.multi.drain(..).for_each(|link| drop(scope.spawn(move || drop(link))))
        });
        self.remove(ebpf);
    }

    /// Last placed, first removed.
    pub(super) fn remove(mut self, ebpf: &mut Ebpf) {
        while self.multi.pop().is_some() {}
        while let Some((name, link)) = self.perf.pop() {
            if let Ok(program) = perf_program(ebpf, name) {
                // A link that is gone already is what we want.
                let _ = program.detach(link);
            }
        }
    }
}
