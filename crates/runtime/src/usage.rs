//! What a caller has used of what it may, and what its tenant can pay with.

use palisade_protocol::Error;
use palisade_protocol::money::CreditMode;
use palisade_protocol::rate::{
    Bucket, BucketReport, BucketsReport, CreditsReport, RateLimitReport, UsageReport,
};

use crate::clock::now;
use crate::{OpCtx, Runtime};

impl Runtime {
    /// The caller's windows and its tenant's credits, as they stand now.
    pub async fn usage(&self, ctx: &OpCtx) -> Result<UsageReport, Error> {
        let tenant = &self.rooms.tenant(ctx)?.config;
        let now = now();
        let mut reports = Vec::with_capacity(2);
        for bucket in [Bucket::SessionTurn, Bucket::Response] {
            let used =
                self.rooms.store_of(ctx.tenant()).used(ctx.tenant(), ctx.token_id(), bucket, now).await?;
            reports.push(BucketReport::new(&tenant.rate, used));
        }
        let [session_turn, response] =
            <[BucketReport; 2]>::try_from(reports).map_err(|_| Error::bug("a bucket has no report"))?;
        let credits = match self.rooms.live().billing.terms(tenant) {
            Some(terms) => {
                let balance = self.rooms.store_of(ctx.tenant()).balance(&terms.name).await?;
                CreditsReport { enabled: true, mode: terms.mode, balance: balance.to_credits() }
            }
            None => CreditsReport { enabled: false, mode: CreditMode::Soft, balance: 0.0 },
        };
        let buckets = BucketsReport { session_turn, response };
        Ok(UsageReport {
            rate_limit: RateLimitReport { caller_id: ctx.token_id().to_owned(), buckets },
            credits,
        })
    }
}
