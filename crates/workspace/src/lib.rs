//! A tenant's files from outside, through a session's scope.
