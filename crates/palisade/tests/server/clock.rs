//! A wall clock that jumps while the server runs ends nothing and deletes nothing. The real server, behind a library that moves the
//! wall clock, and only that one, by what stands in a file.

use std::path::{Path, PathBuf};
use std::process::Command;

use palisade_testkit::upstream::{Answer, Gate, ScriptedUpstream};
use palisade_testkit::{Server, wait_for};
use reqwest::Method;
use serde_json::json;

/// Takes the place of the C library's function, which Rust asks for the time.
const LIBRARY: &str = r#"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    long failed = syscall(SYS_clock_gettime, clock, time);
    if (failed || clock != CLOCK_REALTIME) return (int)failed;
    const char *path = getenv("CLOCK_MOVED_BY");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    char text[32] = {0};
    if (read(file, text, sizeof text - 1) > 0) time->tv_sec += atoll(text);
    close(file);
    return 0;
}
"#;

const DAYS_40_S: i64 = 40 * 86400;

fn build(folder: &Path) -> PathBuf {
    let (source, library) = (folder.join("clock.c"), folder.join("libclock.so"));
    std::fs::write(&source, LIBRARY).unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    assert!(built.unwrap().success(), "the compiler that Rust links with builds a library");
    library
}

#[tokio::test]
async fn a_clock_that_jumps_ends_nothing_and_deletes_nothing() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let library = build(folder.path());
    let moved_by = folder.path().join("moved-by");
    let move_by = |seconds: i64| {
        // Written elsewhere first, so that nobody reads half of it.
        let new = folder.path().join("new");
        std::fs::write(&new, seconds.to_string()).unwrap();
        std::fs::rename(new, &moved_by).unwrap();
    };
    move_by(0);
    let upstream = ScriptedUpstream::start().await.unwrap();
    let environment =
        [("LD_PRELOAD", library.to_str().unwrap()), ("CLOCK_MOVED_BY", moved_by.to_str().unwrap())];
    let mut server = Server::start_in(env!("CARGO_BIN_EXE_palisade"), &upstream, "", &environment).await;
    let kept = server.session(json!({"persistent": true})).await;
    let used = server.session(json!({"ttl": 14400})).await;
    upstream.push(Answer::text("ok"));
    server.send(&used, "go").await.rest().await;
    let created_at = server.get(&format!("/v1/sessions/{kept}")).await["created_at"].as_f64().unwrap();

    let gate = Gate::new();
    upstream.push(Answer::stream().say("on").wait(&gate).say("!").done());
    let mut turn = server.send(&kept, "go").await;
    turn.until("text.delta").await;
    for days_40 in [DAYS_40_S, -DAYS_40_S] {
        let told = server.log().matches("THE WALL CLOCK JUMPED").count();
        move_by(days_40);
        // It is looked at once a second, when due sessions are looked for.
        wait_for("the jump to be told", async || {
            (server.log().matches("THE WALL CLOCK JUMPED").count() > told).then_some(())
        })
        .await;
        let made = server.session(json!({})).await;
        let at = server.get(&format!("/v1/sessions/{made}")).await["created_at"].as_f64().unwrap();
        assert!((0.0..600.0).contains(&(at - created_at)), "time goes on as before: {at} after {created_at}");
        move_by(0);
        wait_for("the clock to be back", async || {
            let log = server.log();
            (log.matches("is back where it was").count() > told).then_some(())
        })
        .await;
    }
    for session in [&kept, &used] {
        server.get(&format!("/v1/sessions/{session}")).await;
    }
    gate.open();
    turn.until("message.completed").await;
    // A start while the clock is wrong: what is over by it alone is not deleted at once.
    move_by(DAYS_40_S);
    server.terminate().await;
    server.restart().await;
    wait_for("the doubt to be told", async || {
        server.log().contains("looked at again after a grace").then_some(())
    })
    .await;
    let made = server.session(json!({"ttl": 1})).await;
    let path = format!("/v1/sessions/{made}");
    wait_for("a session of now to end all the same", async || {
        (server.request(Method::GET, &path).send().await.unwrap().status() == 404).then_some(())
    })
    .await;
    for session in [&kept, &used] {
        server.get(&format!("/v1/sessions/{session}")).await;
    }
    let destroyed = server.log().lines().filter(|line| line.contains("session destroyed")).count();
    assert_eq!(destroyed, 1, "{}", server.log());
}
