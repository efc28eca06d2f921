//! Processes of our own making: sleepers, zombies, threads, children that end.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::{fs::symlink, process::CommandExt},
    process::{Child, ChildStdout, Command, Stdio},
};

use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use super::*;

/// A child that is ended and reaped whatever becomes of the test.
struct Spawned(Child);

impl Spawned {
    fn new(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// `cat`: runs until its input ends, and answers once it does run.
    fn cat(command: &mut Command) -> (Self, BufReader<ChildStdout>) {
        let mut child = Self::new(command);
        child.0.stdin.as_mut().unwrap().write_all(b"ready\n").unwrap();
        let mut output = BufReader::new(child.0.stdout.take().unwrap());
        output.read_line(&mut String::new()).unwrap();
        (child, output)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn scratch_dir(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("heapscope-{name}-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    dir
}

#[test]
fn we_know_ourselves() {
    let us = Process::open(std::process::id()).unwrap();
    assert_eq!(us.exe, std::env::current_exe().unwrap());
    assert!(us.is_alive());
    assert!(us.command.starts_with(&std::env::args().next().unwrap()));
    assert_eq!(us.uid, rustix::process::geteuid().as_raw());
    let rss = us.rss_bytes().unwrap();
    assert!((1 << 20..1 << 36).contains(&rss), "{rss}");
    assert_eq!(us.image().unwrap(), us.image().unwrap());
    assert_ne!(us.image().unwrap().start_stack, 0);
}

#[test]
fn cpu_time_is_what_the_process_itself_was_told() {
    // The shell's `times` prints the CPU time that times(2) gives it: `0m0.230000s 0m0.010000s`.
    let script = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; times; read x";
    let mut child = Spawned::new(Command::new("sh").arg("-c").arg(script));
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let seconds = |part: &str| {
        let (minutes, seconds) = part.strip_suffix('s').unwrap().split_once('m').unwrap();
        minutes.parse::<f64>().unwrap() * 60.0 + seconds.parse::<f64>().unwrap()
    };
    let told: f64 = line.split_whitespace().map(seconds).sum();
    let read = Process::open(child.pid()).unwrap().cpu_time().unwrap().as_secs_f64();
    assert!(told > 0.05 && (read - told).abs() < 0.05, "{read} against {told}");
}

#[test]
fn a_thread_is_refused_with_its_process() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        sender.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
        let _ = stopped.recv();
    });
    let tid = u32::try_from(receiver.recv().unwrap()).unwrap();
    let error = Process::open(tid).unwrap_err();
    assert!(error.to_string().contains(&format!("Attach to the process: {}", std::process::id())), "{error}");
    drop(stop);
    thread.join().unwrap();
}

#[test]
fn absent_processes_are_absent() {
    for wanted in ["0", "4294967295", "99999999999999999999", "no such program"] {
        let error = Process::find(wanted).unwrap_err();
        assert!(matches!(&error, TargetError::NoSuchProcess { wanted: w } if w == wanted), "{error}");
    }
    assert!(matches!(Process::find(""), Err(TargetError::NothingWanted)));
}

#[test]
fn of_the_candidates_only_those_that_are_still_there_count() {
    let vanished = || Err(TargetError::NoSuchProcess { wanted: "1".into() });
    let ended = || Err(TargetError::Exited { pid: 2 });
    let zombie = || Err(TargetError::Zombie { pid: 3, comm: "sh".into() });
    let denied = || Err(TargetError::NotPermitted { pid: 4, owner: 0 });
    let choose = |candidates: Vec<(u32, Result<char, TargetError>)>| choose(candidates.into_iter());
    assert!(choose(vec![(1, vanished()), (2, ended())]).unwrap_err().is_empty());
    assert_eq!(choose(vec![(1, vanished()), (5, Ok('a')), (3, zombie())]).unwrap().unwrap(), 'a');
    assert_eq!(choose(vec![(6, Ok('b')), (2, ended()), (4, denied())]).unwrap_err(), [6, 4]);
    let alone = choose(vec![(2, ended()), (3, zombie())]).unwrap();
    assert!(matches!(alone, Err(TargetError::Zombie { pid: 3, .. })));
    assert!(matches!(choose(vec![(4, denied())]).unwrap(), Err(TargetError::NotPermitted { pid: 4, .. })));
}

#[test]
fn a_kernel_thread_is_refused() {
    // kthreadd has pid 2 wherever kernel threads are visible at all; in a pid namespace there are none.
    if !read_stat(2).is_some_and(|stat| stat.kernel_thread) {
        eprintln!("skipped: no kernel thread is visible here");
        return;
    }
    assert!(matches!(Process::open(2), Err(TargetError::KernelThread { pid: 2, .. })));
    assert!(matches!(Process::find("kthreadd"), Err(TargetError::KernelThread { pid: 2, .. })));
}

#[test]
fn the_end_of_a_process_is_noticed_and_its_zombie_refused() {
    let mut child = Spawned::new(&mut Command::new("cat"));
    let process = Process::open(child.pid()).unwrap();
    assert!(!process.exited(Duration::from_millis(10)));
    drop(child.0.stdin.take());
    assert!(process.exited(Duration::from_secs(20)));
    assert!(!process.is_alive());
    // Not reaped yet: its files are there, and must not be mistaken for those of a living process.
    assert!(matches!(process.cpu_time(), Err(TargetError::Exited { .. })));
    assert!(matches!(process.image(), Err(TargetError::Exited { .. })));
    assert!(matches!(Process::open(child.pid()), Err(TargetError::Zombie { .. })));
    child.0.wait().unwrap();
    assert!(matches!(process.read("maps", 100), Err(TargetError::Exited { .. })));
    assert!(matches!(Process::open(child.pid()), Err(TargetError::NoSuchProcess { .. })));
}

#[test]
fn exec_changes_the_image_and_nothing_else_does() {
    let dir = scratch_dir("exec");
    let (begin, done) = (dir.join("begin"), dir.join("done"));
    for fifo in [&begin, &done] {
        assert!(Command::new("mkfifo").arg(fifo).status().unwrap().success());
    }
    // The shell replaces itself by another run of the very same file, so only the stack tells.
    let script =
        format!("read x <{b}; exec sh -c 'echo >{d}; read x <{b}'", b = begin.display(), d = done.display());
    let child = Spawned::new(Command::new("sh").arg("-c").arg(script));
    let process = Process::open(child.pid()).unwrap();
    // Opening a FIFO for writing returns when the shell has opened it for reading.
    let mut go = fs::OpenOptions::new().write(true).open(&begin).unwrap();
    let before = process.image().unwrap();
    assert_eq!(before, process.image().unwrap());
    writeln!(go).unwrap();
    fs::read(&done).unwrap();
    let after = process.image().unwrap();
    assert_eq!((before.device, before.inode), (after.device, after.inode));
    assert_ne!(before, after);
    drop(child);
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn names_are_matched_whole_and_ambiguity_lists_the_candidates() {
    let dir = scratch_dir("names");
    let (by_comm, by_argv) = (dir.join("hs-name-a"), format!("/x/hs-argv-{}", std::process::id()));
    symlink("/bin/cat", &by_comm).unwrap();
    let (first, _out) = Spawned::cat(Command::new(&by_comm).arg("-"));
    let found = Process::find("hs-name-a").unwrap();
    assert_eq!((found.pid, found.comm.as_str()), (first.pid(), "hs-name-a"));
    assert_eq!(found.command, format!("{} -", by_comm.display()));
    assert!(matches!(Process::find("hs-name"), Err(TargetError::NoSuchProcess { .. })));

    let (other, _out) = Spawned::cat(Command::new("cat").arg0(&by_argv));
    assert_eq!(Process::find(by_argv.trim_start_matches("/x/")).unwrap().pid, other.pid());

    let (second, _out) = Spawned::cat(Command::new(&by_comm).arg("-u"));
    let error = Process::find("hs-name-a").unwrap_err().to_string();
    for (pid, arguments) in [(first.pid(), "hs-name-a -\n"), (second.pid(), "hs-name-a -u")] {
        let line = format!("{pid}  {}", by_comm.with_file_name(arguments).display());
        assert!(format!("{error}\n").contains(&line), "{line} not in {error}");
    }
    drop((first, second, other));
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn programs_of_other_machines_are_told_apart() {
    let mut us = Process::open(std::process::id()).unwrap();
    assert!(us.check_machine().is_ok());
    us.pid = u32::MAX;
    // The header is read through /proc/PID/exe, so a pid without one gives the error of the read.
    assert!(matches!(us.check_machine(), Err(TargetError::Unreadable { .. })));
    for (class, machine, expected) in [(1, 3_u16, "32-bit"), (1, 62, "32-bit"), (2, 183, "ELF machine 183")] {
        let mut header = [0_u8; 20];
        header[4] = class;
        header[18..].copy_from_slice(&machine.to_le_bytes());
        assert!(us.check_header(&header).unwrap_err().to_string().contains(expected));
    }
}

#[test]
fn without_rights_the_message_names_the_owner_and_the_remedy() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root, to run a process of another user");
        return;
    }
    let (other, _out) = Spawned::cat(Command::new("cat").uid(65534).gid(65534));
    let pid = other.pid();
    assert_eq!(Process::open(pid).unwrap().uid, 65534);
    // Capabilities belong to the thread, so giving them all up in one leaves the other tests alone.
    let denied = std::thread::spawn(move || {
        let none = CapabilitySet::empty();
        let nothing = CapabilitySets { effective: none, permitted: none, inheritable: none };
        set_capabilities(None, nothing).unwrap();
        Process::open(pid).unwrap_err()
    });
    let denied = denied.join().unwrap();
    assert!(matches!(denied, TargetError::NotPermitted { owner: 65534, .. }), "{denied}");
    assert!(denied.to_string().contains("sudo") && denied.to_string().contains("CAP_SYS_PTRACE"), "{denied}");
}
