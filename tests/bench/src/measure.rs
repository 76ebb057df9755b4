//! Measures functions, each beside the floor.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bench::{Calls, Cloud, Server, Service};

use crate::function::{Function, Program, Run, counts_instructions};
use crate::measured::{Measured, Unit, median};
use crate::quota::{MB_OF_A_CPU, Quota};
use crate::scene::environment;
use crate::tls::Authorities;

pub const ECHO: &str = "echo";

/// Time that each call takes while calls are counted: longer than a handshake, so that what begins together overlaps.
const DELAY: Duration = Duration::from_millis(200);
/// Processes whose calls are counted. The one with the fewest connections counts: that a connection is free is
/// noticed by chance.
pub const TRIES: u32 = 3;
/// Invocations after the first, by whose instructions a warm one is known.
const WARM: u32 = 10;
/// Memory sizes whose quota of CPU is tried.
const MEMORY_MB: [u64; 3] = [128, 256, 512];
/// Memory sizes that are compared, and time that each call to AWS takes meanwhile: about that of DynamoDB and SQS.
const COMPARED_MB: [u64; 5] = [128, 256, 512, 1024, MB_OF_A_CPU];
const CALL: Duration = Duration::from_millis(5);
/// Dollars for a gigabyte-second on arm64 in us-east-1, of <https://aws.amazon.com/lambda/pricing/>.
const GB_SECOND_DOLLARS: f64 = 0.000_013_333_4;
/// Bytes that are hashed to know what hashing costs.
const HASHED: usize = 400 << 20;

pub struct Bench {
    pub cloud: Arc<Cloud>,
    /// The cloud's endpoint without TLS.
    pub plain: Server,
    secure: Server,
    authorities: Authorities,
    /// Folder of the binaries, `<name>/bootstrap`, and of their zips, `<name>.zip`.
    functions: PathBuf,
    folder: PathBuf,
    echo: Program,
    pub runs: u32,
    /// Valgrind's profiles stay in the folder, by function and number of invocations.
    pub keeps_profiles: bool,
    counts: bool,
    pub measured: Vec<Measured>,
    /// Calls of an invocation, step by step.
    pub steps: Vec<(String, String)>,
    /// Measurements that are impossible on this machine.
    pub left_out: Vec<String>,
}

/// Events, each of them another.
pub type Events<'a> = &'a mut dyn FnMut() -> Result<Vec<u8>>;

impl Bench {
    pub fn new(functions: &Path, folder: PathBuf, runs: u32) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        let cloud = Arc::new(Cloud::default());
        let authorities = Authorities::new()?;
        let counts = counts_instructions();
        let mut left_out = Vec::new();
        if !counts {
            left_out.push("instructions: valgrind is not installed".to_owned());
        }
        Ok(Self {
            plain: Server::start(Arc::clone(&cloud), None),
            secure: Server::start(Arc::clone(&cloud), Some(Arc::clone(&authorities.cloud))),
            authorities,
            cloud,
            echo: Program {
                name: ECHO.into(),
                binary: fs::canonicalize(functions.join(ECHO).join("bootstrap"))?,
                environment: environment(""),
            },
            functions: functions.to_owned(),
            folder,
            runs,
            keeps_profiles: false,
            counts,
            measured: Vec::new(),
            steps: Vec::new(),
            left_out,
        })
    }

    /// A copy of a function that trusts the authorities of the run.
    pub fn program(&self, name: &str) -> Result<Program> {
        let path = self.functions.join(name).join("bootstrap");
        let mut binary =
            fs::read(&path).with_context(|| format!("{} is not built", path.display()))?;
        let sends = name.starts_with("deliver-") || name.starts_with("fetch-");
        self.authorities
            .replace_in(&mut binary, sends)
            .with_context(|| name.to_owned())?;
        let copy = self.folder.join(name);
        fs::write(&copy, binary)?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
        Ok(Program {
            name: name.to_owned(),
            binary: fs::canonicalize(copy)?,
            environment: environment(&format!("https://127.0.0.1:{}", self.secure.port)),
        })
    }

    pub fn third_party(&self, service: Arc<impl Service>) -> Server {
        Server::start(service, Some(Arc::clone(&self.authorities.third_party)))
    }

    pub fn add(&mut self, measured: Measured) {
        eprintln!("{}: {:.4}", measured.name, measured.value);
        self.measured.push(measured);
    }

    fn start<'a>(&'a self, program: &'a Program, run: Run<'a>) -> Result<Function<'a>> {
        Function::start(program, run, &self.folder)
    }

    /// One that has asked for its first event.
    pub fn ready<'a>(&'a self, program: &'a Program) -> Result<Function<'a>> {
        let mut function = self.start(program, Run::Plain)?;
        function.ready()?;
        Ok(function)
    }

    pub fn zip(&mut self, scenario: &str, function: &str) -> Result<f64> {
        let path = self.functions.join(format!("{function}.zip"));
        let size = fs::metadata(&path)
            .with_context(|| format!("no {}", path.display()))?
            .len();
        let echo = fs::metadata(self.functions.join("echo.zip"))?.len();
        let mb = |bytes: u64| f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)) / 1e6;
        let measured = Measured::new(format!("{scenario}: zip"), Unit::Mb, mb(size));
        self.add(measured.over(mb(echo)));
        Ok(mb(size))
    }

    /// Time from the start of the process to its first request for an event, at a memory size from which nothing connects before it
    /// and at one below, and to its first response.
    pub fn starts(&mut self, scenario: &str, program: &Program, events: Events) -> Result<()> {
        let whole = program.with_memory(MB_OF_A_CPU);
        let states = ["start to ready", "start to ready, connecting", "cold"];
        let mut pairs = [const { Vec::new() }; 3];
        for _ in 0..self.runs {
            let start = |program| self.start(program, Run::Plain);
            let event = events()?;
            let own = [
                start(&whole)?.ready()?,
                start(program)?.ready()?,
                start(program)?.cold(&event)?,
            ];
            let floor = [
                start(&self.echo)?.ready()?,
                start(&self.echo)?.ready()?,
                start(&self.echo)?.cold(b"{}")?,
            ];
            for ((pairs, own), floor) in pairs.iter_mut().zip(own).zip(floor) {
                pairs.push((millis(own), millis(floor)));
            }
        }
        for (state, pairs) in states.into_iter().zip(&pairs) {
            let name = format!("{scenario}: {state}");
            self.add(Measured::pairs(name, Unit::Millis, pairs));
        }
        Ok(())
    }

    /// A function in another language that makes the same calls: wall and CPU time to the first response, as multiples of this
    /// one's.
    pub fn compared(
        &mut self,
        scenario: &str,
        program: &Program,
        other: &str,
        events: Events,
    ) -> Result<()> {
        let Ok(binary) = fs::canonicalize(self.functions.join(other).join("bootstrap")) else {
            self.left_out.push(format!("{other}: it is not installed"));
            return Ok(());
        };
        let authority = self.folder.join("cloud.pem");
        fs::write(&authority, &self.authorities.cloud_pem)?;
        let authority = fs::canonicalize(authority)?.display().to_string();
        let mut environment = program.environment.clone();
        for name in ["AWS_CA_BUNDLE", "SSL_CERT_FILE"] {
            environment.push((name.to_owned(), authority.clone()));
        }
        // Among its own, Node finds the root whose name the authority has.
        environment.push(("NODE_OPTIONS".to_owned(), "--use-openssl-ca".to_owned()));
        // Lambda sets both.
        let region = environment.iter().find(|(name, _)| name == "AWS_REGION");
        let region = region.context("the environment has a region")?.1.clone();
        environment.push(("AWS_DEFAULT_REGION".to_owned(), region));
        let theirs = Program {
            name: other.to_owned(),
            binary,
            environment,
        };
        let mut pairs = [const { Vec::new() }; 2];
        for _ in 0..self.runs.min(10) {
            let mut took = |program| -> Result<[f64; 2]> {
                let mut function = self.start(program, Run::Plain)?;
                let wall = function.cold(&events()?)?;
                Ok([millis(wall), millis(function.cpu()?)])
            };
            let (theirs, own) = (took(&theirs)?, took(program)?);
            for (pairs, pair) in pairs.iter_mut().zip(theirs.into_iter().zip(own)) {
                pairs.push(pair);
            }
        }
        for (state, pairs) in ["cold", "CPU, cold"].into_iter().zip(&pairs) {
            let all = Measured::pairs("", Unit::Millis, pairs);
            let name = format!("{scenario}: {state}, {other}");
            self.add(Measured::new(&name, Unit::Millis, all.value));
            let times = all.ratio.context("there are pairs")?;
            self.add(Measured::new(format!("{name} to this"), Unit::Times, times));
        }
        Ok(())
    }

    /// Invocations of a function that runs already, in turn with those of the floor.
    pub fn warm(&mut self, scenario: &str, program: &Program, events: Events) -> Result<()> {
        let (mut wall, mut cpu) = (Vec::new(), Vec::new());
        let (resident, private, floor_resident);
        {
            let mut floor = self.ready(&self.echo)?;
            let mut own = self.ready(program)?;
            for _ in 0..3 {
                floor.invoke(b"{}")?;
                own.invoke(&events()?)?;
            }
            for _ in 0..self.runs * 4 {
                let floor = floor.invoke(b"{}")?;
                let own = own.invoke(&events()?)?;
                wall.push((millis(own.wall), millis(floor.wall)));
                cpu.push((millis(own.cpu), millis(floor.cpu)));
            }
            (resident, private) = (own.memory_mb("VmRSS")?, own.memory_mb("RssAnon")?);
            floor_resident = floor.memory_mb("VmRSS")?;
        }
        self.add(Measured::pairs(
            format!("{scenario}: warm"),
            Unit::Millis,
            &wall,
        ));
        self.add(Measured::pairs(
            format!("{scenario}: CPU, warm"),
            Unit::Millis,
            &cpu,
        ));
        let name = format!("{scenario}: memory after warm-up");
        self.add(Measured::new(name, Unit::Mb, resident).over(floor_resident));
        let name = format!("{scenario}: private memory after warm-up");
        self.add(Measured::new(name, Unit::Mb, private));
        Ok(())
    }

    /// Calls of a function's first invocation, with those before it, and of its second.
    pub fn calls(&mut self, scenario: &str, program: &Program, events: Events) -> Result<()> {
        let tries = (0..TRIES).map(|_| self.both(program, [events()?, events()?]));
        let mut tries = tries.collect::<Result<Vec<_>>>()?;
        tries.sort_by_key(|[cold, _]| cold.connections());
        let counted = tries.swap_remove(0);
        for (calls, state) in counted.iter().zip(["cold", "warm"]) {
            eprintln!("{scenario}, {state}: {}", calls.steps());
            self.steps
                .push((format!("{scenario}, {state}"), calls.steps()));
            let mut add = |what: &str, count: usize| {
                let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
                self.add(Measured::new(
                    format!("{scenario}: {what}, {state}"),
                    Unit::Count,
                    count,
                ));
            };
            add("calls", calls.calls.len());
            add("depth", calls.depth());
            add("writes", calls.writes());
            if state == "cold" {
                add("connections", calls.connections());
            }
        }
        Ok(())
    }

    /// Calls of two invocations by one process.
    fn both(&self, program: &Program, [first, second]: [Vec<u8>; 2]) -> Result<[Calls; 2]> {
        self.cloud.calls();
        self.cloud.delay(DELAY);
        let mut function = self.ready(program)?;
        function.invoke(&first)?;
        let first = self.cloud.calls();
        function.invoke(&second)?;
        let second = self.cloud.calls();
        self.cloud.delay(Duration::ZERO);
        Ok([first, second])
    }

    pub fn instructions(
        &mut self,
        scenario: &str,
        program: &Program,
        events: Events,
    ) -> Result<()> {
        if !self.counts {
            return Ok(());
        }
        let mut nothing = || Ok(b"{}".to_vec());
        let floor = self.states(&self.echo, &mut nothing)?;
        let own = self.states(program, events)?;
        for (state, (own, floor)) in ["ready", "cold", "warm"]
            .iter()
            .zip(own.into_iter().zip(floor))
        {
            let name = format!("{scenario}: instructions, {state}");
            self.add(Measured::new(name, Unit::Instructions, own).over(floor));
        }
        Ok(())
    }

    /// Instructions until it is ready, until its first response, and of a warm invocation.
    pub fn states(&self, program: &Program, events: Events) -> Result<[f64; 3]> {
        let ready = self.counted(program, 0, events)?;
        let cold = self.counted(program, 1, events)?;
        let all = self.counted(program, 1 + WARM, events)?;
        Ok([ready, cold, (all - cold) / f64::from(WARM)])
    }

    /// Instructions of so many invocations, with the start before them: the fewest of some processes, since a connection more,
    /// which costs millions, is opened where none was free by chance.
    pub fn counted(&self, program: &Program, invocations: u32, events: Events) -> Result<f64> {
        let mut fewest = f64::INFINITY;
        for _ in 0..TRIES {
            fewest = fewest.min(self.counted_once(program, invocations, events)?);
        }
        Ok(fewest)
    }

    /// As [`Bench::counted`], of one process, where an invocation leaves nothing for another.
    pub fn counted_once(&self, program: &Program, invocations: u32, events: Events) -> Result<f64> {
        let events = (0..invocations)
            .map(|_| events())
            .collect::<Result<Vec<_>>>()?;
        let mut function = self.start(program, Run::Counted)?;
        function.ready()?;
        for event in events {
            function.invoke(&event)?;
        }
        let name = format!("callgrind.{}.{invocations}", program.name);
        let profile = self.keeps_profiles.then(|| self.folder.join(name));
        function.instructions(profile.as_deref())
    }

    /// Instructions of a second invocation: the median of some, since the one or the other may open a connection more.
    pub fn another(&self, program: &Program, events: Events) -> Result<f64> {
        let mut counts = Vec::new();
        for _ in 0..TRIES {
            let first = self.counted_once(program, 1, events)?;
            counts.push(self.counted_once(program, 2, events)? - first);
        }
        counts.sort_by(f64::total_cmp);
        Ok(counts[counts.len() / 2])
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub const fn counts(&self) -> bool {
        self.counts
    }

    /// The first invocation, with the CPU that Lambda gives for so much memory.
    pub fn quotas(&mut self, scenario: &str, program: &Program, events: Events) -> Result<()> {
        for mb in MEMORY_MB {
            let Some(quota) = Quota::of_memory(mb) else {
                let why = format!(
                    "{scenario}: first invocation at {mb} MB: no control group can be made"
                );
                self.left_out.push(why);
                continue;
            };
            let first = |program: &Program, event: &[u8]| -> Result<f64> {
                quota.end()?;
                let mut function = self.start(program, Run::Quota(&quota))?;
                function.ready()?;
                Ok(millis(function.invoke(event)?.wall))
            };
            let mut pairs = Vec::new();
            for _ in 0..self.runs.min(10) {
                let floor = first(&self.echo, b"{}")?;
                pairs.push((first(program, &events()?)?, floor));
            }
            let name = format!("{scenario}: first invocation at {mb} MB");
            self.add(Measured::pairs(name, Unit::Millis, &pairs));
        }
        Ok(())
    }

    /// Warm invocations with the CPU that Lambda gives for so much memory, while each call takes its time: how long
    /// one takes, and what the time of a million costs.
    pub fn memory_sizes(
        &mut self,
        scenario: &str,
        program: &Program,
        events: Events,
    ) -> Result<()> {
        for mb in COMPARED_MB {
            let Some(quota) = Quota::of_memory(mb) else {
                let why = format!("{scenario}: at {mb} MB: no control group can be made");
                self.left_out.push(why);
                continue;
            };
            quota.end()?;
            let mut function = self.start(program, Run::Quota(&quota))?;
            function.ready()?;
            self.cloud.delay(CALL);
            let mut times = Vec::new();
            for _ in 0..self.runs.min(10) + 2 {
                times.push(millis(function.invoke(&events()?)?.wall));
            }
            self.cloud.delay(Duration::ZERO);
            drop(function);
            // The first ones open connections.
            let took = median(times.split_off(2));
            let gb = f64::from(u32::try_from(mb)?) / 1024.0;
            let dollars = gb * took * 1e3 * GB_SECOND_DOLLARS;
            let name = format!("{scenario}, by memory: at {mb} MB");
            self.add(Measured::new(name.clone(), Unit::Millis, took));
            let name = format!("{name}, a million");
            self.add(Measured::new(name, Unit::Dollars, dollars));
        }
        Ok(())
    }

    /// CPU time of a warm invocation, the median of some.
    pub fn cpu(&self, program: &Program, events: Events) -> Result<f64> {
        let mut function = self.ready(program)?;
        function.invoke(&events()?)?;
        let times = (0..self.runs.min(10)).map(|_| Ok(millis(function.invoke(&events()?)?.cpu)));
        Ok(median(times.collect::<Result<_>>()?))
    }
}

pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Milliseconds that ring takes for the SHA-256 of a MB, in this process.
pub fn hash_millis_of_a_mb() -> f64 {
    let bytes = vec![7; 1 << 20];
    let rounds = HASHED >> 20;
    let one = |_| {
        let begun = Instant::now();
        std::hint::black_box(ring::digest::digest(&ring::digest::SHA256, &bytes));
        millis(begun.elapsed())
    };
    // What others on the machine take away is no part of it.
    let mut times: Vec<f64> = (0..rounds).map(one).collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 4] * 1e6 / f64::from(1 << 20)
}

/// Instructions that ring takes for the SHA-256 of a byte: this program's own, with `--hash`, under valgrind.
pub fn hash_instructions_of_a_byte(folder: &Path) -> Result<f64> {
    let own = std::env::current_exe()?;
    let mut of = [0.0; 2];
    for (bytes, count) in [1 << 20, 3 << 20].into_iter().zip(&mut of) {
        let program = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=callgrind.hash"])
            .arg(&own)
            .args(["--hash", &bytes.to_string()])
            .current_dir(folder)
            .output()?;
        let said = String::from_utf8_lossy(&program.stderr).into_owned();
        let line = said
            .lines()
            .find_map(|line| line.split_once("Collected : "));
        let number = line.and_then(|(_, number)| number.trim().parse().ok());
        *count = number.with_context(|| said.clone())?;
    }
    Ok((of[1] - of[0]) / f64::from(2 << 20))
}
