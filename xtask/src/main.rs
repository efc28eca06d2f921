//! heapscope's own chores: `cargo xtask <command>`.

fn main() {}
