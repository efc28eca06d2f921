//! The libraries that are compared, and the calls in them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use heapscope::{
    target::address::Avma,
    unwind::{
        rows::ModuleRows,
        table::{Capacity, TableBuilder},
        walk::Tables,
    },
};
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic};
use object::{Object, ObjectSection, SectionKind};

/// Where the module is mapped, minus its SVMA.
pub(crate) const BIAS: u64 = 0x5555_0000_0000;

const ROOMY: Capacity = Capacity { chunks: 1024, pages: 1 << 16, rules: 65536 };

/// How the names of the libraries begin.
pub(crate) const LIBRARIES: [&str; 7] = [
    "ld-linux-x86-64.so",
    "libc.so.6",
    "libstdc++.so",
    "libpython3",
    "libcrypto.so",
    "libLLVM",
    "librustc_driver",
];

/// A library by the beginning of its name; of several versions the last by name.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> =
        ["/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/usr/lib"]
            .map(Into::into)
            .into();
    if let Ok(output) = Command::new("rustc").args(["--print", "sysroot"]).output() {
        folders.push(Path::new(String::from_utf8_lossy(&output.stdout).trim()).join("lib"));
    }
    let is_one = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Not what only links against it, which may be a script.
        file.starts_with(name)
            && file.contains(".so")
            && fs::read(path).is_ok_and(|b| b.starts_with(b"\x7fELF"))
    };
    folders.iter().find_map(|folder| {
        let entries = fs::read_dir(folder).ok()?.filter_map(Result::ok).map(|entry| entry.path());
        entries.filter(is_one).max()
    })
}

/// One file.
pub(crate) struct Subject {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
    /// SVMA of the last byte of every call and system call that linear disassembly finds. What it takes for a call in
    /// data between functions does no harm: all readers must agree there as well.
    pub(crate) calls: Vec<u64>,
}

impl Subject {
    pub(crate) fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let calls = calls(&bytes);
        assert!(calls.len() > 500, "{}: {} calls", path.display(), calls.len());
        Self { path: path.into(), bytes, calls }
    }

    pub(crate) fn name(&self) -> String {
        self.path.file_name().unwrap().to_string_lossy().into_owned()
    }
}

fn calls(bytes: &[u8]) -> Vec<u64> {
    let file = object::File::parse(bytes).unwrap();
    let mut calls = Vec::new();
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let mut decoder =
            Decoder::with_ip(64, section.data().unwrap(), section.address(), DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            let is_call = instruction.is_call_near() || instruction.is_call_near_indirect();
            if is_call || instruction.mnemonic() == Mnemonic::Syscall {
                calls.push(instruction.next_ip() - 1);
            }
        }
    }
    calls
}

/// The tables of one module, mapped at [`BIAS`].
pub(crate) fn with_tables<T>(module: &ModuleRows, body: impl FnOnce(&Tables<'_>) -> T) -> T {
    let mut builder = TableBuilder::new(ROOMY);
    let table = builder.add_module(module).unwrap();
    assert_eq!((builder.refused_rules(), builder.crowded_pages()), (0, 0));
    let begin = Avma(BIAS + module.text_start.0);
    let end = Avma(BIAS + module.rows.last().unwrap().start.0);
    let mapping = table.mapping(begin, end, BIAS);
    body(&builder.tables(&[mapping]))
}
