//! What must hold of every result, however damaged the file was: the fuzz targets and the damage tests ask the same.

use heapscope::{
    target::{
        address::{Avma, FileOffset},
        module::Module,
    },
    unwind::{
        rows::ModuleRows,
        table::{Capacity, TableBuilder},
    },
};
use profiler_common::tables::Rule;

/// What must hold of the rows of any file, and of the tables made of them.
pub(crate) fn check_rows(module: &ModuleRows, file: &[u8]) {
    let rows = &module.rows;
    assert!(rows.is_sorted_by(|a, b| a.start < b.start), "rows are sorted");
    assert!(rows.windows(2).all(|pair| pair[0].rule != pair[1].rule), "neighbours differ");
    assert!(rows.iter().all(|row| row.start >= module.text_start), "no row lies below the text");
    assert!(rows.last().is_none_or(|last| last.rule == Rule::default()), "nothing is known behind the text");
    let coverage = module.coverage;
    assert!(coverage.described + coverage.undescribed <= coverage.text, "no byte counts twice");
    let statistics = module.statistics;
    assert!(statistics.kept_rows == rows.len() as u64);
    // A row costs its file at least a byte of instructions, and those of a CIE run for each FDE: the bound is that of
    // the instruction budget.
    assert!(statistics.raw_rows <= (8 * file.len() as u64).max(1 << 16), "memory is bounded by the file");
    assert!(statistics.damaged_fdes + statistics.outside_text <= statistics.fdes);

    let mut builder = TableBuilder::new(Capacity { chunks: 16, pages: 4096, rules: 512 });
    let Ok(table) = builder.add_module(module) else {
        assert_eq!(builder.pending().pages.len(), 0, "a module that does not fit leaves nothing behind");
        return;
    };
    let mapping = table.mapping(Avma(module.text_start.0), Avma(u64::MAX), 0);
    let lossy = builder.refused_rules() + builder.crowded_pages() > 0;
    let tables = [mapping];
    let tables = builder.tables(&tables);
    for row in rows.iter() {
        let found = tables.rule_at(row.start.0);
        assert!(lossy || found == Some(row.rule), "the tables say what the rows say");
    }
}

/// What must hold of the headers of any module.
pub(crate) fn check_module(module: &Module) {
    assert!(module.segments.len() <= 512 && module.build_id.as_ref().is_none_or(|id| id.len() <= 64));
    for segment in &module.segments {
        let offset = FileOffset(segment.offset.0.wrapping_add(segment.file_size / 2));
        if let Some(svma) = module.svma_of(offset) {
            let _ = module.file_offset_of(svma);
        }
        if let Some(at) = module.file_offset_of(segment.svma) {
            assert!(
                module.bytes_from(segment.svma) > 0,
                "a byte that the file has is one of those that it has"
            );
            let _ = module.bytes_at(at, 16);
        }
    }
}
