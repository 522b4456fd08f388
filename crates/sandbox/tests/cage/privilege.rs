//! What a process inside may not do although nothing of the scope forbids it (cases B).

use std::os::fd::AsRawFd;

use palisade_sandbox::{Cgroups, Limits, Rootfs, SandboxConfig, SandboxError, SandboxFactory};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::support::{Bench, python, refused, run, stdout};

#[test]
fn b01_root_is_refused_in_the_server_and_in_the_launcher() {
    if !rustix::process::getuid().is_root() {
        println!("SKIPPED b01: root is not there to be refused");
        return;
    }
    let config = SandboxConfig {
        hand: "/bin/true".into(),
        bwrap: "bwrap".into(),
        rootfs: Rootfs::HostUsr,
        python_packages: None,
        limits: Limits::default(),
        cgroups: Cgroups::none("not asked for"),
    };
    assert!(matches!(SandboxFactory::new(config), Err(SandboxError::RunningAsRoot)));
    let launcher = std::process::Command::new(crate::support::built_hand()).arg("--launch").output().unwrap();
    assert!(!launcher.status.success());
    assert!(String::from_utf8_lossy(&launcher.stderr).contains("as root"), "{launcher:?}");
}

#[tokio::test]
async fn b01_the_kernel_sees_no_root() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    refused(&sandbox, "echo x > /proc/sys/kernel/core_pattern", "").await;
    assert_eq!(stdout(&sandbox, "id -u; id -g; id -un").await, "1000\n1000\nagent");
    stdout(&sandbox, "touch made").await;
    let owner =
        std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(bench.workspace.join("made")).unwrap());
    assert_eq!(owner, rustix::process::getuid().as_raw());
}

#[tokio::test]
async fn b02_b03_pid_1_is_closed() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    for file in ["environ", "mem", "maps", "stack", "auxv"] {
        let (exit, text) = run(&sandbox, &format!("head -c 64 /proc/1/{file}")).await;
        assert!(exit != palisade_sandbox::RunExit::Code(0), "{file}: {text:?}");
    }
    refused(&sandbox, "exec 5<>/proc/1/mem", "Permission denied").await;
    refused(&sandbox, "ls /proc/1/fd", "Permission denied").await;
    refused(&sandbox, "readlink /proc/1/exe", "").await;
    let arguments = stdout(&sandbox, "tr '\\0' ' ' < /proc/1/cmdline").await;
    assert_eq!(arguments, "/usr/local/libexec/palisade-hand --init");
}

#[tokio::test]
async fn b02_the_environment_is_ours_alone() {
    let bench = Bench::new();
    let mut spec = bench.spec(&[""], &[""]);
    spec.env = vec![("TZ".into(), "UTC".into())];
    let sandbox = bench.factory.start(spec).await.unwrap();
    // `bash` itself adds PWD, SHLVL and _.
    let names = stdout(&sandbox, "env | cut -d= -f1 | sort | tr '\\n' ' '").await;
    let expected = "DEBIAN_FRONTEND EDITOR GIT_EDITOR GIT_TERMINAL_PROMPT HOME LANG LOGNAME NODE_PATH NPM_CONFIG_PREFIX \
                    NPM_CONFIG_UPDATE_NOTIFIER NPM_CONFIG_YES PAGER PATH PWD PYTHONDONTWRITEBYTECODE PYTHONUNBUFFERED SHELL SHLVL TERM TMPDIR TZ USER _";
    let (mut found, mut expected): (Vec<_>, Vec<_>) =
        (names.split(' ').collect(), expected.split(' ').collect());
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    let home = "/home/agent";
    let path = format!("{home}/.local/bin:/usr/local/bin:/usr/bin:/bin");
    assert_eq!(stdout(&sandbox, "echo $HOME $PATH").await, format!("{home} {path}"));
}

#[tokio::test]
async fn b05_no_capability_and_no_way_to_one() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let status = stdout(&sandbox, "grep -E '^(Cap|NoNewPrivs)' /proc/self/status | tr -s '\\t' ' '").await;
    for line in status.lines() {
        let (name, value) = line.split_once(": ").unwrap();
        let expected = if name == "NoNewPrivs" { "1" } else { "0000000000000000" };
        assert_eq!(value, expected, "{name}");
    }
}

#[tokio::test]
async fn b06_b07_setuid_has_no_effect() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    stdout(&sandbox, "cp /usr/bin/id own-id && chmod 4755 own-id").await;
    assert_eq!(stdout(&sandbox, "./own-id -u").await, "1000");
    let mounts =
        stdout(&sandbox, "grep -E ' /(workspace|usr|tmp|etc|skills|usr/local)? ' /proc/self/mounts").await;
    for line in mounts.lines() {
        assert!(line.contains("nosuid") && line.contains("nodev"), "{line}");
    }
    assert!(mounts.lines().count() >= 6, "{mounts}");
}

#[tokio::test]
async fn b08_b09_b10_no_devices_no_namespaces_no_mounts() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    // By Landlock's word or by the missing capability's.
    refused(&sandbox, "mknod dev c 1 3", "mknod: dev: ").await;
    refused(&sandbox, "mknod dev b 8 0", "mknod: dev: ").await;
    for command in ["unshare -U true", "unshare -Ur true", "unshare -n true", "unshare -m true"] {
        refused(&sandbox, command, "unshare failed").await;
    }
    for command in ["mount -t tmpfs x /tmp", "umount /workspace", "mount -o remount,rw /usr", "chroot / true"]
    {
        refused(&sandbox, command, "").await;
    }
}

#[tokio::test]
async fn b19_no_descriptor_comes_along() {
    let bench = Bench::new();
    let folder = std::fs::File::open(&bench.outside).unwrap();
    fcntl_setfd(&folder, FdFlags::empty()).unwrap();
    let leaked = rustix::io::fcntl_dupfd_cloexec(&folder, 150).unwrap();
    fcntl_setfd(&leaked, FdFlags::empty()).unwrap();
    assert!(leaked.as_raw_fd() >= 150);
    let sandbox = bench.whole().await;
    let program = "import os\nprint(sorted(int(n) for n in os.listdir('/proc/self/fd'))[:-1])";
    assert_eq!(stdout(&sandbox, &format!("/usr/bin/python3 -c \"{program}\"")).await, "[0, 1, 2]");
}

#[tokio::test]
async fn b20_shared_memory_is_the_sandboxs_own() {
    let bench = Bench::new();
    let (one, other) = (bench.whole().await, bench.whole().await);
    stdout(&one, "echo x > /dev/shm/mine; echo x > /tmp/mine").await;
    assert_eq!(stdout(&other, "ls -A /dev/shm /tmp").await, "/dev/shm:\n\n/tmp:");
    stdout(&one, "ipcmk -M 4096 && ipcmk -Q && ipcmk -S 1").await;
    let listed = |sandbox| {
        stdout(sandbox, "tail -qn +2 /proc/sysvipc/shm /proc/sysvipc/msg /proc/sysvipc/sem | wc -l")
    };
    assert_eq!((listed(&one).await, listed(&other).await), ("3".to_owned(), "0".to_owned()));
    let queue = |flags: &str| {
        format!(
            "import ctypes, os\nrt = ctypes.CDLL('librt.so.1', use_errno=True)\n\
             print(rt.mq_open(b'/palisade', {flags}, 0o600, None) >= 0)"
        )
    };
    // Landlock takes POSIX queues for files outside of what may be written; without it they are the own ones.
    let made = python(&one, &queue("os.O_CREAT | os.O_RDWR")).await;
    assert_eq!(made == "True", one.landlock_abi() == 0);
    assert_eq!(python(&other, &queue("os.O_RDWR")).await, "False");
    let sizes = stdout(&one, "df -B1048576 --output=size /tmp /dev/shm | tail -n +2 | tr -d ' '").await;
    assert_eq!(sizes, "256\n64");
}

#[tokio::test]
async fn b21_signals_reach_only_the_own_processes() {
    let bench = Bench::new();
    let (one, other) = (bench.whole().await, bench.whole().await);
    // A number that means a process on the host means none inside, or one of the own.
    let host = std::process::id();
    refused(&one, &format!("exec 2>&1; LC_ALL=C kill -0 {host}"), "No such process").await;
    for signal in 1..=64 {
        if ![9, 19].contains(&signal) {
            run(&one, &format!("kill -{signal} 1")).await;
        }
    }
    run(&one, "kill -STOP 1; kill -TERM 1; kill -KILL 1; kill -9 -1").await;
    assert_eq!(stdout(&one, "echo alive").await, "alive");
    assert_eq!(stdout(&other, "echo alive").await, "alive");
}

#[tokio::test]
async fn b32_there_are_no_core_dumps() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    assert_eq!(stdout(&sandbox, "ulimit -Hc; ulimit -Sc").await, "0\n0");
    run(&sandbox, "kill -ABRT $$").await;
    assert_eq!(python(&sandbox, "import os; print([n for n in os.listdir('.') if 'core' in n])").await, "[]");
}

#[tokio::test]
async fn b37_programs_run_from_tmp_the_workspace_and_memory() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    stdout(&sandbox, "for d in /tmp . ~; do cp /usr/bin/true $d/t && $d/t; done").await;
    refused(&sandbox, "cp /usr/bin/true /dev/shm/t && /dev/shm/t", "Permission denied").await;
    let memory = "import os\nfd = os.memfd_create('t')\nos.write(fd, open('/usr/bin/true', 'rb').read())\n\
                  print(os.waitpid(os.spawnv(os.P_NOWAIT, f'/proc/self/fd/{fd}', ['t']), 0)[1])";
    assert_eq!(python(&sandbox, memory).await, "0");
}
