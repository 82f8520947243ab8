//! The name of this machine, for people who look for a process.

/// At most 64 visible ASCII characters; empty where the system does not tell.
pub(crate) fn host_name() -> String {
    let system = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| system());
    host.trim().chars().filter(char::is_ascii_graphic).take(64).collect()
}
