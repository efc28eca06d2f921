//! What ends the account, or is a moment of it: the target calls exit, or replaces its program.

use core::ffi::c_void;

use aya_ebpf::{bindings::bpf_pidns_info, helpers::generated::bpf_get_ns_current_pid_tgid};

use crate::{
    maps::{STATE, closed, pid_namespace_device, pid_namespace_inode, target_pid},
    moments,
    records::{CLOSED_BY_EXEC, STATE_CLOSED},
};

/// Entry of `exit`, before it calls the exit handlers.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
extern "C" fn exit_entry(_ctx: *mut c_void) -> u32 {
    if !closed() {
        moments::exits();
    }
    0
}

/// Closes the ledger when the target replaces its program: its blocks are gone, and what comes is another program.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tracepoint/sched_process_exec")]
extern "C" fn on_exec(_ctx: *mut c_void) -> u32 {
    let mut ids = bpf_pidns_info { pid: 0, tgid: 0 };
    // SAFETY: the helper fills `ids`.
    let answer = unsafe {
        bpf_get_ns_current_pid_tgid(
            pid_namespace_device(),
            pid_namespace_inode(),
            &raw mut ids,
            size_of::<bpf_pidns_info>() as u32,
        )
    };
    if answer == 0
        && ids.tgid == target_pid()
        && let Some(closed) = STATE.get_ptr_mut(STATE_CLOSED)
    {
        // SAFETY: one aligned word, a map value.
        unsafe { core::ptr::write_volatile(closed, CLOSED_BY_EXEC) };
    }
    0
}
