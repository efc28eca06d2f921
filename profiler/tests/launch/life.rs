//! Starting, failing to start, and the ways to end.

use std::{ffi::OsString, fs, os::unix::ffi::OsStringExt};

use heapscope::sys::launch::{Launch, LaunchError};

use crate::harness::{Seen, command, count, executables, follow_to_end, next, scratch, send, start, until};

#[test]
fn the_end_is_reported_as_it_was() {
    const TEST: &str = "the_end_is_reported_as_it_was";
    for (script, end) in [
        ("exit 0", Seen::Exited(0)),
        ("exit 3", Seen::Exited(3)),
        ("exit 255", Seen::Exited(255)),
        ("kill -TERM $$", Seen::Killed(libc::SIGTERM)),
        ("ulimit -c 0; kill -SEGV $$", Seen::Killed(libc::SIGSEGV)),
        ("kill -KILL $$", Seen::Killed(libc::SIGKILL)),
    ] {
        let Some(launch) = start(TEST, &["/bin/sh", "-c", script]) else { return };
        let all = follow_to_end(&launch);
        assert_eq!(all.last(), Some(&end), "{script}");
        assert_eq!(count(&all, &Seen::Running), 1, "{script}");
    }
}

#[test]
fn being_killed_while_held_is_an_end_too() {
    const TEST: &str = "being_killed_while_held_is_an_end_too";
    for held_at in 0..3 {
        let Some(launch) = start(TEST, &["/bin/sh", "-c", "exit 0"]) else { return };
        for _ in 0..held_at {
            next(&launch).unwrap().1.unwrap().resume();
        }
        let (_, stopped) = next(&launch).unwrap();
        send(launch.pid(), libc::SIGKILL);
        stopped.unwrap().resume();
        assert_eq!(follow_to_end(&launch).last(), Some(&Seen::Killed(libc::SIGKILL)));
    }
}

#[test]
fn a_hundred_launches_leave_nothing() {
    const TEST: &str = "a_hundred_launches_leave_nothing";
    let mut pids = Vec::new();
    for _ in 0..100 {
        let Some(launch) = start(TEST, &["/bin/true"]) else { return };
        assert_eq!(follow_to_end(&launch).last(), Some(&Seen::Exited(0)));
        pids.push(launch.pid());
    }
    // A zombie would still be our child.
    let mut children = String::new();
    for task in fs::read_dir("/proc/self/task").unwrap() {
        children += &fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
    }
    let children: Vec<u32> = children.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.iter().all(|pid| !children.contains(pid)), "{pids:?} {children:?}");
    // Tests beside this one have launchers too, but not that many.
    until("the launchers' threads end", || {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|name| name.starts_with("launch-")).count() < 50
    });
}

#[test]
fn programs_are_found_as_a_shell_finds_them() {
    const TEST: &str = "programs_are_found_as_a_shell_finds_them";
    let script = scratch(TEST).join("script");
    for text in ["#!/bin/sh\nexit 6\n", "exit 6\n"] {
        fs::write(&script, text).unwrap();
        make_executable(&script);
        let Some(launch) = start(TEST, &[&script]) else { return };
        let all = follow_to_end(&launch);
        let shell = fs::canonicalize("/bin/sh").unwrap();
        assert_eq!(executables(&all), [shell.file_name().unwrap().to_string_lossy()], "{text:?}");
        assert_eq!(all.last(), Some(&Seen::Exited(6)), "{text:?}");
    }
    let Some(launch) = start(TEST, &["true"]) else { return };
    assert_eq!(follow_to_end(&launch).last(), Some(&Seen::Exited(0)));
}

#[test]
fn what_cannot_be_started_says_why() {
    const TEST: &str = "what_cannot_be_started_says_why";
    if start(TEST, &["/bin/true"]).is_none() {
        return;
    }
    let folder = scratch(TEST);
    let (data, orphan) = (folder.join("data"), folder.join("orphan"));
    fs::write(&data, "no program").unwrap();
    fs::write(&orphan, "#!/no/such/interpreter\n").unwrap();
    make_executable(&orphan);
    let refusal = |word: OsString| Launch::spawn(&[word], &[]).map(|launch| launch.pid()).unwrap_err();
    for absent in ["heapscope-no-such-command".into(), data.join("below").into(), OsString::from(&orphan)] {
        let error = refusal(absent.clone());
        assert!(matches!(&error, LaunchError::NotFound { program } if *program == *absent), "{error:?}");
        assert!(error.to_string().starts_with(&format!("{}: command not found", absent.display())));
    }
    for refused in [OsString::from(&data), OsString::from(&folder)] {
        let error = refusal(refused);
        assert!(matches!(error, LaunchError::NotExecutable { .. }), "{error:?}");
        assert!(error.to_string().contains("Permission denied"), "{error}");
    }
    let damaged = OsString::from_vec(b"tr\0ue".to_vec());
    assert!(matches!(refusal(damaged), LaunchError::NulByte(_)));
    assert!(matches!(Launch::spawn(&command::<&str>(&[]), &[]), Err(LaunchError::NoCommand)));
}

fn make_executable(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
