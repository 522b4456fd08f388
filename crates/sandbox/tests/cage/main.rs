//! The cage, tried from inside with the real bubblewrap, the way somebody who wants out would try it.
//! The names of the tests carry the numbers of the cases that they hold.

mod files;
mod life;
mod network;
mod output;
mod privilege;
mod scope;
mod status;
mod support;
mod tools;
