//! What the launcher is told, as JSON in its standard output's descriptor, before it makes the cage.

use serde::{Deserialize, Serialize};

/// Everything a cage is made of. Paths are the host's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// The bubblewrap binary.
    pub bwrap: String,
    /// The hand's static binary, which becomes pid 1.
    pub hand: String,
    /// The root of the system shown inside: `/`, or an unpacked image. Only its `/usr` and parts of its `/etc`
    /// are used.
    pub rootfs: String,
    /// Python packages, shown at `/usr/local/lib/python3.11/dist-packages`.
    pub python_packages: Option<String>,
    /// The tenant's workspace.
    pub workspace: String,
    /// What of it is shown; parents before children. The root alone for a whole-workspace session.
    pub mounts: Vec<ScopeMount>,
    /// What is shown at `/skills/<name>`.
    pub skills: Vec<SkillMount>,
    /// A certificate authority that programs inside trust beside the system's own, as PEM.
    pub trust_anchor: Option<String>,
    /// The session's home, shown writable at [`crate::HOME_INSIDE`].
    pub home: String,
    /// The `cgroup.procs` files of the control groups that hold the sandbox, one for each hierarchy; none where the
    /// server could not make any.
    pub cgroups: Vec<String>,
    /// /tmp inside, in bytes.
    pub tmp_bytes: u64,
    /// /dev/shm inside, in bytes.
    pub shm_bytes: u64,
}

/// One root of the scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeMount {
    /// Relative to the workspace; empty for the workspace itself.
    pub path: String,
    /// Whether the session may change it.
    pub writable: bool,
}

/// One skill, read-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkillMount {
    /// Its name below `/skills`.
    pub name: String,
    /// Its directory on the host.
    pub source: String,
}
