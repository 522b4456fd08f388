//! The conversation page by page, for people and clients; the agent reads it whole.

use std::ops::ControlFlow;

use palisade_protocol::{Item, SessionId, TurnId};

use crate::engine::query;
use crate::read::{corrupt, from_json, in_slices, reading};
use crate::{Store, StoreError};

/// An item with its place in the conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct PlacedItem {
    /// From 0, without a gap.
    pub index: u64,
    /// The turn it belongs to.
    pub turn: TurnId,
    /// What was said or done.
    pub item: Item,
}

impl Store {
    /// Items from index `from` on, and whether there are more: at most `items_max`, and no further one once
    /// `bytes_max` are reached. The first is always there, however long it is.
    pub async fn items_page(
        &self,
        session: &SessionId,
        from: u64,
        items_max: usize,
        bytes_max: usize,
    ) -> Result<(Vec<PlacedItem>, bool), StoreError> {
        let (mut rows, mut bytes, mut more) = (Vec::new(), 0, false);
        let page = query(
            "SELECT idx, turn_id, body FROM item WHERE session_id = $1 AND idx >= $2 ORDER BY idx LIMIT $3",
        );
        page.bind(session.as_str())
            .bind(i64::try_from(from).unwrap_or(i64::MAX))
            // One more than asked tells whether there is more.
            .bind(items_max as i64 + 1)
            .each(&self.readers, |row: (i64, String, String)| {
                if rows.len() == items_max || bytes >= bytes_max {
                    more = true;
                    return ControlFlow::Break(());
                }
                bytes += row.2.len();
                rows.push(row);
                ControlFlow::Continue(())
            })
            .await
            .map_err(reading("items"))?;
        let item = |(index, turn, body): (i64, String, String)| {
            Ok(PlacedItem {
                index: index.unsigned_abs(),
                turn: TurnId::parse(&turn).map_err(corrupt("a turn's id"))?,
                item: from_json("an item", &body)?,
            })
        };
        Ok((in_slices(rows, |row| row.2.len(), item).await?, more))
    }
}
