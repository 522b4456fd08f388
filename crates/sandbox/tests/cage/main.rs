//! The cage, tried from inside with the real bubblewrap, the way somebody who wants out would try it.
//! The names of the tests carry the numbers of the cases that they hold.

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod files;
#[cfg(test)]
mod first_steps;
#[cfg(test)]
mod jobs;
#[cfg(test)]
mod kernel;
#[cfg(test)]
mod life;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod network;
#[cfg(test)]
mod output;
#[cfg(test)]
mod privilege;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod scope;
#[cfg(test)]
mod status;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tools;
