//! The kernel from inside: system calls that are refused, what /proc does not tell, and the second fence around files
//! (cases B04, B05, B09–B16, B18, B39, B41, C05, C11).

use std::os::unix::net::UnixListener;

use palisade_sandbox::{RunExit, SandboxError};

use crate::support::{Bench, python, refused, run, stdout};

/// Python that calls the kernel: `call(number, …)` is the error's name, or `OK`.
const CALL: &str = "import ctypes, errno, mmap, os, signal, socket, sys\n\
    libc = ctypes.CDLL(None, use_errno=True)\n\
    def call(number, *args):\n\
    \x20   ctypes.set_errno(0)\n\
    \x20   result = libc.syscall(ctypes.c_long(number), *[ctypes.c_ulong(a & (2**64 - 1)) for a in args])\n\
    \x20   return errno.errorcode[ctypes.get_errno()] if result == -1 else 'OK'\n";

/// Every call of the list, by its number on x86_64, as it stands in the kernel's own table.
const REFUSED: &[(&str, u32)] = &[
    ("ptrace", 101),
    ("process_vm_readv", 310),
    ("process_vm_writev", 311),
    ("process_madvise", 440),
    ("kcmp", 312),
    ("pidfd_getfd", 438),
    ("add_key", 248),
    ("request_key", 249),
    ("keyctl", 250),
    ("io_uring_setup", 425),
    ("io_uring_enter", 426),
    ("io_uring_register", 427),
    ("bpf", 321),
    ("perf_event_open", 298),
    ("userfaultfd", 323),
    ("setns", 308),
    ("unshare", 272),
    ("mount", 165),
    ("umount2", 166),
    ("pivot_root", 155),
    ("chroot", 161),
    ("open_tree", 428),
    ("move_mount", 429),
    ("fsopen", 430),
    ("fsconfig", 431),
    ("fsmount", 432),
    ("fspick", 433),
    ("mount_setattr", 442),
    ("swapon", 167),
    ("swapoff", 168),
    ("reboot", 169),
    ("init_module", 175),
    ("delete_module", 176),
    ("finit_module", 313),
    ("kexec_load", 246),
    ("kexec_file_load", 320),
    ("acct", 163),
    ("quotactl", 179),
    ("quotactl_fd", 443),
    ("syslog", 103),
    ("name_to_handle_at", 303),
    ("open_by_handle_at", 304),
    ("fanotify_init", 300),
    ("lookup_dcookie", 212),
    ("memfd_secret", 447),
    ("vhangup", 153),
    ("settimeofday", 164),
    ("clock_settime", 227),
    ("clock_adjtime", 305),
    ("adjtimex", 159),
    ("sethostname", 170),
    ("setdomainname", 171),
    ("iopl", 172),
    ("ioperm", 173),
    ("modify_ldt", 154),
    ("nfsservctl", 180),
    ("migrate_pages", 256),
    ("move_pages", 279),
    ("mbind", 237),
    ("set_mempolicy", 238),
];

#[tokio::test]
async fn b04_b09_b10_b11_b12_b13_b14_the_listed_calls_are_refused() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let numbers: Vec<String> = REFUSED.iter().map(|(name, number)| format!("('{name}', {number})")).collect();
    let program = format!(
        "{CALL}print([name for name, number in [{}] if call(number, 0, 0, 0, 0, 0, 0) != 'EPERM'])",
        numbers.join(", ")
    );
    assert_eq!(python(&sandbox, &program).await, "[]");
}

#[tokio::test]
async fn b09_clone_makes_no_namespace_and_clone3_is_not_there() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    // NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, each with SIGCHLD.
    let program = format!(
        "{CALL}for bit in [17, 25, 26, 27, 28, 29, 30]:\n\
         \x20   assert call(56, 1 << bit | 17, 0, 0, 0, 0) == 'EPERM', bit\n\
         assert call(435, 0, 0) == 'ENOSYS'\n\
         assert call(467, 0) == 'ENOSYS' and call(1000, 0) == 'ENOSYS'\n\
         pid = os.fork()\nif pid == 0: os._exit(7)\n\
         print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    );
    assert_eq!(python(&sandbox, &program).await, "7");
}

#[tokio::test]
async fn b14_there_is_one_personality() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let program =
        format!("{CALL}print(call(135, 0xffffffff), call(135, 0), call(135, 0x40000), call(135, 8))");
    assert_eq!(python(&sandbox, &program).await, "OK OK EPERM EPERM");
}

#[tokio::test]
async fn b15_other_calling_conventions_are_refused() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    // `getpid` in x32; then `mov eax, 20; int 0x80; ret`, which is `getpid` of i386.
    let program = format!(
        "{CALL}print(call(0x40000000 | 39))\n\
         code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)\n\
         code.write(bytes.fromhex('b814000000cd80c3'))\n\
         address = ctypes.addressof(ctypes.c_char.from_buffer(code))\n\
         pid = os.fork()\n\
         if pid == 0:\n\x20   ctypes.CFUNCTYPE(ctypes.c_int)(address)()\n\x20   os._exit(0)\n\
         print(signal.Signals(-os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).name)"
    );
    assert_eq!(python(&sandbox, &program).await, "EPERM\nSIGSYS");
}

#[tokio::test]
async fn b04_init_cannot_be_looked_into() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    // ATTACH, SEIZE, process_vm_readv, process_vm_writev, kcmp, pidfd_getfd on pid 1 and on one of the own.
    let program = format!(
        "{CALL}child = os.fork()\n\
         if child == 0: signal.pause()\n\
         for pid in [1, child]:\n\
         \x20   fd = os.pidfd_open(pid)\n\
         \x20   calls = [(101, 16, pid, 0, 0), (101, 0x4206, pid, 0, 0), (310, pid, 0, 0, 0, 0, 0),\n\
         \x20            (311, pid, 0, 0, 0, 0, 0), (312, pid, pid, 0, 0, 0), (438, fd, 0, 0)]\n\
         \x20   print([call(*args) for args in calls] == ['EPERM'] * 6)\n\
         os.kill(child, signal.SIGKILL)"
    );
    assert_eq!(python(&sandbox, &program).await, "True\nTrue");
    assert_eq!(stdout(&sandbox, "echo alive").await, "alive");
}

#[tokio::test]
async fn b05_the_filter_is_on() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let status = "awk '/^Seccomp:/ {print $2}' /proc/1/status /proc/self/status";
    assert_eq!(stdout(&sandbox, status).await, "2\n2");
}

#[tokio::test]
async fn b16_nothing_is_typed_into_a_terminal() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    // On a terminal of its own, with and without rubbish in the upper half, which the kernel does not look at.
    let program = format!(
        "{CALL}_, terminal = os.openpty()\nletter = ctypes.create_string_buffer(b'x')\n\
         at = ctypes.addressof(letter)\n\
         print([call(16, terminal, request, at) for request in [0x5412, 0x5412 | 1 << 32, 0x541c]])\n\
         print(call(16, terminal, 0x5413, ctypes.addressof(ctypes.create_string_buffer(8))))"
    );
    assert_eq!(python(&sandbox, &program).await, "['EPERM', 'EPERM', 'EPERM']\nOK");
    refused(&sandbox, "exec 5<>/dev/tty", "").await;
}

#[tokio::test]
async fn b18_sockets_of_the_host_are_not_there_and_one_in_a_shared_folder_is_shared() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    for path in ["/run/docker.sock", "/var/run/docker.sock", "/run/dbus/system_bus_socket", "/run/systemd"] {
        refused(&sandbox, &format!("stat {path}"), "No such file or directory").await;
    }
    let outside = bench.outside.join("socket");
    let _hidden = UnixListener::bind(&outside).unwrap();
    let connect = |path: String| {
        format!(
            "import socket\ns = socket.socket(socket.AF_UNIX)\n\
             try:\n\x20   s.connect('{path}')\n\x20   print('connected')\n\
             except FileNotFoundError:\n\x20   print('not there')\n\
             except PermissionError:\n\x20   print('refused')"
        )
    };
    assert_eq!(python(&sandbox, &connect(outside.display().to_string())).await, "not there");
    // Sessions that share a folder can talk through it by files, and by a socket as well where Landlock knows none.
    // SECURITY.md says so.
    let _shared = UnixListener::bind(bench.workspace.join("socket")).unwrap();
    let expected = if sandbox.landlock_abi() >= 9 { "refused" } else { "connected" };
    assert_eq!(python(&sandbox, &connect("/workspace/socket".into())).await, expected);
}

#[tokio::test]
async fn b38_no_control_group_can_be_reached() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    assert_eq!(stdout(&sandbox, "grep -c cgroup /proc/self/mounts || true").await, "0");
    for path in ["/sys/fs/cgroup", "/sys"] {
        refused(&sandbox, &format!("ls {path}"), "No such file or directory").await;
    }
    // Its own place is all that it is told.
    let groups = stdout(&sandbox, "cut -d: -f3 /proc/self/cgroup").await;
    assert!(!groups.contains("palisade-"), "{groups}");
    let program = format!("{CALL}print(call(165, 0, 0, 0, 0, 0), call(430, 0, 0))");
    assert_eq!(python(&sandbox, &program).await, "EPERM EPERM");
}

#[tokio::test]
async fn b39_the_kernel_says_nothing_about_the_machine() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    for name in [
        "cmdline",
        "config.gz",
        "iomem",
        "ioports",
        "kallsyms",
        "kcore",
        "key-users",
        "keys",
        "kmsg",
        "kpagecount",
        "kpageflags",
        "modules",
        "sched_debug",
        "slabinfo",
        "timer_list",
        "vmallocinfo",
    ] {
        let (exit, text) = run(&sandbox, &format!("LC_ALL=C head -c 64 /proc/{name}")).await;
        let closed = text.contains("Permission denied") || text.contains("No such file");
        assert!(exit != RunExit::Code(0) && closed, "{name}: {text:?}");
    }
    for path in ["/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches"] {
        refused(&sandbox, &format!("echo 1 > {path}"), "").await;
    }
    refused(&sandbox, "ls /sys", "No such file").await;
    // What programs ask for is there.
    stdout(&sandbox, "head -1 /proc/meminfo /proc/cpuinfo /proc/stat /proc/uptime /proc/self/status").await;
}

#[tokio::test]
async fn landlock_stands_behind_the_mounts_where_the_kernel_has_it() {
    let bench = Bench::new();
    bench.put("read/a", "a");
    std::fs::create_dir_all(bench.workspace.join("write/one")).unwrap();
    std::fs::create_dir_all(bench.workspace.join("write/two")).unwrap();
    let sandbox = bench.scoped(&["read"], &["write"]).await;
    let lsms = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    if !lsms.contains("landlock") && sandbox.landlock_abi() == 0 {
        println!("SKIPPED: this kernel has no Landlock");
        return;
    }
    assert!(sandbox.landlock_abi() >= 2);
    // A place that no mount keeps from being written: only the second fence does.
    refused(&sandbox, "echo x > /proc/self/comm", "Permission denied").await;
    // And what must go on: moves across folders, devices, terminals, own files of every kind.
    stdout(&sandbox, "echo x > write/one/f && mv write/one/f write/two/f && ln write/two/f write/one/g")
        .await;
    stdout(&sandbox, "mkfifo write/p && ln -s f write/l && mkdir write/d && rmdir write/d && rm write/p")
        .await;
    stdout(&sandbox, "truncate -s 3 write/two/f && echo y > /dev/null && echo y > /dev/stdout").await;
    stdout(&sandbox, "mv write/two/f /tmp/f && mv /tmp/f /dev/shm/f && rm /dev/shm/f").await;
    assert_eq!(python(&sandbox, "import os, pty\npty.spawn(['true'])\nprint('ok')").await, "ok");
}

#[tokio::test]
async fn b41_only_listed_names_reach_the_environment() {
    let bench = Bench::new();
    for name in [
        "LD_PRELOAD",
        "BASH_ENV",
        "ENV",
        "PYTHONPATH",
        "GIT_SSH_COMMAND",
        "PATH",
        "HOME",
        "a=b",
        "",
        "_TOKEN",
        "lower_TOKEN",
        "HTTP_PROXY",
    ] {
        let mut spec = bench.spec(&[""], &[""]);
        spec.env = vec![(name.into(), "x".into())];
        let error = bench.factory.start(spec).await.unwrap_err();
        assert!(matches!(error, SandboxError::Spec(_)), "{name}: {error}");
    }
    let mut spec = bench.spec(&[""], &[""]);
    spec.env = vec![("GITHUB_TOKEN".into(), "placeholder".into())];
    let sandbox = bench.factory.start(spec).await.unwrap();
    assert_eq!(stdout(&sandbox, "echo $GITHUB_TOKEN").await, "placeholder");
}

#[tokio::test]
async fn c05_other_families_of_sockets_are_refused() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let program = format!(
        "{CALL}allowed = [f for f in range(0, 64) if call(41, f, 1, 0) not in ('EPERM',)]\n\
         pairs = [f for f in range(0, 64) if call(53, f, 1, 0, 0) != 'EPERM']\n\
         raw = [call(41, 2, 3, 1), call(41, 10, 3, 58)]\n\
         print(allowed, pairs, raw)"
    );
    // UNIX, INET, INET6, NETLINK; and a raw socket of these takes a capability.
    assert_eq!(python(&sandbox, &program).await, "[1, 2, 10, 16] [1, 2, 10, 16] ['EPERM', 'EPERM']");
}

#[tokio::test]
async fn c11_no_program_reaches_out() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tried = 0;
    for (program, command) in [
        ("bash", "exec 5<>/dev/tcp/192.0.2.1/80".to_owned()),
        ("bash", "exec 5<>/dev/udp/192.0.2.1/53 && echo x >&5".to_owned()),
        ("curl", "curl -sS -m 5 http://192.0.2.1/".to_owned()),
        ("curl", format!("curl -sS -m 5 http://127.0.0.1:{port}/")),
        ("wget", "wget -q -t 1 -T 5 -O - http://192.0.2.1/".to_owned()),
        ("ping", "ping -c 1 -W 5 192.0.2.1".to_owned()),
        ("nc", "nc -w 5 -z 192.0.2.1 80".to_owned()),
        ("ssh", "ssh -o BatchMode=yes -o ConnectTimeout=5 192.0.2.1 true".to_owned()),
        ("getent", "getent ahosts palisade.example".to_owned()),
        ("git", "git ls-remote https://192.0.2.1/x.git".to_owned()),
    ] {
        if stdout(&sandbox, &format!("command -v {program} || true")).await.is_empty() {
            println!("SKIPPED {program}: it is not installed");
            continue;
        }
        tried += 1;
        let (exit, text) = run(&sandbox, &command).await;
        assert!(matches!(exit, RunExit::Code(code) if code != 0), "{command}: {exit:?} {text}");
    }
    assert!(tried >= 3, "bash and getent are always there");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "somebody came through");
}
