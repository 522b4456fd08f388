//! Who is asking: the one value that every operation takes, so that nothing can touch a tenant's data without
//! saying whose.

use palisade_protocol::TenantName;
use palisade_vault::Caller;

/// One authenticated request.
#[derive(Debug, Clone)]
pub struct OpCtx {
    caller: Caller,
}

impl OpCtx {
    /// For a caller whose key was checked.
    pub fn new(caller: Caller) -> Self {
        Self { caller }
    }

    /// The caller's tenant.
    pub fn tenant(&self) -> &TenantName {
        &self.caller.tenant
    }

    /// Which of the tenant's tokens it used.
    pub fn token_id(&self) -> &str {
        &self.caller.token_id
    }
}
