//! Clocks, CPU and memory.

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Nanoseconds of a clock that all processes of a machine share and nobody sets.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let nanos = now.tv_sec * 1_000_000_000 + now.tv_nsec;
    u64::try_from(nanos).unwrap_or_default()
}

/// Nanoseconds of CPU that this process took.
pub(crate) fn own_cpu_ns() -> u64 {
    let taken = clock_gettime(ClockId::ProcessCPUTime);
    u64::try_from(taken.tv_sec * 1_000_000_000 + taken.tv_nsec).unwrap_or_default()
}

/// Nanoseconds of CPU that another process and its children took, by what its threads say.
pub(crate) fn cpu_ns_of(process: u32) -> u64 {
    let own: u64 = tasks(process)
        .map(|task| {
            let path = format!("/proc/{process}/task/{task}/schedstat");
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or_default()
        })
        .sum();
    own + children(process).into_iter().map(cpu_ns_of).sum::<u64>()
}

fn tasks(process: u32) -> impl Iterator<Item = u32> {
    let folder = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten();
    folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The processes that a process started and that are there.
pub(crate) fn children(process: u32) -> Vec<u32> {
    let of = |task| {
        std::fs::read_to_string(format!("/proc/{process}/task/{task}/children")).unwrap_or_default()
    };
    let lists: Vec<String> = tasks(process).map(of).collect();
    lists.iter().flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok())).collect()
}

/// A line of `/proc/self/status`, in KiB: `VmRSS` is the memory now, `VmHWM` the most there was.
pub(crate) fn own_memory_kib(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    found.and_then(|value| value.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}

/// What one end of a round saw.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct End {
    /// When it began and when it was done.
    pub(crate) first_ns: u64,
    pub(crate) last_ns: u64,
    pub(crate) cpu_ns: u64,
    /// The most memory that it had.
    pub(crate) memory_kib: u64,
    /// As in `Tally`.
    pub(crate) latency_us: [u64; 5],
    pub(crate) missing: u64,
    pub(crate) again: u64,
    pub(crate) disorder: u64,
}
