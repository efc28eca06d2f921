//! Is the program held early enough, at the right moments and no more often than needed?

use std::{fs, path::Path, process::Command};

use crate::harness::{
    Seen, code_files, compile, count, executables, follow, follow_to_end, has_heap, next, scratch, skip,
    start,
};

#[test]
fn libraries_are_mapped_before_any_constructor_allocates() {
    const TEST: &str = "libraries_are_mapped_before_any_constructor_allocates";
    let flags = ["-shared", "-fPIC", "-DLIBRARY"];
    let Some(library) = compile(TEST, "gcc", "constructor.c", "libconstructor.so", &flags) else { return };
    let folder = format!("-Wl,-rpath={}", scratch(TEST).display());
    let Some(program) =
        compile(TEST, "gcc", "constructor.c", "constructor", &[library.to_str().unwrap(), &folder])
    else {
        return;
    };
    let Some(launch) = start(TEST, &[&program]) else { return };
    let mut libc_came_with_loading = false;
    let all = follow(&launch, None, |seen| match seen {
        Seen::Exec(path) => {
            assert_eq!(*path, program);
            assert!(!code_files(launch.pid()).contains(&"libc.so.6".to_owned()));
        }
        Seen::Loading => {
            libc_came_with_loading |= code_files(launch.pid()).contains(&"libc.so.6".to_owned());
            assert!(!has_heap(launch.pid()), "somebody allocated during Loading");
        }
        Seen::Running => {
            for file in ["constructor", "libconstructor.so", "libc.so.6"] {
                assert!(code_files(launch.pid()).contains(&file.to_owned()), "{file} is not mapped");
            }
            assert!(!has_heap(launch.pid()), "somebody allocated before Running");
        }
        // The check above means something only if those constructors do make a heap.
        Seen::Ending => assert!(has_heap(launch.pid())),
        Seen::Exited(_) | Seen::Killed(_) => (),
    });
    assert!(libc_came_with_loading);
    let after_loading = [Seen::Running, Seen::Ending, Seen::Exited(42)];
    assert_eq!(all[0], Seen::Exec(program));
    assert_eq!(all[all.len() - 3..], after_loading);
    assert!(all[1..all.len() - 3].iter().all(|seen| *seen == Seen::Loading), "{all:?}");
}

#[test]
fn every_one_of_fifty_libraries_is_announced() {
    const TEST: &str = "every_one_of_fifty_libraries_is_announced";
    let folder = scratch(TEST);
    let mut libraries = Vec::new();
    for index in 0..50 {
        let flags = ["-shared", "-fPIC", &format!("-DNAME=one_of_many_{index}")];
        let Some(library) = compile(TEST, "gcc", "library.c", &format!("libmany{index}.so"), &flags) else {
            return;
        };
        libraries.push(library.to_str().unwrap().to_owned());
    }
    let rpath = format!("-Wl,--no-as-needed,-rpath={}", folder.display());
    let flags: Vec<&str> = [rpath.as_str()].into_iter().chain(libraries.iter().map(String::as_str)).collect();
    let Some(program) = compile(TEST, "gcc", "children.c", "many", &flags) else { return };
    let Some(launch) = start(TEST, &[&program]) else { return };
    let mut new_at_each = Vec::new();
    let mut known = 0;
    let all = follow(&launch, None, |seen| match seen {
        Seen::Loading => {
            let mapped = code_files(launch.pid()).len();
            new_at_each.push(mapped - known);
            known = mapped;
        }
        Seen::Exec(_) => known = code_files(launch.pid()).len(),
        Seen::Running => assert_eq!(code_files(launch.pid()).len(), known, "code came unannounced"),
        _ => (),
    });
    assert_eq!(new_at_each, vec![1; 51], "fifty libraries and the C library");
    assert_eq!(all.last(), Some(&Seen::Exited(11)));
}

#[test]
fn every_exec_of_a_wrapper_is_followed() {
    const TEST: &str = "every_exec_of_a_wrapper_is_followed";
    let script = "exec sh -c 'exec env python3 -c \"import ssl, sys; sys.exit(9)\"'";
    let Some(launch) = start(TEST, &["sh", "-c", script]) else { return };
    let all = follow_to_end(&launch);
    let executables = executables(&all);
    let shell = fs::canonicalize("/bin/sh").unwrap().file_name().unwrap().to_string_lossy().into_owned();
    assert_eq!(executables[..3], [shell.clone(), shell, "env".into()]);
    assert!(executables.last().unwrap().starts_with("python3"), "{executables:?}");
    assert_eq!(count(&all, &Seen::Running), executables.len(), "one Running for each Exec");
    assert_eq!(count(&all, &Seen::Ending), 1);
    assert_eq!(all.last(), Some(&Seen::Exited(9)));
}

#[test]
fn a_static_program_runs_at_once() {
    const TEST: &str = "a_static_program_runs_at_once";
    for (name, flag) in [("static", "-static"), ("static-pie", "-static-pie")] {
        let Some(program) = compile(TEST, "gcc", "children.c", name, &[flag]) else { return };
        let Some(launch) = start(TEST, &[&program]) else { return };
        let all = follow_to_end(&launch);
        assert_eq!(all, [Seen::Exec(program), Seen::Running, Seen::Ending, Seen::Exited(11)], "{name}");
    }
}

#[test]
fn a_loader_that_is_the_c_library_too_is_left() {
    const TEST: &str = "a_loader_that_is_the_c_library_too_is_left";
    let Some(program) = compile(TEST, "musl-gcc", "children.c", "musl", &[]) else { return };
    let Some(launch) = start(TEST, &[&program]) else { return };
    // Unaided: it is recognised by what only a program does.
    let all = follow_to_end(&launch);
    assert_eq!(all, [Seen::Exec(program.clone()), Seen::Running, Seen::Ending, Seen::Exited(11)]);
    // Told by the caller: at once, so that the libc's first system calls are not watched.
    let Some(launch) = start(TEST, &[&program]) else { return };
    let (seen, stopped) = next(&launch).unwrap();
    assert_eq!(seen, Seen::Exec(program));
    assert!(code_files(launch.pid()).iter().any(|file| file == "libc.so" || file.starts_with("ld-musl")));
    stopped.unwrap().finish_loading();
    assert_eq!(follow_to_end(&launch), [Seen::Running, Seen::Ending, Seen::Exited(11)]);
}

#[test]
fn finish_loading_spares_the_rest() {
    const TEST: &str = "finish_loading_spares_the_rest";
    let Some(launch) = start(TEST, &["/bin/sh", "-c", "exit 4"]) else { return };
    next(&launch).unwrap().1.unwrap().resume();
    let (seen, stopped) = next(&launch).unwrap();
    assert_eq!(seen, Seen::Loading);
    stopped.unwrap().finish_loading();
    assert_eq!(follow_to_end(&launch), [Seen::Running, Seen::Ending, Seen::Exited(4)]);
}

#[test]
fn an_exec_by_another_thread_is_followed() {
    const TEST: &str = "an_exec_by_another_thread_is_followed";
    let Some(program) = compile(TEST, "gcc", "exec_from_thread.c", "exec_from_thread", &[]) else { return };
    let shell = fs::canonicalize("/bin/sh").unwrap();
    for _ in 0..50 {
        let Some(launch) = start(TEST, &[&program]) else { return };
        let pid = launch.pid();
        let mut mapped = Vec::new();
        let all = follow(&launch, None, |seen| {
            if *seen == Seen::Running {
                mapped.push((fs::read_link(format!("/proc/{pid}/exe")).unwrap(), has_heap(pid)));
            }
        });
        // Both programs are held before their first allocation.
        assert_eq!(mapped, [(program.clone(), false), (shell.clone(), false)]);
        let mut main_events = all.clone();
        main_events.retain(|seen| *seen != Seen::Loading);
        let expected = [
            Seen::Exec(program.clone()),
            Seen::Running,
            Seen::Ending,
            Seen::Exec(shell.clone()),
            Seen::Running,
            Seen::Ending,
            Seen::Exited(7),
        ];
        assert_eq!(main_events, expected);
    }
}

#[test]
fn a_process_without_its_main_thread_is_followed_to_the_end() {
    const TEST: &str = "a_process_without_its_main_thread_is_followed_to_the_end";
    let Some(program) = compile(TEST, "gcc", "exec_from_thread.c", "alone", &[]) else { return };
    let Some(launch) = start(TEST, &[program.as_os_str(), "alone".as_ref()]) else { return };
    assert_eq!(follow_to_end(&launch).last(), Some(&Seen::Exited(5)));
}

#[test]
fn no_rights_are_withheld_silently() {
    const TEST: &str = "no_rights_are_withheld_silently";
    if !rustix::process::geteuid().is_root() {
        skip(TEST, &"needs root to make a set-user-ID program and a process without its rights");
        return;
    }
    if !Path::new("/usr/bin/setpriv").exists() {
        skip(TEST, &"setpriv is not installed");
        return;
    }
    // A root's tracer withholds nothing, but the owner of this copy is neither.
    let program = std::env::temp_dir().join(format!("heapscope-launch-setuid-{}", std::process::id()));
    fs::copy("/bin/true", &program).unwrap();
    let made = Command::new("chmod").arg("u+s").arg(&program).status().unwrap();
    assert!(made.success());
    let run = |user: &str| {
        let mut helper = Command::new("/usr/bin/setpriv");
        helper.args([&format!("--reuid={user}"), "--clear-groups"]);
        helper.arg(std::env::current_exe().unwrap());
        helper.args(["--ignored", "--exact", "loading::helper_reports_withheld_rights", "--nocapture"]);
        let output = helper.env("HEAPSCOPE_LAUNCH", &program).output().unwrap();
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat()
    };
    let (nobody, root) = (run("65534"), run("0"));
    fs::remove_file(&program).unwrap();
    if nobody.contains("failed to execute") {
        skip(TEST, &"the folder of the tests is closed to other users");
        return;
    }
    assert!(nobody.contains("runs without the rights of user 0 that its file gives"), "{nobody}");
    assert!(root.contains("nothing withheld"), "{root}");
}

#[test]
#[ignore = "the other half of no_rights_are_withheld_silently, run by it as another user"]
fn helper_reports_withheld_rights() {
    let Some(program) = std::env::var_os("HEAPSCOPE_LAUNCH") else { return };
    let Some(launch) = start("helper_reports_withheld_rights", &[program]) else { return };
    match launch.withheld_privileges() {
        Some(withheld) => println!("{withheld}"),
        None => println!("nothing withheld"),
    }
    assert_eq!(follow_to_end(&launch).last(), Some(&Seen::Exited(0)));
}
