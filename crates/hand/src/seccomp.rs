//! The system calls that nothing inside may make, as a classic BPF program for bubblewrap: pid 1 has it before its first
//! instruction, and everything it starts inherits it.
//!
//! The list takes kernel surface away and no tool: what office programs, compilers, Python, Node and git use stays.
//! Nothing here may depend on the caller's privileges: capabilities are another fence.

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, c_long,
    sock_filter,
};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the list of system calls is written for x86_64");

/// linux/audit.h: the only calling convention that is served.
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
/// The x32 convention shares the architecture's number and marks the call's instead.
const X32_BIT: u32 = 0x4000_0000;
/// The first number that this list has no opinion on (`open_tree_attr`, Linux 6.15). From here on it is ENOSYS, as on
/// an older kernel: programs fall back, and no new door opens with a kernel update.
const FIRST_UNKNOWN: u32 = 467;

/// In `struct seccomp_data`.
const NUMBER_AT: u32 = 0;
const ARCH_AT: u32 = 4;
const fn argument_at(index: u32) -> u32 {
    // The low half: these are little-endian, and what the kernel itself looks at in each of these calls.
    16 + 8 * index
}

/// `clone` flags that make a namespace. `CLONE_NEWTIME` is none of clone's: there its bit is part of the signal.
const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET)
    .cast_unsigned();
/// The families a sandbox has a use for.
const FAMILIES: [u32; 4] = [
    libc::AF_UNIX.cast_unsigned(),
    libc::AF_INET.cast_unsigned(),
    libc::AF_INET6.cast_unsigned(),
    libc::AF_NETLINK.cast_unsigned(),
];
/// They put bytes into the terminal that a process was given, as if its owner had typed them.
const TERMINAL_INJECTIONS: [u32; 2] = [0x5412, 0x541c];
/// The second byte of a request's number says whose it is (linux/ioctl.h): those of btrfs, which are also every file
/// system's for sharing blocks (`FICLONE`, `FIDEDUPERANGE`), and those of XFS, which are also every file system's for
/// reserving blocks (`FS_IOC_RESVSP`) and for how much a write reserves (`FS_IOC_FSSETXATTR`).
const STORAGE_REQUESTS: [u32; 2] = [0x9400, 0x5800];
/// Where that byte stands in a request's number.
const REQUEST_TYPE: u32 = 0xff00;
/// The ordinary execution domain, and the question which one it is.
const PERSONALITIES: [u32; 2] = [0, 0xffff_ffff];

/// EPERM, whatever the arguments.
const FORBIDDEN: &[c_long] = &[
    // Looking into and steering other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    // Keys are counted and found by uid, across sandboxes.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Large interfaces with a history.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_memfd_secret,
    // Namespaces and mounts.
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    // The machine's administration.
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_init_module,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_nfsservctl,
    // Files past their paths.
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_lookup_dcookie,
    // Memory placement.
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_mbind,
    libc::SYS_set_mempolicy,
];

/// EOPNOTSUPP, whatever the arguments, as on a file system that cannot do it: the C library and every program that
/// copies files then write instead. They take disk without writing, past every limit of a file's size and in no time.
const UNSUPPORTED: &[c_long] = &[
    libc::SYS_fallocate,
    // Some file systems count attributes for nobody.
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    SYS_SETXATTRAT,
];
/// Linux 6.13, and not in the C library's list yet.
const SYS_SETXATTRAT: c_long = 463;

/// The program as the kernel takes it.
pub(crate) fn program() -> Vec<u8> {
    let mut code = Code(Vec::new());
    code.load(ARCH_AT);
    code.unless_equal(AUDIT_ARCH_X86_64, libc::SECCOMP_RET_KILL_PROCESS);
    code.load(NUMBER_AT);
    // -1, which the kernel uses for a call that a tracer skipped, is refused along with x32.
    code.from(X32_BIT, errno(libc::EPERM));
    code.from(FIRST_UNKNOWN, errno(libc::ENOSYS));
    // Its flags are in memory, where no filter can look; the C library falls back to clone.
    code.when(libc::SYS_clone3, &[ret(errno(libc::ENOSYS))]);
    for number in FORBIDDEN {
        code.when(*number, &[ret(errno(libc::EPERM))]);
    }
    for number in UNSUPPORTED {
        code.when(*number, &[ret(errno(libc::EOPNOTSUPP))]);
    }
    let bits = [load(argument_at(0)), jump(BPF_JSET, NEW_NAMESPACES, 0, 1), ret(errno(libc::EPERM)), allow()];
    code.when(libc::SYS_clone, &bits);
    code.when(libc::SYS_personality, &only(0, &PERSONALITIES));
    code.when(libc::SYS_socket, &only(0, &FAMILIES));
    code.when(libc::SYS_socketpair, &only(0, &FAMILIES));
    code.when(libc::SYS_ioctl, &ioctl());
    code.0.push(allow());
    code.bytes()
}

struct Code(Vec<sock_filter>);

impl Code {
    fn load(&mut self, offset: u32) {
        self.0.push(load(offset));
    }

    fn unless_equal(&mut self, value: u32, verdict: u32) {
        self.0.extend([jump(BPF_JEQ, value, 1, 0), ret(verdict)]);
    }

    fn from(&mut self, value: u32, verdict: u32) {
        self.0.extend([jump(BPF_JGE, value, 0, 1), ret(verdict)]);
    }

    /// `then` must end in a verdict: it may have loaded something else.
    fn when(&mut self, number: c_long, then: &[sock_filter]) {
        // Every number is small and no block longer than a dozen instructions.
        let (number, length) = (number as u32, then.len() as u8);
        self.0.push(jump(BPF_JEQ, number, 0, length));
        self.0.extend(then);
    }

    fn bytes(&self) -> Vec<u8> {
        let instruction = |it: &sock_filter| {
            let [a, b] = it.code.to_ne_bytes();
            let [c, d, e, f] = it.k.to_ne_bytes();
            [a, b, it.jt, it.jf, c, d, e, f]
        };
        self.0.iter().flat_map(instruction).collect()
    }
}

/// Allowed where the argument is one of `values`.
fn only(argument: u32, values: &[u32]) -> Vec<sock_filter> {
    let mut code = vec![load(argument_at(argument))];
    code.extend(where_among(values, allow()));
    code.push(ret(errno(libc::EPERM)));
    code
}

/// No typing into terminals and no request that takes disk past the limits; all others are the drivers' to judge.
fn ioctl() -> Vec<sock_filter> {
    let mut code = vec![load(argument_at(1))];
    code.extend(where_among(&TERMINAL_INJECTIONS, ret(errno(libc::EPERM))));
    code.push(statement(BPF_ALU | BPF_AND | BPF_K, REQUEST_TYPE));
    code.extend(where_among(&STORAGE_REQUESTS, ret(errno(libc::EOPNOTSUPP))));
    code.push(allow());
    code
}

fn where_among(values: &[u32], verdict: sock_filter) -> impl Iterator<Item = sock_filter> {
    values.iter().flat_map(move |value| [jump(BPF_JEQ, *value, 0, 1), verdict])
}

fn load(offset: u32) -> sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, offset)
}

fn ret(verdict: u32) -> sock_filter {
    statement(BPF_RET | BPF_K, verdict)
}

fn allow() -> sock_filter {
    ret(libc::SECCOMP_RET_ALLOW)
}

fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number.cast_unsigned()
}

fn statement(code: u32, k: u32) -> sock_filter {
    // Opcodes have 16 bits; libc gives them 32.
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn jump(test: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { jt, jf, ..statement(BPF_JMP | BPF_K | test, k) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would say, computed as bpf(4) describes the machine.
    fn verdict(arch: u32, number: u32, arguments: &[u64]) -> u32 {
        let mut data = [0_u8; 64];
        data[0..4].copy_from_slice(&number.to_ne_bytes());
        data[4..8].copy_from_slice(&arch.to_ne_bytes());
        for (at, argument) in arguments.iter().enumerate() {
            data[16 + 8 * at..24 + 8 * at].copy_from_slice(&argument.to_ne_bytes());
        }
        let program = program();
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let it = &program[at * 8..at * 8 + 8];
            let code = u32::from(u16::from_ne_bytes([it[0], it[1]]));
            let k = u32::from_ne_bytes(it[4..8].try_into().unwrap());
            at += 1;
            let mut branch = |holds: bool| at += usize::from(if holds { it[2] } else { it[3] });
            match code {
                _ if code == BPF_LD | BPF_W | BPF_ABS => {
                    let from = k as usize;
                    accumulator = u32::from_ne_bytes(data[from..from + 4].try_into().unwrap());
                }
                _ if code == BPF_ALU | BPF_AND | BPF_K => accumulator &= k,
                _ if code == BPF_RET | BPF_K => return k,
                _ if code == BPF_JMP | BPF_K | BPF_JEQ => branch(accumulator == k),
                _ if code == BPF_JMP | BPF_K | BPF_JGE => branch(accumulator >= k),
                _ if code == BPF_JMP | BPF_K | BPF_JSET => branch(accumulator & k != 0),
                _ => panic!("{code:#x} is not in use"),
            }
        }
    }

    fn native(number: c_long, arguments: &[u64]) -> u32 {
        verdict(AUDIT_ARCH_X86_64, number as u32, arguments)
    }

    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    const EOPNOTSUPP: u32 = libc::SECCOMP_RET_ERRNO | libc::EOPNOTSUPP as u32;
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

    #[test]
    fn every_call_has_its_verdict() {
        for number in FORBIDDEN {
            assert_eq!(native(*number, &[]), EPERM, "{number}");
        }
        for number in UNSUPPORTED {
            assert_eq!(native(*number, &[]), EOPNOTSUPP, "{number}");
        }
        assert_eq!(native(libc::SYS_clone3, &[]), ENOSYS);
        for number in [FIRST_UNKNOWN, FIRST_UNKNOWN + 1, 1_000, X32_BIT - 1] {
            assert_eq!(verdict(AUDIT_ARCH_X86_64, number, &[]), ENOSYS, "{number}");
        }
        let zero_is_refused = [libc::SYS_socket, libc::SYS_socketpair, libc::SYS_clone3];
        let is_refused = |number: &i64| {
            [FORBIDDEN, UNSUPPORTED, &zero_is_refused].iter().any(|list| list.contains(number))
        };
        for number in (0..i64::from(FIRST_UNKNOWN)).filter(|number| !is_refused(number)) {
            assert_eq!(native(number, &[]), ALLOW, "{number}");
        }
    }

    #[test]
    fn other_conventions_are_refused() {
        const AUDIT_ARCH_I386: u32 = 0x4000_0003;
        assert_eq!(verdict(AUDIT_ARCH_I386, 20, &[]), libc::SECCOMP_RET_KILL_PROCESS);
        for number in [X32_BIT, X32_BIT | 39, X32_BIT | 0xff, u32::MAX] {
            assert_eq!(verdict(AUDIT_ARCH_X86_64, number, &[]), EPERM, "{number:#x}");
        }
    }

    #[test]
    fn arguments_are_looked_at_as_the_kernel_does() {
        let high = 1_u64 << 32;
        for family in 0..64_u64 {
            let expected = if [1, 2, 10, 16].contains(&family) { ALLOW } else { EPERM };
            assert_eq!(native(libc::SYS_socket, &[family]), expected, "{family}");
            assert_eq!(native(libc::SYS_socket, &[high | family]), expected, "{family}");
            assert_eq!(native(libc::SYS_socketpair, &[family]), expected, "{family}");
        }
        for (request, expected) in [
            (0x5412, EPERM),
            (high | 0x5412, EPERM),
            (0x541c, EPERM),
            (0x5413, ALLOW),
            // FICLONE, FIDEDUPERANGE, BTRFS_IOC_SUBVOL_CREATE, FS_IOC_RESVSP64, FS_IOC_FSSETXATTR; then FIONREAD and
            // FS_IOC_GETFLAGS.
            (0x4004_9409, EOPNOTSUPP),
            (high | 0xc018_9436, EOPNOTSUPP),
            (0x5000_940e, EOPNOTSUPP),
            (0x4030_582a, EOPNOTSUPP),
            (0x401c_5820, EOPNOTSUPP),
            (0x541b, ALLOW),
            (0x8008_6601, ALLOW),
        ] {
            assert_eq!(native(libc::SYS_ioctl, &[0, request]), expected, "{request:#x}");
        }
        for (flags, expected) in [
            (0x1200011, ALLOW),
            (0x3d0f00, ALLOW),
            (0x1000_0011, EPERM),
            (0x2_0011, EPERM),
            (0x4000_0011, EPERM),
            (0x200_0011, EPERM),
        ] {
            assert_eq!(native(libc::SYS_clone, &[flags]), expected, "{flags:#x}");
        }
        for (domain, expected) in [(0, ALLOW), (0xffff_ffff, ALLOW), (0x4_0000, EPERM), (8, EPERM)] {
            assert_eq!(native(libc::SYS_personality, &[domain]), expected, "{domain:#x}");
        }
    }
}
