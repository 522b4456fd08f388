//! The operations and the supervisor: the only place where rooms meet.
