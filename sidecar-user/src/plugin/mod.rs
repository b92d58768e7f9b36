//! ROLE: the kubectl plugin.
