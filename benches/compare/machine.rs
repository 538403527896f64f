//! What the machine is asked for: two cores, the place of this process on one of them, how busy they are, what they
//! are called, what day it is. Linux only: everything is read from `/proc`, pinning is left to `taskset`.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Set for the process that `taskset` starts: `server,generator`.
const CORES_VARIABLE: &str = "SHORTSTOP_BENCH_CORES";

/// The soft limit on open files is often 1,024, too few for the idle connections; the hard one is taken, up to a
/// number that no server here sizes its tables by in vain. `$1` is the core, the rest the command.
const RAISE_LIMIT_AND_PIN: &str = r#"
n=$(ulimit -Hn); case $n in unlimited) n=65536;; esac; [ "$n" -le 65536 ] || n=65536
ulimit -n "$n"; core=$1; shift; exec taskset -c "$core" "$@"
"#;

/// Why this machine cannot be measured on.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// One core would be shared by the servers and the generator.
    #[error("two cores are needed (one for the servers, one for the load generator), this process may use {0}")]
    TooFewCores(usize),
    /// `/proc` does not say it, or says it in words unknown here.
    #[error("{0} cannot be read: pinning needs Linux")]
    Proc(&'static str),
    /// util-linux is missing.
    #[error("taskset is not installed: it comes with util-linux")]
    NoTaskset,
    /// The pinned copy of this program could not be started.
    #[error("starting again under taskset: {0}")]
    Exec(std::io::Error),
}

/// Who runs where.
#[derive(Clone, Copy)]
pub struct Cores {
    /// All servers.
    pub server: usize,
    /// The load generator, which is this process.
    pub generator: usize,
}

impl Cores {
    /// The cores of this process, if it is already pinned; otherwise starts this program again, pinned, and does not
    /// return.
    ///
    /// # Errors
    /// When there are not two cores, or no `taskset`.
    pub fn pinned() -> Result<Self, MachineError> {
        if let Some(cores) = std::env::var(CORES_VARIABLE).ok().and_then(|text| parse_cores(&text)) {
            return Ok(cores);
        }
        if find_program("taskset").is_none() {
            return Err(MachineError::NoTaskset);
        }
        let cores = choose_cores()?;
        let program = std::env::current_exe().map_err(MachineError::Exec)?;
        let error = Command::new("sh")
            .args(["-c", RAISE_LIMIT_AND_PIN, "sh", &cores.generator.to_string()])
            .arg(program)
            .args(std::env::args_os().skip(1))
            .env(CORES_VARIABLE, format!("{},{}", cores.server, cores.generator))
            .exec();
        Err(MachineError::Exec(error))
    }
}

fn parse_cores(text: &str) -> Option<Cores> {
    let (server, generator) = text.split_once(',')?;
    Some(Cores { server: server.parse().ok()?, generator: generator.parse().ok()? })
}

/// The first core that may be used, and the first after it that is not the other half of the same one.
fn choose_cores() -> Result<Cores, MachineError> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|_| MachineError::Proc("/proc/self/status"))?;
    let allowed = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .and_then(parse_list)
        .ok_or(MachineError::Proc("Cpus_allowed_list"))?;
    let [server, others @ ..] = allowed.as_slice() else {
        return Err(MachineError::TooFewCores(0));
    };
    let siblings =
        std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu{server}/topology/thread_siblings_list"))
            .ok()
            .and_then(|text| parse_list(&text))
            .unwrap_or_default();
    let generator = others.iter().find(|core| !siblings.contains(core)).or_else(|| others.first());
    match generator {
        Some(&generator) => Ok(Cores { server: *server, generator }),
        None => Err(MachineError::TooFewCores(1)),
    }
}

/// `0-3,8` → 0, 1, 2, 3, 8.
fn parse_list(text: &str) -> Option<Vec<usize>> {
    let mut list = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        list.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(list)
}

/// Where a program is. Debian keeps servers in `sbin`, which is not on every user's path.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(sbin).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The kernel's count of what each core has done, at one moment.
pub struct CoreTimes(String);

impl CoreTimes {
    /// Empty where `/proc` has none; every share is then 0.
    pub fn now() -> Self {
        Self(std::fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    /// The share of the time since `earlier` in which this core was not idle, 0 to 1. Counted in ticks of 10 ms.
    pub fn busy_since(&self, earlier: &Self, core: usize) -> f64 {
        let (busy, all) = self.ticks(core);
        let (busy_before, all_before) = earlier.ticks(core);
        busy.saturating_sub(busy_before) as f64 / all.saturating_sub(all_before).max(1) as f64
    }

    /// (not idle, all). Columns as in proc(5): the fourth and fifth are idle and waiting for a disk; the ninth and
    /// tenth are already part of the first two.
    fn ticks(&self, core: usize) -> (u64, u64) {
        let name = format!("cpu{core} ");
        let line = self.0.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_default();
        let columns: Vec<u64> = line.split_whitespace().take(8).filter_map(|column| column.parse().ok()).collect();
        let all: u64 = columns.iter().sum();
        let idle: u64 = columns.iter().skip(3).take(2).sum();
        (all - idle, all)
    }
}

/// What the scheduler has given the calling thread (proc(5), schedstat: the first two numbers, in
/// nanoseconds). Zero where the kernel does not tell.
#[derive(Clone, Copy)]
pub struct OwnTime {
    /// On the core.
    pub ran: Duration,
    /// Ready to run and not let: on a core of its own that is other people's work.
    pub kept_waiting: Duration,
}

impl OwnTime {
    /// Since it began.
    fn now() -> Self {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let mut numbers = text.split_whitespace().map(|number| Duration::from_nanos(number.parse().unwrap_or(0)));
        Self { ran: numbers.next().unwrap_or_default(), kept_waiting: numbers.next().unwrap_or_default() }
    }
}

/// What the kernel has charged to all threads of a process, at one moment.
#[derive(Clone, Copy)]
struct ProcessTime {
    ran: Duration,
    user_ticks: u64,
    system_ticks: u64,
}

impl ProcessTime {
    /// `None` when the process is gone or the kernel does not tell. proc(5): schedstat counts nanoseconds for each
    /// thread, but both ways of running together; stat has them apart, in ticks of 10 ms.
    fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second column, the name, may have blanks in it; the 14th and 15th are the ticks.
        let mut ticks = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let (user_ticks, system_ticks) = (ticks.next()?.parse().ok()?, ticks.next()?.parse().ok()?);
        let mut ran = Duration::ZERO;
        for thread in std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
            // Threads may end while this looks.
            let text = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            let nanos = text.split_whitespace().next().and_then(|number| number.parse().ok());
            ran += Duration::from_nanos(nanos.unwrap_or(0));
        }
        (!ran.is_zero()).then_some(Self { ran, user_ticks, system_ticks })
    }
}

/// CPU time of one process per request, in nanoseconds.
#[derive(Clone, Copy)]
pub struct Cost {
    /// The program itself.
    pub user: f64,
    /// The kernel on its behalf. Over loopback that includes what the kernel does to receive what it sends.
    pub system: f64,
}

impl Cost {
    /// Both together; this is the exact figure, the split is good to a few per cent.
    pub fn total(self) -> f64 {
        self.user + self.system
    }

    fn between(before: ProcessTime, after: ProcessTime, requests: u64) -> Self {
        let all = after.ran.saturating_sub(before.ran).as_nanos() as f64 / requests.max(1) as f64;
        let user = after.user_ticks.saturating_sub(before.user_ticks);
        let system = after.system_ticks.saturating_sub(before.system_ticks);
        let share = user as f64 / (user + system).max(1) as f64;
        Self { user: all * share, system: all * (1.0 - share) }
    }
}

/// The processes that share the work of one cell, by their ids.
#[derive(Clone, Copy)]
pub struct Processes<T = u32> {
    /// The server that the clients are connected to.
    pub front: T,
    /// The Redis behind it, where it is a proxy.
    pub redis: Option<T>,
    /// The NATS server, where there is one.
    pub nats: Option<T>,
}

impl<T: Copy> Processes<T> {
    /// `None` when nothing is known of one of them: half a sum would mislead.
    fn map<U>(self, of: impl Fn(T) -> Option<U>) -> Option<Processes<U>> {
        let each = |one: Option<T>| one.map_or(Some(None), |one| of(one).map(Some));
        Some(Processes { front: of(self.front)?, redis: each(self.redis)?, nats: each(self.nats)? })
    }
}

impl Processes<Cost> {
    /// Of all of them.
    pub fn total(self) -> f64 {
        [Some(self.front), self.redis, self.nats].into_iter().flatten().map(Cost::total).sum()
    }
}

/// All that is read before and after a cell's measured time, and never while it runs.
pub struct Moment {
    cores: CoreTimes,
    own: OwnTime,
    processes: Option<Processes<ProcessTime>>,
}

/// What happened between two moments.
pub struct Between {
    /// Share of the time in which the servers' core was busy, 0 to 1.
    pub server_busy: f64,
    /// What the calling thread got and did not get.
    pub own: OwnTime,
    /// Per request; `None` where the kernel does not tell.
    pub cost: Option<Processes<Cost>>,
}

impl Moment {
    /// Now. The calling thread is the generator's.
    pub fn now(processes: Processes) -> Self {
        Self { cores: CoreTimes::now(), own: OwnTime::now(), processes: processes.map(ProcessTime::of) }
    }

    /// What happened since `earlier`, in which that many requests were answered.
    pub fn since(&self, earlier: &Self, cores: Cores, requests: u64) -> Between {
        let cost = self.processes.zip(earlier.processes).map(|(after, before)| Processes {
            front: Cost::between(before.front, after.front, requests),
            redis: before.redis.zip(after.redis).map(|(before, after)| Cost::between(before, after, requests)),
            nats: before.nats.zip(after.nats).map(|(before, after)| Cost::between(before, after, requests)),
        });
        Between {
            server_busy: self.cores.busy_since(&earlier.cores, cores.server),
            own: OwnTime {
                ran: self.own.ran.saturating_sub(earlier.own.ran),
                kept_waiting: self.own.kept_waiting.saturating_sub(earlier.own.kept_waiting),
            },
            cost,
        }
    }
}

/// Resident memory of a process in bytes, if it is there.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Processor and kernel, for the head of the table: `AMD EPYC (2 cores seen), Linux 6.18`.
pub fn description() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.split(':').next().is_some_and(|left| left.trim() == name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let model = field("model name").unwrap_or_else(|| "unknown processor".into());
    let family = match (field("cpu family"), field("model")) {
        (Some(family), Some(model)) => format!(" (family {family}, model {model})"),
        _ => String::new(),
    };
    let count = info.lines().filter(|line| line.starts_with("processor")).count();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel: Vec<&str> = release.trim().split('.').take(2).collect();
    format!("{model}{family}, {count} cores, Linux {}", kernel.join("."))
}

/// Today in UTC, `2031-07-09`.
pub fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Days since 1970-01-01 as a date of the Gregorian calendar. Counted from 1 March of the year 0, so that the leap
/// day is the last of its year (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}
