//! Programs that work when they are told to, for the tests that look at stacks: of every language and kind of frame,
//! each with much to allocate.

use std::{fs, process::Command};

use crate::support::{fixture, heapscope::Heapscope, program::Program, report::Report, until};

/// A program that is waiting for the word.
pub(crate) struct Worker {
    program: Program,
    /// What it works on; where there is none, a line is what it waits for.
    input: Option<String>,
}

impl Worker {
    /// One that prints "ready", and works and prints "done" for each line.
    fn patient(command: &mut Command) -> Self {
        Self { program: Program::start_until(command, "ready"), input: None }
    }

    /// C with one of the kinds of frames of `shapes.c`.
    pub(crate) fn shape(kind: &str) -> Self {
        Self::patient(Command::new(fixture::build("shapes.c", &[])).arg(kind))
    }

    /// The same with musl in place of glibc.
    pub(crate) fn musl(flags: &[&str]) -> Self {
        Self::patient(Command::new(fixture::build_with("musl-gcc", "shapes.c", flags)).arg("recursion"))
    }

    /// C++: templates, exceptions, allocation while unwinding.
    pub(crate) fn cpp() -> Self {
        Self::patient(&mut Command::new(fixture::build("unwinding.cpp", &["-O3", "-std=c++17", "-g0"])))
    }

    /// Rust: collections, trait objects, panics.
    pub(crate) fn rust() -> Self {
        Self::patient(&mut Command::new(fixture::build("panics.rs", &[])))
    }

    /// Go that calls C that calls Go.
    pub(crate) fn go() -> Self {
        Self::patient(&mut Command::new(fixture::build("crossing.go", &[])))
    }

    /// Debian's Python where it is there.
    pub(crate) fn python() -> Self {
        let debian = fs::exists("/usr/bin/python3").unwrap_or(false);
        let python = if debian { "/usr/bin/python3" } else { "python3" };
        Self::warmed_up(Command::new(python).arg(fixture::source("work.py")))
    }

    /// JavaScript, most of whose frames are generated code.
    pub(crate) fn node() -> Self {
        Self::warmed_up(Command::new("node").arg(fixture::source("work.js")))
    }

    /// One whose first round loads what it needs.
    fn warmed_up(command: &mut Command) -> Self {
        let mut worker = Self::patient(command);
        worker.begin();
        worker.await_end();
        worker
    }

    /// The compiler, waiting for a source.
    pub(crate) fn clang() -> Self {
        let program = Program::start(Command::new("clang++").args([
            "-O2",
            "-S",
            "-g",
            "-o",
            "/dev/null",
            "-x",
            "c++",
            "-",
        ]));
        let call = format!("/proc/{}/syscall", program.pid());
        // Number 0 of arch/x86/entry/syscalls/syscall_64.tbl is read, and its first argument standard input.
        until("clang reads", || fs::read_to_string(&call).is_ok_and(|call| call.starts_with("0 0x0 ")));
        let functions = (0..2).map(|number| {
            format!(
                "template <typename T, int n> struct S{number} {{ T t[n]; S{number}<T, n - 1> rest; \
                 T sum(T a) {{ for (int i = 0; i < n; i++) a += t[i] * a; return a + rest.sum(a); }} }};\n\
                 template <typename T> struct S{number}<T, 0> {{ T sum(T a) {{ return a; }} }};\n\
                 double f{number}(S{number}<double, 6> &s) {{ return s.sum({number}); }}\n"
            )
        });
        Self { program, input: Some(functions.collect()) }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// Gives the word.
    pub(crate) fn begin(&mut self) {
        match self.input.take() {
            None => self.program.say("go"),
            Some(input) => {
                self.program.say(&input);
                self.program.close_input();
            }
        }
    }

    fn await_end(&self) {
        assert_eq!(self.program.hear(), "done");
    }

    /// Waits until the work is done; what heapscope saw of it.
    pub(crate) fn finish(mut self, heapscope: Heapscope) -> Report {
        if self.program.has_input() {
            self.await_end();
            heapscope.stop()
        } else {
            assert!(self.program.wait().success());
            heapscope.report()
        }
    }

    /// Works under heapscope.
    pub(crate) fn watch(mut self) -> Report {
        let heapscope = Heapscope::attach(self.pid(), &[]);
        self.begin();
        self.finish(heapscope)
    }
}
