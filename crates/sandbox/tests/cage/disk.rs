//! The disk from inside: blocks come by writing and by nothing else, so that whoever counts what is written and what
//! stands in files has counted all (case B27).

use crate::support::{Bench, python, refused, run, stdout};

/// Python that calls the kernel: `call(number, …)` and `ioctl(fd, request, …)` are the error's name, or `OK`.
const CALL: &str = "import ctypes, errno, os, struct\n\
    libc = ctypes.CDLL(None, use_errno=True)\n\
    def name(result): return errno.errorcode[ctypes.get_errno()] if result == -1 else 'OK'\n\
    def call(number, *args):\n\
    \x20   return name(libc.syscall(ctypes.c_long(number), *[ctypes.c_void_p(a) if isinstance(a, int) else a for a in args]))\n\
    def ioctl(fd, request, argument): return name(libc.ioctl(fd, ctypes.c_ulong(request), argument))\n\
    fd = os.open('keep', os.O_CREAT | os.O_RDWR)\n";

#[tokio::test]
async fn b27_disk_is_taken_by_writing_alone() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    // Allocate, keep the size, punch, collapse, zero, insert, unshare: the modes of fallocate(2).
    let program = format!(
        "{CALL}print({{call(285, fd, mode, 0, 64 << 20) for mode in [0, 1, 3, 8, 16, 17, 32, 64]}})\n\
         value = ctypes.create_string_buffer(b'v' * 1000)\n\
         print({{call(188, b'keep', b'user.a', value, 1000, 0), call(189, b'keep', b'user.a', value, 1000, 0),\n\
         \x20      call(190, fd, b'user.a', value, 1000, 0), call(463, -100, b'keep', 0, b'user.a', value, 16)}})\n\
         other = os.open('other', os.O_CREAT | os.O_RDWR)\n\
         os.write(other, b'x' * 65536)\n\
         print(ioctl(fd, 0x40049409, other), end=' ')\n\
         print(ioctl(fd, 0x4020940d, struct.pack('qQQQ', other, 0, 0, 0)), end=' ')\n\
         print(ioctl(fd, 0xc0189436, struct.pack('QQHHI', 0, 4096, 0, 0, 0)), end=' ')\n\
         print(ioctl(os.open('.', os.O_RDONLY), 0x5000940e, struct.pack('q4088s', 0, b'sub')))\n\
         # RESVSP, RESVSP64, ZERO_RANGE, ALLOCSP64: fallocate under other names.\n\
         space = struct.pack('hhxxxxqqiI16x', 0, 0, 0, 64 << 20, 0, 0)\n\
         print({{ioctl(fd, request, space) for request in [0x40305828, 0x4030582a, 0x40305839, 0x40305824]}})\n\
         print(ioctl(fd, 0x401c5820, struct.pack('IIIII8x', 0x800, 1 << 30, 0, 0, 0)))\n\
         print(os.fstat(fd).st_blocks, os.fstat(fd).st_size)"
    );
    // Python's other name for EOPNOTSUPP.
    let refused = "ENOTSUP";
    let expected = format!(
        "{{'{refused}'}}\n{{'{refused}'}}\n{refused} {refused} {refused} {refused}\n{{'{refused}'}}\n{refused}\n0 0"
    );
    assert_eq!(python(&sandbox, &program).await, expected);
}

#[tokio::test]
async fn b27_programs_write_where_they_would_have_allocated() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    // The C library writes instead; what is there already stays.
    let program = "import os, shutil, sqlite3\n\
        fd = os.open('made', os.O_CREAT | os.O_RDWR)\nos.write(fd, b'kept')\n\
        os.posix_fallocate(fd, 0, 1 << 20)\n\
        print(os.fstat(fd).st_size, os.fstat(fd).st_blocks >= 2048, os.pread(fd, 5, 0))\n\
        shutil.copy2('made', 'copied'); print(os.path.getsize('copied'))\n\
        db = sqlite3.connect('base.db')\n\
        db.execute('PRAGMA journal_mode=WAL'); db.execute('CREATE TABLE t(a)')\n\
        db.execute('INSERT INTO t VALUES(zeroblob(300000))'); db.commit()\n\
        print(db.execute('SELECT length(a) FROM t').fetchone()[0])";
    assert_eq!(python(&sandbox, program).await, "1048576 True b'kept\\x00'\n1048576\n300000");
    refused(&sandbox, "fallocate -n -l 1700M made", "keep size mode is unsupported").await;
    let copies = "set -e; truncate -s 4M sparse; cp sparse a; cp -a --reflink=auto made b; cmp made b; \
        install -m 600 made c; tar -cf t.tar made && tar -xf t.tar -C /tmp; mkdir d && mv b d; \
        git init -q r && cd r && cp ../made . && git add . && \
        git -c user.name=a -c user.email=a@b.c commit -qm x && git clone -q . ../r2 && cmp made ../r2/made; echo fine";
    assert_eq!(stdout(&sandbox, copies).await, "fine");
}

/// What a command of a full workspace runs with: no file grows, whichever call would make it grow.
#[tokio::test]
async fn b27_a_limit_of_nothing_holds_for_every_way_to_write() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    bench.put("old", &"x".repeat(100_000));
    let program = "import os, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n\
        old = os.open('old', os.O_RDWR); new = os.open('new', os.O_CREAT | os.O_RDWR)\n\
        def tried(what, *args):\n\
        \x20   try: what(*args); return 'OK'\n\
        \x20   except OSError as e: return e.strerror\n\
        print({tried(os.write, new, b'x'), tried(os.pwrite, new, b'x', 1 << 20), tried(os.ftruncate, new, 1),\n\
        \x20      tried(os.posix_fallocate, new, 0, 4096), tried(os.copy_file_range, old, new, 1000),\n\
        \x20      tried(os.sendfile, new, old, 0, 1000)})\n\
        hidden = os.open('.', os.O_TMPFILE | os.O_RDWR)\n\
        print(tried(os.write, hidden, b'x'), os.fstat(new).st_blocks)";
    let (_, said) =
        run(&sandbox, &format!("ulimit -f 0; /usr/bin/python3 - <<'PROGRAM'\n{program}\nPROGRAM")).await;
    assert_eq!(said.trim_end(), "{'File too large'}\nFile too large 0");
}
