//! Which programs of the object are loaded, by the stack that the kernel has for them, and what is said of one that the kernel
//! refuses.

use aya::programs::ProgramError;

/// Programs of returns come in two forms: with Python's frames, and without.
///
/// Before 6.13 all functions of a program share 512 bytes of stack (`check_max_stack_depth` of kernel/bpf/verifier.c); from
/// then on each function of a probe's program has as many (`bpf_enable_private_stack`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// They look for Python's frames.
    Whole,
    /// They do not, and fit.
    Small,
}

impl Form {
    /// What a kernel of this version has room for.
    pub(super) fn of(kernel: Option<(u32, u32)>) -> Self {
        if kernel.is_none_or(|version| version >= (6, 13)) { Self::Whole } else { Self::Small }
    }

    /// The program at an allocator's return.
    pub(super) const fn alloc_return(self) -> &'static str {
        match self {
            Self::Whole => "alloc_return",
            Self::Small => "alloc_return_small",
        }
    }

    /// The program at the return of mmap and its kin.
    pub(super) const fn mapping_return(self) -> &'static str {
        match self {
            Self::Whole => "mapping_return",
            Self::Small => "mapping_return_small",
        }
    }

    /// By perf: those of frees, of returns, of entries, and of the process's end.
    pub(super) const fn by_perf(self) -> [&'static str; 4] {
        ["free_entry", self.alloc_return(), "alloc_entry", "exit_entry"]
    }

    /// By perf, with `--mmap`: those of returns and of entries.
    pub(super) const fn mapping_by_perf(self) -> [&'static str; 2] {
        [self.mapping_return(), "mapping_entry"]
    }
}

/// The end of what the verifier said of a program that it refused, if it said anything.
pub(super) fn verifier_says(error: &ProgramError) -> Option<String> {
    let ProgramError::LoadError { verifier_log, .. } = error else { return None };
    let log = verifier_log.to_string();
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    (!lines.is_empty()).then(|| lines[lines.len().saturating_sub(12)..].join("\n"))
}
