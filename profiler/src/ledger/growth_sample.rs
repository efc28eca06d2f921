//! The account of growth where not all page faults were seen: those of a sample of pages.
//!
//! A page is in the sample by its number, one in so many, so that all that happened to it is known, as if it were all there is.
//! What is known of the sample stands for as many times as much. How many pages came is known of all of them, and where there are
//! no huge pages, the sample's are weighted so that they add up to that.
//!
//! A huge page has one fault, by any of its pages. Whose it is would be known by chance alone, and whether it was one fault or
//! many not at all, so these have a sample of their own: that of whole blocks, in which every fault is seen.

use std::collections::HashMap;

use super::growth::{PLACES, Place, Residence, SeenPage, SitePages};

/// A page as it was seen at the end, with its part in the samples.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SampledPage {
    /// What is known of it.
    pub seen: SeenPage,
    /// Whether it is in the sample of pages.
    pub is_chosen: bool,
    /// Whether it is in the sample of blocks.
    pub is_in_block: bool,
    /// Whether it is part of a huge page, where it is in a sample.
    pub is_huge: bool,
}

/// All pages that were looked at.
#[derive(Debug)]
pub struct ResidenceSample {
    /// Of so many pages, one is in the sample; 1 where all are.
    one_in: u64,
    came: [u64; PLACES],
    stayed: u64,
    /// What is known of the sample of pages.
    pages: Residence,
    /// What is known of huge pages in the sample of blocks.
    huge: Residence,
    /// Where huge pages were met, in whichever sample.
    has_huge: [bool; PLACES],
    /// Sums of squares of what each site has in such a block.
    squares: HashMap<u64, f64>,
}

/// What is known of all pages.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Estimate {
    /// Numbers of pages: estimates where pages were sampled.
    pub residence: Residence,
    /// How many came, all of them, by [`Place::ALL`].
    pub came: [u64; PLACES],
    /// Of so many pages, one was in the sample; 1 where all were.
    pub one_in: u64,
    /// Standard error of what came by each site; empty where all pages were seen.
    pub errors: HashMap<u64, u64>,
    /// Standard error of what came by all sites together.
    pub error: Option<u64>,
}

impl ResidenceSample {
    /// Nothing yet, of one page in so many.
    #[must_use]
    pub fn new(one_in: u64) -> Self {
        Self {
            one_in: one_in.max(1),
            came: [0; PLACES],
            stayed: 0,
            pages: Residence::default(),
            huge: Residence::default(),
            has_huge: [false; PLACES],
            squares: HashMap::new(),
        }
    }

    /// Adds neighbouring pages of at most one huge page.
    pub fn add(&mut self, place: Place, pages: &[SampledPage]) {
        for page in pages {
            self.came[place.index()] += u64::from(page.seen.has_come());
            self.stayed += u64::from(page.seen.has_stayed());
        }
        if self.one_in == 1 {
            let pages: Vec<SeenPage> = pages.iter().map(|page| page.seen).collect();
            self.pages.add(place, &pages);
            return;
        }
        let is_of_huge = |page: &&SampledPage| page.is_huge && page.seen.has_come();
        self.has_huge[place.index()] |= pages.iter().any(|page| is_of_huge(&page));
        let chosen: Vec<SeenPage> =
            pages.iter().filter(|page| page.is_chosen && !is_of_huge(page)).map(|page| page.seen).collect();
        self.pages.add(place, &chosen);
        let huge: Vec<SeenPage> =
            pages.iter().filter(|page| page.is_in_block && is_of_huge(page)).map(|page| page.seen).collect();
        if huge.is_empty() {
            return;
        }
        let mut block = Residence::default();
        block.add(place, &huge);
        for (site, pages) in &block.sites {
            *self.squares.entry(*site).or_default() += float(pages.all()).powi(2);
        }
        self.huge.add(place, &huge);
    }

    /// Adds a page of this site that lies in no mapping any more, if it is in the sample.
    pub fn unmapped(&mut self, site: u64, is_chosen: bool) {
        if is_chosen {
            self.pages.unmapped(site);
        }
    }

    /// What is known of all pages.
    #[must_use]
    pub fn estimate(self) -> Estimate {
        let (came, one_in, stayed) = (self.came, self.one_in, self.stayed);
        if one_in == 1 {
            return Estimate { residence: self.pages, came, one_in, ..Estimate::default() };
        }
        let mut estimate = Estimate { came, one_in, ..Estimate::default() };
        let weights = self.weights();
        let mut in_sample = self.pages.unexplained;
        for site in self.pages.sites.values() {
            in_sample.iter_mut().zip(site.came).for_each(|(sum, more)| *sum += more);
        }
        let mut sites: Vec<u64> = self.pages.sites.keys().chain(self.huge.sites.keys()).copied().collect();
        sites.sort_unstable();
        sites.dedup();
        let rarely = 1.0 - 1.0 / float(one_in);
        // Those of the pages that nobody has touched as well: what is one site's is not another's.
        let error = |of: &[u64; PLACES], squares: f64| {
            let of_places = of.iter().zip(&in_sample).zip(&weights).map(|((of, all), (weight, adds_up))| {
                let others = if *adds_up { 1.0 - float(*of) / float(all + 1) } else { 1.0 };
                weight * weight * float(*of) * others
            });
            let of_huge = float(one_in).powi(2) * squares;
            whole((rarely * (of_places.sum::<f64>() + of_huge)).sqrt())
        };
        let (mut all, mut all_squares) = ([0; PLACES], 0.0);
        for site in sites {
            let pages = self.pages.sites.get(&site).copied().unwrap_or_default();
            let huge = self.huge.sites.get(&site).copied().unwrap_or_default();
            let squares = self.squares.get(&site).copied().unwrap_or_default();
            all.iter_mut().zip(pages.came).for_each(|(sum, more)| *sum += more);
            all_squares += squares;
            estimate.errors.insert(site, error(&pages.came, squares));
            estimate.residence.sites.insert(site, self.weighted(&pages, &huge, &weights));
        }
        estimate.error = Some(error(&all, all_squares));
        let unexplained = SitePages { came: self.pages.unexplained, ..SitePages::default() };
        let of_huge = SitePages { came: self.huge.unexplained, ..SitePages::default() };
        estimate.residence.unexplained = self.weighted(&unexplained, &of_huge, &weights).came;
        estimate.residence.stayed = stayed;
        estimate
    }

    /// For how many each page of the sample stands that came, and whether what they stand for is what is known to have come.
    fn weights(&self) -> [(f64, bool); PLACES] {
        let mut weights = [(float(self.one_in), false); PLACES];
        for (at, weight) in weights.iter_mut().enumerate() {
            let owned: u64 = self.pages.sites.values().map(|site| site.came[at]).sum();
            let seen = owned + self.pages.unexplained[at];
            if !self.has_huge[at] && seen > 0 {
                *weight = (float(self.came[at]) / float(seen), true);
            }
        }
        weights
    }

    fn weighted(&self, pages: &SitePages, huge: &SitePages, weights: &[(f64, bool); PLACES]) -> SitePages {
        let times = |pages: u64| pages.saturating_mul(self.one_in);
        let mut came = [0; PLACES];
        for (at, came) in came.iter_mut().enumerate() {
            *came = whole(float(pages.came[at]) * weights[at].0).saturating_add(times(huge.came[at]));
        }
        SitePages {
            came,
            of_huge: times(pages.of_huge.saturating_add(huge.of_huge)),
            was_there: times(pages.was_there),
            file: times(pages.file),
            swapped: times(pages.swapped),
            zeros: times(pages.zeros),
            gone: times(pages.gone),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of pages stay far below 2 to the 52nd")]
fn float(number: u64) -> f64 {
    number as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float's cast saturates")]
fn whole(number: f64) -> u64 {
    number.max(0.0).round() as u64
}

#[cfg(test)]
#[path = "growth_sample/tests.rs"]
mod tests;
