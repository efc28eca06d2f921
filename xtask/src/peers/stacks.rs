//! Whether the stacks that a tool shows reach `main`: the share of them that do, of all that it shows of live blocks.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Of parts of a text, each a stack.
fn share<'a>(stacks: impl Iterator<Item = &'a str>) -> Option<f64> {
    let (mut whole, mut all) = (0_u32, 0_u32);
    for stack in stacks.filter(|stack| !stack.trim().is_empty()) {
        all += 1;
        whole +=
            u32::from(stack.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "main"));
    }
    (all > 0).then(|| f64::from(whole) / f64::from(all))
}

pub(super) fn of_heapscope(folder: &Path, _said: &str) -> Option<f64> {
    let json = fs::read(folder.join("report.json")).ok()?;
    let report: serde_json::Value = serde_json::from_slice(&json).ok()?;
    let live = report["sites"].as_array()?.iter().filter(|site| site["inuse_objects"].as_u64() != Some(0));
    let stacks: Vec<String> = live.map(|site| site.to_string()).collect();
    share(stacks.iter().map(String::as_str))
}

/// Of what is printed stack by stack, each behind a line with this in it.
pub(super) fn of_blocks(said: &str, head: &str) -> Option<f64> {
    let mut stacks: Vec<String> = Vec::new();
    for line in said.lines() {
        if line.contains(head) {
            stacks.push(String::new());
        } else if line.starts_with(char::is_whitespace)
            && let Some(stack) = stacks.last_mut()
        {
            stack.push_str(line);
            stack.push('\n');
        }
    }
    share(stacks.iter().map(String::as_str))
}

pub(super) fn of_heaptrack(folder: &Path) -> Option<f64> {
    let data = newest(folder, "heaptrack")?;
    let folded = folder.join("folded");
    let mut print = Command::new("heaptrack_print");
    print.arg("--flamegraph-cost-type").arg("leaked").arg("-F").arg(&folded).arg("-f").arg(data);
    print.output().ok()?;
    share(fs::read_to_string(folded).ok()?.lines())
}

/// Of a dump that this program folds.
pub(super) fn of_dump(folder: &Path, program: &str, prefix: &str) -> Option<f64> {
    let dump = newest(folder, prefix)?;
    let output = Command::new(program)
        .arg("--collapsed")
        .arg(folder.parent()?.join("loops"))
        .arg(dump)
        .output()
        .ok()?;
    share(String::from_utf8_lossy(&output.stdout).lines())
}

/// massif prints a tree from the allocating function down to `main`: its leaves are the stacks.
pub(super) fn of_massif(folder: &Path) -> Option<f64> {
    let text = fs::read_to_string(folder.join("massif")).ok()?;
    let last = text.rsplit("heap_tree=").find(|part| part.contains("descend"))?;
    let leaves =
        last.lines().filter(|line| line.trim_start().starts_with("n0:") && !line.contains("below massif"));
    share(leaves.map(|line| if line.contains("in ???") { "?" } else { line }))
}

fn newest(folder: &Path, prefix: &str) -> Option<PathBuf> {
    let files = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let named =
        files.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
    named.max_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).ok())
}
