//! PostgreSQL as Debian packages it, in a folder of its own, reached by a Unix socket. Ends with the value.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::server::must;

/// PostgreSQL refuses to be root, and wants a user with a name: Debian's package makes this one.
const SYSTEM_USER: &str = "postgres";
/// The one user of its databases.
const USER: &str = "palisade";
/// How long it may take to come up.
const START_MAX: Duration = Duration::from_secs(60);

/// A database server.
pub struct Postgres {
    child: Option<Child>,
    folder: tempfile::TempDir,
    bin: PathBuf,
    settings: &'static [&'static str],
}

static DATABASES: AtomicU32 = AtomicU32::new(0);

impl Postgres {
    /// A server, which may be stopped and started again; `None`, said by name, where PostgreSQL is not installed.
    ///
    /// # Panics
    /// When it does not come up; its log is printed.
    pub fn start() -> Option<Self> {
        // Durability against power loss is PostgreSQL's own business, and costs the tests their time.
        Self::start_with(&["fsync=off"])
    }

    /// The same as it is delivered: it syncs what it commits.
    ///
    /// # Panics
    /// As [`Postgres::start`].
    pub fn start_durable() -> Option<Self> {
        Self::start_with(&[])
    }

    fn start_with(settings: &'static [&'static str]) -> Option<Self> {
        let bin = binaries()?;
        let folder = must("making a folder", tempfile::Builder::new().prefix("palisade-pg-").tempdir());
        if rustix::process::geteuid().is_root() {
            must("giving the folder away", std::os::unix::fs::chown(folder.path(), Some(uid()), None));
        }
        let data = folder.path().join("data");
        let mut initdb = command(&bin.join("initdb"));
        initdb.arg("-D").arg(&data).args(["-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]);
        let made = must("starting initdb", initdb.stdin(Stdio::null()).output());
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut server = Self { child: None, folder, bin, settings };
        server.launch();
        Some(server)
    }

    /// Starts it on its folder, and waits until it answers.
    ///
    /// # Panics
    /// When it does not come up; its log is printed.
    pub fn launch(&mut self) {
        let log = self.folder.path().join("log");
        let file = must("making the log", std::fs::File::options().create(true).append(true).open(&log));
        let errors = must("sharing the log", file.try_clone());
        let mut server = command(&self.bin.join("postgres"));
        server.arg("-D").arg(self.folder.path().join("data")).arg("-k").arg(self.folder.path());
        let own = ["listen_addresses=", "max_connections=200", "shared_buffers=32MB"];
        for setting in own.iter().chain(self.settings) {
            server.args(["-c", setting]);
        }
        self.child = Some(must("starting postgres", server.stdout(file).stderr(errors).spawn()));
        let began = Instant::now();
        while !self.answers() {
            assert!(
                began.elapsed() < START_MAX,
                "postgres did not come up: {}",
                std::fs::read_to_string(&log).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it at once, as a crash does; its clients' connections break.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // "Immediate shutdown": it recovers at its next start.
            if let Some(pid) = rustix::process::Pid::from_raw(child.id().cast_signed()) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
            }
            must("waiting for postgres", child.wait());
        }
    }

    /// Its Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join(".s.PGSQL.5432")
    }

    /// The URL of a new, empty database.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn database(&self) -> String {
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let name = format!("t_{}_{number}", std::process::id());
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(&name)
    }

    /// Runs SQL in a database; what it answers, a line for each row.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let mut psql = self.psql(database);
        let done = must("starting psql", psql.args(["-v", "ON_ERROR_STOP=1", "-Atc", sql]).output());
        assert!(done.status.success(), "{sql}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    fn url(&self, database: &str) -> String {
        let socket = self.folder.path().display().to_string().replace('/', "%2F");
        format!("postgres://{USER}@{socket}/{database}")
    }

    fn answers(&self) -> bool {
        self.psql("postgres").args(["-Atc", "SELECT 1"]).output().is_ok_and(|done| done.status.success())
    }

    fn psql(&self, database: &str) -> Command {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.arg("-X")
            .arg("-h")
            .arg(self.folder.path())
            .args(["-U", USER, "-d", database])
            .stdin(Stdio::null());
        psql
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A program of PostgreSQL's, not as root.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/");
    if rustix::process::geteuid().is_root() {
        command.uid(uid());
    }
    command
}

fn uid() -> u32 {
    let users = must("reading the users", std::fs::read_to_string("/etc/passwd"));
    let mut fields = users.lines().map(|line| line.split(':'));
    let found =
        fields.find_map(|mut user| (user.next() == Some(SYSTEM_USER)).then(|| user.nth(1)?.parse().ok())?);
    must("looking for PostgreSQL's user", found.ok_or_else(|| format!("there is no user {SYSTEM_USER}")))
}

/// Where Debian keeps the newest version's programs.
#[expect(clippy::print_stderr, reason = "a test that cannot run says so")]
fn binaries() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("postgres").is_file())
        .max_by_key(|bin| {
            let version =
                bin.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
            version.and_then(|version| version.parse::<u32>().ok())
        });
    if newest.is_none() {
        eprintln!("skipped: PostgreSQL is not installed (Debian: postgresql)");
    }
    newest
}
