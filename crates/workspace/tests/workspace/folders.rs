//! The server's own folders and a session's, made, set aside and removed.

use palisade_protocol::{Error, ErrorKind, SessionId};
use palisade_workspace::Workspace;

use crate::support::{Tenant, code, scope, session, whole};

#[test]
fn opening_makes_the_folders_and_opening_again_changes_nothing() {
    let tenant = Tenant::new();
    assert_eq!(tenant.get(&whole(), "").unwrap(), ".memory .pokee .sessions skills");
    tenant.write(".memory/MEMORY.md", "kept");
    let before = tenant.names();
    Workspace::open(tenant.workspace.dir(), &[]).unwrap();
    assert_eq!(tenant.names(), before);
}

#[test]
fn a_planted_link_is_set_aside() {
    for name in [".memory", ".sessions", "skills", ".pokee"] {
        let tenant = Tenant::new();
        std::fs::remove_dir(tenant.at(name)).unwrap();
        tenant.link(name, tenant.outside());
        tenant.workspace.ensure_scope(&whole()).unwrap();
        assert!(std::fs::symlink_metadata(tenant.at(name)).unwrap().is_dir(), "{name}");
        let aside = tenant.names().into_iter().find(|path| path.contains(".set-aside-")).unwrap();
        assert_eq!(std::fs::read_link(aside).unwrap(), tenant.outside(), "{name} is kept beside");
        assert_eq!(
            crate::support::names_below(&tenant.outside()).len(),
            1,
            "nothing was made through {name}"
        );
    }
}

#[test]
fn a_locked_folder_is_made_and_cannot_be_deleted() {
    let tenant = Tenant::new();
    tenant.link("policies", tenant.outside());
    let locked = ["policies", "skills"].map(|name| name.to_owned().try_into().unwrap());
    let workspace = Workspace::open(tenant.workspace.dir(), &locked).unwrap();
    assert!(std::fs::symlink_metadata(tenant.at("policies")).unwrap().is_dir(), "the link is set aside");
    tenant.write("policies/own/a", "a");
    // A link that stays inside is another name of the same folder.
    tenant.link("here", ".");
    let path = |text: &str| palisade_protocol::WorkspacePath::parse(text).unwrap();
    for name in ["policies", "skills", "here/policies", ".sessions", "here/.sessions"] {
        for recursive in [true, false] {
            let error = Error::from(workspace.delete(&whole(), &path(name), recursive).unwrap_err());
            assert_eq!((error.kind, error.code), (ErrorKind::Conflict, "directory.held"), "{name}");
        }
    }
    workspace.delete(&whole(), &path("here/policies/own"), true).unwrap();
    assert!(tenant.at("policies").is_dir() && !tenant.at("policies/own").exists());
}

#[test]
fn missing_scope_paths_are_made_and_files_refused() {
    let tenant = Tenant::new();
    tenant.write("file", "x");
    tenant.write("dir/file", "x");
    tenant.link("link", "dir");
    tenant.workspace.ensure_scope(&scope(&["new/read"], &["new/write/deep", "dir"])).unwrap();
    for made in ["new/read", "new/write/deep", ".sessions/sess_070707070707"] {
        assert!(tenant.at(made).is_dir(), "{made}");
    }
    for wrong in ["file", "file/below", "dir/file", "link", "link/below"] {
        // Also where a wider entry covers it.
        for scope in [scope(&[wrong], &[]), scope(&[wrong], &[""])] {
            let error = Error::from(tenant.workspace.ensure_scope(&scope).unwrap_err());
            assert_eq!((error.kind, error.code), (ErrorKind::Malformed, "scope.not_directory"), "{wrong}");
            assert_eq!(error.message, format!("file_access path '{wrong}' is not a directory"));
        }
    }
    assert!(!tenant.at("dir/below").exists());
}

#[test]
fn a_sessions_folder_comes_and_goes() {
    let tenant = Tenant::new();
    tenant.workspace.ensure_scope(&scope(&[], &[""])).unwrap();
    assert!(tenant.at(".sessions/sess_070707070707").is_dir());
    tenant.write(".sessions/sess_070707070707/deep/deeper/file", "x");
    tenant.link(".sessions/sess_070707070707/deep/out", tenant.outside());
    tenant.write(".sessions/not-a-session/x", "x");
    let other = SessionId::from_random([8; 6]);
    tenant.write(".sessions/sess_080808080808/file", "x");
    let mut dirs = tenant.workspace.session_dirs().unwrap();
    dirs.sort();
    assert_eq!(dirs, [session(), other.clone()]);
    tenant.workspace.remove_session_dir(&session()).unwrap();
    tenant.workspace.remove_session_dir(&session()).unwrap();
    assert_eq!(tenant.workspace.session_dirs().unwrap(), [other]);
    assert!(tenant.outside().join("secret").exists());
    assert!(tenant.at(".sessions/not-a-session/x").exists());
}

#[test]
fn a_planted_session_folder_is_removed_and_not_followed() {
    let tenant = Tenant::new();
    tenant.link(".sessions/sess_070707070707", tenant.outside());
    assert_eq!(code(tenant.workspace.ensure_scope(&scope(&[], &[""]))), "scope.not_directory");
    tenant.workspace.remove_session_dir(&session()).unwrap();
    assert!(std::fs::symlink_metadata(tenant.at(".sessions/sess_070707070707")).is_err());
    assert!(tenant.outside().join("secret").exists());
}
