//! The sessions' homes: made, emptied of what is temporary, found and removed, whatever a session did to its own.

use std::os::unix::fs::PermissionsExt as _;

use palisade_protocol::SessionId;
use palisade_workspace::Homes;

use crate::support::session;

#[test]
fn a_home_comes_is_kept_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let homes = Homes::open(&folder.path().join("home")).unwrap();
    let home = homes.of(&session());
    homes.prepare(&session(), ".tmp").unwrap();
    assert_eq!(std::fs::metadata(&home).unwrap().permissions().mode() & 0o777, 0o700);
    std::fs::create_dir_all(home.join(".tmp/deep/deeper")).unwrap();
    std::fs::write(home.join(".tmp/deep/f"), "x").unwrap();
    std::fs::write(home.join(".netrc"), "x").unwrap();
    homes.prepare(&session(), ".tmp").unwrap();
    assert_eq!(std::fs::read_dir(home.join(".tmp")).unwrap().count(), 0);
    assert!(home.join(".netrc").exists(), "only what is temporary goes");
    let other = SessionId::from_random([8; 6]);
    homes.prepare(&other, ".tmp").unwrap();
    std::fs::write(folder.path().join("home/not-a-session"), "x").unwrap();
    let mut found = homes.sessions().unwrap();
    found.sort();
    assert_eq!(found, [session(), other.clone()]);
    for _ in 0..2 {
        homes.remove(&session()).unwrap();
    }
    assert_eq!(homes.sessions().unwrap(), [other]);
}

#[test]
fn what_a_session_does_to_its_home_leads_nowhere_and_keeps_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "x").unwrap();
    let homes = Homes::open(&folder.path().join("home")).unwrap();
    homes.prepare(&session(), ".tmp").unwrap();
    let home = homes.of(&session());
    std::fs::remove_dir(home.join(".tmp")).unwrap();
    std::os::unix::fs::symlink(&outside, home.join(".tmp")).unwrap();
    std::fs::create_dir(home.join("closed")).unwrap();
    for closed in ["closed", ""] {
        std::fs::set_permissions(home.join(closed), std::fs::Permissions::from_mode(0o000)).unwrap();
    }
    homes.prepare(&session(), ".tmp").unwrap();
    assert!(std::fs::symlink_metadata(home.join(".tmp")).unwrap().is_dir());
    std::os::unix::fs::symlink(&outside, home.join("way")).unwrap();
    homes.remove(&session()).unwrap();
    assert!(!home.exists() && outside.join("secret").exists());
}
