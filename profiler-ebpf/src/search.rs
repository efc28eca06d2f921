//! Binary searches in the unwind tables: which mapping holds an address, which rule holds at it.
//!
//! They are branch-free, because a branch a step would multiply the paths that the verifier must follow: the comparison
//! becomes a mask by an arithmetic shift.

use core::arch::asm;

use crate::{
    limits::{MAX_MAPPINGS, ROWS_PER_CHUNK},
    maps::{MAPPINGS, PAGES, ROWS},
    opaque,
};

/// All ones if `a < b`, else 0, without a branch; for values below 1 << 63.
#[inline(always)]
fn less_mask(a: u64, b: u64) -> u64 {
    let mut difference = a.wrapping_sub(b);
    // SAFETY: arithmetic on one register.
    unsafe { asm!("{0} s>>= 63", inout(reg) difference, options(pure, nomem, nostack)) };
    difference
}

/// Index of the mapping that holds `ip`, or a negative number.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn find_mapping(ip: u64, table: u64) -> i64 {
    let Some(table) = MAPPINGS.get(table as u32 & 1) else { return -1 };
    let mappings = table.count as u64;
    let mut position = 0u64;
    macro_rules! halve {
        ($($width:literal)*) => {$({
            let probe = opaque(position + $width);
            // SAFETY: masked to the array's length.
            let begin = unsafe { table.ranges.get_unchecked(probe as usize & (MAX_MAPPINGS - 1)) }.begin;
            let take = less_mask(probe, mappings) & !less_mask(ip, begin);
            position = opaque(position + ($width & take));
        })*};
    }
    halve!(1024 512 256 128 64 32 16 8 4 2 1);
    // SAFETY: masked to the array's length.
    let found = unsafe { table.ranges.get_unchecked(position as usize & (MAX_MAPPINGS - 1)) };
    if ip < found.begin || ip >= found.end {
        return -1;
    }
    (position & (MAX_MAPPINGS as u64 - 1)) as i64
}

/// Index of the rule that holds at `low` within `page`, or a negative number.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn find_rule(page: u64, low: u64) -> i64 {
    let Some(rows) = PAGES.get(page as u32) else { return -1 };
    let count = rows.count as u64;
    if count == 0 {
        return -1;
    }
    let first = rows.first as u64 % ROWS_PER_CHUNK as u64;
    let Some(chunk) = ROWS.get(rows.first / ROWS_PER_CHUNK as u32) else { return -1 };
    let mut position = 0u64;
    macro_rules! row {
        ($at:expr) => {
            // SAFETY: masked to the array's length.
            unsafe { *chunk.rows.get_unchecked(($at) as usize & (ROWS_PER_CHUNK - 1)) as u64 }
        };
    }
    macro_rules! halve {
        ($($width:literal)*) => {$({
            let probe = opaque(position + $width);
            let take = less_mask(probe, count) & !less_mask(low, row!(first + probe) & 0xffff);
            position = opaque(position + ($width & take));
        })*};
    }
    if count > 256 {
        halve!(2048 1024 512 256);
    }
    halve!(128 64 32 16 8 4 2 1);
    let found = row!(first + position);
    if found & 0xffff > low {
        return -1;
    }
    (found >> 16) as i64
}
