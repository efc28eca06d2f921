//! The account of growth: whose pages are in memory at the end that were not at the beginning.
//!
//! Who touched a page last while it was not there owns it. Pieces of the process's pages go in, each with what is known of its
//! pages; sums by site come out.

use std::collections::HashMap;

/// In which kind of memory a page lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// What grows by brk.
    Heap,
    /// The main thread's stack.
    Stack,
    /// Memory without a file, by mmap: large blocks, arenas, stacks of threads.
    Anonymous,
    /// The process's own copy of a file's pages: variables of programs and libraries.
    File,
    /// Code, of which the process has a copy only where something was written into it: the breakpoints of tracers, ours among
    /// them.
    Code,
    /// Files and shared memory.
    Shared,
}

/// Kinds of memory.
pub const PLACES: usize = 6;

impl Place {
    /// All of them, in the order of their sums.
    pub const ALL: [Self; PLACES] =
        [Self::Heap, Self::Anonymous, Self::Stack, Self::File, Self::Code, Self::Shared];

    pub(super) const fn index(self) -> usize {
        match self {
            Self::Heap => 0,
            Self::Anonymous => 1,
            Self::Stack => 2,
            Self::File => 3,
            Self::Code => 4,
            Self::Shared => 5,
        }
    }
}

/// Where a page is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PageState {
    /// Not in memory: never touched, or given back.
    #[default]
    Absent,
    /// Read and never written: it takes no memory.
    Zeros,
    /// Moved out of memory.
    Swapped,
    /// In memory, of a file or shared.
    File,
    /// In memory, the process's own.
    Anonymous,
}

/// A page as it was seen at the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SeenPage {
    /// Where it is.
    pub state: PageState,
    /// Whether it was in memory, and the process's own, at the beginning.
    pub was_there: bool,
    /// The site that touched it last.
    pub owner: Option<u64>,
    /// The site that touched the huge page that it is part of.
    pub with: Option<u64>,
}

impl SeenPage {
    /// Whether it is in memory, and was not at the beginning.
    #[must_use]
    pub fn has_come(&self) -> bool {
        self.state == PageState::Anonymous && !self.was_there
    }

    /// Whether it is in memory, and was at the beginning.
    #[must_use]
    pub fn has_stayed(&self) -> bool {
        self.state == PageState::Anonymous && self.was_there
    }
}

/// Pages of one site.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SitePages {
    /// In memory at the end and not at the beginning, the process's own, by [`Place::ALL`].
    pub came: [u64; PLACES],
    /// Of those, not touched one by one: they came with a huge page.
    pub of_huge: u64,
    /// In memory at the end as at the beginning: copied after a fork, or given back and touched again.
    pub was_there: u64,
    /// In memory at the end, of a file or shared.
    pub file: u64,
    /// Moved out of memory.
    pub swapped: u64,
    /// Read and never written.
    pub zeros: u64,
    /// Given back.
    pub gone: u64,
}

impl SitePages {
    /// All that came.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.came.iter().sum()
    }
}

/// All pages that were looked at.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Residence {
    /// By site.
    pub sites: HashMap<u64, SitePages>,
    /// In memory at the end and not at the beginning, with no site that touched them, by [`Place::ALL`].
    pub unexplained: [u64; PLACES],
    /// In memory at the end as at the beginning, whoever touched them.
    pub stayed: u64,
}

impl Residence {
    /// Adds neighbouring pages.
    pub fn add(&mut self, place: Place, pages: &[SeenPage]) {
        let at = place.index();
        for page in pages {
            self.stayed += u64::from(page.has_stayed());
            if let Some(owner) = page.owner {
                let site = self.sites.entry(owner).or_default();
                match page.state {
                    PageState::Anonymous if page.was_there => site.was_there += 1,
                    PageState::Anonymous => site.came[at] += 1,
                    PageState::File => site.file += 1,
                    PageState::Swapped => site.swapped += 1,
                    PageState::Zeros => site.zeros += 1,
                    PageState::Absent => site.gone += 1,
                }
            } else if page.has_come() {
                match page.with {
                    Some(with) => {
                        let site = self.sites.entry(with).or_default();
                        site.came[at] += 1;
                        site.of_huge += 1;
                    }
                    None => self.unexplained[at] += 1,
                }
            }
        }
    }

    /// Adds a page of this site that lies in no mapping any more.
    pub fn unmapped(&mut self, site: u64) {
        self.sites.entry(site).or_default().gone += 1;
    }

    /// Sums over all sites.
    #[must_use]
    pub fn total(&self) -> SitePages {
        self.sites.values().fold(SitePages::default(), |mut sum, site| {
            sum.came.iter_mut().zip(site.came).for_each(|(sum, more)| *sum += more);
            sum.of_huge += site.of_huge;
            sum.was_there += site.was_there;
            sum.file += site.file;
            sum.swapped += site.swapped;
            sum.zeros += site.zeros;
            sum.gone += site.gone;
            sum
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn page(state: PageState, was_there: bool, owner: Option<u64>, with: Option<u64>) -> SeenPage {
        SeenPage { state, was_there, owner, with }
    }

    /// Every kind of page against what is said of each kind.
    #[test]
    fn each_page_is_counted_once() {
        use PageState::{Absent, Anonymous, File, Swapped, Zeros};
        let mut residence = Residence::default();
        for state in [Absent, Zeros, Swapped, File, Anonymous] {
            for was_there in [false, true] {
                for (owner, with) in [(None, None), (Some(1), None), (None, Some(2)), (Some(1), Some(2))] {
                    residence.add(Place::Heap, &[page(state, was_there, owner, with)]);
                }
            }
        }
        residence
            .add(Place::Stack, &[page(Anonymous, false, Some(1), None), page(Anonymous, false, None, None)]);
        residence.unmapped(1);
        let one = SitePages {
            came: [2, 0, 1, 0, 0, 0],
            was_there: 2,
            file: 4,
            swapped: 4,
            zeros: 4,
            gone: 5,
            of_huge: 0,
        };
        let two = SitePages { came: [1, 0, 0, 0, 0, 0], of_huge: 1, ..SitePages::default() };
        assert_eq!(residence.sites, HashMap::from([(1, one), (2, two)]));
        assert_eq!(residence.unexplained, [1, 0, 1, 0, 0, 0]);
        assert_eq!(residence.stayed, 4);
        let total = SitePages { came: [3, 0, 1, 0, 0, 0], of_huge: 1, ..one };
        assert_eq!((residence.total(), one.all()), (total, 3));
    }
}
