//! Dockerfiles and the graphs they become, on a host in memory.

mod graphs;
mod hostile;
mod images;
mod messages;
mod mounts;
mod support;
