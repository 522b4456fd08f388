//! What belongs to the machine and its kernel. Each check is a pure function of what a file of /proc or /sys says.

use super::Check;

pub(super) fn checks() -> Vec<Check> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    vec![
        namespaces(
            read("/proc/sys/user/max_user_namespaces").as_deref(),
            read("/proc/sys/kernel/unprivileged_userns_clone").as_deref(),
        ),
        apparmor(
            read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref(),
            read("/proc/self/attr/current").as_deref(),
        ),
        proc_mounts(read("/proc/self/mounts").as_deref().unwrap_or_default()),
        seccomp(read("/proc/sys/kernel/seccomp/actions_avail").as_deref()),
    ]
}

fn namespaces(most: Option<&str>, unprivileged: Option<&str>) -> Check {
    const NAME: &str = "user namespaces";
    if unprivileged.is_some_and(|value| value.trim() == "0") {
        return Check::broken(NAME, "only root may make them", "sysctl kernel.unprivileged_userns_clone=1");
    }
    match most.map(|value| value.trim().parse::<u64>()) {
        Some(Ok(0)) => Check::broken(NAME, "they are off", "sysctl user.max_user_namespaces=15000"),
        Some(Ok(most)) => Check::good(NAME, format!("up to {most}")),
        _ => Check::broken(NAME, "this kernel has none", "use a kernel with CONFIG_USER_NS"),
    }
}

/// Ubuntu 24.04 lets only programs with a profile make user namespaces that can do anything.
fn apparmor(restricts: Option<&str>, profile: Option<&str>) -> Check {
    const NAME: &str = "AppArmor";
    let is_confined =
        profile.is_some_and(|it| !matches!(it.trim_end_matches(['\0', '\n']), "" | "unconfined"));
    match (restricts.map(str::trim), is_confined) {
        (Some("1"), false) => Check::broken(
            NAME,
            "it restricts user namespaces of programs without a profile",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or give palisade-hand and bwrap a profile with `userns,`",
        ),
        (_, true) => {
            let profile = profile.unwrap_or_default().trim();
            Check::good(
                NAME,
                format!(
                    "this process is confined by {profile:?}; whether it may do what it must is tried below"
                ),
            )
        }
        _ => Check::good(NAME, "it is not in the way"),
    }
}

/// Containers cover parts of /proc, and then the kernel refuses a new one to a user namespace (decision 26).
fn proc_mounts(mounts: &str) -> Check {
    const NAME: &str = "/proc";
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    // An automount point of the host's is none of the covers.
    let covers: Vec<_> =
        points.filter(|point| point.starts_with("/proc/") && *point != "/proc/sys/fs/binfmt_misc").collect();
    if covers.is_empty() {
        return Check::good(NAME, "it is whole");
    }
    Check::broken(
        NAME,
        format!("it is masked, as containers have it by default ({})", covers.join(", ")),
        "in Kubernetes `procMount: Unmasked` with `hostUsers: false`; in Docker `--security-opt systempaths=unconfined`",
    )
}

fn seccomp(actions: Option<&str>) -> Check {
    const NAME: &str = "seccomp";
    let actions = actions.unwrap_or_default();
    let has = |action: &str| actions.split_whitespace().any(|it| it == action);
    match has("errno") && has("kill_process") {
        true => Check::good(NAME, "filters work"),
        false => Check::broken(
            NAME,
            "this kernel cannot filter system calls",
            "use Linux 4.14 or later with CONFIG_SECCOMP_FILTER",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn what_is_off_is_named() {
        let state = |check: Check| check.state;
        assert_eq!(state(namespaces(Some("96365\n"), None)), State::Good);
        assert_eq!(state(namespaces(Some("96365\n"), Some("1\n"))), State::Good);
        for (most, unprivileged) in [(Some("0\n"), None), (Some("5"), Some("0\n")), (None, None)] {
            assert_eq!(state(namespaces(most, unprivileged)), State::Broken);
        }
        assert_eq!(state(apparmor(None, None)), State::Good);
        assert_eq!(state(apparmor(Some("1\n"), Some("unconfined\n"))), State::Broken);
        assert_eq!(state(apparmor(Some("1\n"), Some("palisade (enforce)\n"))), State::Good);
        assert_eq!(state(seccomp(Some("kill_process kill_thread trap errno trace log allow"))), State::Good);
        assert_eq!(state(seccomp(None)), State::Broken);
    }

    #[test]
    fn a_masked_proc_is_seen() {
        let host = "proc /proc proc rw 0 0\nsystemd-1 /proc/sys/fs/binfmt_misc autofs rw 0 0\n";
        assert_eq!(proc_mounts(host).state, State::Good);
        let container =
            "proc /proc proc rw 0 0\nproc /proc/bus proc ro 0 0\ntmpfs /proc/kcore tmpfs rw 0 0\n";
        let check = proc_mounts(container);
        assert!(check.state == State::Broken && check.found.contains("/proc/kcore"), "{check:?}");
    }
}
