//! Dockerfiles and the graphs they become, on a host in memory.

mod checks;
mod graphs;
mod hostile;
mod images;
mod messages;
mod mounts;
mod support;
