//! Programs that we did not write, against their own arithmetic.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    process::Command,
};

use tempfile::TempDir;

use crate::support::{
    case::{Case, case_with},
    fixture,
    heapscope::{Heapscope, heapscope},
    needs::Need,
    program::Program,
    report::Report,
};

pub(crate) const CASES: &[Case] = &[
    case_with("programs::python_keeps_bytearrays", &[Need::Program("python3")], python_keeps_bytearrays),
    case_with("programs::redis_holds_keys", &[Need::Program("redis-server")], redis_holds_keys),
    case_with("programs::node_keeps_buffers", &[Need::Program("node")], node_keeps_buffers),
    case_with("programs::a_compiler_run", &[], a_compiler_run),
];

/// What every one of them must come up to.
fn assert_trustworthy(report: &Report) {
    report.assert_nothing_lost();
    let share = report.complete_share();
    assert!(share >= 0.99, "{share} of the stacks are whole: {:?}", report.quality);
}

fn python_keeps_bytearrays() {
    let script = "import sys; print('ready', flush=True); sys.stdin.readline()\n\
                  keep = [bytearray(100_000) for _ in range(100)]\n\
                  print('done', flush=True); sys.stdin.readline()";
    let mut python = Program::start_until(Command::new("python3").args(["-c", script]), "ready");
    let heapscope = Heapscope::attach(python.pid(), &[]);
    assert_eq!(python.ask("go"), "done");
    let report = heapscope.stop();
    assert_trustworthy(&report);
    assert!((10_000_000..10_500_000).contains(&report.totals.inuse_space), "{:?}", report.totals);
    let top = &report.sites[0];
    assert!(
        top.functions().iter().any(|function| function.starts_with("PyByteArray")),
        "{:?}",
        top.functions()
    );
    // One more byte each, for the terminator.
    assert_eq!((top.totals.inuse_space, top.totals.inuse_objects), (10_000_100, 100));
}

/// A server of redis's own, and a connection to it.
struct Redis {
    server: Program,
    connection: BufReader<TcpStream>,
    _folder: TempDir,
}

impl Redis {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        // Free when asked, and nobody else is likely to take it within the moment.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Program::start(
            Command::new("redis-server")
                .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
                .args(["--save", "", "--appendonly", "no", "--activerehashing", "no"])
                .arg("--dir")
                .arg(folder.path()),
        );
        while !server.hear().contains("Ready to accept connections") {}
        let connection = BufReader::new(TcpStream::connect(("127.0.0.1", port)).unwrap());
        Self { server, connection, _folder: folder }
    }

    fn ask(&mut self, command: &str) -> String {
        self.connection.get_mut().write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let mut reply = String::new();
        self.connection.read_line(&mut reply).unwrap();
        reply.trim_end().to_owned()
    }
}

fn redis_holds_keys() {
    const KEYS: u64 = 3000;
    const DELETED: u64 = 500;
    let mut redis = Redis::start();
    assert_eq!(redis.ask("SET warm up"), "+OK");
    let heapscope = Heapscope::attach(redis.server.pid(), &[]);
    let value = "v".repeat(3000);
    for key in 0..KEYS {
        assert_eq!(redis.ask(&format!("SET key:{key:08} {value}")), "+OK");
    }
    for key in 0..DELETED {
        assert_eq!(redis.ask(&format!("DEL key:{key:08}")), ":1");
    }
    let report = heapscope.stop();
    assert_trustworthy(&report);
    // A value is a string of 3,000 bytes with a header of at most 24 and some room; nothing else is as large but a
    // handful of buffers, which are no blocks of a site of thousands.
    let values = report.sum(|site| {
        let live = site.totals;
        live.inuse_objects >= 100 && (3000..3100).contains(&(live.inuse_space / live.inuse_objects))
    });
    assert_eq!(values.inuse_objects, KEYS - DELETED, "{:#?}", report.totals);
    let key_bytes = report.totals.inuse_space - values.inuse_space;
    // A key, its entry and its object: some 12, 24 and 16 bytes with headers, and the table's growth.
    assert!((60..250).contains(&(key_bytes / (KEYS - DELETED))), "{key_bytes}");
}

fn node_keeps_buffers() {
    let script = "const keep = []; console.log('ready'); process.stdin.once('data', () => { \
                  for (let i = 0; i < 100; i++) keep.push(Buffer.alloc(100000)); \
                  console.log('done'); process.stdin.once('data', () => process.exit(0)); });";
    let mut node = Program::start_until(Command::new("node").args(["-e", script]), "ready");
    let heapscope = Heapscope::attach(node.pid(), &[]);
    assert_eq!(node.ask("go"), "done");
    let report = heapscope.stop();
    assert_trustworthy(&report);
    let buffers = report.sum(|site| {
        let live = site.totals;
        live.inuse_objects > 0 && live.inuse_space == 100_000 * live.inuse_objects
    });
    assert_eq!((buffers.inuse_space, buffers.inuse_objects), (10_000_000, 100));
    assert!(report.totals.inuse_space < 11_000_000, "{:?}", report.totals);
}

/// The compiler proper, under a library that counts its allocations: heapscope's account must be the same.
fn a_compiler_run() {
    let folder = TempDir::new().unwrap();
    let (source, count) = (folder.path().join("big.c"), folder.path().join("count"));
    let functions = (0..80).map(|number| {
        format!(
            "int function_{number}(int a, int *b) {{ for (int i = 0; i < a; i++) b[i] = b[i + {number}] * a; return b[a]; }}\n"
        )
    });
    fs::write(&source, functions.collect::<String>()).unwrap();
    let asked = Command::new("cc").arg("-print-prog-name=cc1").output().unwrap();
    let compiler = String::from_utf8(asked.stdout).unwrap().trim().to_owned();
    let counter = fixture::build("count.c", &["-shared", "-fPIC"]);
    // env executes the compiler, so that heapscope itself runs without the library.
    let mut command = heapscope(&["run", "-o", "report.json", "--", "env"]);
    command.arg(format!("LD_PRELOAD={}", counter.display())).arg(format!("COUNT_FILE={}", count.display()));
    command.args([&compiler, "-quiet", "-O1"]).arg(&source).args(["-o", "/dev/null"]);
    let outcome = Heapscope::start(&mut command).finish();
    assert_eq!(outcome.status, 0, "{}", outcome.errors);
    let report = outcome.report.unwrap();
    assert_eq!(report.target.exe.rsplit('/').next(), compiler.rsplit('/').next());
    assert_trustworthy(&report);
    let own = fs::read_to_string(count).unwrap();
    let found = format!("{} {}", report.totals.alloc_objects, report.totals.alloc_space);
    assert_eq!(found, own, "objects and bytes");
    assert!(report.totals.alloc_objects > 10_000, "{found}");
}
