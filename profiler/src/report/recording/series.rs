//! What changed from one snapshot to the next, in few bytes.
//!
//! Most stacks allocate blocks of one size, and free all or none of them at once. So what is stored of bytes is by how much
//! they differ from what the site's mean size so far lets one expect of its new blocks, and the like for temporary blocks:
//! mostly 0. Blocks are expected to come as at the site's last change, and to stay in the same part. All arithmetic wraps around at 64 bits, on both sides, so that nothing is ever lost in it. docs/format.md has
//! the equations.

use super::{Counters, message::Changes};

/// What is known of a site.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct State {
    /// What the last snapshot said.
    pub(super) now: Counters,
    /// What its last change was: blocks allocated, and how many more live.
    last: [i64; 2],
}

/// What `part` of `whole` lets one expect of `number` more; 0 where that does not fit.
fn expected(number: i64, part: i64, whole: i64) -> i64 {
    // Mostly; and a division takes longer than all the rest of a row.
    if number == 0 || part == 0 {
        return 0;
    }
    number.checked_mul(part).and_then(|product| product.checked_div(whole)).unwrap_or(0)
}

/// The same of unsigned numbers.
fn expected_of(number: i64, part: u64, whole: u64) -> i64 {
    let (Ok(part), Ok(whole)) = (i64::try_from(part), i64::try_from(whole)) else { return 0 };
    expected(number, part, whole)
}

fn less(now: u64, before: u64) -> i64 {
    now.wrapping_sub(before).cast_signed()
}

fn plus(before: u64, more: i64) -> u64 {
    before.wrapping_add(more.cast_unsigned())
}

/// What the last change lets one expect of `alloc_objects`, and of `inuse_objects` with so many allocated. `None`
/// where the snapshot does not count on it.
fn steady(last: Option<[i64; 2]>, allocated: impl FnOnce(i64) -> i64) -> [i64; 2] {
    let Some([last_allocated, last_inuse]) = last else { return [0; 2] };
    [last_allocated, expected(allocated(last_allocated), last_inuse, last_allocated)]
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
    fn between(state: &State, now: &Counters) -> (Self, [i64; 2]) {
        let before = &state.now;
        let alloc_objects = less(now.alloc_objects, before.alloc_objects);
        let inuse_objects = less(now.inuse_objects, before.inuse_objects);
        let [steady_alloc, steady_inuse] = steady(Some(state.last), |_| alloc_objects);
        let [of_alloc, of_inuse, of_temporary] = expectations(before, alloc_objects, inuse_objects);
        let mut errors = [0; 4];
        for (error, (now, before)) in errors.iter_mut().zip(now.errors.iter().zip(before.errors)) {
            *error = less(*now, before);
        }
        let row = Self {
            alloc_objects: alloc_objects.wrapping_sub(steady_alloc),
            inuse_objects: inuse_objects.wrapping_sub(steady_inuse),
            alloc_space: less(now.alloc_space, before.alloc_space).wrapping_sub(of_alloc),
            inuse_space: less(now.inuse_space, before.inuse_space).wrapping_sub(of_inuse),
            temporary_objects: less(now.temporary_objects, before.temporary_objects)
                .wrapping_sub(of_temporary),
            errors,
        };
        (row, [alloc_objects, inuse_objects])
    }

    /// What the site has behind this row, of a snapshot that counts on the last change or does not.
    fn behind(&self, state: &State, is_steady: bool) -> State {
        let before = &state.now;
        let [steady_alloc, steady_inuse] =
            steady(is_steady.then_some(state.last), |last| self.alloc_objects.wrapping_add(last));
        let alloc_objects = self.alloc_objects.wrapping_add(steady_alloc);
        let inuse_objects = self.inuse_objects.wrapping_add(steady_inuse);
        let [of_alloc, of_inuse, of_temporary] = expectations(before, alloc_objects, inuse_objects);
        let mut errors = before.errors;
        for (error, more) in errors.iter_mut().zip(self.errors) {
            *error = plus(*error, more);
        }
        let now = Counters {
            alloc_objects: plus(before.alloc_objects, alloc_objects),
            inuse_objects: plus(before.inuse_objects, inuse_objects),
            alloc_space: plus(before.alloc_space, self.alloc_space.wrapping_add(of_alloc)),
            inuse_space: plus(before.inuse_space, self.inuse_space.wrapping_add(of_inuse)),
            temporary_objects: plus(
                before.temporary_objects,
                self.temporary_objects.wrapping_add(of_temporary),
            ),
            errors,
        };
        State { now, last: [alloc_objects, inuse_objects] }
    }
}

/// What is expected of `alloc_space`, `inuse_space` and `temporary_objects`.
fn expectations(before: &Counters, alloc_objects: i64, inuse_objects: i64) -> [i64; 3] {
    let freed_before = before.alloc_objects.wrapping_sub(before.inuse_objects);
    let freed = alloc_objects.wrapping_sub(inuse_objects);
    [
        expected_of(alloc_objects, before.alloc_space, before.alloc_objects),
        expected_of(inuse_objects, before.alloc_space, before.alloc_objects),
        expected_of(freed, before.temporary_objects, freed_before),
    ]
}

/// The changes from what `state` says of each site, by its number; the state is brought up to date. `now` is in ascending
/// order of the numbers, all of which the state has room for.
pub(super) fn changes(state: &mut [State], now: impl IntoIterator<Item = (u32, Counters)>) -> Changes {
    let (mut changes, mut rows, mut above) = (Changes::default(), Vec::new(), 0);
    changes.steady = true;
    for (number, now) in now {
        let Some(before) = usize::try_from(number).ok().and_then(|at| state.get_mut(at)) else { continue };
        if before.now == now {
            continue;
        }
        let (row, last) = Row::between(before, &now);
        rows.push(row);
        *before = State { now, last };
        changes.sites.push(number.wrapping_sub(above));
        above = number;
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
/// Where the changes contradict themselves or speak of a site that the state does not have. Then nothing is changed: a part
/// of a snapshot is of no moment.
pub(super) fn apply(
    changes: &Changes,
    state: &mut [State],
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
    let next = |number: usize, gap: &u32| number.saturating_add(usize::try_from(*gap).unwrap_or(usize::MAX));
    let largest = changes.sites.iter().fold(0, next);
    if length > 0 && largest >= state.len() {
        return Err("a snapshot speaks of a site that is not defined".into());
    }
    let mut number = 0_usize;
    for (at, gap) in changes.sites.iter().enumerate() {
        number = next(number, gap);
        let Some(before) = state.get_mut(number) else { break };
        let [alloc_objects, inuse_objects, alloc_space, inuse_space, temporary_objects, errors @ ..] =
            columns.map(|column| column.get(at).copied().unwrap_or(0));
        let row = Row { alloc_objects, inuse_objects, alloc_space, inuse_space, temporary_objects, errors };
        *before = row.behind(before, changes.steady);
        changed(number, &before.now);
    }
    Ok(())
}
