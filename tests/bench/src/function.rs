//! A function as a process, and a small emulator of the Lambda Runtime API that hands it its events.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use bench::Server;
use receiver::{Answer, Received};

use crate::quota::Quota;

/// Time for anything that a function does, under valgrind too.
const PATIENCE: Duration = Duration::from_mins(5);

/// Conditions under which a function runs.
#[derive(Clone, Copy)]
pub enum Run<'a> {
    Plain,
    /// Under a quota of CPU from the first event on: Lambda limits no function before it.
    Quota(&'a Quota),
    /// With its instructions counted, by valgrind.
    Counted,
}

/// A binary and its environment.
pub struct Program {
    pub name: String,
    pub binary: PathBuf,
    pub environment: Vec<(String, String)>,
}

impl Program {
    /// The same with another amount of memory, as far as it is told.
    pub fn with_memory(&self, mb: u64) -> Self {
        let told = "AWS_LAMBDA_FUNCTION_MEMORY_SIZE";
        let environment = self.environment.iter().cloned();
        let mut environment: Vec<_> = environment.filter(|(name, _)| name != told).collect();
        environment.push((told.to_owned(), mb.to_string()));
        Self {
            name: self.name.clone(),
            binary: self.binary.clone(),
            environment,
        }
    }
}

/// An invocation, as it was seen from outside.
pub struct Invocation {
    pub wall: Duration,
    /// CPU time of the process, meanwhile.
    pub cpu: Duration,
    pub body: Vec<u8>,
}

enum Said {
    /// It asks for an event.
    Ready(Instant),
    Answered(Instant, Vec<u8>),
    Failed(Vec<u8>),
}

/// A function that runs. It ends when this is dropped.
pub struct Function<'a> {
    name: &'a str,
    child: Child,
    run: Run<'a>,
    folder: &'a Path,
    events: Sender<Vec<u8>>,
    said: Receiver<Said>,
    _runtime: Server,
    started: Instant,
    is_first: bool,
}

impl<'a> Function<'a> {
    pub fn start(program: &'a Program, run: Run<'a>, folder: &'a Path) -> Result<Self> {
        let (events, coming) = channel::<Vec<u8>>();
        let (saying, said) = channel();
        let runtime = Server::start(Arc::new(runtime(coming, saying)), None);
        let mut command = match run {
            Run::Counted => {
                let mut command = Command::new("valgrind");
                command.arg("--tool=callgrind").arg(&program.binary);
                command
            }
            _ => Command::new(&program.binary),
        };
        let log = File::create(folder.join(format!("{}.log", program.name)))?;
        command
            .env_clear()
            .current_dir(folder)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env(
                "AWS_LAMBDA_RUNTIME_API",
                format!("127.0.0.1:{}", runtime.port),
            )
            .envs(
                program
                    .environment
                    .iter()
                    .map(|(name, value)| (name, value)),
            )
            .stdout(log.try_clone()?)
            .stderr(log);
        let started = Instant::now();
        let child = command
            .spawn()
            .with_context(|| format!("failed to start {}", program.name))?;
        let function = Self {
            name: &program.name,
            child,
            run,
            folder,
            events,
            said,
            _runtime: runtime,
            started,
            is_first: true,
        };
        if let Run::Quota(quota) = run {
            quota.add(function.child.id())?;
        }
        Ok(function)
    }

    fn hear(&mut self) -> Result<Said> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.said.recv_timeout(Duration::from_millis(100)) {
                Ok(said) => return Ok(said),
                Err(_) if self.child.try_wait()?.is_some() => {
                    bail!("{0} ended: see {0}.log", self.name)
                }
                Err(_) if Instant::now() > until => {
                    bail!("{0} says nothing: see {0}.log", self.name)
                }
                Err(_) => {}
            }
        }
    }

    /// Waits until it asks for its first event: how long that took since its process began.
    pub fn ready(&mut self) -> Result<Duration> {
        match self.hear()? {
            Said::Ready(at) => Ok(at - self.started),
            _ => bail!("{} answers before it was asked", self.name),
        }
    }

    /// Hands it an event that waits for it, and returns the time since its process began.
    pub fn cold(&mut self, event: &[u8]) -> Result<Duration> {
        self.events.send(event.to_vec())?;
        self.ready()?;
        let (at, _) = self.answered()?;
        self.ready_again()?;
        self.is_first = false;
        Ok(at - self.started)
    }

    fn answered(&mut self) -> Result<(Instant, Vec<u8>)> {
        match self.hear()? {
            Said::Answered(at, body) => Ok((at, body)),
            Said::Ready(_) => bail!("{} asks for two events", self.name),
            Said::Failed(body) => bail!("{}: {}", self.name, String::from_utf8_lossy(&body)),
        }
    }

    fn ready_again(&mut self) -> Result<()> {
        match self.hear()? {
            Said::Ready(_) => Ok(()),
            _ => bail!("{} answers twice", self.name),
        }
    }

    /// Hands it an event when it waits for one.
    pub fn invoke(&mut self, event: &[u8]) -> Result<Invocation> {
        if let Run::Quota(quota) = self.run
            && self.is_first
        {
            quota.begin()?;
        }
        self.is_first = false;
        let before = self.cpu()?;
        let event = event.to_vec();
        let begun = Instant::now();
        self.events.send(event)?;
        let (at, body) = self.answered()?;
        self.ready_again()?;
        Ok(Invocation {
            wall: at - begun,
            cpu: self.cpu()?.saturating_sub(before),
            body,
        })
    }

    /// CPU time of its threads so far.
    pub fn cpu(&self) -> Result<Duration> {
        let mut nanos = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))?.flatten() {
            // One that has just ended has none.
            let schedule = fs::read_to_string(thread.path().join("schedstat"));
            let schedule = schedule.unwrap_or_default();
            let own = schedule
                .split_whitespace()
                .next()
                .and_then(|nanos| nanos.parse().ok());
            nanos += own.unwrap_or(0);
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// Reads one of the sizes in its status: `VmRSS`, `RssAnon`, `VmHWM`, in MB.
    pub fn memory_mb(&self, name: &str) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kb = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        Ok(kb.context("the kernel does not say it")? / 1024.0)
    }

    /// Ends it, and returns the number of instructions that it has executed. Valgrind's profile stays under a name, if it gets
    /// one.
    pub fn instructions(mut self, profile: Option<&Path>) -> Result<f64> {
        // Valgrind writes its file when it is asked to end.
        let pid = self.child.id();
        Command::new("kill").arg(pid.to_string()).status()?;
        self.child.wait()?;
        let path = self.folder.join(format!("callgrind.out.{pid}"));
        let text = fs::read_to_string(&path).context("valgrind wrote nothing")?;
        match profile {
            Some(profile) => fs::rename(path, profile)?,
            None => fs::remove_file(path)?,
        }
        let line = text.lines().find_map(|line| line.strip_prefix("totals: "));
        let count = line.and_then(|line| line.trim().parse().ok());
        count.context("valgrind counted nothing")
    }
}

impl Drop for Function<'_> {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reports whether instructions can be counted on this machine.
pub fn counts_instructions() -> bool {
    Command::new("valgrind")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}

/// <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>
fn runtime(
    coming: Receiver<Vec<u8>>,
    saying: Sender<Said>,
) -> impl Fn(Received) -> Answer + Send + Sync + 'static {
    let both = Mutex::new((coming, saying, 0_u64));
    move |request: Received| {
        let mut both = both.lock().unwrap_or_else(PoisonError::into_inner);
        let (coming, saying, invocations) = &mut *both;
        let path = request
            .path
            .strip_prefix("/2018-06-01/runtime/")
            .unwrap_or_default();
        let said = if path == "invocation/next" {
            let _ = saying.send(Said::Ready(request.at));
            let Ok(event) = coming.recv() else {
                // The function is about to end: it is told nothing more.
                return Answer::silence(Duration::ZERO);
            };
            *invocations += 1;
            let deadline = SystemTime::now() + Duration::from_mins(15);
            let deadline = deadline.duration_since(UNIX_EPOCH).unwrap_or_default();
            return Answer::status(200)
                .header(
                    "lambda-runtime-aws-request-id",
                    format!("request-{invocations}"),
                )
                .header("lambda-runtime-deadline-ms", deadline.as_millis())
                .header(
                    "lambda-runtime-invoked-function-arn",
                    "arn:aws:lambda:eu-central-1:123456789012:function:bench",
                )
                .header("content-type", "application/json")
                .body(event);
        } else if path.ends_with("/response") {
            Said::Answered(request.at, request.body)
        } else {
            Said::Failed(request.body)
        };
        let _ = saying.send(said);
        Answer::status(202)
    }
}
