//! Of each file with code that a target has mapped: how much can be unwound, and where names would come from.

use std::sync::Arc;

use serde::Serialize;

use super::{checks::Check, unwind::CAPACITY};
use crate::{
    report::units::{counted, percent},
    symbolize::{sources::Sources, symbolizer::Symbolizer},
    target::module::Module,
    unwind::{rows::rows, table::TableBuilder},
};

/// Files that are named in one sentence.
const NAMED: usize = 3;

/// Bytes of code without unwind information that are nothing to warn of.
const NEGLIGIBLE: u64 = 4096;

/// One file.
#[derive(Debug, Serialize)]
pub(super) struct FileFacts {
    pub(super) path: String,
    pub(super) build_id: Option<String>,
    /// Whether it was deleted or replaced since it was mapped.
    pub(super) deleted: bool,
    /// Bytes of code.
    pub(super) text_bytes: u64,
    /// Of those, described by unwind information.
    pub(super) described_bytes: u64,
    /// Of those, not described although a call could be there: frames there are guessed by frame pointers.
    pub(super) undescribed_bytes: u64,
    /// Why there is no unwind information.
    pub(super) no_unwind: Option<String>,
    pub(super) names: NameFacts,
}

impl FileFacts {
    /// The path's last part.
    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

/// Where names come from.
#[derive(Debug, Serialize)]
pub(super) struct NameFacts {
    /// `lines`, `functions`, `exported` or `none`: the most that is known of a frame.
    pub(super) best: &'static str,
    /// The separate debug file that was found.
    pub(super) debug_file: Option<String>,
    /// Functions in the symbol table.
    pub(super) functions: u64,
    /// Functions exported.
    pub(super) exported: u64,
}

impl NameFacts {
    fn of(sources: &Sources) -> Self {
        let best = match sources {
            sources if sources.has_lines() => "lines",
            sources if sources.has_functions() => "functions",
            sources if sources.exported > 0 => "exported",
            _ => "none",
        };
        Self {
            best,
            debug_file: sources.debug_file.as_ref().map(|path| path.display().to_string()),
            functions: sources.functions,
            exported: sources.exported,
        }
    }
}

/// Looks at these files. Beside them, the bytes that their tables take in the kernel.
pub(super) fn examine<'m>(
    modules: impl Iterator<Item = &'m Arc<Module>>,
    symbolizer: &Symbolizer,
    is_debian: bool,
) -> (Vec<FileFacts>, u64, Vec<Check>) {
    let mut builder = TableBuilder::new(CAPACITY);
    let mut files: Vec<FileFacts> = modules.map(|module| facts(module, symbolizer, &mut builder)).collect();
    files.sort_by_key(|file| std::cmp::Reverse(file.text_bytes));
    let checks = vec![unwinding(&files), naming(&files, is_debian)];
    (files, builder.kernel_bytes(), checks)
}

fn facts(module: &Arc<Module>, symbolizer: &Symbolizer, builder: &mut TableBuilder) -> FileFacts {
    let read = module.data().map_err(|error| error.to_string());
    let read = read.and_then(|data| rows(&data).map_err(|error| error.to_string()));
    let no_unwind = match &read {
        Ok(rows) => builder.add_module(rows).err().map(|full| full.to_string()),
        Err(reason) => Some(reason.clone()),
    };
    let coverage = read.map(|rows| rows.coverage).unwrap_or_default();
    let id = module.build_id.as_ref();
    FileFacts {
        path: module.path.display().to_string(),
        build_id: id.map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect()),
        deleted: module.deleted,
        text_bytes: coverage.text,
        described_bytes: coverage.described,
        undescribed_bytes: coverage.undescribed,
        no_unwind,
        names: NameFacts::of(&symbolizer.sources_of(module)),
    }
}

fn unwinding(files: &[FileFacts]) -> Check {
    let sum = |of: fn(&FileFacts) -> u64| files.iter().fold(0u64, |sum, file| sum.saturating_add(of(file)));
    let (text, undescribed) = (sum(|file| file.text_bytes), sum(|file| file.undescribed_bytes));
    // Less is what the linker and assembler written by hand leave out in any file.
    let is_poor = |file: &&FileFacts| {
        file.no_unwind.is_some() || file.undescribed_bytes > (file.text_bytes / 100).max(NEGLIGIBLE)
    };
    let poor: Vec<_> = files.iter().filter(is_poor).map(FileFacts::name).collect();
    let says = format!(
        "{} of the code in {} cannot be unwound but by frame pointers",
        percent(undescribed, text),
        counted(files.len() as u64, "file", "files")
    );
    if poor.is_empty() {
        return Check::ok("unwinding", says);
    }
    Check::warn(
        "unwinding",
        format!("{says}; most of it in {}", some_of(&poor)),
        "build it with -fasynchronous-unwind-tables (the default of gcc and clang) or -fno-omit-frame-pointer; frames \
         there are marked [guess]",
    )
}

fn naming(files: &[FileFacts], is_debian: bool) -> Check {
    let of = |best: &'static str| files.iter().filter(move |file| file.names.best == best);
    // The kernel brings the vDSO, whose few functions are all exported: there is nothing to install.
    let is_vdso = |file: &&FileFacts| file.path == VDSO;
    let nameless: Vec<_> = of("exported").chain(of("none")).filter(|file| !is_vdso(file)).collect();
    let without_any = nameless.iter().filter(|file| file.names.best == "none").count();
    let mut says = format!(
        "file and line in {} of {}, functions in {}, exported functions alone in {}",
        of("lines").count(),
        counted(files.len() as u64, "file", "files"),
        of("functions").count(),
        nameless.len() - without_any,
    );
    if without_any > 0 {
        says.push_str(&format!(", no names in {without_any}"));
    }
    if files.iter().any(|file| is_vdso(&file)) {
        says.push_str(", the kernel's own in its vDSO");
    }
    if nameless.is_empty() {
        return Check::ok("names", says);
    }
    let paths: Vec<_> = nameless.iter().map(|file| file.name()).collect();
    let remedy = if is_debian {
        "install their debug symbols (Debian: the packages -dbgsym of the archive debian-debug), or name their folder \
         with --debug-dir"
    } else {
        "install their debug symbols, or name their folder with --debug-dir"
    };
    Check::warn("names", format!("{says}: {}", some_of(&paths)), remedy)
}

/// What the kernel maps into every process.
const VDSO: &str = "[vdso]";

fn some_of(paths: &[&str]) -> String {
    let more = paths.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", paths.iter().take(NAMED).copied().collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, best: &'static str) -> FileFacts {
        FileFacts {
            path: path.into(),
            build_id: None,
            deleted: false,
            text_bytes: 0,
            described_bytes: 0,
            undescribed_bytes: 0,
            no_unwind: None,
            names: NameFacts { best, debug_file: None, functions: 0, exported: 0 },
        }
    }

    #[test]
    fn every_file_is_in_one_class() {
        let mut files = vec![
            file("/bin/a", "lines"),
            file("/lib/b.so", "functions"),
            file("/lib/c.so", "exported"),
            file("/lib/d.so", "none"),
        ];
        let said = |files: &[FileFacts]| naming(files, false).says;
        assert_eq!(
            said(&files),
            "file and line in 1 of 4 files, functions in 1, exported functions alone in 1, no names in 1: c.so, d.so"
        );
        files.truncate(2);
        files.push(file("[vdso]", "exported"));
        assert_eq!(
            said(&files),
            "file and line in 1 of 3 files, functions in 1, exported functions alone in 0, the kernel's own in its vDSO"
        );
    }
}
