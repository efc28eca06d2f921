//! What changed from one snapshot to the next, in few bytes.
//!
//! Most stacks allocate blocks of one size, and free all or none of them at once. So what is stored of bytes is by how much
//! they differ from what the site's mean size so far lets one expect of its new blocks, and the like for temporary blocks:
//! mostly 0. All arithmetic wraps around at 64 bits, on both sides, so that nothing is ever lost in it. docs/format.md has
//! the equations.

use super::{Counters, message::Changes};

/// What `part` of `whole` lets one expect of `number` more; 0 where that does not fit.
fn expected(number: i64, part: u64, whole: u64) -> i64 {
    if number == 0 || whole == 0 {
        return 0;
    }
    let (Ok(part), Ok(whole)) = (i64::try_from(part), i64::try_from(whole)) else { return 0 };
    number.checked_mul(part).map_or(0, |product| product / whole)
}

fn less(now: u64, before: u64) -> i64 {
    now.wrapping_sub(before).cast_signed()
}

fn plus(before: u64, more: i64) -> u64 {
    before.wrapping_add(more.cast_unsigned())
}

/// One site's row of the columns.
#[derive(Clone, Copy, Default)]
struct Row {
    alloc_objects: i64,
    inuse_objects: i64,
    alloc_space: i64,
    inuse_space: i64,
    temporary_objects: i64,
    errors: [i64; 4],
}

impl Row {
    fn between(before: &Counters, now: &Counters) -> Self {
        let alloc_objects = less(now.alloc_objects, before.alloc_objects);
        let inuse_objects = less(now.inuse_objects, before.inuse_objects);
        let [of_alloc, of_inuse, of_temporary] = expectations(before, alloc_objects, inuse_objects);
        let mut errors = [0; 4];
        for (error, (now, before)) in errors.iter_mut().zip(now.errors.iter().zip(before.errors)) {
            *error = less(*now, before);
        }
        Self {
            alloc_objects,
            inuse_objects,
            alloc_space: less(now.alloc_space, before.alloc_space).wrapping_sub(of_alloc),
            inuse_space: less(now.inuse_space, before.inuse_space).wrapping_sub(of_inuse),
            temporary_objects: less(now.temporary_objects, before.temporary_objects)
                .wrapping_sub(of_temporary),
            errors,
        }
    }

    fn behind(&self, before: &Counters) -> Counters {
        let [of_alloc, of_inuse, of_temporary] = expectations(before, self.alloc_objects, self.inuse_objects);
        let mut errors = before.errors;
        for (error, more) in errors.iter_mut().zip(self.errors) {
            *error = plus(*error, more);
        }
        Counters {
            alloc_objects: plus(before.alloc_objects, self.alloc_objects),
            inuse_objects: plus(before.inuse_objects, self.inuse_objects),
            alloc_space: plus(before.alloc_space, self.alloc_space.wrapping_add(of_alloc)),
            inuse_space: plus(before.inuse_space, self.inuse_space.wrapping_add(of_inuse)),
            temporary_objects: plus(
                before.temporary_objects,
                self.temporary_objects.wrapping_add(of_temporary),
            ),
            errors,
        }
    }
}

/// What is expected of `alloc_space`, `inuse_space` and `temporary_objects`.
fn expectations(before: &Counters, alloc_objects: i64, inuse_objects: i64) -> [i64; 3] {
    let freed_before = before.alloc_objects.wrapping_sub(before.inuse_objects);
    let freed = alloc_objects.wrapping_sub(inuse_objects);
    [
        expected(alloc_objects, before.alloc_space, before.alloc_objects),
        expected(inuse_objects, before.alloc_space, before.alloc_objects),
        expected(freed, before.temporary_objects, freed_before),
    ]
}

/// The changes from what `state` says of each site, by its number; the state is brought up to date. `now` is in ascending
/// order of the numbers, all of which the state has room for.
pub(super) fn changes(state: &mut [Counters], now: impl IntoIterator<Item = (u32, Counters)>) -> Changes {
    let (mut changes, mut rows, mut last) = (Changes::default(), Vec::new(), 0);
    for (number, now) in now {
        let Some(before) = usize::try_from(number).ok().and_then(|at| state.get_mut(at)) else { continue };
        if *before == now {
            continue;
        }
        rows.push(Row::between(before, &now));
        *before = now;
        changes.sites.push(number.wrapping_sub(last));
        last = number;
    }
    let column = |of: fn(&Row) -> i64| {
        let column: Vec<i64> = rows.iter().map(of).collect();
        if column.iter().all(|value| *value == 0) { Vec::new() } else { column }
    };
    changes.alloc_objects = column(|row| row.alloc_objects);
    changes.inuse_objects = column(|row| row.inuse_objects);
    changes.alloc_space = column(|row| row.alloc_space);
    changes.inuse_space = column(|row| row.inuse_space);
    changes.temporary_objects = column(|row| row.temporary_objects);
    changes.error_inuse_space = column(|row| row.errors[0]);
    changes.error_inuse_objects = column(|row| row.errors[1]);
    changes.error_alloc_space = column(|row| row.errors[2]);
    changes.error_alloc_objects = column(|row| row.errors[3]);
    changes
}

/// Brings `state` up to date, and tells `changed` each site's number with what it has now.
///
/// # Errors
/// Where the changes contradict themselves or speak of a site that the state does not have.
pub(super) fn apply(
    changes: &Changes,
    state: &mut [Counters],
    mut changed: impl FnMut(usize, &Counters),
) -> Result<(), String> {
    let length = changes.sites.len();
    let columns = [
        &changes.alloc_objects,
        &changes.inuse_objects,
        &changes.alloc_space,
        &changes.inuse_space,
        &changes.temporary_objects,
        &changes.error_inuse_space,
        &changes.error_inuse_objects,
        &changes.error_alloc_space,
        &changes.error_alloc_objects,
    ];
    if columns.iter().any(|column| !column.is_empty() && column.len() != length) {
        return Err("the columns of a snapshot have different lengths".into());
    }
    let mut number = 0_usize;
    for (at, gap) in changes.sites.iter().enumerate() {
        number = number.saturating_add(usize::try_from(*gap).unwrap_or(usize::MAX));
        let before = state.get_mut(number).ok_or("a snapshot speaks of a site that is not defined")?;
        let [alloc_objects, inuse_objects, alloc_space, inuse_space, temporary_objects, errors @ ..] =
            columns.map(|column| column.get(at).copied().unwrap_or(0));
        let row = Row { alloc_objects, inuse_objects, alloc_space, inuse_space, temporary_objects, errors };
        *before = row.behind(before);
        changed(number, before);
    }
    Ok(())
}
