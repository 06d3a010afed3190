//! What the machine has: processors, memory, and how much of it was used.

use std::sync::{Mutex, PoisonError};

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// Memory that a new piece of work can have, in bytes: what is free or can be reclaimed, and no
/// more than the control group of the process allows. What the group holds of files can be reclaimed as well.
pub fn available_memory() -> u64 {
    let system = memory();
    let free = system.available_memory();
    system.cgroup_limits().map_or(free, |group| free.min(group.total_memory.saturating_sub(group.rss)))
}

/// All memory of the machine, in bytes.
pub fn total_memory() -> u64 {
    let system = memory();
    system
        .cgroup_limits()
        .map_or(system.total_memory(), |group| group.total_memory.min(system.total_memory()))
}

fn memory() -> System {
    System::new_with_specifics(RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram()))
}

/// Largest resident size of this process so far (or since [`reset_peak`]), in bytes; 0 where the
/// system does not say.
pub fn peak_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Starts a new measurement of [`peak_rss`]; false where the system cannot.
pub fn reset_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// The largest resident size of each of several phases.
pub struct Peaks(Mutex<Vec<u64>>);

impl Peaks {
    /// The first phase starts.
    pub fn start() -> Self {
        reset_peak();
        Self(Mutex::default())
    }

    /// One phase ends and the next one starts.
    pub fn next(&self) {
        let peak = peak_rss();
        reset_peak();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(peak);
    }

    /// The last phase ends; all of them, in order.
    pub fn finish(self) -> Vec<u64> {
        self.next();
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Name of the processor, as the system gives it.
pub fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(':').nth(1));
    name.map_or_else(|| std::env::consts::ARCH.to_string(), |name| name.trim().to_string())
}

/// Vector extensions that matter to us, with whether this processor has them.
pub fn cpu_features() -> Vec<(&'static str, bool)> {
    #[cfg(target_arch = "x86_64")]
    {
        vec![
            ("avx2", std::arch::is_x86_feature_detected!("avx2")),
            ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
            ("avx512dq", std::arch::is_x86_feature_detected!("avx512dq")),
            ("avx512ifma", std::arch::is_x86_feature_detected!("avx512ifma")),
        ]
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_plausible() {
        let (available, total) = (available_memory(), total_memory());
        assert!(available > 1 << 20 && available <= total, "{available} of {total}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn peak_grows_with_use() {
        let before = peak_rss();
        let block = std::hint::black_box(vec![1u8; 64 << 20]);
        assert!(peak_rss() >= before.max(block.len() as u64));
    }
}
