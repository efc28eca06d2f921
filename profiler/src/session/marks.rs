//! Marks that come from outside while a target is watched: `heapscope mark PID NAME`, and SIGUSR1.
//!
//! The watching program listens on a socket in the abstract namespace (unix(7)), whose name says which process it watches
//! and which process it is itself. Nothing of it is left when it ends, however it ends. Only its own user and root are
//! listened to.

use std::{
    fs,
    io::{self, Read, Write},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::{net::sockopt::socket_peercred, process::geteuid};
use signal_hook::{consts::SIGUSR1, flag};

use super::options::MarkOptions;
use crate::target::process::Process;

/// Bytes of a mark's name at most.
const MAX_NAME: usize = 200;
/// How long the other side may take to say what it wants. It is on this machine, and permitted to kill us.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long a watching program may take to answer: it may be reading a large account.
const ANSWER: Duration = Duration::from_secs(10);
/// What the answer begins with where the mark was set.
const DONE: &str = "marked ";

/// Where marks come in.
#[derive(Debug)]
pub(super) struct MarkInbox {
    listener: Option<UnixListener>,
    signal: Arc<AtomicBool>,
}

impl MarkInbox {
    /// Begins to listen for marks on this process. Where that fails, only SIGUSR1 is left.
    pub(super) fn open(pid: u32) -> io::Result<Self> {
        let signal = Arc::new(AtomicBool::new(false));
        flag::register(SIGUSR1, Arc::clone(&signal))?;
        let name = format!("{}{}", prefix(pid), std::process::id());
        let listener = SocketAddr::from_abstract_name(name)
            .and_then(|address| UnixListener::bind_addr(&address))
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
        Ok(Self { listener: listener.ok(), signal })
    }

    /// Sets the marks that have come; `set` answers with a sentence.
    pub(super) fn take(&self, mut set: impl FnMut(Option<String>) -> Result<String, String>) {
        if self.signal.swap(false, Ordering::Relaxed) {
            // What it says has been printed; there is nobody to answer.
            let _ = set(None);
        }
        let Some(listener) = &self.listener else { return };
        while let Ok((mut stream, _)) = listener.accept() {
            // Whoever goes away without an answer does not want one.
            let _ = serve(&mut stream, &mut set);
        }
    }
}

fn serve(
    stream: &mut UnixStream,
    set: &mut impl FnMut(Option<String>) -> Result<String, String>,
) -> io::Result<()> {
    let peer = socket_peercred(&*stream)?.uid;
    if !peer.is_root() && peer != geteuid() {
        return stream.write_all(b"only root and the user who started heapscope may set a mark");
    }
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut name = Vec::new();
    stream.take(MAX_NAME as u64).read_to_end(&mut name)?;
    let name = String::from_utf8_lossy(&name).into_owned();
    let answer = match set(Some(name).filter(|name| !name.is_empty())) {
        Ok(answer) => format!("{DONE}{answer}"),
        Err(refused) => refused,
    };
    stream.write_all(answer.as_bytes())
}

/// What the sockets that listen for marks on this process are called, up to the listener's own process id.
fn prefix(pid: u32) -> String {
    format!("heapscope/{pid}/")
}

/// `heapscope mark`: sets a mark in every heapscope that watches the process, and prints what each answers.
///
/// # Errors
/// Where nobody watches the process, or one does not set the mark.
pub fn mark(options: &MarkOptions) -> anyhow::Result<ExitCode> {
    let process = Process::find(&options.target)?;
    let name = options.name.as_deref().unwrap_or_default();
    if name.len() > MAX_NAME {
        bail!("the name of a mark has at most {MAX_NAME} bytes");
    }
    let sockets = fs::read_to_string("/proc/net/unix").context("cannot read /proc/net/unix")?;
    let prefix = format!("@{}", prefix(process.pid));
    let mut listeners: Vec<&str> = sockets
        .lines()
        .filter_map(|line| line.split(' ').next_back())
        .filter(|path| path.starts_with(&prefix))
        .collect();
    listeners.sort_unstable();
    listeners.dedup();
    if listeners.is_empty() {
        bail!(
            "no heapscope watches process {} on this machine. Start one with: heapscope attach {0}",
            process.pid
        );
    }
    let mut code = ExitCode::SUCCESS;
    for listener in listeners {
        let answer = ask(listener.trim_start_matches('@'), name)
            .with_context(|| format!("heapscope {} does not answer", listener.trim_start_matches(&prefix)))?;
        if !answer.starts_with(DONE) {
            code = ExitCode::FAILURE;
        }
        println!("{answer}");
    }
    Ok(code)
}

fn ask(socket: &str, name: &str) -> io::Result<String> {
    let address = SocketAddr::from_abstract_name(socket)?;
    let mut stream = UnixStream::connect_addr(&address)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(name.as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    Ok(answer)
}
