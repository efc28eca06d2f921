//! Targets that end, replace themselves, lost their files, or live elsewhere.

use std::{fs, process::Command};

use tempfile::TempDir;

use crate::{
    script::Script,
    support::{
        case::{Case, case, case_with, methods},
        fixture,
        heapscope::{Heapscope, heapscope},
        needs::Need,
        program::Program,
    },
};

pub(crate) const CASES: &[Case] = &[
    case("life::the_target_ends", the_target_ends),
    case("life::the_target_is_killed", the_target_is_killed),
    case("life::exec_ends_the_account", exec_ends_the_account),
    case("life::files_deleted_and_replaced", files_deleted_and_replaced),
    case("life::a_static_program", a_static_program),
    case("life::found_by_its_name", found_by_its_name),
    case_with("life::with_narrow_capabilities", &[Need::Program("setpriv")], with_narrow_capabilities),
    case_with("life::behind_a_chroot_and_mounts", &[Need::Namespaces], behind_a_chroot_and_mounts),
    case_with("life::in_a_pid_namespace", &[Need::Namespaces], in_a_pid_namespace),
];

fn the_target_ends() {
    let mut script = Script::start();
    let heapscope = Heapscope::attach(script.pid(), &[]);
    script.watched();
    script.orders(&["red malloc 1 100", "blue malloc 2 200"]);
    script.free(1);
    script.program.say("exit 3");
    let outcome = heapscope.finish();
    assert_eq!(outcome.status, 0, "{}", outcome.errors);
    assert!(outcome.output.contains(&format!("process {} ended", script.pid())), "{}", outcome.output);
    assert!(outcome.output.contains("wrote report.json"), "{}", outcome.output);
    let report = outcome.report.unwrap();
    script.assert_account(&report);
    report.assert_stacks_whole();
}

fn the_target_is_killed() {
    let mut script = Script::start();
    let heapscope = Heapscope::attach(script.pid(), &[]);
    script.watched();
    script.repeat(1000, "red", 0, 10);
    crate::support::program::send(script.pid(), rustix::process::Signal::KILL);
    let report = heapscope.report();
    script.assert_account(&report);
    report.assert_stacks_whole();
}

fn exec_ends_the_account() {
    let mut script = Script::start();
    let heapscope = Heapscope::attach(script.pid(), &[]);
    script.watched();
    script.orders(&["red malloc 1 1000", "blue malloc 2 500"]);
    // What follows is another program's, though the pid and even the file are the same.
    let program = fixture::calls();
    assert_eq!(script.program.ask(&format!("exec {}", program.display())), "ready");
    assert_eq!(script.program.ask("repeat 100 green malloc 1000 64"), "block");
    assert_eq!(script.program.ask("red malloc 1 9"), "block");
    assert_eq!(script.program.ask("free 1"), "done");
    let report = heapscope.report();
    script.assert_account(&report);
    report.assert_stacks_whole();
    assert!(
        report.quality.warnings.iter().any(|warning| warning.contains("exec")),
        "{:?}",
        report.quality.warnings
    );
    assert!(script.program.is_alive());
}

fn files_deleted_and_replaced() {
    let folder = TempDir::new().unwrap();
    let (program, library) = (folder.path().join("gone"), folder.path().join("libreplaced.so"));
    fs::copy(fixture::calls(), &program).unwrap();
    fs::copy(fixture::build("plugin.c", &["-shared", "-fPIC"]), &library).unwrap();
    let mut script = Script::of(&mut Command::new(&program));
    script.load_plugin(&library);
    fs::remove_file(&program).unwrap();
    let other = folder.path().join("other");
    fs::write(&other, "an upgrade that came while the program ran").unwrap();
    fs::rename(&other, &library).unwrap();

    let heapscope = Heapscope::attach(script.pid(), &[]);
    script.watched();
    script.orders(&["red malloc 1 100", "blue plugin 2 200"]);
    let report = heapscope.stop();
    script.assert_account(&report);
    report.assert_stacks_whole();
    assert_eq!(report.below("plugin_inside"), script.expected("blue"));
    assert!(report.target.exe.ends_with("/gone"), "{}", report.target.exe);
}

fn a_static_program() {
    let program = fixture::build("calls.c", &["-static", "-Wl,-w"]);
    let mut script = Script::of(&mut Command::new(program));
    let heapscope = Heapscope::attach(script.pid(), &[]);
    script.watched();
    script.orders(&[
        "red malloc 1 100",
        "green calloc 2 10 10",
        "blue realloc 3 5000",
        "blue realloc 3 100000",
    ]);
    script.orders(&["red memalign 4 256 300", "red strdup 5 20"]);
    script.free(2);
    let report = heapscope.stop();
    script.assert_account(&report);
    report.assert_stacks_whole();
}

fn found_by_its_name() {
    let folder = TempDir::new().unwrap();
    let program = folder.path().join("hs-by-name");
    fs::copy(fixture::calls(), &program).unwrap();
    let mut script = Script::of(&mut Command::new(&program));
    let mut heapscope =
        Heapscope::start(&mut heapscope(&["attach", "hs-by-name", "--exact", "-o", "report.json"]));
    let line = heapscope.hear("attached");
    assert!(line.contains("hs-by-name") && line.contains(&script.pid().to_string()), "{line}");
    script.watched();
    script.orders(&["red malloc 1 100"]);
    script.assert_account(&heapscope.stop());
}

/// Root is not needed where the kernel attaches by one link (6.6).
fn with_narrow_capabilities() {
    if methods().all(|method| method == "perf") {
        return;
    }
    let mut script = Script::start();
    let pid = script.pid().to_string();
    let mut heapscope = Heapscope::start(
        Command::new("setpriv").arg("--bounding-set=-all,+bpf,+perfmon,+sys_ptrace").args([
            env!("CARGO_BIN_EXE_heapscope"),
            "attach",
            &pid,
            "--exact",
            "-o",
            "report.json",
        ]),
    );
    heapscope.hear("attached");
    script.watched();
    script.orders(&["red malloc 1 100", "blue realloc 1 200"]);
    let report = heapscope.stop();
    script.assert_account(&report);
    report.assert_stacks_whole();
}

/// What a fixture needs to run anywhere: its C library and its loader, as ldd tells them.
fn libraries() -> Vec<String> {
    let output = Command::new("ldd").arg(fixture::calls()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_ascii_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect()
}

fn behind_a_chroot_and_mounts() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("root");
    fs::create_dir(&root).unwrap();
    // Everything lies in a file system that nobody else has mounted.
    let script = format!(
        "mount -t tmpfs none {root} && cp {calls} {root}/hidden && cd {root} && \
         for file in {libraries}; do mkdir -p .$(dirname $file) && cp -L $file .$file; done && exec chroot . /hidden",
        root = root.display(),
        calls = fixture::calls().display(),
        libraries = libraries().join(" ")
    );
    let mut script = Script::of(Command::new("unshare").args(["-m", "sh", "-ec", &script]));
    assert!(fs::read_dir(&root).unwrap().next().is_none(), "the folder is not private");
    let heapscope = Heapscope::attach(script.pid(), &[]);
    script.watched();
    script.orders(&["red malloc 1 100", "blue realloc 2 200"]);
    script.free(1);
    let report = heapscope.stop();
    script.assert_account(&report);
    report.assert_stacks_whole();
    assert!(report.sites.iter().all(|site| site.has("main")));
    assert!(report.target.exe.ends_with("/hidden"), "{}", report.target.exe);
}

fn in_a_pid_namespace() {
    let calls = fixture::calls();
    let mut holder = Program::start_until(Command::new("unshare").args(["-p", "-f"]).arg(&calls), "ready");
    let children = format!("/proc/{0}/task/{0}/children", holder.pid());
    let pid: u32 = fs::read_to_string(children).unwrap().trim().parse().unwrap();
    let heapscope = Heapscope::attach(pid, &[]);
    assert_eq!(holder.ask("repeat 5 red malloc 1 1000"), "block");
    assert_eq!(holder.ask("free 1"), "done");
    assert_eq!(holder.ask(&format!("exec {}", calls.display())), "ready");
    assert_eq!(holder.ask("red malloc 1 9"), "block");
    let report = heapscope.report();
    report.assert_nothing_lost();
    report.assert_stacks_whole();
    let red = report.below("red");
    assert_eq!((red.inuse_space, red.inuse_objects, red.alloc_space, red.alloc_objects), (4000, 4, 5000, 5));
    assert_eq!(report.totals, red);
}
