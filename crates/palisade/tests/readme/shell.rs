//! The reader at a terminal: one folder, one shell, one server.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// Printed behind each command's own output.
const END: &str = "\u{1}the command has ended";

/// What the page says before the port is known.
const PAGE_PORT: &str = "8080";

pub(crate) struct Reader {
    folder: tempfile::TempDir,
    shell: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    server: Option<(Child, Pid)>,
    /// The port of the server, which takes a free one.
    port: String,
    /// The latest session that was printed, which the page calls `sess_…`.
    session: String,
}

impl Reader {
    /// With the program where the page's build puts it.
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("palisade-readme-").tempdir_in("/tmp").unwrap();
        // The server's own user has to reach its data below it.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let built = folder.path().join("target/release");
        fs::create_dir_all(&built).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_palisade"), built.join("palisade")).unwrap();
        fs::copy(palisade_testkit::server::hand(), built.join("palisade-hand")).unwrap();
        let mut shell = Command::new("bash");
        shell.current_dir(folder.path()).env_remove("POKEE_API").env_remove("POKEE_KEY");
        shell.env("GITHUB_TOKEN", "ghp_0123456789abcdef0123456789abcdef");
        let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (shell.stdin.take().unwrap(), BufReader::new(shell.stdout.take().unwrap()));
        let mut reader = Self {
            folder,
            shell,
            input,
            output,
            server: None,
            port: PAGE_PORT.to_owned(),
            session: "sess_…".to_owned(),
        };
        reader.run("exec 2>&1; unset LC_ALL; export LANG=C.UTF-8");
        reader
    }

    /// Types a command; what it prints.
    pub(crate) fn run(&mut self, command: &str) -> String {
        let command = command.replace("sess_…", &self.session).replace(PAGE_PORT, &self.port);
        writeln!(self.input, "{command} </dev/null; echo; echo '{END}'").unwrap();
        let mut printed = String::new();
        let mut line = String::new();
        while self.output.read_line(&mut line).unwrap() > 0 && line.trim_end() != END {
            printed.push_str(&line);
            line.clear();
        }
        let mut ids = printed.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        if let Some(id) = ids.rfind(|word| word.starts_with("sess_") && word.len() == 17) {
            self.session = id.to_owned();
        }
        printed.trim_end_matches('\n').to_owned() + if printed.trim().is_empty() { "" } else { "\n" }
    }

    /// Starts the server on a terminal, as a person does; its first lines.
    pub(crate) fn serve(&mut self, lines_shown: usize) -> String {
        let pid_file = self.folder.path().join("pid");
        let command = "echo $$ > pid; exec target/release/palisade serve --listen 127.0.0.1:0 2> log.jsonl";
        let mut terminal = Command::new("script");
        terminal.args(["--quiet", "--flush", "--return", "--command", command, "/dev/null"]);
        terminal.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut terminal = terminal.spawn().unwrap();
        let mut output = BufReader::new(terminal.stdout.take().unwrap());
        let mut printed = String::new();
        for _ in 0..lines_shown {
            assert!(
                output.read_line(&mut printed).unwrap() > 0,
                "the server did not start: {printed}{}",
                self.log()
            );
        }
        let pid = fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
        self.server = Some((terminal, Pid::from_raw(pid).unwrap()));
        let port = printed.split("127.0.0.1:").nth(1).unwrap();
        self.port = port.chars().take_while(char::is_ascii_digit).collect();
        self.run(&format!("export POKEE_API=http://127.0.0.1:{}", self.port));
        printed.replace('\r', "")
    }

    /// What the server has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log.jsonl")).unwrap_or_default()
    }

    /// Stops the server in good order, and the shell.
    pub(crate) fn end(mut self) {
        let (mut terminal, pid) = self.server.take().unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        assert!(terminal.wait().unwrap().success(), "{}", self.log());
        assert!(Path::new(&self.folder.path().join("palisade-data/palisade.db")).is_file());
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some((_, pid)) = self.server.take() {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
