//! MOVE BYTES between two streams: half-close, resets, counters. Knows nothing of where they come from.
