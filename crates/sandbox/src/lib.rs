//! The cage from outside: what is mounted for a scope, life and death of a sandbox, and the client of the hand
//! that runs inside it.
//!
//! One sandbox per session, started when first needed and cheap to lose: nothing durable lives inside, and
//! whatever goes wrong there is an error here, never more. There is no weaker mode: what cannot be started
//! caged is not started.

mod cgroup;
mod control;
mod error;
mod factory;
mod listener;
mod mark;
mod note;
mod plan;
mod probe;
mod sandbox;
mod spawner;
mod unnamed;
mod warden;

pub use cgroup::{Cgroups, Controller, Limits};
pub use error::SandboxError;
pub use factory::{Rootfs, SandboxConfig, SandboxFactory};
pub use mark::ProcessMark;
pub use note::Note;
pub use palisade_hand_protocol::{
    COMMAND_BYTES_MAX, Edit, FileOp, Glob, Grep, GrepMode, HOME_INSIDE, Read, Replacement, SCRATCH_INSIDE,
    SCRATCH_NAME, Write,
};
pub use plan::{ENV_ALLOWED, ENV_ALLOWED_ENDINGS, ProxySpec, SandboxSpec, may_be_set};
pub use probe::{Probed, probe};
pub use sandbox::{RunExit, RunRequest, Sandbox};
pub use unnamed::unnamed_files;
