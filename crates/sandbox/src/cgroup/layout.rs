//! Which controllers this machine has, and in which hierarchy each is: the unified one, version 1's own, or one here
//! and one there. Pure but for reading /proc.

use std::path::PathBuf;

/// What the server weighs beside one tenant's sandboxes together, in the unified hierarchy's own unit.
pub(crate) const SERVER_WEIGHT: u32 = 1000;
/// What all sandboxes together weigh in version 1, where whatever is beside them has 1024: the server's group, or each of
/// its threads where it has none.
pub(crate) const SANDBOXES_SHARES: u32 = 512;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// Memory.
    Memory,
    /// Processes and threads.
    Pids,
    /// Processor time.
    Cpu,
}

impl Controller {
    pub(crate) const ALL: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    /// As the kernel calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Unified,
    Legacy,
}

impl Version {
    /// Where a memory group counts what was killed in it.
    pub(crate) fn oom_file(self) -> &'static str {
        match self {
            Self::Unified => "memory.events",
            Self::Legacy => "memory.oom_control",
        }
    }
}

/// One hierarchy, with the controllers in it that sandboxes are limited by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    pub(crate) version: Version,
    /// At first where it is mounted, then this server's own group in it.
    pub(crate) folder: PathBuf,
    pub(crate) controllers: Vec<Controller>,
    /// Whether the disk's time can be shared by weight here. Of version 1 no current kernel does that for files.
    pub(crate) has_io: bool,
}

/// `mounts` is /proc/self/mounts, `unified_controllers` the cgroup.controllers at the unified hierarchy's root.
pub(crate) fn find(mounts: &str, unified_controllers: impl Fn(&str) -> String) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    let all: Vec<[&str; 4]> = mounts
        .lines()
        .filter_map(|line| line.split(' ').take(4).collect::<Vec<_>>().try_into().ok())
        .collect();
    if let Some([_, folder, ..]) = all.iter().find(|[_, _, kind, _]| *kind == "cgroup2") {
        let names = unified_controllers(folder);
        let has = |controller: &Controller| names.split_whitespace().any(|name| name == controller.name());
        let controllers = Controller::ALL.into_iter().filter(has).collect();
        let has_io = names.split_whitespace().any(|name| name == "io");
        found.push(Hierarchy { version: Version::Unified, folder: folder.into(), controllers, has_io });
    }
    for controller in Controller::ALL {
        if found.iter().any(|it| it.controllers.contains(&controller)) {
            continue;
        }
        let holds = |options: &str| options.split(',').any(|option| option == controller.name());
        let mount = all.iter().find(|[_, _, kind, options]| *kind == "cgroup" && holds(options));
        let Some([_, folder, ..]) = mount else { continue };
        // Two controllers may share one hierarchy, as `cpu,cpuacct` do.
        match found.iter_mut().find(|it| it.folder.as_os_str() == *folder) {
            Some(known) => known.controllers.push(controller),
            None => found.push(Hierarchy {
                version: Version::Legacy,
                folder: folder.into(),
                controllers: vec![controller],
                has_io: false,
            }),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(mounts: &str, unified: &str) -> Vec<(Version, String, Vec<Controller>)> {
        let found = find(mounts, |_| unified.to_owned());
        found.into_iter().map(|it| (it.version, it.folder.display().to_string(), it.controllers)).collect()
    }

    #[test]
    fn each_layout_is_told_from_the_others() {
        use Controller::{Cpu, Memory, Pids};
        let two = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\nproc /proc proc rw 0 0\n";
        assert_eq!(
            shape(two, "cpuset cpu io memory hugetlb pids"),
            [(Version::Unified, "/sys/fs/cgroup".into(), vec![Memory, Pids, Cpu])]
        );
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
            cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n\
            cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n\
            cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n\
            cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let expected = [
            (Version::Unified, "/sys/fs/cgroup/unified".to_owned(), vec![]),
            (Version::Legacy, "/sys/fs/cgroup/memory".to_owned(), vec![Memory]),
            (Version::Legacy, "/sys/fs/cgroup/pids".to_owned(), vec![Pids]),
            (Version::Legacy, "/sys/fs/cgroup/cpu,cpuacct".to_owned(), vec![Cpu]),
        ];
        assert_eq!(shape(hybrid, "hugetlb"), expected);
        assert_eq!(shape(hybrid.lines().take(5).collect::<Vec<_>>().join("\n").as_str(), ""), expected[1..]);
        assert_eq!(shape("proc /proc proc rw 0 0\nnonsense\n", ""), []);
        // A controller that is in both is used where it is in the unified one.
        assert_eq!(shape(hybrid, "memory")[0].2, [Memory]);
    }
}
