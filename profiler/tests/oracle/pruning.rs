//! Of the rows that are left out, no call needs one.

use heapscope::unwind::rows::{Pruning, rows, rows_with};

use crate::{
    compared::Compared,
    files::{BIAS, Subject, with_tables},
};

/// The pruned table has the rule of the full one at every call.
pub(crate) fn compare(subject: &Subject) {
    let (full, pruned) = (rows_with(&subject.bytes, Pruning::None).unwrap(), rows(&subject.bytes).unwrap());
    assert!(pruned.rows.len() * 3 < full.rows.len(), "hardly anything was pruned");
    let mut compared = Compared::default();
    with_tables(&full, |full| {
        with_tables(&pruned, |pruned| {
            for call in &subject.calls {
                let rules = [pruned, full].map(|tables| tables.rule_at(BIAS + call));
                if rules[0] == rules[1] {
                    compared.agree();
                } else {
                    compared.differ(None, || format!("{call:#x}: {rules:?}"));
                }
            }
        });
    });
    compared.conclude(&format!("pruning, calls of {}", subject.name()));
}
