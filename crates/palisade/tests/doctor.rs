//! `palisade doctor` and the start of a server where something is missing (case B42): the real program, and what it
//! finds on this machine.

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::process::{Command, Output};

    use serde_json::Value;

    /// With a folder of its own, and a PATH that the test chooses.
    fn palisade(folder: &Path, path: &str, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
        command.args(args).current_dir(folder).env("PATH", path).env("TMPDIR", "/tmp");
        command.output().unwrap()
    }

    fn config(folder: &Path, hand: &Path) -> String {
        let file = folder.join("palisade.toml");
        let text = format!("listen = \"127.0.0.1:0\"\n[sandbox]\nhand = {:?}\n", hand.display().to_string());
        std::fs::write(&file, text).unwrap();
        file.display().to_string()
    }

    fn hand() -> std::path::PathBuf {
        let beside = Path::new(env!("CARGO_BIN_EXE_palisade")).with_file_name("palisade-hand");
        std::env::var_os("PALISADE_HAND").map_or(beside, Into::into)
    }

    fn checks(output: &Output) -> Value {
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    }

    fn state<'a>(report: &'a Value, name: &str) -> &'a str {
        let checks = report["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["name"] == name);
        check.unwrap_or_else(|| panic!("no {name}: {report:#}"))["state"].as_str().unwrap()
    }

    #[test]
    fn b42_the_doctor_finds_this_machine_fit() {
        let folder = tempfile::tempdir().unwrap();
        open_to_all(folder.path());
        let config = config(folder.path(), &hand());
        let data = folder.path().join("data").display().to_string();
        let args = ["doctor", "--config", &config, "--data-dir", &data, "--json"];
        let output = palisade(folder.path(), "/usr/bin:/bin", &args);
        let report = checks(&output);
        for name in ["bubblewrap", "user namespaces", "AppArmor", "/proc", "seccomp", "sandbox"] {
            assert_eq!(state(&report, name), "good", "{report:#}");
        }
        let code = if report["state"] == "good" { 0 } else { 2 };
        assert_eq!(output.status.code(), Some(code), "{report:#}");
        // For people: the same, with a sign and a name in each line.
        let text = palisade(folder.path(), "/usr/bin:/bin", &args[..5]);
        let text = String::from_utf8(text.stdout).unwrap();
        assert!(text.lines().any(|line| line.starts_with("good") && line.contains("seccomp")), "{text}");
        assert!(!folder.path().join("data").exists(), "it looks, and makes nothing");
    }

    #[test]
    fn b42_the_doctor_names_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let with_hand = config(folder.path(), &hand());
        let output = palisade(folder.path(), "/nowhere", &["doctor", "--config", &with_hand, "--json"]);
        assert_eq!((output.status.code(), state(&checks(&output), "bubblewrap")), (Some(1), "broken"));
        assert_eq!(state(&checks(&output), "sandbox"), "broken");

        let without = config(folder.path(), Path::new("/nowhere/palisade-hand"));
        let output = palisade(folder.path(), "/usr/bin:/bin", &["doctor", "--config", &without, "--json"]);
        assert_eq!((output.status.code(), state(&checks(&output), "hand")), (Some(1), "broken"));

        open_to_all(folder.path());
        // A folder that the server's uid cannot enter, whoever starts it.
        let closed = folder.path().join("closed");
        std::fs::create_dir(&closed).unwrap();
        std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o000)).unwrap();
        let data = closed.join("data").display().to_string();
        let args = ["doctor", "--config", &with_hand, "--data-dir", &data, "--json"];
        let output = palisade(folder.path(), "/usr/bin:/bin", &args);
        assert_eq!((output.status.code(), state(&checks(&output), "data directory")), (Some(1), "broken"));

        std::fs::write(folder.path().join("palisade.toml"), "nonsense = 1").unwrap();
        let output = palisade(folder.path(), "/usr/bin:/bin", &["doctor", "--config", &without, "--json"]);
        assert_eq!((output.status.code(), state(&checks(&output), "configuration")), (Some(1), "broken"));
    }

    #[test]
    fn the_doctor_looks_at_secrets_and_at_the_door() {
        let folder = tempfile::tempdir().unwrap();
        open_to_all(folder.path());
        let file = config(folder.path(), &hand());
        let sandbox = std::fs::read_to_string(&file).unwrap();
        let report = |more: &str| {
            std::fs::write(&file, format!("{sandbox}{more}")).unwrap();
            checks(&palisade(folder.path(), "/usr/bin:/bin", &["doctor", "--config", &file, "--json"]))
        };
        let nothing = report("");
        for name in ["secrets", "authorities", "resolver"] {
            assert_eq!(state(&nothing, name), "good", "{nothing:#}");
        }
        let model = "[[upstream]]\nname = \"m\"\ndialect = \"openai-chat\"\nbase_url = \"http://model.test/v1\"\n\
                     [model.m]\nupstream = \"m\"\nupstream_model = \"m\"\n";
        // Nobody listens at the port of "discard".
        let unknown = report(&format!("{model}[egress]\nresolver = \"127.0.0.1:9\"\n"));
        assert_eq!(state(&unknown, "resolver"), "weaker", "{unknown:#}");
        let absent = report(
            "[vault]\nkey = \"file:/nowhere/vault.key\"\n[egress]\nca_files = [\"/nowhere/ca.pem\"]\n",
        );
        assert_eq!(
            (state(&absent, "secrets"), state(&absent, "authorities")),
            ("broken", "broken"),
            "{absent:#}"
        );
        let key = folder.path().join("egress.key");
        std::fs::write(&key, "k".repeat(32)).unwrap();
        let via =
            format!("[egress]\nvia = \"unix:/nowhere/egress.sock\"\nkey = \"file:{}\"\n", key.display());
        let elsewhere = report(&via);
        assert_eq!(state(&elsewhere, "egress proxy"), "weaker", "{elsewhere:#}");
    }

    #[test]
    fn b42_a_server_without_sandboxes_does_not_start() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/bin/false", folder.path().join("bwrap")).unwrap();
        let config = config(folder.path(), &hand());
        let data = folder.path().join("data").display().to_string();
        open_to_all(folder.path());
        for (path, named) in
            [("/nowhere".to_owned(), "bubblewrap"), (folder.path().display().to_string(), "sandbox")]
        {
            let output = palisade(folder.path(), &path, &["serve", "--config", &config, "--data-dir", &data]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains(named) && said.contains("palisade doctor"), "{said}");
            assert!(!String::from_utf8_lossy(&output.stdout).contains("listening"));
        }
    }

    /// The uid that the server takes must find its way.
    fn open_to_all(folder: &Path) {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}
