//! The only SQL: sessions, the event log, conversation items.
