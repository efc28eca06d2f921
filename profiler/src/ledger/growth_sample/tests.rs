//! Estimates against the whole that the sample was taken of.

#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a test may panic, and its numbers are small"
)]

use profiler_common::growth::{is_chosen, is_in_chosen_block};

use super::*;
use crate::ledger::growth::PageState::{Absent, Anonymous};

const BLOCK: u64 = 512;

/// Blocks of pages from this one on, of which each fifth is one huge page of site 9. Of the others, site 1 has a half, site 2 an
/// eighth, nobody another eighth, and the rest is given back by site 3.
fn fill(sample: &mut ResidenceSample, first: u64, blocks: u64, shift: u64, with_huge: bool) {
    for block in first / BLOCK..first / BLOCK + blocks {
        let is_huge = with_huge && block % 5 == 0;
        let pages: Vec<SampledPage> = (block * BLOCK..(block + 1) * BLOCK)
            .map(|page| {
                let (is_chosen, is_in_block) = (is_chosen(page, shift), is_in_chosen_block(page, shift));
                let (state, owner, with) = match page % 8 {
                    7 if is_huge && page % BLOCK == 7 => (Anonymous, Some(9), None),
                    _ if is_huge => (Anonymous, None, Some(9)),
                    0..4 => (Anonymous, Some(1), None),
                    4 => (Anonymous, Some(2), None),
                    5 => (Anonymous, None, None),
                    _ => (Absent, Some(3), None),
                };
                // What is not in a sample is not known.
                let owner = owner.filter(|_| is_chosen || is_in_block);
                let with = with.filter(|_| is_in_block);
                let seen = SeenPage { state, was_there: false, owner, with };
                SampledPage { seen, is_chosen, is_in_block, is_huge }
            })
            .collect();
        sample.add(Place::Anonymous, &pages);
    }
}

fn estimate(first: u64, blocks: u64, shift: u64, with_huge: bool) -> Estimate {
    let mut sample = ResidenceSample::new(1 << shift);
    fill(&mut sample, first, blocks, shift, with_huge);
    sample.estimate()
}

#[test]
fn all_pages_are_exact() {
    let exact = estimate(0, 10, 0, true);
    assert_eq!((exact.one_in, exact.error, exact.errors.len()), (1, None, 0));
    let sites = &exact.residence.sites;
    let came = |site: u64| sites[&site].all();
    assert_eq!((came(1), came(2), came(9)), (8 * 256, 8 * 64, 2 * 512));
    assert_eq!((sites[&3].gone, sites[&9].of_huge), (8 * 128, 2 * 511));
    assert_eq!(exact.residence.unexplained[1], 8 * 64);
    assert_eq!(exact.came[1], 8 * (256 + 64 + 64) + 2 * 512);
}

/// Many samples of the same: on average they are right, and as far off as they say.
fn assert_honest(with_huge: bool, blocks: u64, shift: u64, sites: &[u64]) {
    const TURNS: u64 = 150;
    let exact = estimate(0, blocks, 0, with_huge);
    for site in sites {
        let truth = exact.residence.sites[site].all() as f64;
        let (mut sum, mut squares, mut told) = (0.0, 0.0, 0.0);
        for turn in 0..TURNS {
            // Elsewhere, other pages are chosen.
            let sampled = estimate((turn + 1) * 5 * 1000 * BLOCK, blocks, shift, with_huge);
            assert_eq!(sampled.came, exact.came, "what came is known");
            let off = sampled.residence.sites.get(site).map_or(0, SitePages::all) as f64 - truth;
            let error = sampled.errors.get(site).copied().unwrap_or_default() as f64;
            (sum, squares, told) = (sum + off, squares + off * off, told + error * error);
        }
        let (bias, spread) = (sum / TURNS as f64, (squares / TURNS as f64).sqrt());
        assert!(
            bias.abs() < 4.0 * spread / (TURNS as f64).sqrt(),
            "site {site}: {truth} off by {bias}, {spread}"
        );
        let said = (told / TURNS as f64).sqrt();
        assert!((0.75..1.3).contains(&(said / spread)), "site {site} says ±{said}, and is ±{spread}");
    }
}

#[test]
fn samples_are_unbiased_and_say_how_far_off_they_are() {
    assert_honest(false, 16, 4, &[1, 2]);
    assert_honest(true, 50, 2, &[1, 2, 9]);
}

#[test]
fn what_came_is_shared_out_whole() {
    let sampled = estimate(1 << 30, 60, 6, false);
    let shared = sampled.residence.total().all() + sampled.residence.unexplained.iter().sum::<u64>();
    let came: u64 = sampled.came.iter().sum();
    assert!(shared.abs_diff(came) <= 3, "{shared} of {came}, but for rounding");
    assert!(sampled.error.unwrap() > 0);
    let gone = sampled.residence.sites[&3].gone as f64;
    assert!((gone - 60.0 * 128.0).abs() < 5.0 * (64.0 * 60.0 * 128.0_f64).sqrt(), "{gone}");
}

#[test]
fn each_sample_is_part_of_the_finer_ones() {
    for page in 0..20_000 {
        for shift in 1..17 {
            assert!(!is_chosen(page, shift) || is_chosen(page, shift - 1));
            assert!(!is_in_chosen_block(page, shift) || is_in_chosen_block(page, shift - 1));
        }
    }
    let chosen = (0..1 << 18).filter(|page| is_chosen(*page, 6)).count();
    assert!((3_900..4_300).contains(&chosen), "{chosen}");
}
