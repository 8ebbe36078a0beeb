//! COPY, ADD, WORKDIR and the like.
