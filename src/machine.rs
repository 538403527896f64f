//! The memory of this process, and the available memory: that of the machine, or less if the process's control groups say so (containers).
//!
//! Reads files of Linux. Must not know what the memory is for.

use std::fs;
use std::path::Path;

/// The size to assume if the system does not tell.
const UNKNOWN: usize = 4 << 30;

/// The memory available to this process and all others on the machine or in its control groups, in bytes.
pub fn memory() -> usize {
    let total = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_of(&text)).unwrap_or(UNKNOWN);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limit_of(Path::new("/sys/fs/cgroup"), &groups).map_or(total, |limit| limit.min(total))
}

/// The name of this machine, or of this container. Empty: the system does not tell.
pub fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
}

/// The memory that this process takes (resident set size), in bytes. `None`: the system does not tell.
pub fn resident() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()?.checked_mul(1024)
}

/// `MemTotal` in `/proc/meminfo`, in kB.
fn total_of(text: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim_end().parse::<usize>().ok()?.checked_mul(1024)
}

/// The lowest limit of the control groups, of version 2 or 1, and of their parents. `groups` is the content of `/proc/self/cgroup`.
fn limit_of(root: &Path, groups: &str) -> Option<usize> {
    let lines = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        Some((parts.next()?, parts.next()?, parts.next()?))
    });
    let limits = lines.flat_map(|(number, controllers, group)| {
        let places: &[(&str, &str)] = if controllers.split(',').any(|name| name == "memory") {
            &[("memory", "memory.limit_in_bytes")]
        } else if number == "0" && controllers.is_empty() {
            // `unified` is the directory where both versions are mounted.
            &[("", "memory.max"), ("unified", "memory.max")]
        } else {
            &[]
        };
        places.iter().filter_map(|(mount, file)| least_of(&root.join(mount), group, file)).collect::<Vec<_>>()
    });
    limits.min()
}

/// The lowest number in `file` of a group and its parents. In a container the path may be that of the host, which does not exist
/// there. Then the outermost group is the container's own.
fn least_of(mount: &Path, group: &str, file: &str) -> Option<usize> {
    // The path of a group outside of the visible ones begins with "/..".
    let group = if group.split('/').any(|name| name == "..") { "" } else { group.trim_start_matches('/') };
    let inner = mount.join(group);
    let around = inner.ancestors().take_while(|place| place.starts_with(mount));
    // "max" is no number: no limit.
    around.filter_map(|place| fs::read_to_string(place.join(file)).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{limit_of, memory, resident, total_of};

    #[test]
    fn the_memory_of_the_machine_is_found() {
        assert_eq!(total_of("MemTotal:       24731708 kB\nMemFree: 1 kB\n"), Some(24_731_708 * 1024));
        assert_eq!(total_of("MemFree: 1 kB\n"), None);
        assert_eq!(total_of("MemTotal: many kB\n"), None);
        assert!(resident().is_some_and(|bytes| bytes > 1 << 20));
        assert!(memory() > 64 << 20, "{} bytes", memory());
    }

    #[test]
    fn the_least_limit_of_all_control_groups_holds() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let root = root.path();
        let write = |file: &str, text: &str| {
            let file = root.join(file);
            fs::create_dir_all(file.parent().expect("it is in a directory")).expect("the directory is ours");
            fs::write(file, text).expect("the directory is ours");
        };
        assert_eq!(limit_of(root, "0::/a/b\n"), None, "no files");
        write("a/b/memory.max", "max\n");
        assert_eq!(limit_of(root, "0::/a/b\n"), None, "no limit");
        write("a/memory.max", "4096\n");
        assert_eq!(limit_of(root, "0::/a/b\n"), Some(4096), "the group around it");
        write("a/b/memory.max", "2048\n");
        assert_eq!(limit_of(root, "0::/a/b\n"), Some(2048), "its own");
        assert_eq!(limit_of(root, "0::/other\n"), None, "another group");
        assert_eq!(limit_of(root, "0::/../../a\n3:cpu:/a\n"), None, "a path from outside");
        write("memory.max", "8192\n");
        assert_eq!(limit_of(root, "0::/../../a\n3:cpu:/a\n"), Some(8192), "the outermost that can be seen");

        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/docker/1/memory.limit_in_bytes", "1024\n");
        let both = "4:cpu,memory:/docker/1\n0::/a\n";
        assert_eq!(limit_of(root, both), Some(1024), "version 1");
        assert_eq!(limit_of(root, "4:memory:/not/there\n"), Some(9_223_372_036_854_771_712), "the container's own");
    }
}
