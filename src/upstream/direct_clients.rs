//! Clients that use Redis directly, in its CLIENT LIST: they read compressed values as they are stored.

use super::OWN_NAMES;

/// How many lines of CLIENT LIST are connections of clients that are no Shortstops. Replicas, primaries, clients in MONITOR and Sentinels
/// do not count, nor do connections of the last second: a Shortstop's may have no name yet.
pub(super) fn count(list: &str) -> u64 {
    list.lines().filter(|line| is_direct(line)).count() as u64
}

fn is_direct(line: &str) -> bool {
    let field = |name: &str| line.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    let (Some(age), Some(flags)) = (field("age"), field("flags")) else { return false };
    let name = field("name").unwrap_or_default();
    let is_another_program = !name.starts_with(OWN_NAMES) && !name.starts_with("sentinel-");
    is_another_program && age != "0" && !flags.contains(['S', 'M', 'O'])
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn clients_of_other_programs_are_counted() {
        for (line, expected) in [
            ("id=7 addr=127.0.0.1:1 name= age=3 idle=0 flags=N db=0", 1),
            ("id=7 addr=127.0.0.1:1 name=app age=3 idle=0 flags=P db=0", 1),
            ("id=7 addr=127.0.0.1:1 name= age=0 idle=0 flags=N db=0", 0),
            ("id=7 addr=127.0.0.1:1 name=shortstop:blue:00000000000000ab age=3 idle=0 flags=N db=0", 0),
            ("id=7 addr=127.0.0.1:1 name=sentinel-0a1b2c3d-cmd age=3 idle=0 flags=N db=0", 0),
            ("id=7 addr=127.0.0.1:1 name= age=3 idle=0 flags=S db=0", 0),
            ("id=7 addr=127.0.0.1:1 name= age=3 idle=0 flags=xM db=0", 0),
            ("id=7 addr=127.0.0.1:1 name= age=3 idle=0 flags=O db=0", 0),
            ("", 0),
        ] {
            assert_eq!(count(line), expected, "{line}");
            assert_eq!(count(&format!("{line}\n{line}\n")), 2 * expected, "{line}");
        }
    }
}
