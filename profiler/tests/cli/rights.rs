//! Without the rights: what is missing is named, and nothing is left half done.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::{
    refusal_of,
    support::{
        case::{Case, case_with},
        fixture,
        needs::Need,
        program::Program,
    },
};

const NEEDS: &[Need] = &[Need::Root, Need::Program("setpriv"), Need::Program("cc")];

pub(crate) const CASES: &[Case] = &[
    case_with("rights::another_users_process", NEEDS, another_users_process),
    case_with("rights::a_user_and_his_own_process", NEEDS, a_user_and_his_own_process),
    case_with("rights::root_without_capabilities", NEEDS, root_without_capabilities),
    case_with("rights::a_program_that_cannot_be_watched_is_not_left_behind", NEEDS, nothing_is_left_behind),
];

/// Of the user whom Linux calls nobody.
pub(crate) const NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];
pub(crate) const WITHOUT_BPF: [&str; 1] = ["--bounding-set=-sys_admin,-bpf,-perfmon"];

/// Copies that anybody may execute, for cargo's folder may be closed to others.
pub(crate) struct Copies(TempDir);

impl Copies {
    pub(crate) fn make() -> Self {
        let copies = Self(TempDir::new().unwrap());
        fs::set_permissions(copies.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_heapscope"), copies.file("heapscope")).unwrap();
        fs::copy(fixture::calls(), copies.file("calls")).unwrap();
        copies
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// One of the programs with fewer rights.
    pub(crate) fn less(&self, less: &[&str], name: &str) -> Command {
        with_less(less, &self.file(name))
    }

    /// heapscope with fewer rights.
    pub(crate) fn heapscope(&self, less: &[&str], arguments: &[&str]) -> Command {
        let mut command = with_less(less, &self.file("heapscope"));
        command.args(arguments);
        command
    }
}

fn with_less(less: &[&str], program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(less).arg(program);
    command
}

fn another_users_process() {
    let copies = Copies::make();
    let target = Program::start_until(&mut Command::new(copies.file("calls")), "ready");
    let pid = target.pid().to_string();
    let text = refusal_of(&mut copies.heapscope(&NOBODY, &["attach", &pid, "-o", "-", "--format", "json"]));
    assert!(text.contains(&format!("process {pid} of user 0")), "{text}");
    assert!(text.contains("sudo") && text.contains("CAP_SYS_PTRACE"), "{text}");
}

fn a_user_and_his_own_process() {
    let copies = Copies::make();
    let target = Program::start_until(&mut with_less(&NOBODY, &copies.file("calls")), "ready");
    let pid = target.pid().to_string();
    let text = refusal_of(&mut copies.heapscope(&NOBODY, &["attach", &pid, "-o", "-", "--format", "json"]));
    assert!(text.contains("may not load BPF programs"), "{text}");
    assert!(text.contains("lacks CAP_PERFMON and CAP_BPF") && text.contains("sudo"), "{text}");
}

fn root_without_capabilities() {
    let copies = Copies::make();
    let mut target = Program::start_until(&mut Command::new(copies.file("calls")), "ready");
    let pid = target.pid().to_string();
    let attach = ["attach", &pid, "-o", "-", "--format", "json"];
    let text = refusal_of(&mut copies.heapscope(&WITHOUT_BPF, &attach));
    for capability in ["CAP_PERFMON", "CAP_BPF"] {
        assert!(text.contains(capability), "{text}");
    }
    let text = refusal_of(&mut copies.heapscope(&["--bounding-set=-sys_admin,-bpf"], &attach));
    assert!(text.contains("lacks CAP_BPF."), "{text}");
    // perf_event_open(2) wants more than the others do.
    let by_perf = [&attach[..], &["--probes", "perf"]].concat();
    let text = refusal_of(&mut copies.heapscope(&["--bounding-set=-sys_admin"], &by_perf));
    assert!(text.contains("CAP_SYS_ADMIN"), "{text}");
    assert_eq!(text.matches("Permission denied").count(), 1, "said twice: {text}");
    // The target has not noticed.
    assert_eq!(target.ask("red malloc 1 100"), "block");
}

fn nothing_is_left_behind() {
    let copies = Copies::make();
    let mark = copies.file("mark");
    let words = ["run", "-o", "-", "--format", "json", "--", "touch", mark.to_str().unwrap()];
    let text = refusal_of(copies.heapscope(&WITHOUT_BPF, &words).stdin(Stdio::null()));
    assert!(text.contains("lacks CAP_PERFMON and CAP_BPF"), "{text}");
    assert!(!mark.exists(), "the program ran unwatched");
}
