//! Signals and the order of start and stop.
