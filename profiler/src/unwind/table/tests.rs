//! The compact form must answer every address as the rows do, within its capacity, and name what is new.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]

use profiler_common::tables::cfa;

use super::*;
use crate::unwind::rows::{Coverage, RowStatistics};

const PAGE: u64 = 1 << PAGE_SHIFT;
const ROOMY: Capacity = Capacity { chunks: 64, pages: 1024, rules: 65536 };

fn rule(offset: i32) -> Rule {
    Rule { cfa_offset: offset, cfa_kind: cfa::RSP, ..Rule::default() }
}

/// A module whose text begins at `text_start`; an offset of 0 stands for undescribed text.
fn module(text_start: u64, rows: &[(u64, i32)]) -> ModuleRows {
    let rows: Vec<_> = rows
        .iter()
        .map(|(start, offset)| Row {
            start: Svma(*start),
            rule: if *offset == 0 { Rule::default() } else { rule(*offset) },
        })
        .collect();
    ModuleRows {
        rows: rows.into(),
        text_start: Svma(text_start),
        statistics: RowStatistics::default(),
        coverage: Coverage::default(),
        undescribed: [].into(),
    }
}

/// Every byte of text around each row finds the rule that the rows say, through a mapping at another address.
fn check_lookups(builder: &TableBuilder, table: ModuleTable, module: &ModuleRows) {
    const BIAS: u64 = 0x7f12_3456_7000;
    let last = module.rows.last().unwrap().start.0;
    let begin = module.text_start.0.wrapping_add(BIAS);
    let mapping = table.mapping(Avma(begin), Avma(last.wrapping_add(BIAS + 1)), BIAS);
    let tables = builder.tables(std::slice::from_ref(&mapping));
    let mut wanted = Rule::default();
    let mut rows = module.rows.iter().peekable();
    for svma in module.text_start.0..=last {
        while let Some(row) = rows.next_if(|row| row.start.0 <= svma) {
            wanted = row.rule;
        }
        assert_eq!(tables.rule_at(svma.wrapping_add(BIAS)), Some(wanted), "{svma:#x}");
    }
    assert_eq!(tables.rule_at(begin - 1), None);
    assert_eq!(tables.rule_at(mapping.end), None);
}

#[test]
fn every_address_finds_the_rule_of_its_row() {
    // Rows at a page's first and last byte, a page without rows inside one function, undescribed pages.
    let rows = [
        (0x40_1010, 8),
        (0x40_3fff, 16),
        (0x40_4000, 24),
        (0x40_8000 + 5 * PAGE, 0),
        (0x40_8000 + 9 * PAGE, 32),
        (0x40_8000 + 9 * PAGE + 3, 0),
    ];
    let module = module(0x40_1000, &rows);
    let mut builder = TableBuilder::new(ROOMY);
    let table = builder.add_module(&module).unwrap();
    assert_eq!(table, ModuleTable { first_page: 0, pages: 12, svma_base: Svma(0x40_0000) });
    check_lookups(&builder, table, &module);
    assert_eq!(builder.pages()[9], PageRows::default(), "undescribed pages take no rows");
    assert_eq!(builder.pages()[3].count, 1, "a page inside a function repeats the rule in force");
}

#[test]
fn modules_share_rules_and_chunks_but_no_page_crosses_a_chunk() {
    let mut builder = TableBuilder::new(ROOMY);
    let modules: Vec<_> = (0..5u64)
        .map(|seed| {
            let rows: Vec<_> =
                (0..6000u64).map(|i| (0x1000 + i * (11 + seed), 8 + 8 * ((i + seed) % 13) as i32)).collect();
            module(0x1000, &rows)
        })
        .collect();
    let tables: Vec<_> = modules.iter().map(|m| builder.add_module(m).unwrap()).collect();
    for (module, table) in modules.iter().zip(tables) {
        check_lookups(&builder, table, module);
    }
    assert_eq!(builder.rules().len(), 2 + 13);
    let chunk = |row: u32| row as usize / ROWS_PER_CHUNK;
    assert!(
        builder
            .pages()
            .iter()
            .filter(|p| p.count > 0)
            .all(|p| { chunk(p.first) == chunk(p.first + p.count - 1) })
    );
    let chunks = builder.pending().chunks();
    assert!(builder.chunk(chunks.end - 1).is_some() && builder.chunk(chunks.end).is_none());
}

#[test]
fn a_file_linked_high_takes_no_more_pages() {
    let high = 0xffff_ffff_8000_0000;
    let module = module(high + 0x1234, &[(high + 0x1234, 8), (high + 0x2000, 0)]);
    let mut builder = TableBuilder::new(ROOMY);
    let table = builder.add_module(&module).unwrap();
    assert_eq!(table.pages, 1);
    check_lookups(&builder, table, &module);
}

#[test]
fn a_module_that_does_not_fit_leaves_no_trace() {
    let small = Capacity { chunks: 1, pages: 8, rules: 100 };
    let mut builder = TableBuilder::new(small);
    let fits = module(0, &[(0, 8), (100, 16), (PAGE, 0)]);
    let table = builder.add_module(&fits).unwrap();
    let before = builder.pending();

    let wide = module(0, &[(0, 8), (100 * PAGE, 0)]);
    assert_eq!(builder.add_module(&wide), Err(TableFull::Pages { needed: 101, free: 6, limit: 8 }));
    let hostile = module(0, &[(0, 8), (u64::MAX, 0)]);
    assert_eq!(
        builder.add_module(&hostile),
        Err(TableFull::Pages { needed: (u64::MAX >> PAGE_SHIFT) + 1, free: 6, limit: 8 })
    );
    let dense: Vec<_> = (0..5000).map(|i| (i * 8, 8 + 8 * (i % 2) as i32)).collect();
    assert_eq!(builder.add_module(&module(0, &dense)), Err(TableFull::Chunks { limit: 1 }));

    assert_eq!(builder.pending(), before);
    assert!(builder.chunk(0).unwrap()[before.rows.end as usize..].iter().all(|row| *row == 0));
    check_lookups(&builder, table, &fits);
    let again = builder.add_module(&fits).unwrap();
    assert_eq!(again.first_page, 2);
    check_lookups(&builder, again, &fits);
}

#[test]
fn a_full_dictionary_says_unsupported_and_counts() {
    let mut builder = TableBuilder::new(Capacity { rules: 3, ..ROOMY });
    let module = module(0, &[(0, 8), (16, 16), (32, 24), (48, 8), (64, 0)]);
    let table = builder.add_module(&module).unwrap();
    let mapping = table.mapping(Avma(0), Avma(64), 0);
    let tables = builder.tables(std::slice::from_ref(&mapping));
    let kind = |address| tables.rule_at(address).unwrap().cfa_kind;
    assert_eq!([kind(0), kind(16), kind(32), kind(48)], [1, 7, 7, 1]);
    assert_eq!(builder.refused_rules(), 2);
}

#[test]
fn a_crowded_page_is_unsupported_where_it_is_cut() {
    let rows: Vec<_> = (0..6000).map(|i| (i * 2, 8 + 8 * (i % 2) as i32)).chain([(PAGE, 0)]).collect();
    let module = module(0, &rows);
    let mut builder = TableBuilder::new(ROOMY);
    let table = builder.add_module(&module).unwrap();
    assert_eq!((builder.crowded_pages(), builder.pages()[0].count), (1, 4096));
    let mapping = table.mapping(Avma(0), Avma(PAGE), 0);
    let tables = builder.tables(std::slice::from_ref(&mapping));
    assert_eq!(tables.rule_at(2 * 4094), Some(rule(8)));
    for cut in [2 * 4095, 2 * 4096, PAGE - 1] {
        assert_eq!(tables.rule_at(cut), Some(Unsupported::NoRoom.rule()));
    }
}

#[test]
fn only_what_is_new_is_pending() {
    let mut builder = TableBuilder::new(ROOMY);
    builder.add_module(&module(0, &[(0, 8), (16, 16), (64, 0)])).unwrap();
    let first = builder.pending();
    assert_eq!(first, Pending { rows: 0..3, pages: 0..1, rules: 0..4 });
    assert_eq!(first.chunks(), 0..1);
    builder.mark_uploaded(first);
    assert_eq!(builder.pending().chunks(), 0..0);

    let dense: Vec<_> = (0..5000).map(|i| (i * 8, 8 + 8 * (i % 2) as i32)).collect();
    builder.add_module(&module(0, &dense)).unwrap();
    let second = builder.pending();
    assert_eq!((second.pages.clone(), second.rules.clone()), (1..4, 4..4));
    // The chunk that the first module shares is written again, with the first module's rows as they were.
    assert_eq!(second.chunks(), 0..2);
    assert_eq!(builder.chunk(0).unwrap()[..3], [pack_row(0, 2), pack_row(16, 3), pack_row(64, 0)]);
}
