//! The agent context: in order, within its limit, and never from outside of its folder.

use palisade_protocol::limits::AGENT_CONTEXT_BYTES_MAX;

use crate::support::Tenant;

#[test]
fn files_stand_in_order_under_their_names() {
    let tenant = Tenant::new();
    assert_eq!(tenant.workspace.agent_context().unwrap(), "");
    tenant.write(".pokee/b.md", "second\n\n");
    tenant.write(".pokee/a.md", "first");
    tenant.write(".pokee/notes.txt", "not Markdown");
    tenant.write(".pokee/sub/c.md", "not directly in it");
    std::fs::create_dir(tenant.at(".pokee/dir.md")).unwrap();
    tenant.fifo(".pokee/fifo.md");
    tenant.link(".pokee/in.md", "a.md");
    tenant.write("elsewhere.md", "ELSEWHERE");
    tenant.link(".pokee/up.md", "../elsewhere.md");
    tenant.link(".pokee/out.md", tenant.outside().join("secret"));
    assert_eq!(
        tenant.workspace.agent_context().unwrap(),
        "## a.md\n\nfirst\n\n## b.md\n\nsecond\n\n## in.md\n\nfirst\n\n"
    );
}

#[test]
fn the_whole_has_a_limit() {
    let tenant = Tenant::new();
    tenant.write(".pokee/a.md", &"é".repeat(300_000));
    tenant.write(".pokee/b.md", &"x".repeat(AGENT_CONTEXT_BYTES_MAX * 2));
    tenant.write(".pokee/c.md", "never reached");
    let context = tenant.workspace.agent_context().unwrap();
    assert!(context.len() <= AGENT_CONTEXT_BYTES_MAX, "{}", context.len());
    assert!(context.len() > AGENT_CONTEXT_BYTES_MAX - 200, "{}", context.len());
    assert!(context.contains("## b.md") && !context.contains("## c.md"));
    assert!(context.ends_with("was cut here.]\n"));
}

#[test]
fn a_folder_that_became_a_link_gives_nothing() {
    let tenant = Tenant::new();
    std::fs::write(tenant.outside().join("x.md"), "OUTSIDE").unwrap();
    std::fs::remove_dir(tenant.at(".pokee")).unwrap();
    tenant.link(".pokee", tenant.outside());
    assert_eq!(tenant.workspace.agent_context().unwrap(), "");
}
