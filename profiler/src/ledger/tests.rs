//! The ledger against a model that is too simple to be wrong: random histories of blocks, added up the slow way.

use profiler_common::records::largest_of_class;
use proptest::prelude::*;

use super::*;

/// What happens at one site: a block of some size is allocated at a time, and perhaps freed.
#[derive(Clone, Debug)]
struct Life {
    site: u64,
    size: u64,
    born: u64,
    freed: bool,
    in_second: bool,
    thread: u64,
}

fn life() -> impl Strategy<Value = Life> {
    (2u64..8, 0u64..200_000, 0u64..1_000, any::<[bool; 2]>(), 0u64..4).prop_map(
        |(site, size, born, [freed, in_second], thread)| Life { site, size, born, freed, in_second, thread },
    )
}

fn ledger_of(lives: &[Life], born_by: Option<u64>, marks: &[u64]) -> Account {
    let mut counters: HashMap<u64, SiteCounters> = HashMap::new();
    let empty =
        Ledger::new(born_by, marks.to_vec(), Moments::default()).with_births(Spans::between(0, 1_000));
    let mut blocks = [Vec::new(), Vec::new()];
    for life in lives {
        let site = counters.entry(life.site).or_default();
        site.alloc_objects += 1;
        site.alloc_space += life.size;
        if life.freed {
            site.freed_objects += 1;
            site.freed_space += life.size;
        } else {
            let block = LiveBlock { size: life.size, site: life.site, born: life.born, thread: life.thread };
            // To one of the two ledgers that are put together.
            blocks[usize::from(life.in_second)].push(block);
        }
    }
    let [mut ledger, second] = blocks.map(|mut blocks| {
        let mut ledger = empty.clone();
        blocks.chunks_mut(7).for_each(|some| ledger.add_blocks(some));
        ledger
    });
    ledger.absorb(second);
    for (site, counters) in &counters {
        ledger.add_site(*site, counters);
    }
    ledger.close()
}

proptest! {
    #[test]
    fn sums_are_those_of_the_naive_model(lives in prop::collection::vec(life(), 0..200), born_by in prop::option::of(0u64..1_000), mut marks in prop::collection::vec(0u64..1_000, 0..4)) {
        marks.sort_unstable();
        let account = ledger_of(&lives, born_by, &marks);
        prop_assert_eq!(account.discrepancy, 0);
        let counted = |l: &&Life| !l.freed && born_by.is_none_or(|latest| l.born <= latest);
        for (site, sums) in &account.sites {
            let here: Vec<&Life> = lives.iter().filter(|l| l.site == *site).collect();
            let live: Vec<&&Life> = here.iter().filter(|l| counted(l)).collect();
            prop_assert_eq!(sums.alloc_objects, here.len() as u64);
            prop_assert_eq!(sums.alloc_space, here.iter().map(|l| l.size).sum::<u64>());
            prop_assert_eq!(sums.inuse.objects, live.len() as u64);
            prop_assert_eq!(sums.inuse.space, live.iter().map(|l| l.size).sum::<u64>());
            prop_assert_eq!(sums.oldest_born, live.iter().map(|l| l.born).min());
            let of = |passes: &dyn Fn(&Life) -> bool| {
                let passing = || live.iter().filter(|l| passes(l));
                Held { objects: passing().count() as u64, space: passing().map(|l| l.size).sum() }
            };
            for (thread, held) in &sums.threads {
                prop_assert_eq!(*held, of(&|l| l.thread == *thread));
            }
            prop_assert_eq!(sums.threads.iter().map(|(_, held)| held.objects).sum::<u64>(), live.len() as u64);
            for (generation, held) in &sums.generations {
                let generation = usize::try_from(*generation).unwrap_or(usize::MAX);
                let after = generation.checked_sub(1).map_or(0, |mark| marks[mark]);
                let before = marks.get(generation).copied().unwrap_or(u64::MAX);
                prop_assert_eq!(*held, of(&|l| (after..before).contains(&l.born)));
            }
            prop_assert_eq!(sums.generations.iter().map(|(_, held)| held.objects).sum::<u64>(), live.len() as u64);
            let step = account.spans.step();
            for (span, held) in &sums.births {
                prop_assert_eq!(*held, of(&|l| l.born / step == *span));
            }
            prop_assert_eq!(sums.births.iter().map(|(_, held)| held.objects).sum::<u64>(), live.len() as u64);
            for (class, blocks) in sums.inuse_sizes.iter().enumerate() {
                let smallest = class.checked_sub(1).map_or(0, |below| largest_of_class(below) + 1);
                let held = of(&|l| (smallest..=largest_of_class(class)).contains(&l.size));
                prop_assert_eq!(*blocks, held.objects);
            }
        }
        prop_assert_eq!(account.totals.alloc_objects, lives.len() as u64);
        prop_assert_eq!(account.totals.inuse.space, lives.iter().filter(counted).map(|l| l.size).sum::<u64>());
        prop_assert!(account.sites.is_sorted_by_key(|(_, sums)| Reverse(sums.inuse.space)));
    }
}

#[test]
fn a_block_that_no_site_counted_is_a_discrepancy() {
    let mut ledger = Ledger::default();
    ledger.add_blocks(&mut [LiveBlock { size: 8, site: 3, born: 1, thread: 0 }]);
    assert_eq!(ledger.close().discrepancy, 1);
}

#[test]
fn a_site_that_never_allocated_is_left_out() {
    let mut ledger = Ledger::default();
    ledger.add_site(1, &SiteCounters { stack_sent: 1, ..SiteCounters::EMPTY });
    assert!(ledger.close().sites.is_empty());
}

#[test]
fn hostile_counters_do_not_overflow() {
    let mut ledger = Ledger::default();
    let most = SiteCounters {
        alloc_objects: u64::MAX,
        alloc_space: u64::MAX,
        sizes: [u64::MAX; SIZE_CLASSES],
        temporary_objects: u64::MAX,
        ..SiteCounters::EMPTY
    };
    ledger.add_site(3, &most);
    ledger.add_site(4, &most);
    ledger.add_blocks(&mut [LiveBlock { size: u64::MAX, site: 3, born: 1, thread: 0 }; 2]);
    assert_eq!(ledger.close().totals.inuse.space, u64::MAX);
}

#[test]
fn what_a_site_held_at_a_moment_is_noted_when_it_changes() {
    let moments = Moments { peak_number: 5, ..Moments::default() };
    let (noted, now) = (Held { objects: 4, space: 400 }, Held { objects: 9, space: 900 });
    let mut site = SiteCounters { alloc_objects: 9, alloc_space: 900, ..SiteCounters::EMPTY };
    (site.peak, site.exit, site.peak_number) = (noted, noted, 5);
    assert_eq!(site.held_at_peak(&moments), noted);
    assert_eq!(site.held_at_exit(), now);
    (site.peak_number, site.exit_noted) = (4, 1);
    assert_eq!(site.held_at_peak(&moments), now, "unchanged since the last peak");
    assert_eq!(site.held_at_exit(), noted);
}

#[test]
fn a_size_is_in_the_first_class_that_it_fits() {
    let near = (0..SIZE_CLASSES - 1).map(largest_of_class).flat_map(|size| [size - 1, size, size + 1]);
    for size in near.chain([0, 1, u64::MAX]) {
        let first = (0..SIZE_CLASSES).position(|class| size <= largest_of_class(class));
        assert_eq!(Some(class_of(size)), first, "{size}");
    }
}
