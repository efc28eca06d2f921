//! The BPF object: aya makes its maps; its programs are relocated here and loaded as the kernel at hand can run them.
//!
//! aya 0.14 loads no program with an expected attach type and rewrites no call of a kernel function. So the object is
//! parsed a second time, its references are bound to the maps that aya made, and bpf(2) is called directly.

use std::{
    collections::HashSet,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use aya_obj::{Object, generated::bpf_insn};
use profiler_common::records::{KFUNC_SESSION_COOKIE, KFUNC_SESSION_IS_RETURN};

use super::kernel_types::KernelTypes;
use crate::{
    probe::error::ProbeError,
    sys::bpf::{self, PROGRAM_TYPE_KPROBE, PROGRAM_TYPE_PERF_EVENT, ProgramLoad},
};

/// The committed object, aligned as the ELF parser wants it.
pub(super) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/heapscope.bpf.o"));

/// Opcode of a call (`BPF_JMP | BPF_CALL`), and what makes it a call of a kernel function (`BPF_PSEUDO_KFUNC_CALL`).
const CALL: u8 = 0x85;
const PSEUDO_KFUNC_CALL: u8 = 2;

/// The object's programs, bound to maps and ready to be loaded.
pub(super) struct Programs {
    object: Object,
    btf: OwnedFd,
}

impl Programs {
    /// Binds the programs of the object in `bytes` to the maps of `ebpf`.
    pub(super) fn new(ebpf: &Ebpf, bytes: &[u8]) -> Result<Self, ProbeError> {
        let mut object = Object::parse(bytes).map_err(damaged)?;
        let features = aya::features().btf().ok_or_else(|| damaged("the kernel has no BTF"))?;
        let btf = object
            .fixup_and_sanitize_btf(features)
            .map_err(damaged)?
            .ok_or_else(|| damaged("it has no BTF"))?
            .to_bytes();
        let btf = bpf::load_btf(&btf).map_err(|source| ProbeError::Map { name: "BTF", source })?;
        let code: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        let maps = std::mem::take(&mut object.maps);
        let mut bound: Vec<(&str, RawFd, &aya_obj::Map)> = Vec::new();
        for (name, map) in &maps {
            let made = ebpf.map(name).ok_or_else(|| damaged(format!("no map {name}")))?;
            bound.push((name, map_fd(made)?.as_raw_fd(), map));
        }
        object.relocate_maps(bound.into_iter(), &code).map_err(damaged)?;
        object.relocate_calls(&code).map_err(damaged)?;
        Ok(Self { object, btf })
    }

    /// Loads a program for uprobes. `kernel_functions` has the BTF ids to put in the place of our stand-in numbers.
    pub(super) fn load(
        &self,
        name: &str,
        attach_type: u32,
        kernel_functions: &[(u32, u32)],
    ) -> Result<OwnedFd, ProbeError> {
        self.load_as(PROGRAM_TYPE_KPROBE, name, attach_type, kernel_functions)
    }

    /// Loads a program for perf events.
    pub(super) fn load_for_events(&self, name: &str) -> Result<OwnedFd, ProbeError> {
        self.load_as(PROGRAM_TYPE_PERF_EVENT, name, 0, &[])
    }

    fn load_as(
        &self,
        program_type: u32,
        name: &str,
        attach_type: u32,
        kernel_functions: &[(u32, u32)],
    ) -> Result<OwnedFd, ProbeError> {
        let program = self.object.programs.get(name).ok_or_else(|| damaged(format!("no program {name}")))?;
        let function = self
            .object
            .functions
            .get(&program.function_key())
            .ok_or_else(|| damaged(format!("no code of {name}")))?;
        let mut instructions: Vec<u8> = Vec::with_capacity(function.instructions.len() * 8);
        for instruction in &function.instructions {
            instructions.extend_from_slice(&encode(*instruction, kernel_functions));
        }
        let load = ProgramLoad {
            name,
            instructions: &instructions,
            license: &program.license,
            program_type,
            attach_type,
            btf: self.btf.as_fd(),
            func_info: (&function.func_info.func_info_bytes(), size(function.func_info_rec_size)),
            line_info: (&function.line_info.line_info_bytes(), size(function.line_info_rec_size)),
        };
        Ok(bpf::load_program(&load)?)
    }
}

/// The BTF ids of the kernel functions that session programs call; `None` where this kernel has no sessions.
pub(super) fn session_kernel_functions(kernel: &KernelTypes) -> Option<[(u32, u32); 2]> {
    let [cookie, is_return] = kernel.functions(["bpf_session_cookie", "bpf_session_is_return"])?;
    Some([(KFUNC_SESSION_COOKIE, cookie), (KFUNC_SESSION_IS_RETURN, is_return)])
}

/// One instruction as the kernel takes it (`struct bpf_insn`: code, registers, offset, immediate; little endian).
fn encode(instruction: bpf_insn, kernel_functions: &[(u32, u32)]) -> [u8; 8] {
    let mut registers = instruction.dst_reg() | instruction.src_reg() << 4;
    let mut immediate = instruction.imm;
    if instruction.code == CALL
        && instruction.src_reg() == 0
        && let Some((_, id)) =
            kernel_functions.iter().find(|(number, _)| *number == immediate.cast_unsigned())
    {
        registers = instruction.dst_reg() | PSEUDO_KFUNC_CALL << 4;
        immediate = id.cast_signed();
    }
    let [offset_low, offset_high] = instruction.off.to_le_bytes();
    let [a, b, c, d] = immediate.to_le_bytes();
    [instruction.code, registers, offset_low, offset_high, a, b, c, d]
}

/// The descriptor of a map that aya made.
pub(super) fn map_fd(map: &Map) -> Result<BorrowedFd<'_>, ProbeError> {
    let data: &MapData = match map {
        Map::Array(data)
        | Map::ArrayOfMaps(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::StackTraceMap(data)
        | Map::RingBuf(data) => data,
        other => return Err(damaged(format!("a map of an unexpected kind: {other:?}"))),
    };
    Ok(data.fd().as_fd())
}

/// An error about the object that is part of this program.
pub(super) fn damaged(error: impl std::fmt::Display) -> ProbeError {
    ProbeError::Object(error.to_string())
}

fn size(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(0)
}
