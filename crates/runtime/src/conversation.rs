//! The conversation of a session as items, page by page: what was said and done, as it stands in the store.

use palisade_protocol::{Error, ErrorKind, Item, SessionId, TurnId, limits};
use serde::Serialize;

use crate::{OpCtx, Runtime};

/// One item as clients see it.
#[derive(Debug, Clone, Serialize)]
pub struct ConversationItem {
    /// Its place, from 0.
    pub index: u64,
    /// The turn it belongs to.
    pub response_id: TurnId,
    /// What was said or done.
    #[serde(flatten)]
    pub item: Item,
}

/// A page of a conversation.
#[derive(Debug, Clone, Serialize)]
pub struct ConversationPage {
    /// Oldest first.
    pub data: Vec<ConversationItem>,
    /// Whether there are items after these.
    pub has_more: bool,
    /// What to ask the next page with; absent on the last.
    pub next_after: Option<u64>,
}

impl Runtime {
    /// The items after `after`, or from the first. A page is shorter than asked for where its items are long.
    pub async fn conversation(
        &self,
        ctx: &OpCtx,
        id: &SessionId,
        after: Option<u64>,
        items_max: Option<usize>,
    ) -> Result<ConversationPage, Error> {
        let items_max = items_max.unwrap_or(limits::CONVERSATION_PAGE_ITEMS_DEFAULT);
        if !(1..=limits::CONVERSATION_PAGE_ITEMS_MAX).contains(&items_max) {
            let message = format!("'limit' must be from 1 to {}", limits::CONVERSATION_PAGE_ITEMS_MAX);
            return Err(Error::new(ErrorKind::Malformed, "conversation.bad_limit", message));
        }
        self.rooms.session(ctx, id).await?;
        let from = after.map_or(0, |index| index.saturating_add(1));
        let bytes_max = limits::CONVERSATION_PAGE_BYTES_MAX;
        let share = self.rooms.tenant(ctx)?.share.clone();
        let _place = share.bulk.place().await?;
        let (items, has_more) = share.store.items_page(id, from, items_max, bytes_max).await?;
        let last = items.last().map(|placed| placed.index);
        Ok(ConversationPage {
            data: items
                .into_iter()
                .map(|placed| ConversationItem {
                    index: placed.index,
                    response_id: placed.turn,
                    item: placed.item,
                })
                .collect(),
            has_more,
            next_after: if has_more { last } else { None },
        })
    }
}
