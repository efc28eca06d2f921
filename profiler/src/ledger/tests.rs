//! The ledger against a model that is too simple to be wrong: random histories of blocks, added up the slow way.

use proptest::prelude::*;

use super::*;

/// What happens at one site: a block of some size is allocated at a time, and perhaps freed.
#[derive(Clone, Debug)]
struct Life {
    site: u64,
    size: u64,
    born: u64,
    freed: bool,
}

fn life() -> impl Strategy<Value = Life> {
    (2u64..8, 0u64..10_000, 0u64..1_000, any::<bool>()).prop_map(|(site, size, born, freed)| Life {
        site,
        size,
        born,
        freed,
    })
}

fn ledger_of(lives: &[Life], born_by: Option<u64>) -> Account {
    let mut counters: HashMap<u64, SiteCounters> = HashMap::new();
    let mut ledger = Ledger::new(born_by);
    for life in lives {
        let site = counters.entry(life.site).or_default();
        site.alloc_objects += 1;
        site.alloc_space += life.size;
        if life.freed {
            site.freed_objects += 1;
            site.freed_space += life.size;
        } else {
            ledger.add_block(&LiveBlock { size: life.size, site: life.site, born: life.born });
        }
    }
    for (site, counters) in &counters {
        ledger.add_site(*site, counters);
    }
    ledger.close()
}

proptest! {
    #[test]
    fn sums_are_those_of_the_naive_model(lives in prop::collection::vec(life(), 0..200), born_by in prop::option::of(0u64..1_000)) {
        let account = ledger_of(&lives, born_by);
        prop_assert_eq!(account.discrepancy, 0);
        let counted = |l: &&Life| !l.freed && born_by.is_none_or(|latest| l.born <= latest);
        for (site, sums) in &account.sites {
            let here: Vec<&Life> = lives.iter().filter(|l| l.site == *site).collect();
            let live: Vec<&&Life> = here.iter().filter(|l| counted(l)).collect();
            prop_assert_eq!(sums.alloc_objects, here.len() as u64);
            prop_assert_eq!(sums.alloc_space, here.iter().map(|l| l.size).sum::<u64>());
            prop_assert_eq!(sums.inuse_objects, live.len() as u64);
            prop_assert_eq!(sums.inuse_space, live.iter().map(|l| l.size).sum::<u64>());
            prop_assert_eq!(sums.oldest_born, live.iter().map(|l| l.born).min());
        }
        prop_assert_eq!(account.totals.alloc_objects, lives.len() as u64);
        prop_assert_eq!(account.totals.inuse_space, lives.iter().filter(counted).map(|l| l.size).sum::<u64>());
        prop_assert!(account.sites.is_sorted_by_key(|(_, sums)| std::cmp::Reverse(sums.inuse_space)));
    }
}

#[test]
fn a_block_that_no_site_counted_is_a_discrepancy() {
    let mut ledger = Ledger::new(None);
    ledger.add_block(&LiveBlock { size: 8, site: 3, born: 1 });
    assert_eq!(ledger.close().discrepancy, 1);
}

#[test]
fn a_site_that_never_allocated_is_left_out() {
    let mut ledger = Ledger::new(None);
    ledger.add_site(1, &SiteCounters { stack_sent: 1, ..SiteCounters::EMPTY });
    assert!(ledger.close().sites.is_empty());
}

#[test]
fn hostile_counters_do_not_overflow() {
    let mut ledger = Ledger::new(None);
    let most = SiteCounters {
        alloc_objects: u64::MAX,
        alloc_space: u64::MAX,
        freed_objects: 0,
        freed_space: 0,
        stack_sent: 1,
        end: 0,
    };
    ledger.add_site(3, &most);
    ledger.add_site(4, &most);
    ledger.add_block(&LiveBlock { size: u64::MAX, site: 3, born: 1 });
    ledger.add_block(&LiveBlock { size: u64::MAX, site: 3, born: 1 });
    assert_eq!(ledger.close().totals.inuse_space, u64::MAX);
}
