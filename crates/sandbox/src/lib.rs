//! The cage from outside: mounts from a scope, life and death, the client of the hand.
